/** Parquet files, row group by row group: `hyparquet` reads them and is used nowhere else. */
import { type AsyncBuffer, parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import { UserError } from "../errors.ts";
import { PARQUET_CODECS } from "./compression.ts";
import { openToRead } from "./jsonl.ts";

/**
 * Yields the rows of a file as objects.
 * @throws {UserError} if the file is no parquet file, or is compressed by what cannot be read here
 */
export async function* readParquet(
  path: string,
): AsyncGenerator<{ where: string; value: Record<string, unknown> }> {
  using file = await openToRead(path);
  const { size } = await file.stat();
  const buffer: AsyncBuffer = { byteLength: size, slice: (start, end = size) => readSlice(file, start, end) };
  try {
    const metadata = await parquetMetadataAsync(buffer);
    let rowStart = 0;
    for (const { num_rows } of metadata.row_groups) {
      const rowEnd = rowStart + Number(num_rows);
      const rows = await parquetReadObjects({
        file: buffer,
        metadata,
        rowStart,
        rowEnd,
        compressors: PARQUET_CODECS,
      });
      for (const [i, value] of rows.entries()) yield { where: `${path}:row ${rowStart + i + 1}`, value };
      rowStart = rowEnd;
    }
  } catch (cause) {
    if (cause instanceof UserError) throw cause;
    throw new UserError(`Cannot read "${path}" as parquet: ${(cause as Error).message}`, { cause });
  }
}

async function readSlice(file: Deno.FsFile, start: number, end: number): Promise<ArrayBuffer> {
  const bytes = new Uint8Array(end - start);
  await file.seek(start, Deno.SeekMode.Start);
  for (let done = 0; done < bytes.length;) {
    const size = await file.read(bytes.subarray(done));
    if (size === null) throw new UserError("Cannot read a parquet file: it became shorter while being read");
    done += size;
  }
  return bytes.buffer;
}
