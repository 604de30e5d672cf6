/** What to change where a run does not fit in a device's memory, each change tried by a dry run. */
import type { LlamaConfig } from "../model/config.ts";
import type { TrainArgs } from "../train_args/schema.ts";
import { type PlanDevice, type StepCost, stepCost } from "./step_cost.ts";

/** A change of settings towards less memory. */
export interface Remedy {
  readonly change: Partial<TrainArgs>;
  /** The device's peak with this and the changes before it. */
  readonly peakBytes: number;
  /** How much lower that is than before this change. */
  readonly savedBytes: number;
  readonly fits: boolean;
}

/** Changes in order, those that cost least first: what each would set, or nothing where it is set already. */
const CHANGES: readonly ((args: TrainArgs) => Partial<TrainArgs> | undefined)[] = [
  ({ per_device_train_batch_size: batch, gradient_accumulation_steps: passes }) =>
    batch > 1 ? { per_device_train_batch_size: 1, gradient_accumulation_steps: batch * passes } : undefined,
  ({ gradient_checkpointing }) => gradient_checkpointing ? undefined : { gradient_checkpointing: true },
  ({ bf16, fp16 }) => bf16 || fp16 ? undefined : { bf16: true },
  ({ load_in_4bit, low_rank_training }) =>
    low_rank_training && !load_in_4bit ? { load_in_4bit: true } : undefined,
  ({ double_quant, load_in_4bit }) => load_in_4bit && !double_quant ? { double_quant: true } : undefined,
  ({ low_rank_training }) => low_rank_training ? undefined : { low_rank_training: true, load_in_4bit: true },
  ({ lora_rank, low_rank_training }) => low_rank_training && lora_rank > 32 ? { lora_rank: 32 } : undefined,
  ({ lora_rank, low_rank_training }) => low_rank_training && lora_rank > 8 ? { lora_rank: 8 } : undefined,
];

/**
 * Changes that make a run fit, in the order to make them, each on top of those before. Those that save nothing are left
 * out; the last resort is a shorter sequence. Nothing that is given makes it fit if the last one does not.
 */
export async function findRemedies(
  args: TrainArgs,
  base: LlamaConfig,
  cost: StepCost,
  memoryBytes: number,
  device: PlanDevice,
): Promise<Remedy[]> {
  const remedies: Remedy[] = [];
  let now = args;
  let bytes = cost.peak.heldBytes;
  const isEnough = async (change: Partial<TrainArgs>): Promise<boolean> => {
    const changed = { ...now, ...change };
    const { peak: { heldBytes: peakBytes } } = await stepCost(changed, base, device);
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
  const longest = await longestContext(now, base, memoryBytes, device, now.max_seq_length);
  if (longest > 0) await isEnough(lengthChange(now, longest));
  return remedies;
}

/** Lengths are whole multiples of this, and may be this share shorter than what would just fit. */
const RESOLUTION = { tokens: 16, share: 1 / 256 };
/** Dry runs to find a length with, at most. */
const ROUNDS = 10;

/**
 * The longest sequence that fits, in tokens, rounded down a little; 0 if none does.
 * @param below a length that does not fit, or is not of interest
 */
export async function longestContext(
  args: TrainArgs,
  base: LlamaConfig,
  memoryBytes: number,
  device: PlanDevice,
  below = 2 ** 22,
): Promise<number> {
  const at = async (length: number) => {
    const { peak } = await stepCost({ ...args, ...lengthChange(args, length) }, base, device);
    return { length, bytes: peak.heldBytes };
  };
  let [before, last] = [await at(Math.min(64, below - 2)), await at(Math.min(4096, below - 1))];
  if (before.bytes > memoryBytes) return 0;
  let best = last.bytes <= memoryBytes ? last.length : before.length;
  let aim = memoryBytes;
  // Memory is nearly a straight line over the length: go where the last two points say that it ends.
  for (let round = 0; round < ROUNDS; round++) {
    const perToken = (last.bytes - before.bytes) / (last.length - before.length);
    const end = Math.min(last.length + (aim - last.bytes) / perToken, below - 1);
    const length = Math.max(1, Math.floor(end / RESOLUTION.tokens)) * RESOLUTION.tokens;
    const isFound = length >= best && length <= best * (1 + RESOLUTION.share);
    if (isFound || length === last.length) break;
    [before, last] = [last, await at(length)];
    if (last.bytes <= memoryBytes) best = Math.max(best, length);
    else aim -= memoryBytes * RESOLUTION.share / 4;
  }
  return best;
}

/** Sequences of another length; the context that the model is extended to and its groups stay what they are if they can. */
function lengthChange(args: TrainArgs, length: number): Partial<TrainArgs> {
  return {
    max_seq_length: length,
    ...(args.model_max_length < length ? { model_max_length: length } : {}),
    ...(args.group_size !== null && args.group_size > length ? { group_size: length } : {}),
  };
}
