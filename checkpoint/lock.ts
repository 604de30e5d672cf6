import { quote } from "../text.ts";
import { begin, finalName, settle } from "../data/temporary.ts";
import { UserError } from "../errors.ts";
import { basename, dirname, join, resolve } from "./deps.ts";
import { diskFiles, errorCode, fileError, type Files } from "./files.ts";

/** Kept until the work ends; `using` releases it. */
export interface FolderLock extends Disposable {
  release(): void;
}

/** The file that is locked. It stays where it is: removing it would let two processes lock two files. */
const LOCK_NAME = ".longreach.lock";

/** Milliseconds between two tries. */
const PAUSE_MS = 100;

/** Codes of file systems that have no locks. Temporary names are drawn at random, so writing is safe there too. */
export const NO_LOCKS: ReadonlySet<string | undefined> = new Set([
  "ENOSYS",
  "ENOTSUP",
  "EOPNOTSUPP",
  "ENOLCK",
]);

/**
 * Takes the one right to write to a folder, making it if need be. Throws a {@linkcode UserError} naming the other
 * process if it has the right. The lock is the operating system's: it ends with the process however
 * that ends, so a file left behind by a killed run is no obstacle.
 * @param options.patienceMs waits as long for a process that is about to end; not at all unless given
 */
export async function lockFolder(
  outputDir: string,
  { patienceMs = 0 }: { readonly patienceMs?: number } = {},
): Promise<FolderLock> {
  try {
    await Deno.mkdir(outputDir, { recursive: true });
    const { file } = await lockFile(join(outputDir, LOCK_NAME), {
      refuse: (who) =>
        `Cannot write to "${outputDir}": ${who} is already training into it. ` +
        `Wait until it ends, stop it, or choose another output_dir`,
      patienceMs,
    });
    return lockOf(() => {
      file.truncateSync(0);
      file.close();
    });
  } catch (error) {
    throw fileError(error, `Cannot write to the folder "${outputDir}"`, "Choose another output_dir");
  }
}

/**
 * Takes the one right to make the file or folder `path`, by a lock file beside it that goes when the lock does. What
 * processes that have died left under temporary names of `path` is removed, and told in one line.
 *
 * @throws {UserError} naming the other process if one is making `path`, or if nothing can be written there
 */
export async function lockTarget(
  path: string,
  { note = () => {}, files = diskFiles }: { note?: ((line: string) => void) | undefined; files?: Files } = {},
): Promise<FolderLock> {
  const target = resolve(path);
  const lockPath = join(dirname(target), `.${basename(target)}${LOCK_NAME}`);
  try {
    const { file, isLocked } = await lockFile(lockPath, {
      refuse: (who) => `Cannot write "${path}": ${who} is already writing it. Wait, or choose another name`,
      isRemoved: true,
    });
    const names = [basename(target), `${basename(target)}.json`];
    const isLeftover = (of: string) => isLocked && names.includes(of);
    await removeLeftovers(dirname(target), { isLeftover, note, files });
    begin(lockPath);
    return lockOf(() => {
      settle(lockPath);
      try {
        // While it is still locked: who opened it before finds that it is no longer the file of that name.
        Deno.removeSync(lockPath);
      } catch {
        // An empty lock file does no harm.
      } finally {
        file.close();
      }
    });
  } catch (error) {
    throw fileError(error, `Cannot write "${path}"`, "Free some space or choose another folder");
  }
}

function lockOf(free: () => void): FolderLock {
  let released = false;
  const release = () => {
    if (released) return;
    released = true;
    free();
  };
  return { release, [Symbol.dispose]: release };
}

/** Opens and locks a file, and writes the number of this process into it. */
async function lockFile(
  path: string,
  { refuse, isRemoved = false, patienceMs = 0 }: {
    refuse: (who: string) => string;
    isRemoved?: boolean;
    patienceMs?: number;
  },
): Promise<{ readonly file: Deno.FsFile; readonly isLocked: boolean }> {
  const until = performance.now() + patienceMs;
  for (;;) {
    const file = await Deno.open(path, { read: true, write: true, create: true });
    try {
      const isLocked = await tryLock(file);
      if (isLocked === false && performance.now() < until) {
        file.close();
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
        continue;
      }
      if (isLocked === false) throw new UserError(refuse(await holder(file)));
      if (isRemoved && !await isStill(file, path)) {
        file.close();
        continue;
      }
      await writePid(file);
      return { file, isLocked: isLocked === true };
    } catch (error) {
      file.close();
      throw error;
    }
  }
}

/** @returns false if another process has the lock, undefined where there are none */
async function tryLock(file: Deno.FsFile): Promise<boolean | undefined> {
  try {
    return await file.tryLock(true);
  } catch (error) {
    if (NO_LOCKS.has(errorCode(error))) return undefined;
    throw error;
  }
}

/** For the message to others: that the disk is full is no reason not to begin. */
async function writePid(file: Deno.FsFile): Promise<void> {
  try {
    await file.truncate(0);
    await file.write(new TextEncoder().encode(String(Deno.pid)));
  } catch (error) {
    if (errorCode(error) === undefined) throw error;
  }
}

/** Whether an open file still has its name: whoever held its lock before may have removed it. */
async function isStill(file: Deno.FsFile, path: string): Promise<boolean> {
  const { ino, dev } = await file.stat();
  const there = await Deno.stat(path).catch(() => undefined);
  return there !== undefined && there.ino === ino && there.dev === dev;
}

async function holder(file: Deno.FsFile): Promise<string> {
  const buffer = new Uint8Array(32);
  // Windows does not let others read a locked file.
  const length = await file.read(buffer).catch(() => 0) ?? 0;
  const pid = new TextDecoder().decode(buffer.subarray(0, length));
  return /^\d+$/.test(pid) ? `process ${pid}` : "another process";
}

/**
 * Removes what interrupted work left in a folder under temporary names, and tells it in one line; a folder that cannot be
 * read is left alone. Call it under the lock of whatever has such names: then nobody alive is writing to them.
 *
 * @param options.isLeftover whether a temporary name of this final name is to go
 */
export async function removeLeftovers(
  folder: string,
  { isLeftover, note, files = diskFiles }: {
    isLeftover: (finalName: string) => boolean;
    note: ((line: string) => void) | undefined;
    files?: Files;
  },
): Promise<void> {
  const removed: string[] = [];
  for (const { name, isFolder } of await files.list(folder).catch(() => [])) {
    const of = finalName(name);
    if (of === undefined || !isLeftover(of)) continue;
    const path = join(folder, name);
    try {
      await (isFolder ? files.removeTree(path) : files.remove(path));
      removed.push(name);
    } catch (error) {
      note?.((fileError(error, `Cannot remove "${path}", left by interrupted work`) as Error).message);
    }
  }
  if (removed.length === 0) return;
  note?.(`Removed what interrupted work left in "${folder}": ${namesOf(removed)}`);
}

function namesOf(names: readonly string[]): string {
  const more = names.length > 3 ? ` and ${names.length - 3} more` : "";
  return names.slice(0, 3).map((name) => quote(name)).join(", ") + more;
}
