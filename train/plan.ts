/**
 * What training would take, before anything is loaded: a dry run of the program itself. The engine runs one step on a device
 * that only counts, so memory is known to the byte and there is no second description of it that could fall behind.
 */
import { DRY_INFO, TYPICAL_LIMITS } from "../kernels/dry_device.ts";
import { type DeviceLimits, type Dispatch, Gpu, type MemoryUse, type Sharing } from "../kernels/gpu.ts";
import { firstKeys } from "../kernels/attention/map.ts";
import { makeBatch, type Sequence } from "../model/batch.ts";
import type { LlamaConfig } from "../model/config.ts";
import { configForPositions } from "../model/context.ts";
import { addFlops, seenPairs, type StepFlops, totalFlops, trainingFlops } from "../model/flops.ts";
import type { Llama } from "../model/llama.ts";
import { randomModel } from "../model/random.ts";
import type { TrainArgs } from "../train_args/schema.ts";
import type { Rates } from "./rates.ts";
import { addFreshLora, formatOf, trainedNames, trainerOptions } from "./setup.ts";
import { Trainer } from "./trainer.ts";

/** The device to plan for. */
export interface PlanDevice {
  readonly description: string;
  readonly limits: DeviceLimits;
  readonly sharing: Sharing;
  /** As in `GpuOptions`. */
  readonly maxBindingBytes?: number;
}

/** What a step takes on a device. */
export interface StepCost {
  /** The device's memory when it holds most, from loading to the end of a step. */
  readonly peak: MemoryUse;
  /** The most bytes that one kernel sees of one tensor. */
  readonly largestBinding: { readonly bytes: number; readonly kernel: string };
  /** Of a whole optimiser step. */
  readonly flops: StepFlops;
  /** Bytes that kernels other than products and attention go over in an optimiser step. */
  readonly trafficBytes: number;
  /** Dispatches of an optimiser step. */
  readonly dispatches: number;
  /** Tokens of an optimiser step. */
  readonly tokens: number;
  /** Numbers the optimiser changes. */
  readonly trainable: number;
}

/** A change of settings towards less memory. */
export interface Remedy {
  readonly change: Partial<TrainArgs>;
  /** The device's peak with this and the changes before it. */
  readonly peakBytes: number;
  /** How much lower that is than before this change. */
  readonly savedBytes: number;
  readonly fits: boolean;
}

/** A step's cost, and what it means for a given memory. */
export interface Plan extends StepCost {
  readonly device: string;
  /** Bytes that may be used on the device; `null` where nobody knows. */
  readonly memoryBytes: number | null;
  /** `null` where the memory is not known. */
  readonly fits: boolean | null;
  /** Seconds of an optimiser step at measured rates; `null` without them. */
  readonly seconds: number | null;
  /** In order, each on top of those before; the last one fits unless nothing does. Empty if it fits already. */
  readonly remedies: readonly Remedy[];
}

export interface PlanOptions {
  readonly device?: PlanDevice;
  readonly memoryBytes?: number | null;
  readonly rates?: Rates | null;
}

/** A device as most GPUs are. */
export const TYPICAL_DEVICE: PlanDevice = {
  description: "a typical GPU",
  limits: TYPICAL_LIMITS,
  sharing: "workgroup",
};

/**
 * Plans a training run.
 * @param base the model's own configuration, its positions not yet settled
 * @throws {UserError} if the settings do not fit the model
 */
export async function planTraining(
  args: TrainArgs,
  base: LlamaConfig,
  { device = TYPICAL_DEVICE, memoryBytes = null, rates = null }: PlanOptions = {},
): Promise<Plan> {
  const cost = await stepCost(args, base, device);
  const fits = memoryBytes === null ? null : cost.peak.heldBytes <= memoryBytes;
  return {
    ...cost,
    device: device.description,
    memoryBytes,
    fits,
    seconds: rates && secondsOf(cost, rates),
    remedies: fits === false ? await findRemedies(args, base, cost, memoryBytes!, device) : [],
  };
}

/** Runs loading and one step with as many tokens as the settings allow on a device that only counts. */
export async function stepCost(
  args: TrainArgs,
  base: LlamaConfig,
  device: PlanDevice = TYPICAL_DEVICE,
): Promise<StepCost> {
  const config = configForPositions(base, args);
  const tally = new Tally();
  const gpu = Gpu.dry({
    limits: device.limits,
    info: { ...DRY_INFO, description: device.description },
    sharing: device.sharing,
    ...(device.maxBindingBytes === undefined ? {} : { maxBindingBytes: device.maxBindingBytes }),
    onDispatch: (dispatch) => tally.add(dispatch),
  });
  gpu.at("loading");
  const model = await randomModel(gpu, config, {
    format: formatOf(args),
    loadIn4bit: args.load_in_4bit,
    doubleQuant: args.double_quant,
    isTrained: trainedNames(config, args),
  });
  if (args.low_rank_training) addFreshLora(model, args);
  const trainer = new Trainer(model, trainerOptions(args));
  tally.start();
  const sequences = longestBatch(args, config);
  await trainer.step([makeBatch(sequences)], args.learning_rate);
  const { gradient_accumulation_steps: passes } = args;
  const tokens = passes * args.per_device_train_batch_size * args.max_seq_length;
  return {
    peak: gpu.peak,
    largestBinding: tally.largest,
    flops: flopsOf(args, model, tokens),
    trafficBytes: passes * tally.trafficBytes,
    dispatches: passes * tally.dispatches,
    tokens,
    trainable: trainer.optimised.reduce((sum, { value }) => sum + value.size, 0),
  };
}

/** Seconds of an optimiser step at measured rates. */
export function secondsOf({ flops, trafficBytes }: StepCost, rates: Rates): number {
  const { attention, ...products } = addFlops(flops.forward, flops.recompute, flops.backward);
  return totalFlops({ ...products, attention: 0 }) / rates.productFlops +
    attention / rates.attentionFlops + trafficBytes / rates.bytesPerSecond;
}

/** Counts what is dispatched. */
class Tally {
  largest = { bytes: 0, kernel: "" };
  trafficBytes = 0;
  dispatches = 0;

  add({ kernel, bindings }: Dispatch): void {
    this.dispatches++;
    const isTraffic = !kernel.startsWith("matmul") && !kernel.startsWith("attention");
    for (const { size } of bindings) {
      if (size > this.largest.bytes) this.largest = { bytes: size, kernel };
      if (isTraffic) this.trafficBytes += size;
    }
  }

  /** Forgets the dispatches so far, but not their bindings. */
  start(): void {
    this.dispatches = this.trafficBytes = 0;
  }
}

/** The longest batch, with as many different ids as can be: each takes room where embeddings are trained. */
function longestBatch(args: TrainArgs, { vocab_size }: LlamaConfig): Sequence[] {
  const inputIds = Uint32Array.from({ length: args.max_seq_length }, (_, i) => i % vocab_size);
  return Array.from({ length: args.per_device_train_batch_size }, () => ({ inputIds }));
}

function flopsOf(args: TrainArgs, model: Llama, tokens: number): StepFlops {
  const { config } = model;
  const { groupSize, checkpointing } = trainerOptions(args);
  const length = args.max_seq_length;
  const ranks = new Map(model.linears().map(({ name, lora }) => [name, lora?.A.rows ?? 0]));
  const layout = { starts: [0], rows: length, ...(groupSize === undefined ? {} : { groupSize }) };
  return trainingFlops(config, {
    tokens,
    pairs: seenPairs(firstKeys(layout)) * tokens / length,
    rank: (module) => ranks.get(module) ?? 0,
    isTrained: trainedNames(config, args),
    checkpointing,
  });
}

/** Changes towards less memory, the ones that cost least first. Each says what it would set, or nothing. */
const CHANGES: readonly ((args: TrainArgs) => Partial<TrainArgs> | undefined)[] = [
  ({ per_device_train_batch_size: batch, gradient_accumulation_steps: passes }) =>
    batch > 1 ? { per_device_train_batch_size: 1, gradient_accumulation_steps: batch * passes } : undefined,
  ({ gradient_checkpointing }) => gradient_checkpointing ? undefined : { gradient_checkpointing: true },
  ({ bf16, fp16 }) => bf16 || fp16 ? undefined : { bf16: true },
  ({ load_in_4bit, low_rank_training }) =>
    low_rank_training && !load_in_4bit ? { load_in_4bit: true } : undefined,
  ({ double_quant, load_in_4bit }) => load_in_4bit && !double_quant ? { double_quant: true } : undefined,
  ({ lora_rank, low_rank_training }) => low_rank_training && lora_rank > 32 ? { lora_rank: 32 } : undefined,
  ({ lora_rank, low_rank_training }) => low_rank_training && lora_rank > 8 ? { lora_rank: 8 } : undefined,
  ({ low_rank_training }) => low_rank_training ? undefined : { low_rank_training: true, load_in_4bit: true },
];

/** Applies {@linkcode CHANGES} until it fits, keeping those that save something; the last is a shorter sequence. */
async function findRemedies(
  args: TrainArgs,
  base: LlamaConfig,
  cost: StepCost,
  memoryBytes: number,
  device: PlanDevice,
): Promise<Remedy[]> {
  const remedies: Remedy[] = [];
  let now = args;
  let bytes = cost.peak.heldBytes;
  const take = (change: Partial<TrainArgs>, peakBytes: number) => {
    remedies.push({ change, peakBytes, savedBytes: bytes - peakBytes, fits: peakBytes <= memoryBytes });
    now = { ...now, ...change };
    bytes = peakBytes;
  };
  for (const propose of CHANGES) {
    const change = propose(now);
    if (!change) continue;
    const { peak } = await stepCost({ ...now, ...change }, base, device);
    if (peak.heldBytes >= bytes) continue;
    take(change, peak.heldBytes);
    if (peak.heldBytes <= memoryBytes) return remedies;
  }
  const longest = await longestContext(now, base, memoryBytes, device, now.max_seq_length);
  if (longest > 0) {
    const change = withLength(now, longest);
    take(
      { max_seq_length: longest },
      (await stepCost(change, base, device)).peak.heldBytes,
    );
  }
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
  device: PlanDevice = TYPICAL_DEVICE,
  below = 2 ** 22,
): Promise<number> {
  const at = async (length: number) => {
    const { peak } = await stepCost(withLength(args, length), base, device);
    return { length, bytes: peak.heldBytes };
  };
  let [before, last] = [await at(64), await at(Math.min(4096, below - 1))];
  if (before.bytes > memoryBytes) return 0;
  let best = last.bytes <= memoryBytes ? last.length : before.length;
  let aim = memoryBytes;
  // Memory is nearly a straight line over the length: go where the last two points say that it ends.
  for (let round = 0; round < ROUNDS; round++) {
    const perToken = (last.bytes - before.bytes) / (last.length - before.length);
    const end = Math.min(last.length + (aim - last.bytes) / perToken, below - 1);
    const length = Math.max(64, Math.floor(end / RESOLUTION.tokens) * RESOLUTION.tokens);
    const isFound = length >= best && length <= best * (1 + RESOLUTION.share);
    if (isFound || length === last.length) break;
    [before, last] = [last, await at(length)];
    if (last.bytes <= memoryBytes) best = Math.max(best, length);
    else aim -= memoryBytes * RESOLUTION.share / 4;
  }
  return best;
}

/** The settings for sequences of another length; what the context is extended to follows it. */
function withLength(args: TrainArgs, length: number): TrainArgs {
  return { ...args, max_seq_length: length, model_max_length: length, group_size: null };
}
