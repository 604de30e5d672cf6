import { randomSuffix } from "../data/temporary.ts";
import { UserError } from "../errors.ts";
import { stage, type StoreOptions, type WriteFolder } from "./atomic.ts";
import { dirname, join } from "./deps.ts";
import { diskFiles, errorCode, exists, fileError, type Files } from "./files.ts";
import { syncTree, verify, writeManifest } from "./manifest.ts";

export {
  saveFileAtomic,
  saveFinal,
  saveFolderAtomic,
  type StoreOptions,
  writeFileAtomic,
  type WriteFolder,
} from "./atomic.ts";
export { type FolderLock, lockFolder, lockTarget, removeLeftovers } from "./lock.ts";
export { listedFiles, verify } from "./manifest.ts";

/** A checkpoint on disk. `.old` names are what a save of the same step was about to replace. */
interface Found {
  readonly path: string;
  readonly step: number;
}

/** Result of {@linkcode findLatest}. */
export interface Latest {
  /** The newest checkpoint that is whole; undefined if there is none. */
  readonly latest: { readonly path: string; readonly step: number } | undefined;
  /** One line for the user about each damaged checkpoint passed over and each leftover ignored. */
  readonly notes: readonly string[];
}

const CHECKPOINT = /^checkpoint-(\d{1,15})(\.old-[0-9a-f]{8})?$/;
const LEFTOVER = /\.(tmp|trash)-[0-9a-f]{8}$/;

/**
 * Saves a checkpoint, `name` being "checkpoint-<step>": all of it or nothing, whenever the process is killed or the
 * disk fills up. `write` fills a folder, every file of which is synced and listed with its SHA-256 in
 * manifest.json before the folder gets its name. A checkpoint of the same name is replaced.
 * Returns the path. Throws a {@linkcode UserError} naming folder and bytes needed if it cannot be written;
 * older checkpoints are then as they were.
 */
export async function saveAtomic(
  outputDir: string,
  name: string,
  write: WriteFolder,
  options: StoreOptions = {},
): Promise<string> {
  if (!/^checkpoint-\d{1,15}$/.test(name)) {
    throw new RangeError(`Cannot save "${name}": not a checkpoint's name`);
  }
  const { files = diskFiles } = options;
  const path = join(outputDir, name);
  const writeAndList = async (staged: string) => {
    await write(staged);
    await syncTree(staged, files);
    await writeManifest(staged, files);
  };
  await stage(path, writeAndList, (staged) => replaceFolder(staged, path, files), options);
  return path;
}

/** Gives a finished folder its name. What had the name keeps its bytes until the new one is in place. */
async function replaceFolder(staged: string, path: string, files: Files): Promise<void> {
  const old = await exists(path) ? `${path}.old-${randomSuffix()}` : undefined;
  if (old !== undefined) await files.rename(path, old);
  try {
    await files.rename(staged, path);
  } catch (error) {
    if (old !== undefined) await files.rename(old, path).catch(() => {});
    throw error;
  }
  await files.sync(dirname(path));
  // The save has succeeded by now: what cannot be removed is reported as a leftover at the next start.
  if (old !== undefined) await removeFolder(old, files).catch(() => {});
}

/**
 * Removes checkpoints that a killed save had replaced already: those whose successor is whole. One that cannot be removed
 * stays as it is, and nothing is said of it.
 */
export async function removeReplaced(
  outputDir: string,
  { note, files = diskFiles }: { note: ((line: string) => void) | undefined; files?: Files },
): Promise<void> {
  const { found } = await listCheckpoints(outputDir, files);
  for (const { path } of found) {
    const successor = path.replace(/\.old-[0-9a-f]{8}$/, "");
    if (successor === path || !await exists(successor) || await damage(successor, files) !== undefined) {
      continue;
    }
    const isRemoved = await removeFolder(path, files).then(() => true, () => false);
    if (isRemoved) note?.(`Removed "${path}", which an interrupted save had replaced`);
  }
}

/** Removes a checkpoint so that a half-removed one is never taken for a damaged one. */
async function removeFolder(path: string, files: Files): Promise<void> {
  const trash = `${path}.trash-${randomSuffix()}`;
  await files.rename(path, trash);
  await files.removeTree(trash);
}

/** All checkpoints by step, newest first, and the names of unfinished or half-removed ones. */
async function listCheckpoints(
  outputDir: string,
  files: Files,
): Promise<{ found: Found[]; leftovers: string[] }> {
  const found: Found[] = [];
  const leftovers: string[] = [];
  let entries;
  try {
    entries = await files.list(outputDir);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return { found, leftovers };
    throw fileError(error, `Cannot look for checkpoints in "${outputDir}"`);
  }
  for (const { name, isFolder } of entries) {
    const match = CHECKPOINT.exec(name);
    if (LEFTOVER.test(name)) leftovers.push(name);
    else if (match && isFolder) found.push({ path: join(outputDir, name), step: Number(match[1]) });
  }
  // Of one step, the plain name is shorter than the `.old` one and newer.
  found.sort((a, b) => b.step - a.step || a.path.length - b.path.length);
  return { found, leftovers };
}

/** Says why a checkpoint cannot be used; undefined if it is whole. */
async function damage(path: string, files: Files): Promise<string | undefined> {
  try {
    await verify(path, files);
    return undefined;
  } catch (error) {
    if (error instanceof UserError) return error.message;
    throw error;
  }
}

/**
 * Finds the newest checkpoint whose every byte is as it was saved, passing over damaged ones. Nothing is
 * changed. A missing `outputDir` has none. Throws a {@linkcode UserError} if the folder cannot be read.
 */
export async function findLatest(
  outputDir: string,
  { files = diskFiles }: { files?: Files } = {},
): Promise<Latest> {
  const { found, leftovers } = await listCheckpoints(outputDir, files);
  const notes = leftovers.map((name) =>
    `Ignored "${join(outputDir, name)}", left by an interrupted save: it can be deleted`
  );
  for (const { path, step } of found) {
    const problem = await damage(path, files);
    if (problem === undefined) return { latest: { path, step }, notes };
    notes.push(`${problem}. Trying the checkpoint before it`);
  }
  return { latest: undefined, notes };
}

/**
 * Removes the oldest checkpoints so that `keep` whole ones at most are left (at least one, whatever `keep` says).
 * Nothing is removed unless a newer checkpoint verifies, so the last good one always stays.
 * Returns the removed paths. Throws a {@linkcode UserError} if a folder cannot be removed.
 *
 * @param options.except the step of a checkpoint that stays in any case
 */
export async function rotate(
  outputDir: string,
  keep: number,
  { files = diskFiles, except }: { files?: Files; except?: number | undefined } = {},
): Promise<string[]> {
  const { found } = await listCheckpoints(outputDir, files);
  let good = 0;
  while (good < found.length && await damage(found[good]!.path, files) !== undefined) good++;
  const doomed = found.slice(good + Math.max(1, keep)).filter(({ step }) => step !== except).reverse();
  for (const { path } of doomed) {
    try {
      await removeFolder(path, files);
    } catch (error) {
      throw fileError(error, `Cannot remove the old checkpoint "${path}"`);
    }
  }
  return doomed.map(({ path }) => path);
}
