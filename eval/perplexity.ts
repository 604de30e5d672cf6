/** Perplexity over sliding windows, as LongLoRA's and LongQLoRA's evaluation scripts measure it. */
import { readTokens } from "../data/tokenize.ts";
import { gather, inRounds } from "../distributed/agreement.ts";
import { ALONE, type Communicator } from "../distributed/communicator.ts";
import { UserError } from "../errors.ts";
import { freeBatch, inParts, makeBatch } from "../model/batch.ts";
import type { WorkHooks } from "../model/hooks.ts";
import type { LanguageModel } from "../model/language_model.ts";
import { requireSameMeasurement } from "./identity.ts";
import { type LoadedModel, type MeasuredModel, notFinite, settleModel } from "./measured_model.ts";
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
export interface PerplexityOptions extends Partial<WindowOptions>, MeasuredModel {
  /** Data: a token file (`.bin`, see data/bin.ts), or text in any form that {@linkcode readTokens} tokenizes. */
  readonly dataPath: string;
  /** Segments that a window is cut into, for perplexity by position; 4 unless given. */
  readonly segments?: number;
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
  /** Mean over all targets: without the token behind each window's last, as LongLoRA's `eval_distributed.py` counts. */
  readonly targetAccuracy: number;
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

/** Segments that a window is cut into, unless others are asked for. */
const SEGMENTS = 4;

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
  const { dataPath } = options;
  const windows = { ...DEFAULT_WINDOWS, ...options };
  const { seqLen, slidingWindow, batchSize, dropLastWindow } = windows;
  const settled = await settleModel(options, seqLen);
  const { tokens, documents } = await readTokens(dataPath, {
    tokenizer: () => settled.loadTokenizer(hooks),
    vocabSize: settled.vocabSize,
    note: (line) => hooks.note?.(line),
  });
  checkWindows(tokens.length, windows);
  await requireSameMeasurement(options, { seqLen, slidingWindow, batchSize, dropLastWindow }, [tokens]);
  using opened = await settled.open(hooks);
  const { model, loaded, gpu } = opened;
  const started = performance.now();
  const scores = await scoreWindows(model, tokens, windows, hooks, options.ranks);
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
    model: loaded,
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
  given: Partial<WindowOptions> & Pick<PerplexityOptions, "segments"> = {},
  hooks: WorkHooks = {},
  ranks: Communicator = ALONE,
): Promise<WindowScores> {
  const options = { ...DEFAULT_WINDOWS, ...given };
  const { segments = SEGMENTS } = given;
  const { seqLen, batchSize } = options;
  const starts = checkWindows(tokens.length, options);
  const targets = seqLen - 1;
  const sums = { batchLoss: 0, batchAccuracy: 0, loss: 0, hits: 0, targetHits: 0 };
  // Summed loss of the target at each position; that of the first is none.
  const byPosition = new Float64Array(seqLen);
  let [batches, done] = [0, 0];
  const scored = inRounds(
    ranks,
    inParts(starts, batchSize),
    (windows) => scoreBatch(model, tokens, windows, byPosition),
  );
  for await (const { item: windows, result: { loss, hits, targetHits } } of scored) {
    sums.batchLoss += loss / (windows.length * targets);
    sums.batchAccuracy += hits / (windows.length * seqLen);
    sums.loss += loss;
    sums.hits += hits;
    sums.targetHits += targetHits;
    batches++;
    done += windows.length;
    hooks.onProgress?.(
      done,
      starts.length,
      `perplexity ${Math.exp(sums.loss / (done * targets)).toPrecision(5)}`,
    );
  }
  const byRank = await gather(ranks, byPosition);
  const lossAt = byPosition.map((_, i) => byRank.reduce((sum, losses) => sum + losses[i]!, 0));
  const valLoss = sums.batchLoss / batches;
  const tokenLoss = sums.loss / (starts.length * targets);
  return {
    valLoss,
    valPerplexity: Math.exp(valLoss),
    valAcc: sums.batchAccuracy / batches,
    valPerplexityPerChunk: [Math.exp(valLoss)],
    tokenLoss,
    tokenPerplexity: Math.exp(tokenLoss),
    byPosition: segmentsOf(lossAt, starts.length, segments),
    tokenAccuracy: sums.hits / (starts.length * seqLen),
    targetAccuracy: sums.targetHits / (starts.length * targets),
    numWindows: starts.length,
    numTokens: starts.length * targets,
  };
}

/** Perplexity over each segment of the positions, from losses that are summed over windows. */
function segmentsOf(sums: Float64Array, windows: number, segments: number): PositionScore[] {
  const ends = Array.from({ length: segments + 1 }, (_, i) => Math.round(i * sums.length / segments));
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
 * Summed loss of the windows' targets, and how many of all positions, and of the targets, were predicted.
 * @param byPosition gets the loss of each target added at its position in the window
 */
async function scoreBatch(
  model: LanguageModel,
  tokens: Uint32Array,
  starts: readonly number[],
  byPosition: Float64Array,
): Promise<{ loss: number; hits: number; targetHits: number }> {
  const { length } = byPosition;
  const windows = starts.map((start) => ({ inputIds: tokens.subarray(start, start + length) }));
  const device = model.upload(makeBatch(windows));
  const { losses, argmax } = await model.predict(device);
  freeBatch(device);
  const loss = losses.reduce((sum, value) => sum + value, 0);
  if (!Number.isFinite(loss)) {
    const window = Math.floor(losses.findIndex((value) => !Number.isFinite(value)) / length);
    throw notFinite(`the window at token ${starts[window]}`, model);
  }
  let [hits, targetHits] = [0, 0];
  starts.forEach((start, window) => {
    for (let i = 0; i < length; i++) {
      const isHit = argmax[window * length + i] === tokens[start + 1 + i];
      if (isHit) hits++;
      if (isHit && i + 1 < length) targetHits++;
      if (i + 1 < length) byPosition[i + 1]! += losses[window * length + i]!;
    }
  });
  return { loss, hits, targetHits };
}
