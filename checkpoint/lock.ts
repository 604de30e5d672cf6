import { UserError } from "../errors.ts";
import { join } from "./deps.ts";
import { fileError } from "./files.ts";

/** Kept until the run ends; `using` releases it. */
export interface FolderLock extends Disposable {
  release(): void;
}

/** The file that is locked. It stays where it is: removing it would let two processes lock two files. */
export const LOCK_NAME = ".longreach.lock";

/**
 * Takes the one right to write to a folder, making it if need be. Throws a {@linkcode UserError} naming the other
 * process if it has the right. The lock is the operating system's: it ends with the process however
 * that ends, so a file left behind by a killed run is no obstacle.
 */
export async function lockFolder(outputDir: string): Promise<FolderLock> {
  const path = join(outputDir, LOCK_NAME);
  let file: Deno.FsFile | undefined;
  try {
    await Deno.mkdir(outputDir, { recursive: true });
    file = await Deno.open(path, { read: true, write: true, create: true });
    if (!await file.tryLock(true)) throw new UserError(await heldMessage(outputDir, file));
    await file.truncate(0);
    await file.write(new TextEncoder().encode(String(Deno.pid)));
  } catch (error) {
    file?.close();
    throw fileError(error, `Cannot write to the folder "${outputDir}"`, "Choose another output_dir");
  }
  const held = file;
  let released = false;
  const release = () => {
    if (released) return;
    released = true;
    held.truncateSync(0);
    held.close();
  };
  return { release, [Symbol.dispose]: release };
}

async function heldMessage(outputDir: string, file: Deno.FsFile): Promise<string> {
  const buffer = new Uint8Array(32);
  // Windows does not let others read a locked file.
  const length = await file.read(buffer).catch(() => 0) ?? 0;
  const pid = new TextDecoder().decode(buffer.subarray(0, length));
  const who = /^\d+$/.test(pid) ? `process ${pid}` : "another process";
  return `Cannot write to "${outputDir}": ${who} is already training into it. ` +
    `Wait until it ends, stop it, or choose another output_dir`;
}
