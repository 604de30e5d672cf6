/** Bytes of files: an operating system reads and writes fewer at a time than it is asked to. */
import { decodeText } from "./encoding.ts";
import { UserError } from "../errors.ts";
import type { Hash } from "./deps.ts";
import { errorCode, fileError } from "./file_errors.ts";

/** Bytes with a memory of their own, as WebGPU uploads want them. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** Largest files that are read whole, in bytes, by what they are: the largest that are known, many times over. */
export const FILE_LIMITS = {
  /** `config.json`, `generation_config.json`: some kilobytes. */
  config: 10_000_000,
  adapterConfig: 1_000_000,
  /** `*.index.json`: 150 bytes a tensor. */
  index: 25_000_000,
  /** `tokenizer.json` and the files beside it: 35 MB with a vocabulary of 256,000. */
  tokenizer: 100_000_000,
  /** Settings of a run. */
  settings: 2 ** 20,
  /** `training_state.json`, `trainer_state.json`: 300 bytes a log entry. */
  state: 200_000_000,
  manifest: 16_000_000,
  /** Sidecars of token files, notes of caches and of tunings. */
  note: 1_000_000,
  /** A document of pages. */
  document: 2 ** 31 - 1,
} as const;

/** The reading side of an opened file. */
export interface OpenedFile {
  size(): Promise<number>;
  /** Reads at `offset` into `into`; returns how many bytes were read, 0 at the end of the file. */
  readAt(offset: number, into: Uint8Array): Promise<number>;
  close(): void;
}

/**
 * Opens a file to read it. Rejects with the operating system's own error, or one of code `EISDIR` or `ENOTREG` where it is
 * a folder, a pipe or a device, whatever links lead there: opening a pipe would wait for its writer for ever.
 */
export async function openRegular(path: string): Promise<Deno.FsFile> {
  const info = await Deno.stat(path);
  if (info.isDirectory) throw Object.assign(new Error("is a folder"), { code: "EISDIR" });
  if (!info.isFile) throw Object.assign(new Error("is not a regular file"), { code: "ENOTREG" });
  return await Deno.open(path, { read: true });
}

async function openOnDisk(path: string): Promise<OpenedFile> {
  const file = await openRegular(path);
  return {
    size: async () => (await file.stat()).size,
    readAt: async (_, into) => await file.read(into) ?? 0,
    close: () => file.close(),
  };
}

/**
 * Reads a file whole: the only way that files of other kinds than data and weights are read.
 *
 * @param limit bytes that it may have, one of {@linkcode FILE_LIMITS}
 * @param options.open opens it from its beginning; on the disk unless given
 * @param options.action what messages begin with
 * @throws {UserError} naming the file if it is missing, unreadable, no regular file or larger
 */
export async function readWhole(
  path: string,
  limit: number,
  { open = openOnDisk, action = `Cannot read "${path}"` }: {
    readonly open?: (path: string) => Promise<OpenedFile>;
    readonly action?: string;
  } = {},
): Promise<Bytes> {
  try {
    const file = await open(path);
    try {
      const size = await file.size();
      if (size > limit) {
        throw new UserError(`${action}: it has ${size} bytes, at most ${limit} are allowed`);
      }
      const bytes = new Uint8Array(size);
      for (let done = 0; done < size;) {
        const count = await file.readAt(done, bytes.subarray(done));
        if (count === 0) throw new UserError(`${action}: it became shorter while it was being read`);
        done += count;
      }
      return bytes;
    } finally {
      file.close();
    }
  } catch (error) {
    throw fileError(error, action);
  }
}

/** Reads a text file whole. @throws {UserError} as {@linkcode readWhole}, and if it is no text */
export async function readWholeText(path: string, limit: number): Promise<string> {
  return decodeText(await readWhole(path, limit), path);
}

/** Awaits a reading; undefined where the file is not there. */
export async function ifThere<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** Whether an error says that a file, or the folder it should be in, is not there. */
export function isMissing(error: unknown): boolean {
  const code = errorCode(error instanceof UserError ? error.cause : error);
  return code === "ENOENT" || code === "ENOTDIR";
}

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
