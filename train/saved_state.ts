import { quote } from "../text.ts";
import { z } from "zod";
import { diskFiles, type Files, readJson } from "../checkpoint/files.ts";
import { tensorByteLength, type TensorSource, writeSafetensors } from "../checkpoint/safetensors.ts";
import { openWeightsFile, type WeightReader } from "../checkpoint/weights.ts";
import { fromFirst } from "../distributed/agreement.ts";
import { UserError } from "../errors.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { Sample } from "../data/sample.ts";
import { createHash } from "../data/deps.ts";
import { differingParts, type Fingerprint } from "../model/load/fingerprint.ts";
import { tensorSources } from "../model/read_back.ts";
import { LORA_OPTIONS } from "../train_args/rules.ts";
import { isOption, OPTIONS, stateBits, type TrainArgs, type TrainOption } from "../train_args/schema.ts";
import type { EvaluationState } from "./evaluation.ts";
import type { LogState } from "./run_log.ts";
import { BATCH_OPTIONS, globalBatch } from "./schedule.ts";
import { bytesOfRows } from "./shards.ts";
import { type StateTensor, type StoredState, storedStates } from "./optimizer_states.ts";
import type { Optimised, Trainer, TrainerState } from "./trainer.ts";

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

/** Progress of a run. */
export interface Progress {
  /** Steps done, skipped ones included. */
  readonly step: number;
  /** Passes over the data done, as a fraction. */
  readonly epoch: number;
  /** Samples drawn: the sampler's whole state. */
  readonly samplerPosition: number;
  readonly skippedSteps: number;
  readonly log: LogState;
  /** Null without evaluation. */
  readonly evaluation: EvaluationState | null;
}

/** State that a run needs besides weights and moments to go on bit for bit. */
export interface SavedState extends Omit<Progress, "epoch"> {
  readonly version: number;
  readonly trainer: TrainerState;
  readonly args: TrainArgs;
  /** Ranks that it ran on; checkpoints of older versions, of one rank, have none. */
  readonly worldSize?: number | undefined;
  /** SHA-256 of all token ids and labels, in the order of the file. */
  readonly dataHash: string;
  /** The base model; checkpoints of older versions have none. */
  readonly base?: Fingerprint | undefined;
}

const count = z.number().int().min(0);
const entry = z.object({ epoch: z.number(), step: count });
/** The parts of a state that are relied on, checked: a checkpoint's bytes may have been exchanged. */
const STATE = z.looseObject({
  version: z.literal(VERSION),
  step: count,
  samplerPosition: count,
  trainer: z.object({ updates: count, passes: count, lossScale: z.number(), scaleAge: count }),
  skippedSteps: count,
  log: z.object({
    history: z.array(z.looseObject(entry.shape)),
    lossSum: z.number(),
    steps: count,
    time: z.object({ startedAt: z.iso.datetime(), starts: count, seconds: z.number().min(0) }).optional(),
  }),
  evaluation: z.object({ best: z.object({ loss: z.number(), step: count }).nullable(), worse: count })
    .nullable(),
  args: z.looseObject({ optim: z.string() }),
  worldSize: z.number().int().min(1).optional(),
  dataHash: z.string(),
});
const STATE_LIMIT = 1_000_000_000;

/** Options that change where a run ends or which of its checkpoints is the result, not what a step computes. */
const RESULT: ReadonlySet<string> = new Set<keyof TrainArgs>([
  "max_steps",
  "num_train_epochs",
  "eval_file",
  "eval_strategy",
  "eval_steps",
  "eval_on_start",
  "per_device_eval_batch_size",
  "load_best_model_at_end",
  "early_stopping_patience",
  "early_stopping_threshold",
]);

/** Options that change when something is written, or where computing takes place. */
const WRITING: ReadonlySet<string> = new Set<keyof TrainArgs>([
  "logging_steps",
  "save_steps",
  "save_strategy",
  "save_total_limit",
  "dataset_cache_dir",
  "gradient_checkpointing",
  "offload_activations",
  "max_memory",
  "zero_stage",
]);

/** Options that are of a start, not of a run. */
const OF_START: ReadonlySet<string> = new Set<keyof TrainArgs>([
  "resume_from_checkpoint",
  "overwrite_output_dir",
  "output_dir",
]);

/**
 * Writes the optimiser's states and all else of the run into a checkpoint's folder. Where ranks share the states, rank 0
 * calls this, and the others {@linkcode sendStates}.
 */
export async function writeSavedState(
  folder: string,
  trainer: Trainer,
  run: Omit<SavedState, "version" | "trainer">,
): Promise<void> {
  const parts = listStates(trainer);
  const sources = parts.map(({ name, dtype, shape }, i) => ({
    name,
    dtype,
    shape,
    read: () => gatherState(trainer, parts, i),
  }));
  await writeSafetensors(
    `${folder}/${OPTIMIZER_FILE}`,
    trainer.isSharded ? sources : ownSources(trainer, parts),
    {},
  );
  const { step, samplerPosition, skippedSteps, log, evaluation, args, worldSize, dataHash, base } = run;
  const state: SavedState = {
    version: VERSION,
    step,
    samplerPosition,
    trainer: trainer.state,
    skippedSteps,
    log,
    evaluation,
    args,
    worldSize,
    dataHash,
    base,
  };
  await Deno.writeTextFile(`${folder}/${STATE_FILE}`, JSON.stringify(state) + "\n");
}

/** A tensor of states: whole in a checkpoint, and what of it is this rank's. */
interface ListedState extends StoredState {
  readonly name: string;
  readonly parameter: Optimised;
  /** Undefined where other ranks have all of it. */
  readonly own: StateTensor | undefined;
}

function listStates({ optimised, stateForm }: Trainer): ListedState[] {
  return optimised.flatMap((parameter) =>
    storedStates(parameter.value, stateForm).map((stored) => ({
      ...stored,
      name: `${parameter.name}.${stored.part}`,
      parameter,
      own: parameter.states.parts[stored.part],
    }))
  );
}

/** States that are all this process's. */
function ownSources({ gpu }: Trainer, parts: readonly ListedState[]): TensorSource[] {
  const onDevice = parts.flatMap(({ name, dtype, shape, own }) =>
    own?.device ? [{ name, value: own.device, stored: { dtype, shape } }] : []
  );
  const onHost = parts.flatMap(({ name, dtype, shape, own }) =>
    own?.host ? [{ name, dtype, shape, read: () => own.host!.read() }] : []
  );
  return [...tensorSources(gpu, onDevice), ...onHost];
}

/** Gathers one tensor of sharded states on rank 0, which tells the others its number in the list. */
async function gatherState(
  { gpu, ranks }: Trainer,
  parts: readonly ListedState[],
  index: number,
): Promise<Uint8Array> {
  await fromFirst(ranks, index);
  const state = parts[index]!;
  const whole = new Uint8Array(tensorByteLength(state.dtype, state.shape));
  const bytesOfRank = (rank: number) => {
    const { start, end } = bytesOf(state, rank, whole.length);
    return whole.subarray(start, end);
  };
  bytesOfRank(0).set(await readState(gpu, state.own));
  for (let rank = 1; rank < ranks.size; rank++) {
    await ranks.exchange(null, { rank, bytes: bytesOfRank(rank) });
  }
  return whole;
}

/**
 * Sends rank 0 what of sharded states is this rank's, as it asks for it, until it says with {@linkcode endSending} that it
 * has all that it wants.
 */
export async function sendStates(trainer: Trainer): Promise<void> {
  const { gpu, ranks } = trainer;
  const parts = listStates(trainer);
  for (;;) {
    const index = await fromFirst(ranks, NONE);
    if (index === NONE) return;
    const bytes = await readState(gpu, parts[index]!.own);
    for (let rank = 1; rank < ranks.size; rank++) {
      await ranks.exchange(rank === ranks.rank ? { rank: 0, bytes } : null, null);
    }
  }
}

/** Ends what the other ranks do in {@linkcode sendStates}, whether the checkpoint is written or has failed. */
export async function endSending({ ranks }: Trainer): Promise<void> {
  await fromFirst(ranks, NONE);
}

const NONE = -1;

async function readState(gpu: Gpu, state: StateTensor | undefined): Promise<Uint8Array> {
  if (state?.host) return await state.host.read();
  return state?.device ? (await gpu.readBytes([state.device]))[0]! : new Uint8Array(0);
}

/** The bytes of a whole state, of `total`, that a rank has. */
function bytesOf({ parameter: { value, shards }, blockBytes }: ListedState, rank: number, total: number) {
  return shards ? bytesOfRows(value, shards[rank]!, { total, blockBytes }) : { start: 0, end: total };
}

/**
 * Reads the state in a checkpoint.
 * @param files what its manifest lists
 * @throws {UserError} if the folder is no checkpoint of a training run
 */
export async function readSavedState(folder: string, files: Files = diskFiles): Promise<SavedState> {
  let state: unknown;
  try {
    state = await readJson(`${folder}/${STATE_FILE}`, STATE_LIMIT, files);
  } catch (error) {
    throw new UserError(
      `Cannot resume from "${folder}": its ${STATE_FILE} cannot be read: ${(error as Error).message}. ` +
        `Name a checkpoint-<step> folder of a run`,
      { cause: error },
    );
  }
  const { success, error } = STATE.safeParse(state);
  if (success) return state as SavedState;
  const problem = error.issues[0]!;
  throw new UserError(
    `Cannot resume from "${folder}": it was written by another version of Longreach, or is damaged ` +
      `(${STATE_FILE}: ${problem.path.join(".")}: ${problem.message})`,
  );
}

/** Settings that differ from those of a saved run, each as `name was old, now new`. */
export interface ChangedSettings {
  /** Those that change what a step computes: no run goes on with them. */
  readonly refused: readonly string[];
  /** Those that change which steps there are, or which of them is the result. */
  readonly results: readonly string[];
  /** Those that change what is written. */
  readonly others: readonly string[];
}

/** Compares the settings of a saved run with those of a start on so many ranks. */
export function changedSettings(saved: SavedState, args: TrainArgs, worldSize: number): ChangedSettings {
  // An adapter that both start from has its own settings of LoRA.
  const { worldSize: savedWorld = 1 } = saved;
  const shared = savedValue(saved, "sequence_parallel_size");
  const isDividedAlike = worldSize === savedWorld && args.sequence_parallel_size === shared;
  const inBatch: readonly string[] = BATCH_OPTIONS;
  const unused: readonly string[] = args.adapter_name_or_path === null ? [] : LORA_OPTIONS;
  const changed = (Object.keys(args) as (keyof TrainArgs)[])
    .filter((key) => !unused.includes(key))
    .filter((key) => isDividedAlike || !inBatch.includes(key))
    .filter((key) =>
      !OF_START.has(key) && JSON.stringify(savedValue(saved, key)) !== JSON.stringify(args[key])
    )
    .filter((key) => key !== "optim" || stateBits(saved.args.optim) !== stateBits(args.optim));
  const texts = (keys: readonly (keyof TrainArgs)[]) =>
    keys.map((key) => `${key} was ${quote(savedValue(saved, key))}, now ${quote(args[key])}`);
  const onRanks = isDividedAlike
    ? { refused: [], others: [] }
    : describeRanks(globalBatch(saved.args, savedWorld), globalBatch(args, worldSize), [
      ...(worldSize === savedWorld ? [] : [`the number of ranks was ${savedWorld}, now ${worldSize}`]),
      ...texts(args.sequence_parallel_size === shared ? [] : ["sequence_parallel_size"]),
    ]);
  return {
    refused: [
      ...onRanks.refused,
      ...texts(changed.filter((key) => !RESULT.has(key) && !WRITING.has(key))),
    ],
    results: texts(changed.filter((key) => RESULT.has(key))),
    others: [...onRanks.others, ...texts(changed.filter((key) => WRITING.has(key)))],
  };
}

/** Says that other ranks share the work: a run goes on if its global batch stays the same. */
function describeRanks(
  before: number,
  now: number,
  changes: readonly string[],
): Pick<ChangedSettings, "refused" | "others"> {
  if (before === now) return { refused: [], others: changes };
  const [sequences, passes, shared] = BATCH_OPTIONS;
  const remedy = `${sequences} x ${passes} x ranks / ${shared} must stay ${before}`;
  return {
    refused: [`${changes.join(", ")}, and a step had ${before} sequences, now ${now}: ${remedy}`],
    others: [],
  };
}

/** Value of an option in a saved run: its default, if that version did not have it. */
function savedValue({ args }: SavedState, key: keyof TrainArgs): unknown {
  if (key in args) return args[key];
  const option: TrainOption | undefined = isOption(key) ? OPTIONS[key] : undefined;
  return option?.default;
}

/** A checkpoint's folder, and the state in it. */
export interface SavedRun {
  readonly path: string;
  readonly state: SavedState;
}

/**
 * Checks that a run may go on from a state.
 * @param dataHash of the samples, once they are known
 * @param worldSize ranks now
 * @throws {UserError} naming every option that differs, or the data if that does
 */
export function checkSameRun(
  { path, state }: SavedRun,
  args: TrainArgs,
  dataHash?: string,
  worldSize = 1,
): void {
  const { refused } = changedSettings(state, args, worldSize);
  const hasOtherData = dataHash !== undefined && state.dataHash !== dataHash;
  refuseResume(path, [
    ...refused,
    ...(hasOtherData ? ["the training data gives other samples than in the first run"] : []),
  ]);
}

/**
 * Checks that the base model is the one that a run began with.
 * @param name of the model, for messages
 * @throws {UserError} naming what of it has changed
 */
export function checkSameBase({ path, state }: SavedRun, name: string, base: Fingerprint): void {
  const parts = state.base ? differingParts(state.base, base) : [];
  refuseResume(
    path,
    parts.length > 0
      ? [`the base model "${name}" has changed since the first run (${parts.join(", ")})`]
      : [],
  );
}

function refuseResume(folder: string, problems: readonly string[]): void {
  if (problems.length === 0) return;
  throw new UserError(
    `Cannot resume from "${folder}": ${problems.join("; ")}. Use what the first run had, or start ` +
      `a new one from the adapter with adapter_name_or_path`,
    { kind: "usage" },
  );
}

/**
 * Puts the optimiser's states of a checkpoint into a trainer; on the device or on the host, they are the same.
 * @throws {UserError} if they are of another form or shape
 */
export async function restoreStates(
  folder: string,
  trainer: Trainer,
  { files = diskFiles }: { readonly files?: Files } = {},
): Promise<void> {
  const reader = await openWeightsFile(`${folder}/${OPTIMIZER_FILE}`, { files });
  try {
    for (const state of listStates(trainer)) {
      requireStored(reader, state, folder);
      if (!state.own) continue;
      const whole = await reader.read(state.name);
      const { start, end } = bytesOf(state, trainer.ranks.rank, whole.length);
      await state.own.write(whole.subarray(start, end));
    }
  } finally {
    reader.close();
  }
}

function requireStored(
  reader: WeightReader,
  { name, dtype, shape }: ListedState,
  folder: string,
): void {
  const found = reader.has(name) ? reader.info(name) : undefined;
  if (found?.dtype === dtype && found.shape.join() === shape.join()) return;
  throw new UserError(
    `Cannot resume from "${folder}": its optimiser has ${
      found ? `"${name}" as ${found.dtype} [${found.shape}]` : `no "${name}"`
    }, but these settings need ${dtype} [${shape}]. Use the settings of the first run`,
    { kind: "usage" },
  );
}

/** Hashes all samples: tells whether two runs have the same data. */
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
