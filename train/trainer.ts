import { ALONE, type Communicator } from "../distributed/communicator.ts";
import { gather } from "../distributed/agreement.ts";
import type { AttentionRule } from "../kernels/attention/map.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { asRows } from "../kernels/optimizer/adamw_8bit.ts";
import { type ClipOptions, globalNorm, STATUS } from "../kernels/optimizer/global_norm.ts";
import type { RowRange } from "../kernels/shared/row_chunks.ts";
import type { Tensor } from "../kernels/tensor.ts";
import { type Batch, freeBatch } from "../model/batch.ts";
import type { LanguageModel } from "../model/language_model.ts";
import { isDecayed, type Parameter } from "../model/parameter.ts";
import { sumOverRanks, type WireFormat } from "./gradient_sum.ts";
import {
  type AdamStates,
  makeOptimizerStates,
  type OptimizerStateForm,
  updateAll,
  type Updated,
} from "./optimizer_states.ts";
import { gatherShards, type Shards, shardsOf, sliced, sumShards } from "./shards.ts";
import { SequenceParallel } from "./sequence_parallel.ts";

/** Options of a step; the defaults are those of the command line. */
export interface TrainerOptions {
  /** AdamW's decay of the first moment; 0.9 unless given. */
  readonly beta1?: number;
  /** AdamW's decay of the second moment; 0.999 unless given. */
  readonly beta2?: number;
  /** AdamW's epsilon; 1e-8 unless given. */
  readonly epsilon?: number;
  /** AdamW's weight decay; 0 unless given. */
  readonly weightDecay?: number;
  /** Gradients longer than this are scaled down to it; 0 turns clipping off. 1 unless given. */
  readonly maxGradNorm?: number;
  /** The attention mask's rule for a batch; full attention unless given. */
  readonly attention?: (batch: Pick<Batch, "longest">) => AttentionRule;
  /** Recompute activations in the backward pass, which saves memory; true unless given. */
  readonly checkpointing?: boolean;
  /** Keep layers' inputs in host memory until the backward pass, with checkpointing; on the device unless true. */
  readonly offloadActivations?: boolean;
  /** Bytes of a chunk of rows, see `LanguageModel.chunkBytes`; the model's own unless given. */
  readonly chunkBytes?: number | undefined;
  /** See `LanguageModel.decodesLayers`; as the model has it unless given. */
  readonly decodesLayers?: boolean | undefined;
  /** Form of the optimizer states; 32 bits on the device unless given. */
  readonly optimizerStates?: OptimizerStateForm;
  /** Scale the loss so that small gradients survive in f16, and adapt the scale; false unless given. */
  readonly lossScaling?: boolean;
  /** Seed of dropout, and of the noise; 42 unless given. */
  readonly seed?: number;
  /** NEFTune's noise on the embeddings; none unless given. */
  readonly noiseAlpha?: number | undefined;
  /** The ranks that do a step together, each with a trainer of the same model and options; one unless given. */
  readonly ranks?: Communicator;
  /** Split optimizer states and updates over the ranks, ZeRO's first stage; false unless given. */
  readonly shardStates?: boolean;
  /** Form in which gradients go from rank to rank; f32 unless given. */
  readonly wire?: WireFormat;
  /** How many of them share each batch, under shifted sparse attention; divides them. 1 unless given. */
  readonly sequenceParallelSize?: number;
}

const DEFAULTS = {
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-8,
  weightDecay: 0,
  maxGradNorm: 1,
  attention: () => ({}),
  checkpointing: true,
  lossScaling: false,
  seed: 42,
  ranks: ALONE,
  shardStates: false,
  wire: "f32",
  sequenceParallelSize: 1,
} as const satisfies TrainerOptions;

/** Options with their defaults. */
export type SettledOptions = TrainerOptions & Required<Pick<TrainerOptions, keyof typeof DEFAULTS>>;

/** The result of a step. */
export interface StepResult {
  /** Mean loss over the step's targets, in nats. */
  readonly loss: number;
  /** 2-norm of the whole gradient, before clipping. */
  readonly gradNorm: number;
  /** False if the gradient was not finite: then nothing was changed. */
  readonly applied: boolean;
}

/** A trainer's state besides the parameters and moments themselves. */
export interface TrainerState {
  /** Updates applied: AdamW's bias correction counts them. */
  updates: number;
  /** Forward passes done, on all ranks: dropout draws by them. */
  passes: number;
  /** Factor of the loss; 1 without loss scaling. */
  lossScale: number;
  /** Finite steps since the loss scale last changed. */
  scaleAge: number;
}

/** A parameter with AdamW's running means. */
export interface Optimised extends Parameter {
  /** Those of the rows that this rank updates. */
  readonly states: AdamStates;
  /** The rows that each rank updates; undefined where all ranks update all of it. */
  readonly shards: Shards | undefined;
}

/** Adaptation of the loss scale, with the numbers of PyTorch's GradScaler. */
const LOSS_SCALE = { initial: 65536, growth: 2, backoff: 0.5, interval: 2000, min: 1 } as const;

/** Counts the targets of micro-batches: what ranks sum before {@linkcode Trainer.gradients}. */
export function targetsOf(batches: readonly Batch[]): number {
  return batches.reduce((sum, { targets }) => sum + targets, 0);
}

/**
 * An optimiser step, in two halves: {@linkcode Trainer.gradients}, {@linkcode Trainer.update}. The only place that orders
 * the GPU's work of a step.
 *
 * Several ranks do one step over all their batches so:
 *
 * 1. Take {@linkcode Trainer.share} of each batch, and sum {@linkcode targetsOf} over the ranks: a count, known from the
 *    data before the device has work.
 * 2. Call `gradients` with that total on each rank's own batches.
 * 3. Sum the gradients and the loss over the ranks, element by element; of sharded ones each rank gets the rows that it
 *    updates.
 * 4. Call `update` with that total. All ranks decide alike whether the step applies, and stay equal byte for byte.
 *
 * The total comes first because the loss is divided by it before the backward pass: dividing the summed gradient instead
 * would leave the range of f16 and round differently. Dropout and noise are drawn by the place of a micro-batch among those
 * of all ranks, which are dealt in turn: so the step is that of one rank with all of them.
 */
export class Trainer {
  /** The model's device. */
  readonly gpu: Gpu;
  /** The model that is trained. */
  readonly model: LanguageModel;
  /**
   * Parameters with their moments.
   * @internal
   */
  readonly optimised: readonly Optimised[];
  /**
   * Form of the optimizer states.
   * @internal
   */
  readonly stateForm: OptimizerStateForm;
  /** The part of a checkpoint that is neither parameters nor moments. */
  state: TrainerState = { updates: 0, passes: 0, lossScale: 1, scaleAge: 0 };
  /**
   * The ranks that share batches with this one.
   * @internal
   */
  readonly sharing: SequenceParallel;
  readonly #options: SettledOptions;
  readonly #shards: readonly Shards[] | undefined;
  readonly #lossSum: Tensor;
  readonly #status: Tensor;

  /** The ranks that do a step together. */
  get ranks(): Communicator {
    return this.#options.ranks;
  }

  /** Whether the ranks share the optimizer states: then no rank has them all. */
  get isSharded(): boolean {
    return this.#shards !== undefined;
  }

  /** Allocates the moments of every parameter that is trained. */
  constructor(model: LanguageModel, given: TrainerOptions = {}) {
    const options = { ...DEFAULTS, ...given };
    this.gpu = model.gpu;
    this.model = model;
    this.#options = options;
    this.sharing = new SequenceParallel(options.ranks, options.sequenceParallelSize);
    if (options.chunkBytes !== undefined) model.chunkBytes = options.chunkBytes;
    if (options.decodesLayers !== undefined) model.decodesLayers = options.decodesLayers;
    using _ = this.gpu.memory.purpose("optimiser");
    const parameters = model.parameters();
    this.stateForm = options.optimizerStates ?? { bits: 32, paged: false };
    const { ranks, shardStates } = options;
    const shards = shardStates && ranks.size > 1
      ? shardsOf(parameters.map(({ value }) => value), ranks.size)
      : undefined;
    const updated = parameters.map((parameter, i) =>
      shards ? updatedRows(parameter, shards[i]![ranks.rank]!) : parameter
    );
    const states = makeOptimizerStates(
      this.gpu,
      updated.filter((part) => part !== undefined),
      this.stateForm,
    );
    this.optimised = parameters.map((parameter, i) => ({
      ...parameter,
      states: updated[i] ? states.shift()! : NO_STATES,
      shards: shards?.[i],
    }));
    this.#shards = shards;
    this.#lossSum = this.gpu.empty([1], "f32", "loss sum");
    this.#status = this.gpu.zeros([STATUS.length], "f32", "step status");
    if (options.lossScaling) this.state.lossScale = LOSS_SCALE.initial;
    // What loading left idle would serve a step's requests with other sizes than planned.
    this.gpu.memory.trim();
  }

  /**
   * Updates the parameters once, by the gradient of the mean loss over all targets of the micro-batches of all ranks
   * together, however unevenly they are spread (an average of averages would weigh short ones more). One rank waits for the
   * device once, at the end.
   *
   * @param batches those of this rank, whole where others share them: micro-batch i of the step is replica i mod replicas'
   */
  async step(batches: readonly Batch[], learningRate: number): Promise<StepResult> {
    const { ranks } = this.#options;
    const own = batches.map((batch) => this.share(batch));
    const shares = await gather(ranks, { targets: targetsOf(own), passes: own.length });
    const total = (key: "targets" | "passes") => shares.reduce((sum, share) => sum + share[key], 0);
    await this.gradients(own, total("targets"));
    await this.#sum();
    this.state.passes += total("passes") / this.sharing.size;
    return await this.update(learningRate, total("targets"));
  }

  /** Cuts out of a batch the rows that this rank holds; all of them where none share it. */
  share(batch: Batch): Batch {
    return this.sharing.share(batch, this.#options.attention(batch));
  }

  /**
   * Computes the gradient of the summed loss of the micro-batches over `totalTargets`, times the loss scale, in place of
   * that of the step before. Records the work, and does not wait for it. Whoever calls it counts the passes of all ranks.
   *
   * @param batches what this rank holds of them, as {@linkcode Trainer.share} gives it
   * @param totalTargets of the whole step, on all ranks
   * @returns f32 tensors to sum over ranks: every parameter's gradient, and (1) the summed loss in nats
   */
  async gradients(batches: readonly Batch[], totalTargets: number): Promise<readonly Tensor[]> {
    const { gpu } = this;
    const { seed, attention, checkpointing, offloadActivations: offload = false, noiseAlpha } = this.#options;
    const { replica, replicas } = this.sharing;
    const grads = this.optimised.map(({ grad }) => grad);
    gpu.clearAll(grads);
    gpu.clear(this.#lossSum);
    for (const [i, batch] of batches.entries()) {
      // Ranks that share a batch of few groups may have none of it.
      if (batch.rows === 0) continue;
      const device = this.model.upload(batch, attention(batch));
      await this.model.lossAndGradients(device, {
        gradScale: this.state.lossScale / Math.max(1, totalTargets),
        checkpointing,
        offload,
        dropout: { seed, pass: this.state.passes + i * replicas + replica },
        noiseAlpha,
        lossSum: this.#lossSum,
      });
      freeBatch(device);
    }
    return [...grads, this.#lossSum];
  }

  /** Sums gradients and losses over the ranks; of sharded ones each rank gets what it updates. */
  async #sum(): Promise<void> {
    const { gpu } = this;
    const { ranks, wire } = this.#options;
    const grads = this.optimised.map(({ grad }) => grad);
    if (this.#shards) await sumShards(gpu, ranks, grads, this.#shards, wire);
    else await sumOverRanks(gpu, ranks, grads, wire);
    await sumOverRanks(gpu, ranks, [this.#lossSum]);
  }

  /**
   * Clips what {@linkcode Trainer.gradients} computed and lets AdamW update the parameters by it; a gradient that is not
   * finite changes nothing. Waits for the device.
   *
   * @param totalTargets as `gradients` had it
   */
  async update(learningRate: number, totalTargets: number): Promise<StepResult> {
    const { gpu } = this;
    const { maxGradNorm: maxNorm, beta1, beta2, epsilon, weightDecay } = this.#options;
    gpu.memory.at("optimiser");
    const inverseScale = 1 / this.state.lossScale;
    await this.#measure({ maxNorm, inverseScale });
    const adam = { beta1, beta2, epsilon, weightDecay, learningRate, step: this.state.updates + 1 };
    const undecayed = { ...adam, weightDecay: 0 };
    await updateAll(gpu, this.optimised, this.#status, (name) => isDecayed(name) ? adam : undecayed);
    if (this.#shards) {
      const values = this.optimised.map(({ value }) => value);
      await gatherShards(gpu, this.#options.ranks, values, this.#shards);
    }
    const [lossBytes, statusBytes] = await gpu.readBytes([this.#lossSum, this.#status]);
    const status = new Float32Array(statusBytes!.buffer);
    const applied = status[STATUS.isFinite] === 1;
    this.#adaptScale(applied);
    return {
      loss: new Float32Array(lossBytes!.buffer)[0]! / Math.max(1, totalTargets),
      gradNorm: status[STATUS.gradNorm]!,
      applied,
    };
  }

  /** Writes the status of the step: the gradient's norm, and the factor that clips it. */
  async #measure({ maxNorm, inverseScale }: ClipOptions): Promise<void> {
    const { gpu } = this;
    if (!this.#shards) {
      globalNorm(gpu, this.optimised.map(({ grad }) => grad), this.#status, { maxNorm, inverseScale });
      return;
    }
    // Each rank knows the norm of its rows.
    const { ranks } = this.#options;
    const own = this.optimised.flatMap(({ grad, shards }) => sliced(asRows(grad), shards![ranks.rank]!));
    globalNorm(gpu, own, this.#status, { maxNorm: 0, inverseScale });
    const parts = await gather(ranks, await gpu.read(this.#status));
    const norm = Math.hypot(...parts.map((part) => part[STATUS.gradNorm]!));
    const isFinite = parts.every((part) => part[STATUS.isFinite] === 1);
    const status = new Float32Array(STATUS.length);
    status[STATUS.gradNorm] = norm;
    status[STATUS.isFinite] = isFinite ? 1 : 0;
    const clip = maxNorm > 0 ? Math.min(1, maxNorm / (norm + 1e-6)) : 1;
    status[STATUS.gradFactor] = isFinite ? inverseScale * clip : 0;
    gpu.write(this.#status, status);
  }

  /** The 2-norm of all that is trained: alike on ranks that have stayed together. Waits for the device. */
  async parameterNorm(): Promise<number> {
    const status = this.gpu.empty([STATUS.length], "f32", "norm of the parameters");
    globalNorm(this.gpu, this.optimised.map(({ value }) => value), status, { maxNorm: 0, inverseScale: 1 });
    const norm = (await this.gpu.read(status))[STATUS.gradNorm]!;
    status.free();
    return norm;
  }

  /** Counts the update; without one the loss scale shrinks, after enough of them it grows. */
  #adaptScale(applied: boolean): void {
    const { state } = this;
    if (applied) state.updates++;
    if (!this.#options.lossScaling) return;
    state.scaleAge = applied ? state.scaleAge + 1 : 0;
    if (!applied) {
      state.lossScale = Math.max(LOSS_SCALE.min, state.lossScale * LOSS_SCALE.backoff);
    } else if (state.scaleAge === LOSS_SCALE.interval) {
      state.lossScale *= LOSS_SCALE.growth;
      state.scaleAge = 0;
    }
  }
}

/** Of a parameter that other ranks update. */
const NO_STATES: AdamStates = { parts: {}, update: () => Promise.resolve() };

/** The rows of a parameter that a rank updates; undefined if there are none. */
function updatedRows({ name, value, grad }: Parameter, { start, end }: RowRange): Updated | undefined {
  if (start === end) return undefined;
  const rows = (tensor: Tensor) => asRows(tensor).slice(start, end);
  return { name, value: rows(value), grad: rows(grad), wholeSize: value.size };
}
