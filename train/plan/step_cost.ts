/**
 * The cost of a training step, from a dry run of the program itself: the engine runs one step on a device that only counts.
 * So memory is known to the byte, and there is no second description of it that could fall behind.
 */
import { dryCommunicator, type Traffic } from "../../distributed/dry_communicator.ts";
import { cutTables, firstKeys } from "../../kernels/attention/map.ts";
import { DRY_INFO, TYPICAL_LIMITS } from "../../kernels/dry_device.ts";
import { type DeviceLimits, type Dispatch, Gpu, type GpuOptions, type MemoryUse } from "../../kernels/gpu.ts";
import type { GpuInfo } from "../../kernels/device.ts";
import { keyOf } from "../../kernels/pipelines.ts";
import type { KernelForm } from "../../kernels/wgsl.ts";
import type { Refused } from "../../kernels/refusal.ts";
import type { Tuning } from "../../kernels/tuning.ts";
import { type Batch, freeBatch, layerRule, makeBatch, type Sequence } from "../../model/batch.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import { visitedPairs } from "../../kernels/attention/visits.ts";
import { addFlops, type StepFlops, totalFlops, trainingFlops } from "../../model/flops.ts";
import type { LanguageModel } from "../../model/language_model.ts";
import type { TrainArgs } from "../../train_args/schema.ts";
import type { Throughput } from "./throughput.ts";
import { trainedNames } from "../lora.ts";
import { type Placement, trainerOptions } from "../options.ts";
import { cutRows } from "../sequence_parallel.ts";
import { Trainer } from "../trainer.ts";
import { randomTrainee } from "./random_trainee.ts";

/** The device that a step is counted for. */
export interface PlanDevice extends Pick<GpuOptions, "sharing" | "maxBindingBytes" | "hostCopies"> {
  /** Variants of kernels; each kernel's default unless given. */
  readonly tuning?: Tuning;
  /** Kernels that it does without; none unless given. */
  readonly refused?: Refused;
  /** The device as it describes itself. */
  readonly info: GpuInfo;
  /** Limits of its buffers and workgroups. */
  readonly limits: DeviceLimits;
}

/** Part of one of the ranks that share a batch. */
export interface RankShare {
  /** Rows of the batch that it holds. */
  readonly rows: number;
  /** Most bytes that its device holds. */
  readonly peakBytes: number;
}

/** Cost of a step; where ranks share its batches, of the rank whose device holds most. */
export interface StepCost {
  /** The device's memory when it holds most, from loading to the end of a step. */
  readonly peak: MemoryUse;
  /** Most bytes of tensors in the host's memory at once. */
  readonly hostBytes: number;
  /** The most bytes that one kernel sees of one tensor. */
  readonly largestBinding: { readonly bytes: number; readonly kernel: string };
  /** Operations of a whole optimiser step. */
  readonly flops: StepFlops;
  /** Bytes that kernels other than products and attention go over in an optimiser step. */
  readonly trafficBytes: number;
  /** Dispatches of an optimiser step. */
  readonly dispatches: number;
  /** Forward passes of an optimiser step. */
  readonly passes: number;
  /** Tokens of an optimiser step of the ranks that share its batches. */
  readonly tokens: number;
  /** What each of them has; of one rank, all. */
  readonly ranks: readonly RankShare[];
  /** Keys, values and their gradients that the rank exchanges in an optimiser step. */
  readonly traffic: Readonly<Traffic>;
  /** Numbers the optimiser changes. */
  readonly trainable: number;
  /**
   * Kernels of loading, a step and an evaluation, if they were asked for.
   * @internal
   */
  readonly kernels: readonly KernelForm[];
}

/** Options of {@linkcode stepCost}. */
export interface StepOptions {
  /** {@linkcode TYPICAL_DEVICE} unless given. */
  readonly device?: PlanDevice;
  /** Tokens of the sequences of the largest batch; all that the settings allow unless given. */
  readonly lengths?: readonly number[];
  /** Tokens of the sequences of the largest batch of eval_file, where there is one; all that may be unless given. */
  readonly evalLengths?: readonly number[];
  /** Ranks of the job, which may share the optimizer states; `sequence_parallel_size` unless given. */
  readonly worldSize?: number;
  /** Whether to list the kernels, which takes time at every dispatch; not unless given. */
  readonly listsKernels?: boolean;
  /** Places of what may wait on the host; as `trainerOptions` has them unless given. */
  readonly placement?: Placement;
}

/** A device as most GPUs are. */
export const TYPICAL_DEVICE: PlanDevice = {
  info: { ...DRY_INFO, description: "a typical GPU" },
  limits: TYPICAL_LIMITS,
};

/** Describes the device that is open. */
export function planDevice(gpu: Gpu): PlanDevice {
  const { info, limits, sharing, tuning, refused, maxBindingBytes, host } = gpu;
  return { info, limits, sharing, tuning, refused, maxBindingBytes, hostCopies: host.copies };
}

/**
 * Runs loading, one step and an evaluation on a device that only counts. Saving takes no memory that these do not.
 *
 * @param base the model's own configuration, its positions not yet settled
 * @throws {UserError} if the settings do not fit the model
 */
export async function stepCost(
  args: TrainArgs,
  base: ModelConfig,
  options: StepOptions = {},
): Promise<StepCost> {
  const costs = new Map<string, Omit<StepCost, "ranks">>();
  const size = args.sequence_parallel_size;
  const batch = makeBatch(sequencesOf(options.lengths ?? fullBatch(args), base));
  const cuts = size > 1 ? cutRows(batch, trainerOptions(args).attention(batch), size) : [0, batch.rows];
  const kinds = cuts.slice(1).map((end, place) => {
    // All but the ends are alike where they hold as much.
    const [hasBefore, hasBehind] = [cuts[place]! > 0, end < batch.rows];
    return { place, rows: end - cuts[place]!, kind: `${end - cuts[place]!} ${hasBefore} ${hasBehind}` };
  });
  for (const { place, rows, kind } of kinds) {
    if (rows > 0 && !costs.has(kind)) costs.set(kind, await rankCost(args, base, options, batch, place));
  }
  const largest = [...costs.values()].reduce((most, cost) =>
    cost.peak.heldBytes > most.peak.heldBytes ? cost : most
  );
  return {
    ...largest,
    ranks: kinds.map(({ rows, kind }) => ({ rows, peakBytes: costs.get(kind)?.peak.heldBytes ?? 0 })),
  };
}

/** Counts what {@linkcode stepCost} says, for one of the ranks that share the batch. */
async function rankCost(
  args: TrainArgs,
  base: ModelConfig,
  {
    device = TYPICAL_DEVICE,
    evalLengths = evalBatch(args),
    worldSize = args.sequence_parallel_size,
    listsKernels = false,
    placement,
  }: StepOptions,
  whole: Batch,
  place: number,
): Promise<Omit<StepCost, "ranks">> {
  const tally = new Tally();
  const gpu = Gpu.dry({ ...device, onDispatch: (dispatch) => tally.add(dispatch, listsKernels) });
  gpu.memory.at("loading");
  const model = await randomTrainee(gpu, args, base);
  const ranks = dryCommunicator(place, worldSize);
  const trainer = new Trainer(model, { ...trainerOptions(args, placement), ranks });
  tally.start();
  await trainer.step([whole], args.learning_rate);
  const counted = { dispatches: tally.dispatches, trafficBytes: tally.trafficBytes };
  if (evalLengths.length > 0) {
    gpu.memory.at("evaluation");
    const batch = model.upload(makeBatch(sequencesOf(evalLengths, base)));
    await model.predict(batch);
    freeBatch(batch);
  }
  const passes = args.gradient_accumulation_steps;
  return {
    peak: gpu.memory.peak,
    hostBytes: gpu.host.peakBytes,
    largestBinding: tally.largest,
    flops: flopsOf(args, model, trainer.share(whole)),
    trafficBytes: passes * counted.trafficBytes,
    dispatches: passes * counted.dispatches,
    passes,
    tokens: passes * whole.rows,
    traffic: {
      exchanges: passes * ranks.traffic.exchanges,
      exchangedBytes: passes * ranks.traffic.exchangedBytes,
    },
    kernels: tally.kernels,
    trainable: trainer.optimised.reduce((sum, { value }) => sum + value.size, 0),
  };
}

/** Works out the seconds of an optimiser step at a measured throughput. */
export function secondsOf(
  { flops, trafficBytes }: Pick<StepCost, "flops" | "trafficBytes">,
  throughput: Throughput,
): number {
  const all = addFlops(flops.forward, flops.recompute, flops.backward);
  return (totalFlops(all) - all.attention) / throughput.productFlops +
    all.attention / throughput.attentionFlops + trafficBytes / throughput.bytesPerSecond;
}

/** Counts what is dispatched. */
class Tally {
  largest = { bytes: 0, kernel: "" };
  trafficBytes = 0;
  dispatches = 0;
  readonly #kernels = new Map<string, KernelForm>();

  get kernels(): KernelForm[] {
    return [...this.#kernels.values()];
  }

  add({ kernel, form, bindings }: Dispatch, listsKernels: boolean): void {
    this.dispatches++;
    if (listsKernels) this.#kernels.set(keyOf(form), form);
    const isTraffic = !kernel.startsWith("matmul") && !kernel.startsWith("attention");
    for (const { size } of bindings) {
      if (size > this.largest.bytes) this.largest = { bytes: size, kernel };
      if (isTraffic) this.trafficBytes += size;
    }
  }

  /** Forgets the dispatches so far, but not their bindings and kernels. */
  start(): void {
    this.dispatches = this.trafficBytes = 0;
  }
}

function fullBatch({ per_device_train_batch_size: sequences, max_seq_length }: TrainArgs): number[] {
  return new Array(sequences).fill(max_seq_length);
}

function evalBatch(args: TrainArgs): number[] {
  if (args.eval_strategy === "no") return [];
  return new Array(args.per_device_eval_batch_size).fill(args.max_seq_length);
}

/** Makes sequences with as many different ids as can be: each takes room where embeddings are trained. */
function sequencesOf(lengths: readonly number[], { vocab_size }: ModelConfig): Sequence[] {
  let next = 0;
  return lengths.map((length) => ({ inputIds: Uint32Array.from({ length }, () => next++ % vocab_size) }));
}

/** Counts the operations of an optimiser step whose passes are all of one batch, or a part of one. */
function flopsOf(args: TrainArgs, model: LanguageModel, batch: Batch): StepFlops {
  const { config } = model;
  const heads = config.num_attention_heads;
  const { attention, checkpointing } = trainerOptions(args);
  const passes = args.gradient_accumulation_steps;
  const { whole, start, end } = batch.part ?? { whole: batch, start: 0, end: batch.rows };
  const rule = attention(whole);
  const pairsWithin = (window: number | null): number => {
    const tables = firstKeys({ ...whole, ...layerRule(rule, window, whole.longest) });
    return visitedPairs(cutTables(tables, { start, end }), { heads }) / heads;
  };
  const windows = config.layers.map((layer) => layer.sliding_window);
  const pairs = new Map([...new Set(windows)].map((window) => [window, pairsWithin(window)]));
  const ranks = new Map([
    ...model.linears().map(({ name, lora }) => [name, lora?.A.rows ?? 0] as const),
    ...model.experts().flatMap(({ modules, lora }) =>
      modules.map((module) => [module, lora?.B.width ?? 0] as const)
    ),
  ]);
  return trainingFlops(config, {
    tokens: passes * batch.rows,
    pairs: passes * windows.reduce<number>((sum, window) => sum + pairs.get(window)!, 0) / windows.length,
    rank: (module) => ranks.get(module) ?? 0,
    isTrained: trainedNames(config, args),
    checkpointing,
  });
}
