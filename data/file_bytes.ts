/** Bytes of opened files: an operating system reads and writes fewer at a time than it is asked to. */
import type { Hash } from "./deps.ts";

const READ_BYTES = 2 ** 22;

/** Adds the bytes from where the file stands, `length` of them or all. */
export async function hashFile(file: Deno.FsFile, hash: Hash, length = Infinity): Promise<void> {
  const buffer = new Uint8Array(READ_BYTES);
  for (let left = length; left > 0;) {
    const size = await file.read(buffer.subarray(0, Math.min(left, buffer.length)));
    if (size === null) return;
    hash.update(buffer.subarray(0, size));
    left -= size;
  }
}

/** Writes all of them. @throws the operating system's error */
export async function writeAll(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
}
