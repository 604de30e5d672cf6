import { writeSafetensors } from "../checkpoint/safetensors.ts";
import { openWeightsFile, type WeightReader } from "../checkpoint/weights.ts";
import { UserError } from "../errors.ts";
import type { Sample } from "../data/dataset.ts";
import { createHash } from "../data/deps.ts";
import { tensorSources } from "../model/read_back.ts";
import { stateBits, type TrainArgs } from "../train_args/schema.ts";
import type { EvaluationState } from "./evaluation.ts";
import type { LogState } from "./run_log.ts";
import type { StateTensor } from "./states.ts";
import type { Trainer, TrainerState } from "./trainer.ts";

const STATE_FILE = "training_state.json";
const OPTIMIZER_FILE = "optimizer.safetensors";

/** Files of a checkpoint that are of the run, not of what was trained. */
export const RUN_FILES: ReadonlySet<string> = new Set([
  STATE_FILE,
  OPTIMIZER_FILE,
  "trainer_state.json",
  "manifest.json",
]);
const VERSION = 1;

/** What a run needs besides weights and moments to go on bit for bit. */
export interface SavedState {
  readonly version: number;
  /** Steps done, skipped ones included. */
  readonly step: number;
  /** Samples drawn: the sampler's whole state. */
  readonly samplerPosition: number;
  readonly trainer: TrainerState;
  readonly skippedSteps: number;
  readonly log: LogState;
  readonly evaluation: EvaluationState | null;
  readonly args: TrainArgs;
  /** SHA-256 of all token ids and labels, in the order of the file. */
  readonly dataHash: string;
}

/** Options that may differ when a run goes on: they change where it ends or what is written, not what a step computes. */
const FREE: ReadonlySet<string> = new Set<keyof TrainArgs>([
  "resume_from_checkpoint",
  "overwrite_output_dir",
  "output_dir",
  "max_steps",
  "num_train_epochs",
  "logging_steps",
  "save_steps",
  "save_strategy",
  "save_total_limit",
  "report_to",
  "dataset_cache_dir",
  "gradient_checkpointing",
  "offload_activations",
  "max_memory",
  "eval_file",
  "eval_strategy",
  "eval_steps",
  "eval_on_start",
  "per_device_eval_batch_size",
  "load_best_model_at_end",
  "early_stopping_patience",
  "early_stopping_threshold",
]);

/** Writes the optimiser's states and all else of the run into a checkpoint's folder. */
export async function writeSavedState(folder: string, trainer: Trainer, state: SavedState): Promise<void> {
  const parts = trainer.optimised.flatMap(({ name, states }) =>
    Object.entries(states.parts).map(([part, state]) => ({ name: `${name}.${part}`, state }))
  );
  const onDevice = parts.flatMap(({ name, state }) =>
    state.device ? [{ name, value: state.device, stored: state.stored }] : []
  );
  const onHost = parts.flatMap(({ name, state: { host, stored } }) =>
    host ? [{ name, ...stored, read: () => host.read() }] : []
  );
  const sources = [...tensorSources(trainer.gpu, onDevice), ...onHost];
  await writeSafetensors(`${folder}/${OPTIMIZER_FILE}`, sources, {});
  await Deno.writeTextFile(`${folder}/${STATE_FILE}`, JSON.stringify(state) + "\n");
}

/** @throws {UserError} if the folder is no checkpoint of a training run */
export async function readSavedState(folder: string): Promise<SavedState> {
  const path = `${folder}/${STATE_FILE}`;
  let state: SavedState;
  try {
    state = JSON.parse(await Deno.readTextFile(path));
  } catch (error) {
    throw new UserError(
      `Cannot resume from "${folder}": its ${STATE_FILE} cannot be read: ${(error as Error).message}. ` +
        `Name a checkpoint-<step> folder of a run`,
      { cause: error },
    );
  }
  if (state.version !== VERSION) {
    throw new UserError(`Cannot resume from "${folder}": it was written by another version of Longreach`);
  }
  return state;
}

/**
 * Checks that a run may go on from a state.
 * @throws {UserError} naming every option that differs, or the data if that does
 */
export function checkSameRun(saved: SavedState, args: TrainArgs, dataHash: string, folder: string): void {
  const problems = (Object.keys(args) as (keyof TrainArgs)[])
    .filter((key) => !FREE.has(key) && JSON.stringify(saved.args[key]) !== JSON.stringify(args[key]))
    .filter((key) => key !== "optim" || stateBits(saved.args.optim) !== stateBits(args.optim))
    .map((key) => `${key} was ${JSON.stringify(saved.args[key])}, now ${JSON.stringify(args[key])}`);
  if (saved.dataHash !== dataHash) {
    problems.push("the training data gives other samples than in the first run");
  }
  if (problems.length === 0) return;
  throw new UserError(
    `Cannot resume from "${folder}": ${problems.join("; ")}. Use the settings of the first run, or start ` +
      `a new one from the adapter with adapter_name_or_path`,
    { exitCode: 2 },
  );
}

/**
 * Puts the optimiser's states of a checkpoint into a trainer; on the device or on the host, they are the same.
 * @throws {UserError} if they are of another form or shape
 */
export async function restoreStates(folder: string, trainer: Trainer): Promise<void> {
  const reader = await openWeightsFile(`${folder}/${OPTIMIZER_FILE}`);
  try {
    for (const { name, states } of trainer.optimised) {
      for (const [part, state] of Object.entries(states.parts)) {
        requireStored(reader, `${name}.${part}`, state.stored, folder);
        await state.write(await reader.read(`${name}.${part}`));
      }
    }
  } finally {
    reader.close();
  }
}

function requireStored(
  reader: WeightReader,
  name: string,
  { dtype, shape }: StateTensor["stored"],
  folder: string,
): void {
  const found = reader.has(name) ? reader.info(name) : undefined;
  if (found?.dtype === dtype && found.shape.join() === shape.join()) return;
  throw new UserError(
    `Cannot resume from "${folder}": its optimiser has ${
      found ? `"${name}" as ${found.dtype} [${found.shape}]` : `no "${name}"`
    }, but these settings need ${dtype} [${shape}]. Use the settings of the first run`,
    { exitCode: 2 },
  );
}

/** Which data a run was trained on. */
export function hashSamples(samples: readonly Sample[]): string {
  const hash = createHash("sha256");
  for (const { inputIds, labels, documents } of samples) {
    for (
      const { buffer, byteOffset, byteLength } of documents
        ? [inputIds, labels, documents]
        : [inputIds, labels]
    ) {
      hash.update(new Uint8Array(buffer, byteOffset, byteLength));
    }
  }
  return hash.digest("hex");
}
