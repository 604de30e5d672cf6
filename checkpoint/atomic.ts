import { formatBytes } from "../text.ts";
import { settle, temporaryName } from "../data/temporary.ts";
import { UserError } from "../errors.ts";
import { dirname, join, resolve } from "./deps.ts";
import {
  diskFiles,
  elsewhere,
  errorCode,
  exists,
  fileError,
  type FileHandle,
  type Files,
  type FolderEntry,
  RangeFile,
  writeWhole,
} from "./files.ts";
import { lockTarget } from "./lock.ts";
import { listTree, syncTree } from "./manifest.ts";

/** Options of the functions that write. */
export interface StoreOptions {
  /** The file operations; tests replace them. */
  readonly files?: Files;
  /** Size of what will be written, for the message where the disk is full. */
  readonly byteLength?: number;
  /** Told, in one line, what of earlier interrupted work was removed. */
  readonly note?: ((line: string) => void) | undefined;
  /** Refuse a file that is there already, where one file is written. */
  readonly mustBeNew?: boolean;
}

/** Fills an empty folder with files. */
export type WriteFolder = (folder: string) => Promise<void>;

/** Bytes of all files of a folder so far; 0 where that cannot be found out. */
async function folderSize(folder: string, files: Files): Promise<number> {
  let total = 0;
  try {
    for (const name of await listTree(folder, files)) {
      const file = await RangeFile.open(join(folder, name), files);
      total += file.size;
      file.close();
    }
  } catch {
    return total;
  }
  return total;
}

function needs(written: number, byteLength: number | undefined): string {
  if (byteLength !== undefined) return ` (needs ${formatBytes(byteLength)})`;
  return written > 0 ? ` (needs more than ${formatBytes(written)})` : "";
}

const REMEDY = elsewhere("choose another folder");

/**
 * Runs `write` on a new folder beside `path`, makes what it wrote durable, and hands the folder to `commit`, which
 * must move it away. After any failure the folder is removed, and errors of the operating system become a
 * {@linkcode UserError} that names `path`, the bytes needed, and what is wrong.
 */
export async function stage(
  path: string,
  write: WriteFolder,
  commit: (staged: string) => Promise<void>,
  { files = diskFiles, byteLength }: StoreOptions,
): Promise<void> {
  const staged = temporaryName(path);
  try {
    await files.makeFolder(staged);
    await write(staged);
    await syncTree(staged, files);
    await commit(staged);
  } catch (error) {
    const written = await folderSize(staged, files);
    await files.removeTree(staged).catch(() => {});
    throw fileError(error, `Cannot save "${path}"${needs(written, byteLength)}`, REMEDY);
  } finally {
    settle(staged);
  }
}

/**
 * Puts the files that `write` makes into `outputDir` itself, each by one rename, so that no reader ever sees
 * half a file. Configurations come last: a weight file is there before the file that refers to it.
 * Throws a {@linkcode UserError} where the folder cannot be written; nothing is changed then.
 */
export async function saveFinal(
  outputDir: string,
  write: WriteFolder,
  options: StoreOptions = {},
): Promise<void> {
  const { files = diskFiles } = options;
  const commit = async (staged: string) => {
    const entries = await files.list(staged);
    const isConfig = ({ name }: FolderEntry) => Number(name.endsWith(".json"));
    for (const { name, isFolder } of entries.sort((a, b) => isConfig(a) - isConfig(b))) {
      // A folder takes the place of an empty one only.
      if (isFolder) await files.removeTree(join(outputDir, name)).catch(() => {});
      await files.rename(join(staged, name), join(outputDir, name));
    }
    await files.sync(outputDir);
    await files.removeTree(staged);
  };
  await stage(join(outputDir, "final"), write, commit, options);
}

/**
 * Makes the folder `path` with what `write` puts into it: all of it or nothing. Throws a {@linkcode UserError} if
 * `path` is a file or a folder with something in it, or another process is making it, before `write` is called.
 */
export async function saveFolderAtomic(
  path: string,
  write: WriteFolder,
  options: StoreOptions = {},
): Promise<void> {
  const { files = diskFiles } = options;
  // Without a trailing separator, and with a name where it was ".".
  const target = resolve(path);
  await refuseOccupied(target, files);
  await makeParent(target, files);
  using _lock = await lockTarget(target, options);
  const commit = async (staged: string) => {
    if (await exists(target)) await files.remove(target);
    await files.rename(staged, target);
    await files.sync(dirname(target));
  };
  await stage(target, write, commit, options);
}

async function makeParent(path: string, files: Files): Promise<void> {
  try {
    await files.makeFolder(dirname(path));
  } catch (error) {
    throw fileError(error, `Cannot save to "${path}"`, "Choose another folder");
  }
}

async function refuseOccupied(path: string, files: Files): Promise<void> {
  try {
    if ((await files.list(path)).length === 0) return;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return;
    throw fileError(error, `Cannot save to "${path}"`, "Choose another folder");
  }
  throw new UserError(
    `Cannot save to "${path}": the folder is not empty. Choose another folder or empty it`,
    {
      kind: "usage",
    },
  );
}

/**
 * Makes or replaces the file `path` with what `write` puts into it: all of it or nothing. Throws a {@linkcode UserError}
 * if another process is making it, it is there and must not be, or it cannot be written; an old file is then untouched.
 */
export async function saveFileAtomic(
  path: string,
  write: (file: FileHandle) => Promise<void>,
  options: StoreOptions = {},
): Promise<void> {
  const { files = diskFiles, byteLength, mustBeNew = false } = options;
  const target = resolve(path);
  using _lock = await lockTarget(target, options);
  if (mustBeNew && await exists(target)) {
    throw new UserError(
      `Cannot write "${path}": it is there already. Pass --overwrite to replace it, or another name`,
      {
        kind: "usage",
      },
    );
  }
  const staged = temporaryName(target);
  try {
    const file = await files.open(staged, "create");
    try {
      await write(file);
      await file.sync();
    } finally {
      file.close();
    }
    await files.rename(staged, target);
    await files.sync(dirname(target));
  } catch (error) {
    await files.remove(staged).catch(() => {});
    throw fileError(error, `Cannot write "${path}"${needs(0, byteLength)}`, REMEDY);
  } finally {
    settle(staged);
  }
}

/**
 * Replaces a file, or makes it, in one step: readers see the old bytes or the new ones. Throws a
 * {@linkcode UserError} naming the file and its size where that fails; the old file is then untouched.
 */
export async function writeFileAtomic(
  path: string,
  content: Uint8Array | string,
  { files = diskFiles }: { files?: Files } = {},
): Promise<void> {
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  const staged = temporaryName(path);
  try {
    await writeWhole(staged, "create", bytes, files);
    await files.rename(staged, path);
    await files.sync(dirname(path));
  } catch (error) {
    await files.remove(staged).catch(() => {});
    throw fileError(error, `Cannot save "${path}" (needs ${formatBytes(bytes.length)})`, REMEDY);
  } finally {
    settle(staged);
  }
}
