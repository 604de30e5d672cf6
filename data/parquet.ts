/** Parquet files, row group by row group: `hyparquet` reads them and is used nowhere else but in their check. */
import { causeText } from "../text.ts";
import { type AsyncBuffer, parquetMetadata, parquetReadObjects } from "hyparquet";
import { UserError } from "../errors.ts";
import { openToRead } from "./jsonl.ts";
import { checkGroup, checkNumbers, checkSchema, CODECS, rangeOfGroup } from "./parquet_check.ts";

/**
 * Yields the rows of a file as objects, without what is null in them: tables have every key in every row. Whole numbers
 * are numbers.
 * @throws {UserError} if the file is no parquet file, its figures do not fit its bytes, or it is compressed by what cannot
 * be read here
 */
export async function* readParquet(
  path: string,
): AsyncGenerator<{ where: string; value: Record<string, unknown> }> {
  using file = await openToRead(path);
  const { size } = await file.stat();
  try {
    const metadata = parquetMetadata(await readFooter(file, size), { geoparquet: false });
    checkSchema(metadata);
    let rowStart = 0;
    for (const group of metadata.row_groups) {
      const { start, end } = rangeOfGroup(group, size);
      const bytes = new Uint8Array(await readSlice(file, start, end, size));
      checkGroup(metadata, group, bytes, start);
      // From memory: nothing is read once this file is closed, whatever fails.
      const rows = await parquetReadObjects({
        file: bufferOf(bytes, start, size),
        metadata: { ...metadata, row_groups: [group], num_rows: group.num_rows },
        compressors: CODECS,
        geoparquet: false,
      });
      for (const [i, value] of rows.entries()) {
        yield { where: `${path}:row ${rowStart + i + 1}`, value: plain(value) as Record<string, unknown> };
      }
      rowStart += rows.length;
    }
  } catch (cause) {
    if (cause instanceof UserError) throw cause;
    const problem = causeText(cause, "its metadata or a page is damaged");
    throw new UserError(`Cannot read "${path}" as parquet: ${problem}`, { cause });
  }
}

/** The metadata's bytes, their length and the mark at the end. */
async function readFooter(file: Deno.FsFile, size: number): Promise<ArrayBuffer> {
  if (size < 12) throw new RangeError("it is too short");
  const end = new DataView(await readSlice(file, size - 8, size, size));
  if (end.getUint32(4, true) !== MARK) {
    throw new RangeError("it does not end as parquet does. It may be cut short");
  }
  const length = end.getUint32(0, true);
  if (length > size - 12) {
    throw new RangeError(`its metadata claims ${length} bytes, and the file has ${size}`);
  }
  const footer = await readSlice(file, size - 8 - length, size, size);
  checkNumbers(new Uint8Array(footer));
  return footer;
}

/** "PAR1" */
const MARK = 0x3152_4150;

/** A stretch of a file as if it were the file. */
function bufferOf(bytes: Uint8Array<ArrayBuffer>, first: number, byteLength: number): AsyncBuffer {
  return {
    byteLength,
    slice: (start, end = byteLength) => {
      if (start < first || end > first + bytes.length || end < start) {
        throw new RangeError(`bytes ${start} to ${end} are of no column`);
      }
      return bytes.buffer.slice(start - first, end - first);
    },
  };
}

/** Values as JSON has them. */
function plain(value: unknown): unknown {
  if (typeof value === "bigint") {
    return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
  }
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value) || value instanceof Date) {
    return value;
  }
  const entries = Object.entries(value).filter(([, item]) => item !== null && item !== undefined);
  return Object.fromEntries(entries.map(([key, item]) => [key, plain(item)]));
}

async function readSlice(file: Deno.FsFile, start: number, end: number, size: number): Promise<ArrayBuffer> {
  if (!(start >= 0 && end >= start && end <= size)) {
    throw new RangeError(`bytes ${start} to ${end} are not in the file`);
  }
  const bytes = new Uint8Array(end - start);
  await file.seek(start, Deno.SeekMode.Start);
  for (let done = 0; done < bytes.length;) {
    const count = await file.read(bytes.subarray(done));
    if (count === null) throw new UserError("Cannot read a parquet file: it became shorter while being read");
    done += count;
  }
  return bytes.buffer;
}
