/** What to change where a run does not fit in a device's memory, each change tried by a dry run. */
import type { ModelConfig } from "../../model/model_config.ts";
import { stateBits, type TrainArgs } from "../../train_args/schema.ts";
import type { Placement } from "../setup.ts";
import { type StepCost, stepCost, type StepOptions, TYPICAL_DEVICE } from "./step_cost.ts";

/** A change of settings towards less memory. */
export interface Remedy {
  /** Settings that change. */
  readonly change: Partial<TrainArgs>;
  /** The device's peak with this and the changes before it. */
  readonly peakBytes: number;
  /** How much lower that is than before this change. */
  readonly savedBytes: number;
  /** Whether that is enough. */
  readonly fits: boolean;
}

/** A step with the places that `auto` and `paged` stand for. */
export interface PlacedCost {
  readonly placement: Placement;
  readonly cost: StepCost;
}

/**
 * Finds where to keep what may wait in host memory: on the device if it fits there, else as little as must go. States go
 * before checkpoints, which travel in every pass. If nothing fits, as much goes as may.
 *
 * @param memoryBytes that may be used on the device; `null` where nobody knows: then all stays there that may
 */
export async function resolvePlacement(
  args: TrainArgs,
  base: ModelConfig,
  memoryBytes: number | null,
  options: StepOptions = {},
): Promise<PlacedCost> {
  const { offload_activations: offload, gradient_checkpointing, optim } = args;
  const pages = optim.startsWith("paged") ? [false, true] : [false];
  const offloads = offload === true
    ? [true]
    : offload === "auto" && gradient_checkpointing
    ? [false, true]
    : [false];
  const places = offloads.flatMap((offloadActivations) =>
    pages.map((pageStates): Placement => ({ pageStates, offloadActivations }))
  );
  let found: PlacedCost | undefined;
  for (const placement of places) {
    found = { placement, cost: await stepCost(args, base, { ...options, placement }) };
    if (memoryBytes === null || found.cost.peak.heldBytes <= memoryBytes) break;
  }
  return found!;
}

/** Whether a run's settings say the rank: an adapter that it starts from has its own. */
function choosesRank({ low_rank_training, adapter_name_or_path }: TrainArgs): boolean {
  return low_rank_training && adapter_name_or_path === null;
}

/** Changes in order, those that cost least first: what each would set, or nothing where it is set already. */
const CHANGES: readonly ((args: TrainArgs) => Partial<TrainArgs> | undefined)[] = [
  ({ per_device_train_batch_size: batch, gradient_accumulation_steps: passes }) =>
    batch > 1 ? { per_device_train_batch_size: 1, gradient_accumulation_steps: batch * passes } : undefined,
  ({ gradient_checkpointing }) => gradient_checkpointing ? undefined : { gradient_checkpointing: true },
  ({ offload_activations: offload }) => offload === false ? { offload_activations: "auto" } : undefined,
  ({ optim }) =>
    optim.startsWith("paged")
      ? undefined
      : { optim: stateBits(optim) === 8 ? "paged_adamw_8bit" : "paged_adamw_32bit" },
  ({ bf16, fp16 }) => bf16 || fp16 ? undefined : { bf16: true },
  ({ load_in_4bit, low_rank_training }) =>
    low_rank_training && !load_in_4bit ? { load_in_4bit: true } : undefined,
  ({ double_quant, load_in_4bit }) => load_in_4bit && !double_quant ? { double_quant: true } : undefined,
  ({ low_rank_training }) => low_rank_training ? undefined : { low_rank_training: true, load_in_4bit: true },
  (args) => choosesRank(args) && args.lora_rank > 32 ? { lora_rank: 32 } : undefined,
  (args) => choosesRank(args) && args.lora_rank > 8 ? { lora_rank: 8 } : undefined,
];

/**
 * Changes that make a run fit, in the order to make them, each on top of those before. Those that save nothing are left
 * out; the last resort is a shorter sequence. Nothing that is given makes it fit if the last one does not.
 */
export async function findRemedies(
  args: TrainArgs,
  base: ModelConfig,
  cost: StepCost,
  memoryBytes: number,
  options: StepOptions = {},
): Promise<Remedy[]> {
  const remedies: Remedy[] = [];
  let now = args;
  let bytes = cost.peak.heldBytes;
  const isEnough = async (change: Partial<TrainArgs>): Promise<boolean> => {
    const changed = { ...now, ...change };
    const { cost } = await resolvePlacement(changed, base, memoryBytes, adapted(options, changed));
    const peakBytes = cost.peak.heldBytes;
    if (peakBytes >= bytes) return false;
    const fits = peakBytes <= memoryBytes;
    remedies.push({ change, peakBytes, savedBytes: bytes - peakBytes, fits });
    now = changed;
    bytes = peakBytes;
    return fits;
  };
  for (const propose of CHANGES) {
    const change = propose(now);
    if (change && await isEnough(change)) return remedies;
  }
  const longest = await longestContext(now, base, memoryBytes, {
    ...options,
    below: Math.max(...options.lengths ?? [now.max_seq_length]),
  });
  if (longest > 0) await isEnough(lengthChange(now, longest));
  return remedies;
}

/** Lengths are whole multiples of this, and may be this share shorter than what would just fit. */
const RESOLUTION = { tokens: 16, share: 1 / 256 };
/** Dry runs to find a length with, at most. */
const ROUNDS = 10;

/** Where a longest length is looked for. */
export interface LongestOptions extends Pick<StepOptions, "device"> {
  /** A length that does not fit, or is not of interest. */
  readonly below?: number;
}

/**
 * The longest sequence that fits, in tokens, rounded down a little; 0 if none does.
 */
export async function longestContext(
  args: TrainArgs,
  base: ModelConfig,
  memoryBytes: number,
  { below = 2 ** 22, device = TYPICAL_DEVICE }: LongestOptions = {},
): Promise<number> {
  // All that may go to the host goes there: it fits longest.
  const { placement } = await resolvePlacement({ ...args, ...lengthChange(args, 64) }, base, 0, { device });
  const peakOf = async (length: number, layers = base.num_hidden_layers) => {
    const changed = { ...args, ...lengthChange(args, length) };
    const config = { ...base, num_hidden_layers: layers };
    return (await stepCost(changed, config, { device, placement })).peak;
  };
  // Every layer adds the same, so a few tell how much is in use with all; what is kept for reuse is seen afterwards.
  const estimate = async (length: number) => {
    if (base.num_hidden_layers <= FEW_LAYERS) return (await peakOf(length)).liveBytes;
    const [some, more] = [await peakOf(length, FEW_LAYERS - 1), await peakOf(length, FEW_LAYERS)];
    return more.liveBytes + (more.liveBytes - some.liveBytes) * (base.num_hidden_layers - FEW_LAYERS);
  };
  let low = 0;
  let high = below;
  let guess = await longestBy(estimate, memoryBytes, below);
  for (let round = 0; round < ROUNDS && guess > low && guess < high; round++) {
    const excess = (await peakOf(guess)).heldBytes - memoryBytes;
    if (excess <= 0) low = guess;
    else high = guess;
    // Nothing longer than the first guess fits; after it, less what is too much, and then between the two.
    if (high === below || high - low <= low / 64) break;
    if (low > 0) guess = roundDown((low + high) / 2);
    else guess = Math.min(await longestBy(estimate, memoryBytes - excess, high), roundDown(high * 15 / 16));
  }
  return low;
}

function roundDown(length: number): number {
  return Math.max(1, Math.floor(length / RESOLUTION.tokens)) * RESOLUTION.tokens;
}

/** Layers of the model that lengths are tried with. */
const FEW_LAYERS = 3;

/** The longest length whose `bytes`, nearly a straight line over it, are at most `most`. */
async function longestBy(
  bytes: (length: number) => Promise<number>,
  most: number,
  below: number,
): Promise<number> {
  const at = async (length: number) => ({ length, bytes: await bytes(length) });
  let [before, last] = [await at(Math.min(64, below - 2)), await at(Math.min(4096, below - 1))];
  if (before.bytes > most) return 0;
  let best = last.bytes <= most ? last.length : before.length;
  let aim = most;
  for (let round = 0; round < ROUNDS; round++) {
    const perToken = (last.bytes - before.bytes) / (last.length - before.length);
    const end = Math.min(last.length + (aim - last.bytes) / perToken, below - 1);
    const length = roundDown(end);
    const isFound = length >= best && length <= best * (1 + RESOLUTION.share);
    if (isFound || length === last.length) break;
    [before, last] = [last, await at(length)];
    if (last.bytes <= most) best = Math.max(best, length);
    else aim -= most * RESOLUTION.share / 4;
  }
  return best;
}

/** The same sequences as far as other settings let them be: fewer of them, cut where they are too long. */
function adapted({ lengths, evalLengths, ...options }: StepOptions, args: TrainArgs): StepOptions {
  const some = (all: readonly number[], count: number) =>
    all.slice(0, count).map((length) => Math.min(length, args.max_seq_length));
  return {
    ...options,
    ...(lengths && { lengths: some(lengths, args.per_device_train_batch_size) }),
    ...(evalLengths && { evalLengths: some(evalLengths, args.per_device_eval_batch_size) }),
  };
}

/** Sequences of another length; the context that the model is extended to and its groups stay what they are if they can. */
function lengthChange(args: TrainArgs, length: number): Partial<TrainArgs> {
  return {
    max_seq_length: length,
    ...(args.model_max_length < length ? { model_max_length: length } : {}),
    ...(args.group_size !== null && args.group_size > length ? { group_size: length } : {}),
  };
}
