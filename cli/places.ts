/** Paths on the command line and in settings: where they are, and what to say where they are not. */
import { nearest } from "../nearest.ts";
import { basename, dirname, join } from "../checkpoint/deps.ts";
import { exists } from "../checkpoint/files.ts";
import { findLatest } from "../checkpoint/store.ts";
import { UserError } from "../errors.ts";
import type { Io } from "./io.ts";

/** Names in a folder; none where it cannot be listed. */
async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name);
  } catch {
    return [];
  }
}

/** Whether the folder that a path lies in is here, so that a path is what was meant. */
export async function hasParent(path: string): Promise<boolean> {
  return await exists(dirname(path));
}

/**
 * The error for a path that is not there: which part of it is missing, where that was looked for, and the nearest name
 * that is there.
 *
 * @param options.where the place in a settings file that names it
 * @param options.hint what else the words could have meant
 */
export async function missingPath(
  path: string,
  { where, hint = "" }: { where?: string | undefined; hint?: string } = {},
): Promise<UserError> {
  let missing = path;
  while (!await hasParent(missing) && dirname(missing) !== missing) missing = dirname(missing);
  const folder = dirname(missing);
  const inside = folder === "." ? `the current folder, ${Deno.cwd()}` : `"${folder}"`;
  const near = nearest(basename(missing), (await namesIn(folder)).filter((name) => !name.startsWith(".")));
  const there = near === null ? "" : `; ${join(folder, near)} is there`;
  const what = missing === path ? "file or folder" : "folder";
  return new UserError(
    `${where === undefined ? "" : `${where}: `}Cannot use "${path}": no such ${what} ` +
      `"${basename(missing)}" in ${inside}${there}${hint && `. ${hint}`}`,
  );
}

/**
 * The folder of a model or adapter: `folder` itself, or where it is a run's that was stopped before its end, its newest
 * checkpoint that is whole, which is said.
 */
export async function modelFolderOf(io: Pick<Io, "err">, folder: string): Promise<string> {
  const names = await namesIn(folder);
  const isModel = names.some((name) => name === "config.json" || name === "adapter_config.json");
  if (isModel || !names.some((name) => /^checkpoint-\d+$/.test(name))) return folder;
  const { latest, notes } = await findLatest(folder);
  notes.forEach((note) => io.err(note));
  if (!latest) return folder;
  io.err(
    `"${folder}" holds no finished model or adapter: taking its newest checkpoint, ${basename(latest.path)}`,
  );
  return latest.path;
}
