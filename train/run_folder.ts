/** What an output_dir holds of earlier runs, and what becomes of it. */
import { findLatest, removeLeftovers, verify } from "../checkpoint/store.ts";
import { UserError } from "../errors.ts";
import type { TrainArgs } from "../train_args/schema.ts";
import type { TrainHooks } from "./hooks.ts";
import { RUN_FILES } from "./saved_state.ts";

/** Copies what a checkpoint has trained, once it is known to be whole. */
export async function copyTrained(checkpoint: string, folder: string): Promise<void> {
  await verify(checkpoint);
  for await (const { name, isFile } of Deno.readDir(checkpoint)) {
    if (isFile && !RUN_FILES.has(name)) await Deno.copyFile(`${checkpoint}/${name}`, `${folder}/${name}`);
  }
}

/** Names of what a run writes under temporary names: checkpoints, the final files, what is replaced at once. */
const STAGED = /^(checkpoint-\d+(\.old-[0-9a-f]{8})?|final|train_args\.yaml|report\.html|metrics\.jsonl)$/;

/** Removes what killed runs left half-saved, before anything new needs the room. Call it under the folder's lock. */
export async function removeRunLeftovers({ output_dir }: TrainArgs, { note }: TrainHooks): Promise<void> {
  await removeLeftovers(output_dir, { isLeftover: (name) => STAGED.test(name), note });
}

/** The checkpoint folder to go on from; undefined for a fresh run. */
export async function findResume({ resume_from_checkpoint: from, output_dir }: TrainArgs, hooks: TrainHooks) {
  if (from === false) return undefined;
  if (typeof from === "string") {
    await verify(from);
    return from;
  }
  const { latest, notes } = await findLatest(output_dir);
  notes.forEach((note) => hooks.note(note));
  if (latest) return latest.path;
  throw new UserError(
    `Cannot resume: "${output_dir}" holds no whole checkpoint. Set resume_from_checkpoint: false to start afresh`,
    { exitCode: 2 },
  );
}

/** A fresh run never writes over an older one unasked. */
export async function refuseOccupied({ output_dir, overwrite_output_dir }: TrainArgs): Promise<void> {
  if (overwrite_output_dir) return;
  for await (const { name } of Deno.readDir(output_dir)) {
    if (!isOfRun(name)) continue;
    throw new UserError(
      `Cannot start in "${output_dir}": it holds "${name}" of an earlier run. Set resume_from_checkpoint: true to go ` +
        `on with it, overwrite_output_dir: true to replace it, or another output_dir`,
      { exitCode: 2 },
    );
  }
}

/** With overwrite_output_dir: what would be taken for this run's, once everything else has been loaded. */
export async function removeOldRun({ output_dir }: TrainArgs): Promise<void> {
  for await (const { name } of Deno.readDir(output_dir)) {
    if (isOfRun(name)) await Deno.remove(`${output_dir}/${name}`, { recursive: true });
  }
}

function isOfRun(name: string): boolean {
  return /^(checkpoint-\d+|trainer_state\.json|adapter_model\.safetensors|model[-.].*safetensors.*)$/.test(
    name,
  );
}
