/** Perplexity over sliding windows, as LongLoRA's and LongQLoRA's evaluation scripts measure it. */
import { readTokens } from "../data/tokenize.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import { describePlaces, tokenizerPlaces } from "../data/tokenizer_files.ts";
import { readExtraShapes } from "../checkpoint/peft.ts";
import { UserError } from "../errors.ts";
import { Gpu, type GpuOptions } from "../kernels/gpu.ts";
import type { Quantisation } from "../kernels/quantisation.ts";
import { Tensor } from "../kernels/tensor.ts";
import type { Format } from "../kernels/wgsl.ts";
import { freeBatch, makeBatch } from "../model/batch.ts";
import { contextLength } from "../model/positions.ts";
import { readConfig } from "../model/config.ts";
import type { ModelConfig } from "../model/model_config.ts";
import type { RopeScaling } from "../model/rope_scaling.ts";
import { settleContext } from "../model/context.ts";
import { otherBaseNote } from "../model/load/fingerprint.ts";
import type { WorkHooks } from "../model/hooks.ts";
import type { LanguageModel } from "../model/language_model.ts";
import { tableNotes } from "../model/load/model_weights.ts";
import { openModel } from "../model/load/open.ts";
import { withVocabularyOf } from "../model/load/vocabulary.ts";
import { windowStarts } from "./windows.ts";

/** Protocol of the windows: their length, step and batches. */
export interface WindowOptions {
  /** L: tokens in one window. */
  readonly seqLen: number;
  /** Tokens between the starts of two windows. */
  readonly slidingWindow: number;
  /** Windows in one forward pass. */
  readonly batchSize: number;
  /** Leave the last window out, as the single-process scripts of LongLoRA and LongQLoRA do. */
  readonly dropLastWindow: boolean;
}

/** Options of {@linkcode evaluatePerplexity}. Defaults are LongLoRA's, but for `batchSize` (32 there) and `dtype` (fp16 there). */
export interface PerplexityOptions extends Partial<WindowOptions> {
  /** Folder of the model. */
  readonly baseModel: string;
  /** Folder of an adapter on top of it. */
  readonly peftModel?: string | null | undefined;
  /** Data: a token file (`.bin`, see data/bin.ts), or text in any form that {@linkcode readTokens} tokenizes. */
  readonly dataPath: string;
  /**
   * Context the positions are scaled for, in tokens. Unless given: the model's own without an adapter; with one, what it
   * was trained for where its train_args.yaml says it, else `seqLen`.
   */
  readonly contextSize?: number | null | undefined;
  /** What the base's linears are quantised to while loading; "none" unless given. */
  readonly quantisation?: Quantisation;
  /** Precision of activations, fp32 unless given; sums are f32 in any case. */
  readonly dtype?: "fp32" | "bf16" | "fp16";
  /** Options of the device; its defaults unless given. */
  readonly gpuOptions?: GpuOptions;
}

/** Windows unless others are asked for. */
const DEFAULT_WINDOWS: WindowOptions = {
  seqLen: 2048,
  slidingWindow: 256,
  batchSize: 1,
  dropLastWindow: true,
};

/** Scores over all windows. Losses are in nats per token; means over batches are unweighted, as in the originals. */
export interface WindowScores {
  /** Mean over batches of the batch's mean loss over its B (L - 1) targets. */
  readonly valLoss: number;
  /** exp(valLoss); the originals write 2.71828 for e. */
  readonly valPerplexity: number;
  /** Mean over batches of the share of all B L positions whose likeliest next token is the data's. */
  readonly valAcc: number;
  /** exp of the mean loss of each chunk of a window; a window of L tokens is one chunk. */
  readonly valPerplexityPerChunk: readonly number[];
  /** Mean over all targets of all windows: differs from `valLoss` only where the last batch is short. */
  readonly tokenLoss: number;
  /** exp(tokenLoss). */
  readonly tokenPerplexity: number;
  /** The same by where in its window a target stands: what a long context is good for shows at its end. */
  readonly byPosition: readonly PositionScore[];
  /** Mean over all positions of all windows. */
  readonly tokenAccuracy: number;
  /** Windows scored. */
  readonly numWindows: number;
  /** Targets scored: L - 1 a window. */
  readonly numTokens: number;
}

/** Targets of one segment of the windows. */
export interface PositionScore {
  /** Positions in the window, the first token being 0. */
  readonly from: number;
  /** The position after its last. */
  readonly to: number;
  /** exp of the mean loss of its targets. */
  readonly perplexity: number;
}

/** Segments that a window is cut into. */
const SEGMENTS = 4;

/** The model that was measured. */
export interface LoadedModel {
  /** Folder of the base model. */
  readonly baseModel: string;
  /** Folder of the adapter, if there is one. */
  readonly peftModel: string | null;
  /** Precision of activations. */
  readonly dtype: "fp32" | "bf16" | "fp16";
  /** Origin of the linears' 4 bits; "no" where they have more. */
  readonly quantized: "no" | "while loading" | "by the checkpoint";
  /** Tokens that the positions in force are made for. */
  readonly contextSize: number;
  /** Scaling of the positions in force. */
  readonly ropeScaling: RopeScaling | null;
  /** RoPE base in force. */
  readonly ropeTheta: number;
}

/** Scores, and how they were measured. */
export interface PerplexityResult extends WindowScores {
  /** Protocol and data. */
  readonly protocol: WindowOptions & {
    /** Whatever the model was trained with. */
    readonly attention: "full";
    /** As it was given. */
    readonly dataPath: string;
    /** Tokens in the data. */
    readonly dataTokens: number;
    /** Documents that were tokenized, each between the tokenizer's own beginning and end of text; null for a token file. */
    readonly documents: number | null;
  };
  /** The measured model. */
  readonly model: LoadedModel;
  /** Loading left out. */
  readonly seconds: number;
  /** Most bytes on the GPU at once. */
  readonly peakBytes: number;
}

const FORMATS: Readonly<Record<LoadedModel["dtype"], Format>> = {
  fp32: "f32",
  bf16: "bf16",
  fp16: "f16",
};

/**
 * Loads a model and measures its perplexity on data. Attention is full, whatever the model was trained with.
 *
 * @throws {UserError} if a file is missing or damaged, a token id is not the model's, no window fits into the data, or
 *   losses are not finite
 */
export async function evaluatePerplexity(
  options: PerplexityOptions,
  hooks: WorkHooks = {},
): Promise<PerplexityResult> {
  const { baseModel, dataPath, dtype = "fp32", quantisation = "none" } = options;
  const windows = { ...DEFAULT_WINDOWS, ...options };
  const { seqLen, slidingWindow, batchSize, dropLastWindow } = windows;
  const peftModel = options.peftModel ?? null;
  const base = await readConfig(baseModel);
  const { config, notes } = await settleContext(base, {
    peftModel,
    contextSize: options.contextSize,
    otherwise: peftModel === null ? undefined : seqLen,
  });
  const { tokens, documents } = await readTokens(dataPath, {
    tokenizer: async () => {
      const places = peftModel === null ? undefined : await tokenizerPlaces(baseModel, peftModel);
      const note = places && describePlaces(places, peftModel!);
      if (note) hooks.note?.(note);
      return await Tokenizer.load(baseModel, peftModel ?? undefined);
    },
    vocabSize: withVocabularyOf(config, peftModel === null ? undefined : await readExtraShapes(peftModel))
      .vocab_size,
    note: (line) => hooks.note?.(line),
  });
  checkWindows(tokens.length, windows);
  const otherBase = peftModel === null ? undefined : await otherBaseNote(peftModel, baseModel);
  if (otherBase !== undefined) hooks.note?.(otherBase);
  [...notes, ...await tableNotes(baseModel, base)].forEach((line) => hooks.note?.(line));
  const longest = contextLength(config);
  const own = contextLength(base);
  if (peftModel === null && longest !== own) {
    hooks.note?.(
      `Positions are changed for ${longest} tokens, as context_size asks; the model is made for ${own}: ` +
        `leave context_size out to measure it as it is`,
    );
  }
  if (seqLen > longest && config.rope_scaling?.type !== "dynamic") {
    hooks.note?.(
      `seq_len ${seqLen} is longer than the ${longest} tokens that positions are made for, and they stay so: ` +
        `pass context_size ${seqLen} for positions scaled to it, or lower seq_len`,
    );
  }
  using gpu = await Gpu.open(options.gpuOptions);
  const { model, notes: ofAdapter } = await openModel(gpu, {
    baseModel,
    ...(peftModel === null ? {} : { peftModel }),
    config,
    quantisation,
    format: FORMATS[dtype],
    onProgress: (tensor, done, total) => hooks.onLoad?.(done, total, tensor),
  });
  ofAdapter.forEach((line) => hooks.note?.(line));
  const started = performance.now();
  const scores = await scoreWindows(model, tokens, windows, hooks);
  return {
    ...scores,
    protocol: {
      seqLen,
      slidingWindow,
      batchSize,
      dropLastWindow,
      attention: "full",
      dataPath,
      dataTokens: tokens.length,
      documents,
    },
    model: {
      baseModel,
      peftModel,
      dtype,
      quantized: whenQuantised(model, config, quantisation),
      contextSize: longest,
      ropeScaling: config.rope_scaling,
      ropeTheta: config.rope_theta,
    },
    seconds: (performance.now() - started) / 1000,
    peakBytes: gpu.memory.peakBytes,
  };
}

/**
 * Runs a model over the windows of `tokens`: every position of every window is scored, so short contexts count too.
 * The first token of a window is never a target; the token after its last counts for accuracy alone.
 *
 * @throws {UserError} if no window fits, or a loss is not finite
 */
export async function scoreWindows(
  model: LanguageModel,
  tokens: Uint32Array,
  given: Partial<WindowOptions> = {},
  hooks: WorkHooks = {},
): Promise<WindowScores> {
  const options = { ...DEFAULT_WINDOWS, ...given };
  const { seqLen, batchSize } = options;
  const starts = checkWindows(tokens.length, options);
  const targets = seqLen - 1;
  const sums = { batchLoss: 0, batchAccuracy: 0, loss: 0, hits: 0 };
  // Summed loss of the target at each position; that of the first is none.
  const byPosition = new Float64Array(seqLen);
  let batches = 0;
  for (let at = 0; at < starts.length; at += batchSize) {
    const windows = starts.slice(at, at + batchSize);
    const { loss, hits } = await scoreBatch(model, tokens, windows, byPosition);
    sums.batchLoss += loss / (windows.length * targets);
    sums.batchAccuracy += hits / (windows.length * seqLen);
    sums.loss += loss;
    sums.hits += hits;
    batches++;
    const done = at + windows.length;
    hooks.onProgress?.(
      done,
      starts.length,
      `perplexity ${Math.exp(sums.loss / (done * targets)).toPrecision(5)}`,
    );
  }
  const valLoss = sums.batchLoss / batches;
  const tokenLoss = sums.loss / (starts.length * targets);
  return {
    valLoss,
    valPerplexity: Math.exp(valLoss),
    valAcc: sums.batchAccuracy / batches,
    valPerplexityPerChunk: [Math.exp(valLoss)],
    tokenLoss,
    tokenPerplexity: Math.exp(tokenLoss),
    byPosition: segmentsOf(byPosition, starts.length),
    tokenAccuracy: sums.hits / (starts.length * seqLen),
    numWindows: starts.length,
    numTokens: starts.length * targets,
  };
}

/** Perplexity over each segment of the positions, from losses that are summed over windows. */
function segmentsOf(sums: Float64Array, windows: number): PositionScore[] {
  const ends = Array.from({ length: SEGMENTS + 1 }, (_, i) => Math.round(i * sums.length / SEGMENTS));
  return ends.slice(1).flatMap((to, i) => {
    const from = Math.max(1, ends[i]!);
    if (to <= from) return [];
    const loss = sums.subarray(from, to).reduce((sum, value) => sum + value, 0);
    return [{ from, to, perplexity: Math.exp(loss / ((to - from) * windows)) }];
  });
}

/** The windows' starts. @throws {UserError} if they cannot be cut */
function checkWindows(numTokens: number, options: WindowOptions): number[] {
  const { seqLen, slidingWindow, batchSize, dropLastWindow } = options;
  for (const [name, value, least] of [["seq_len", seqLen, 2], ["batch_size", batchSize, 1]] as const) {
    if (!(Number.isInteger(value) && value >= least)) {
      throw new UserError(`${name} must be a whole number of at least ${least}, got ${value}`, {
        kind: "usage",
      });
    }
  }
  return windowStarts(numTokens, seqLen, slidingWindow, { dropLastWindow });
}

/**
 * Summed loss of the windows' targets, and how many of all positions were predicted.
 * @param byPosition gets the loss of each target added at its position in the window
 */
async function scoreBatch(
  model: LanguageModel,
  tokens: Uint32Array,
  starts: readonly number[],
  byPosition: Float64Array,
): Promise<{ loss: number; hits: number }> {
  const { length } = byPosition;
  const windows = starts.map((start) => ({ inputIds: tokens.subarray(start, start + length) }));
  const device = model.upload(makeBatch(windows));
  const { losses, argmax } = await model.predict(device);
  freeBatch(device);
  const loss = losses.reduce((sum, value) => sum + value, 0);
  if (!Number.isFinite(loss)) {
    const window = Math.floor(losses.findIndex((value) => !Number.isFinite(value)) / length);
    throw new UserError(
      `Cannot measure perplexity: the loss of the window at token ${starts[window]} is not finite. ` +
        (model.parts.format === "f16"
          ? "The weights are damaged, or their values too large for fp16: use --dtype fp32 or bf16"
          : "The weights, or the adapter's, are damaged or were saved from a diverged run: use another copy"),
    );
  }
  let hits = 0;
  starts.forEach((start, window) => {
    for (let i = 0; i < length; i++) {
      if (argmax[window * length + i] === tokens[start + 1 + i]) hits++;
      if (i + 1 < length) byPosition[i + 1]! += losses[window * length + i]!;
    }
  });
  return { loss, hits };
}

function whenQuantised(
  model: LanguageModel,
  { raw }: ModelConfig,
  quantisation: Quantisation,
): LoadedModel["quantized"] {
  if (model.linears().every(({ weight }) => weight instanceof Tensor)) return "no";
  return quantisation !== "none" && raw.quantization_config === undefined
    ? "while loading"
    : "by the checkpoint";
}
