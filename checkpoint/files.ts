import { UserError } from "../errors.ts";
import { type Bytes, openRegular, readWhole } from "../data/file_bytes.ts";
import { elsewhere, errorCode, fileError, isSystemError } from "../data/file_errors.ts";
import { parseJson } from "../data/json.ts";

export type { Bytes };
export { elsewhere, errorCode, fileError, isSystemError };

/** One open file. */
export interface FileHandle {
  /** Bytes in the file now. */
  size(): Promise<number>;
  /** Reads at `offset` into `into`; returns how many bytes were read, 0 at the end of the file. */
  readAt(offset: number, into: Uint8Array): Promise<number>;
  /** Appends some of `bytes`; returns how many were written. */
  write(bytes: Uint8Array): Promise<number>;
  /** Returns once the operating system says that the bytes are on the disk. */
  sync(): Promise<void>;
  /** Gives it up; not to be used afterwards. */
  close(): void;
}

/** One entry of {@linkcode Files.list}. A symbolic link is neither file nor folder. */
export interface FolderEntry {
  /** Without the folder. */
  readonly name: string;
  /** A regular file. */
  readonly isFile: boolean;
  /** A folder. */
  readonly isFolder: boolean;
}

/**
 * Every file operation that saving depends on, so that tests can fail, tear or record the n-th one.
 * All reject with the operating system's own error, whose `code` is `ENOSPC`, `EACCES` and so on.
 */
export interface Files {
  /** `read` wants a regular file; `create` wants a name that is free; `replace` empties what is there. */
  open(path: string, mode: "read" | "create" | "replace"): Promise<FileHandle>;
  /** Makes a folder and the folders above it; fine if it is there. */
  makeFolder(path: string): Promise<void>;
  /** Makes a file's bytes, or a folder's names, durable. */
  sync(path: string): Promise<void>;
  /** Moves a file or folder; a file of the new name is replaced. */
  rename(from: string, to: string): Promise<void>;
  /** Removes a file, a link or an empty folder. */
  remove(path: string): Promise<void>;
  /** Removes a folder with all that is in it; links are removed, not followed. */
  removeTree(path: string): Promise<void>;
  /** The entries of a folder, sorted by name. */
  list(path: string): Promise<FolderEntry[]>;
}

class DenoHandle implements FileHandle {
  /** Seeking and reading are two calls: a second reader has to wait until both are done. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(readonly file: Deno.FsFile) {}

  async size(): Promise<number> {
    return (await this.file.stat()).size;
  }

  readAt(offset: number, into: Uint8Array): Promise<number> {
    const result = this.#turn.then(async () => {
      this.file.seekSync(offset, Deno.SeekMode.Start);
      return await this.file.read(into) ?? 0;
    });
    this.#turn = result.catch(() => {});
    return result;
  }

  write(bytes: Uint8Array): Promise<number> {
    return this.file.write(bytes);
  }

  sync(): Promise<void> {
    return this.file.sync();
  }

  close(): void {
    this.file.close();
  }
}

async function openFile(path: string, mode: "read" | "create" | "replace"): Promise<FileHandle> {
  if (mode === "read") return new DenoHandle(await openRegular(path));
  const options = mode === "create" ? { createNew: true } : { create: true, truncate: true };
  return new DenoHandle(await Deno.open(path, { write: true, ...options }));
}

async function syncPath(path: string): Promise<void> {
  const isFolder = (await Deno.lstat(path)).isDirectory;
  const isWindows = Deno.build.os === "windows";
  // Windows has no such thing for folders, and wants files opened for writing.
  if (isFolder && isWindows) return;
  using file = await Deno.open(path, { read: true, write: isWindows });
  await file.sync();
}

async function listFolder(path: string): Promise<FolderEntry[]> {
  const entries: FolderEntry[] = [];
  for await (const { name, isFile, isDirectory } of Deno.readDir(path)) {
    entries.push({ name, isFile, isFolder: isDirectory });
  }
  return entries.sort((a, b) => a.name < b.name ? -1 : 1);
}

/** The real disk. */
export const diskFiles: Files = {
  open: openFile,
  makeFolder: (path) => Deno.mkdir(path, { recursive: true }),
  sync: syncPath,
  rename: (from, to) => Deno.rename(from, to),
  remove: (path) => Deno.remove(path),
  removeTree: (path) => Deno.remove(path, { recursive: true }),
  list: listFolder,
};

/** Writes all of `bytes`, however many calls it takes. */
export async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
}

/** Writes a whole small file and syncs it; rejects with the operating system's own error. */
export async function writeWhole(
  path: string,
  mode: "create" | "replace",
  bytes: Uint8Array,
  files: Files = diskFiles,
): Promise<void> {
  const file = await files.open(path, mode);
  try {
    await writeAll(file, bytes);
    await file.sync();
  } finally {
    file.close();
  }
}

/** A file read by ranges: nothing but what is asked for is ever in memory. */
export class RangeFile {
  private constructor(readonly path: string, readonly size: number, readonly handle: FileHandle) {}

  /** Throws a {@linkcode UserError} naming the file if it is missing, unreadable or not a regular file. */
  static async open(path: string, files: Files = diskFiles): Promise<RangeFile> {
    try {
      const handle = await files.open(path, "read");
      return new RangeFile(path, await handle.size(), handle);
    } catch (error) {
      throw fileError(error, `Cannot read "${path}"`);
    }
  }

  /** The `length` bytes from `offset` on; throws a {@linkcode UserError} if the file ends before. */
  async read(offset: number, length: number): Promise<Bytes> {
    this.#requireRange(offset, length);
    const bytes = new Uint8Array(length);
    await this.readInto(offset, bytes);
    return bytes;
  }

  /** Fills `into` with the bytes from `offset` on; throws a {@linkcode UserError} if the file ends before. */
  async readInto(offset: number, into: Uint8Array): Promise<void> {
    this.#requireRange(offset, into.length);
    try {
      for (let done = 0; done < into.length;) {
        const count = await this.handle.readAt(offset + done, into.subarray(done));
        if (count === 0) {
          throw new UserError(`Cannot read "${this.path}": it became shorter while it was being read`);
        }
        done += count;
      }
    } catch (error) {
      throw fileError(error, `Cannot read "${this.path}"`);
    }
  }

  /** Before any memory is taken for it. */
  #requireRange(offset: number, length: number): void {
    if (offset < 0 || length < 0 || offset + length > this.size) {
      throw new UserError(
        `Cannot read "${this.path}": bytes ${offset} to ${offset + length} are past its end at ${this.size}`,
      );
    }
  }

  close(): void {
    this.handle.close();
  }
}

/** Reads a small file whole; throws a {@linkcode UserError} if it is missing, no regular file or above `limit` bytes. */
export function readSmallFile(path: string, limit: number, files: Files = diskFiles): Promise<Bytes> {
  return readWhole(path, limit, { open: (name) => files.open(name, "read") });
}

/** Reads a small JSON file; throws a {@linkcode UserError} naming it if it is not JSON, or nested too deeply. */
export async function readJson(path: string, limit: number, files: Files = diskFiles): Promise<unknown> {
  return parseJson(await readSmallFile(path, limit, files), path);
}

/** Is there an entry of this name? False also where its folder is missing. */
export async function exists(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || errorCode(error) === "ENOTDIR") return false;
    throw fileError(error, `Cannot read "${path}"`);
  }
}
