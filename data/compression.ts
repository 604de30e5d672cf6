/** Files as they are or compressed, and the codecs of parquet. */
import { UserError } from "../errors.ts";
import {
  brotliDecompressSync,
  createGunzip,
  gunzipSync,
  pipeline,
  Readable,
  zstdDecompressSync,
} from "./deps.ts";

const GZIP = /\.gz$/i;

/** The name of a file without the ending that says how it is compressed. */
export function uncompressedName(name: string): string {
  return name.replace(GZIP, "");
}

/**
 * The bytes of an opened file in pieces; of a `.gz` file those that were compressed.
 * @throws {UserError} if the compressed data is damaged
 */
export async function* readChunks(file: Deno.FsFile, path: string): AsyncGenerator<Uint8Array> {
  if (!GZIP.test(path)) {
    for (;;) {
      const buffer = new Uint8Array(1 << 18);
      const size = await file.read(buffer);
      if (size === null) return;
      yield buffer.subarray(0, size);
    }
  }
  try {
    // Of several members, one after the other, as well. Errors come out of the loop.
    yield* pipeline(Readable.fromWeb(file.readable), createGunzip(), () => {});
  } catch (cause) {
    throw new UserError(
      `Cannot read "${path}": its compressed data is damaged (${(cause as Error).message})`,
      {
        cause,
      },
    );
  }
}

/** Decompressors by parquet's names, but for Snappy. They throw a RangeError if the size is not as told, before they take more memory. */
export const PARQUET_CODECS = {
  GZIP: checked(gunzipSync),
  BROTLI: checked(brotliDecompressSync),
  ZSTD: checked(zstdDecompressSync),
};

function checked(decompress: (input: Uint8Array, options: { maxOutputLength: number }) => Uint8Array) {
  return (input: Uint8Array, size: number): Uint8Array => {
    // One byte more than is told is enough to know.
    const output = decompress(input, { maxOutputLength: size + 1 });
    if (output.length === size) return output;
    throw new RangeError(`a page has ${output.length} bytes where ${size} are told`);
  };
}
