/** An output_dir with what it holds of earlier runs: found, gone on from, replaced or refused. */
import { dirname, relative, resolve } from "../checkpoint/deps.ts";
import { exists } from "../checkpoint/files.ts";
import { findLatest, listedFiles, removeLeftovers, removeReplaced, verify } from "../checkpoint/store.ts";
import { TRAIN_ARGS } from "../checkpoint/train_args_file.ts";
import { MORE_TEMPLATES, TOKENIZER_FILES } from "../data/tokenizer_files.ts";
import { ALONE } from "../distributed/communicator.ts";
import { UserError } from "../errors.ts";
import type { TrainArgs } from "../train_args/schema.ts";
import type { TrainHooks } from "./hooks.ts";
import type { Places, WeightsFolder } from "./inputs.ts";
import { changedSettings, checkSameRun, readSavedState, RUN_FILES, type SavedRun } from "./saved_state.ts";

/** A checkpoint that a run goes on from. */
export type Resumed = WeightsFolder & SavedRun;

/** Copies what a checkpoint has trained, once it is known to be whole. */
export async function copyTrained(checkpoint: string, folder: string): Promise<void> {
  await verify(checkpoint);
  for (const { name, isFile } of await (await listedFiles(checkpoint)).list(checkpoint)) {
    if (isFile && !RUN_FILES.has(name)) await Deno.copyFile(`${checkpoint}/${name}`, `${folder}/${name}`);
  }
}

/** Names that a run first writes under temporary ones: checkpoints, the final files, what is replaced at once. */
const STAGED = /^(checkpoint-\d+(\.old-[0-9a-f]{8})?|final|train_args\.yaml|report\.html|metrics\.jsonl)$/;

/** Removes what killed runs left half-saved, before anything new needs the room. Call it under the folder's lock. */
export async function removeRunLeftovers({ output_dir }: TrainArgs, { note }: TrainHooks): Promise<void> {
  await removeLeftovers(output_dir, { isLeftover: (name) => STAGED.test(name), note });
  await removeReplaced(output_dir, { note });
}

/**
 * Finds the checkpoint to go on from, as `resume_from_checkpoint` says; undefined for a run that starts afresh.
 *
 * @throws {UserError} if there is none though there should be one, it is of a run with other settings, or a fresh run
 *   would write over an older one
 */
export async function findResume(
  args: TrainArgs,
  hooks: Pick<TrainHooks, "note" | "ranks">,
): Promise<Resumed | undefined> {
  const { resume_from_checkpoint: from, output_dir, overwrite_output_dir } = args;
  if (typeof from === "string") return await openNamed(from, args, hooks);
  if (from === false || overwrite_output_dir) return await startAfresh(args);
  const { latest, notes } = await findLatest(output_dir);
  notes.forEach((line) => hooks.note?.(line));
  if (!latest) {
    if (from !== true) return await startAfresh(args);
    return await startAfreshThough(args, hooks);
  }
  const resumed = await openCheckpoint(latest.path);
  if (from === true) {
    noteChanges(resumed, args, hooks);
    return resumed;
  }
  if (await isFinished(output_dir, latest.step)) return await startAfresh(args);
  requireSameRun(resumed, args, hooks);
  hooks.note?.(
    `Going on from step ${latest.step} of the unfinished run in "${output_dir}"; overwrite_output_dir: true starts afresh`,
  );
  noteChanges(resumed, args, hooks);
  return resumed;
}

/**
 * Makes settings go on with an unfinished run of theirs, and replace whatever else output_dir holds: for work that owns
 * the folder.
 */
export async function resumeOrReplace(args: TrainArgs): Promise<TrainArgs> {
  const silent = { note() {} };
  const resumed = await findResume(
    { ...args, resume_from_checkpoint: null, overwrite_output_dir: false },
    silent,
  )
    .catch((error) => {
      if (error instanceof UserError) return undefined;
      throw error;
    });
  return { ...args, overwrite_output_dir: resumed === undefined };
}

/** Opens a checkpoint to go on from. @throws {UserError} if it cannot be read */
export async function openCheckpoint(path: string): Promise<Resumed> {
  const files = await listedFiles(path);
  return { path, files, state: await readSavedState(path, files) };
}

/** Opens a checkpoint that the settings name. One of another folder must not lead to writing over a run. */
async function openNamed(
  path: string,
  args: TrainArgs,
  hooks: Pick<TrainHooks, "note" | "ranks">,
): Promise<Resumed> {
  await verify(path);
  const { output_dir, overwrite_output_dir } = args;
  const isOwn = await realPath(dirname(resolve(path))) === await realPath(output_dir);
  if (isOwn && overwrite_output_dir) {
    throw new UserError(
      `overwrite_output_dir would remove the checkpoint "${path}" that resume_from_checkpoint asks for: set one of them`,
      { kind: "usage" },
    );
  }
  const other = isOwn || overwrite_output_dir ? undefined : await nameOfRun(output_dir);
  if (other !== undefined) {
    throw new UserError(
      `Cannot go on from "${path}" in "${output_dir}": that folder holds "${other}" of another run. Set output_dir to ` +
        `"${dirname(path)}", or to a new folder`,
      { kind: "usage" },
    );
  }
  const resumed = await openCheckpoint(path);
  noteChanges(resumed, args, hooks);
  return resumed;
}

function realPath(path: string): Promise<string> {
  return Deno.realPath(path).catch(() => resolve(path));
}

/** Starts afresh where `resume_from_checkpoint: true` finds nothing whole to resume. @throws {UserError} over a run */
async function startAfreshThough(args: TrainArgs, hooks: Pick<TrainHooks, "note">): Promise<undefined> {
  const { output_dir } = args;
  const name = await nameOfRun(output_dir);
  if (name !== undefined) {
    throw new UserError(
      `Cannot resume: "${output_dir}" holds "${name}" but no whole checkpoint. Set overwrite_output_dir: true and ` +
        `resume_from_checkpoint: false to start afresh, or choose another output_dir`,
      { kind: "usage" },
    );
  }
  hooks.note?.(`Nothing was saved in "${output_dir}" yet: the run starts afresh`);
  return undefined;
}

/** Starts afresh. @throws {UserError} if that would write over an older run unasked */
async function startAfresh({ output_dir, overwrite_output_dir }: TrainArgs): Promise<undefined> {
  const name = overwrite_output_dir ? undefined : await nameOfRun(output_dir);
  if (name === undefined) return undefined;
  throw new UserError(
    `Cannot start in "${output_dir}": it holds "${name}" of an earlier run. Set resume_from_checkpoint: true to go ` +
      `on with it, overwrite_output_dir: true to replace it, or another output_dir`,
    { kind: "usage" },
  );
}

/** Whether the run that saved this step has put its final files in place: trainer_state.json is the last of them. */
async function isFinished(output_dir: string, step: number): Promise<boolean> {
  const path = `${output_dir}/trainer_state.json`;
  if (!await exists(path)) return false;
  try {
    const { global_step } = JSON.parse(await Deno.readTextFile(path));
    return !(global_step < step);
  } catch {
    // Somebody's file in any case.
    return true;
  }
}

/** Throws unless an unfinished run has these settings: only who asks for it goes on with others. */
function requireSameRun(
  { state, path }: Resumed,
  args: TrainArgs,
  { ranks = ALONE }: Pick<TrainHooks, "ranks">,
): void {
  const { refused, results } = changedSettings(state, args, ranks.size);
  const changed = [...refused, ...results];
  if (changed.length === 0) return;
  const goOn = refused.length > 0 ? "" : "resume_from_checkpoint: true to go on with the new ones, ";
  throw new UserError(
    `Cannot start in "${args.output_dir}": it holds an unfinished run ("${path}") of other settings: ${
      changed.join("; ")
    }. Use its settings to go on with it, or set ${goOn}overwrite_output_dir: true to replace it, or another output_dir`,
    { kind: "usage" },
  );
}

/** Says what differs though the run goes on. @throws {UserError} if it cannot go on with that */
function noteChanges(
  resumed: Resumed,
  args: TrainArgs,
  hooks: Pick<TrainHooks, "note" | "ranks">,
): void {
  const { size } = hooks.ranks ?? ALONE;
  checkSameRun(resumed, args, undefined, size);
  const { results, others } = changedSettings(resumed.state, args, size);
  const changed = [...results, ...others];
  if (changed.length > 0) hooks.note?.(`Going on with other settings: ${changed.join("; ")}`);
}

/**
 * Removes, for overwrite_output_dir, what would be taken for this run's; call it once everything else has been loaded. A
 * tokenizer beside an older adapter is that adapter's, and goes with it, unless this run goes on from it.
 */
export async function removeOldRun({ output_dir }: TrainArgs, adapter: string | undefined): Promise<void> {
  const hadAdapter = await exists(`${output_dir}/adapter_config.json`);
  const keepsTokenizer = !hadAdapter || (adapter !== undefined && resolve(adapter) === resolve(output_dir));
  for await (const { name } of Deno.readDir(output_dir)) {
    const isTokenizer = TOKENIZER_FILES.some((file) => file === name) || name === MORE_TEMPLATES;
    if (!isOfRun(name) && (!isTokenizer || keepsTokenizer)) continue;
    await Deno.remove(`${output_dir}/${name}`, { recursive: true });
  }
}

/** Finds a file or checkpoint of a run in a folder; undefined if it holds none. */
async function nameOfRun(output_dir: string): Promise<string | undefined> {
  if (!await exists(output_dir)) return undefined;
  for await (const { name } of Deno.readDir(output_dir)) if (isOfRun(name)) return name;
  return undefined;
}

/** Files that a run writes beside its result, whatever was there. */
const WRITTEN: ReadonlySet<string> = new Set([
  "metrics.jsonl",
  "report.html",
  "train.log",
  TRAIN_ARGS,
  "trainer_state.json",
]);

/**
 * Refuses a run that would remove or write over what it is made from. An adapter in output_dir itself may be gone on
 * from: its successor takes its place.
 * @throws {UserError} naming it
 */
export async function refuseOwnSources(
  { output_dir }: TrainArgs,
  { model, adapter, train, eval: held }: Places,
): Promise<void> {
  const folder = await realPath(output_dir);
  const sources = [
    model,
    ...(adapter === undefined ? [] : [adapter]),
    ...[...train, ...held].map(({ path }) => path),
  ];
  for (const source of sources) {
    const path = relative(folder, await realPath(source));
    const isLost = path === "" ? source === model : isOfRun(path.split(/[\\/]/)[0]!) || WRITTEN.has(path);
    if (!isLost) continue;
    throw new UserError(
      `Cannot train into "${output_dir}": the run is made from "${source}", which it would remove or write over. ` +
        "Choose another output_dir",
      { kind: "usage" },
    );
  }
}

function isOfRun(name: string): boolean {
  return /^(checkpoint-\d+|trainer_state\.json|adapter_model\.safetensors|model[-.].*safetensors.*)$/.test(
    name,
  );
}
