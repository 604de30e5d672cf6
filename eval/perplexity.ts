/** Perplexity over sliding windows, as LongLoRA's and LongQLoRA's evaluation scripts measure it. */
import { readTokens } from "../data/tokenize.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import { describePlaces, tokenizerPlaces } from "../data/tokenizer_files.ts";
import { readExtraShapes } from "../checkpoint/peft.ts";
import { UserError } from "../errors.ts";
import { Gpu } from "../kernels/gpu.ts";
import { isNf4 } from "../kernels/nf4/nf4.ts";
import type { Format } from "../kernels/wgsl.ts";
import { freeBatch, makeBatch } from "../model/batch.ts";
import { contextLength, type ModelConfig, readConfig, type RopeScaling } from "../model/config.ts";
import { settleContext } from "../model/context.ts";
import { otherBaseNote } from "../model/fingerprint.ts";
import { SILENT, type WorkHooks } from "../model/hooks.ts";
import type { LanguageModel } from "../model/language_model.ts";
import { tableNotes } from "../model/model_weights.ts";
import { openModel } from "../model/open.ts";
import { withVocabularyOf } from "../model/vocabulary.ts";
import { windowStarts } from "./windows.ts";

/** How windows are cut and batched. */
export interface WindowOptions {
  /** L: tokens in one window. */
  readonly seq_len: number;
  /** Tokens between the starts of two windows. */
  readonly sliding_window: number;
  /** Windows in one forward pass. */
  readonly batch_size: number;
  /** Leave the last window out, as the single-process scripts of LongLoRA and LongQLoRA do. */
  readonly drop_last_window: boolean;
}

export interface PerplexityOptions extends WindowOptions {
  /** Folder of the model. */
  readonly base_model: string;
  /** Folder of an adapter on top of it. */
  readonly peft_model?: string | null | undefined;
  /** Data: a token file (`.bin`, see data/bin.ts), or text in any form that {@linkcode readTokens} tokenizes. */
  readonly data_path: string;
  /**
   * Context the positions are scaled for, in tokens. Unless given: the model's own without an adapter; with one, what it
   * was trained for where its train_args.yaml says it, else `seq_len`.
   */
  readonly context_size?: number | null | undefined;
  /** Quantise the base to NF4 while loading. */
  readonly load_in_4bit: boolean;
  /** Precision of activations; sums are f32 in any case. */
  readonly dtype: "fp32" | "bf16" | "fp16";
}

/** What the windows gave. Losses are in nats per token; means over batches are unweighted, as in the originals. */
export interface WindowScores {
  /** Mean over batches of the batch's mean loss over its B (L - 1) targets. */
  readonly val_loss: number;
  /** exp(val_loss); the originals write 2.71828 for e. */
  readonly val_perplexity: number;
  /** Mean over batches of the share of all B L positions whose likeliest next token is the data's. */
  readonly val_acc: number;
  /** exp of the mean loss of each chunk of a window; a window of L tokens is one chunk. */
  readonly val_perplexity_per_chunk: readonly number[];
  /** Mean over all targets of all windows: differs from `val_loss` only where the last batch is short. */
  readonly token_loss: number;
  readonly token_perplexity: number;
  /** Mean over all positions of all windows. */
  readonly token_accuracy: number;
  readonly num_windows: number;
  /** Targets scored: L - 1 a window. */
  readonly num_tokens: number;
}

/** What was loaded. */
export interface LoadedModel {
  readonly base_model: string;
  readonly peft_model: string | null;
  readonly dtype: "fp32" | "bf16" | "fp16";
  /** Where the linears' 4 bits come from, or that they have more. */
  readonly quantized: "no" | "while loading" | "by the checkpoint";
  /** Tokens that the positions in force are made for. */
  readonly context_size: number;
  readonly rope_scaling: RopeScaling | null;
  readonly rope_theta: number;
}

export interface PerplexityResult extends WindowScores {
  readonly protocol: WindowOptions & {
    readonly attention: "full";
    readonly data_path: string;
    /** Tokens in the data. */
    readonly data_tokens: number;
    /** Documents that were tokenized, each between the tokenizer's own beginning and end of text; null for a token file. */
    readonly documents: number | null;
  };
  readonly model: LoadedModel;
  /** Loading left out. */
  readonly seconds: number;
  /** Most bytes on the GPU at once. */
  readonly peak_bytes: number;
}

const FORMATS: Readonly<Record<PerplexityOptions["dtype"], Format>> = {
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
  hooks: WorkHooks = SILENT,
): Promise<PerplexityResult> {
  const { base_model, data_path, seq_len, sliding_window, batch_size, drop_last_window, dtype } = options;
  const peft_model = options.peft_model ?? null;
  const base = await readConfig(base_model);
  const { config, notes } = await settleContext(base, {
    peftModel: peft_model,
    contextSize: options.context_size,
    otherwise: peft_model === null ? undefined : seq_len,
  });
  const { tokens, documents } = await readTokens(data_path, {
    tokenizer: async () => {
      const places = peft_model === null ? undefined : await tokenizerPlaces(base_model, peft_model);
      const note = places && describePlaces(places, peft_model!);
      if (note) hooks.note(note);
      return await Tokenizer.load(base_model, peft_model ?? undefined);
    },
    vocabSize: withVocabularyOf(config, peft_model === null ? undefined : await readExtraShapes(peft_model))
      .vocab_size,
  });
  checkWindows(tokens.length, options);
  const otherBase = peft_model === null ? undefined : await otherBaseNote(peft_model, base_model);
  if (otherBase !== undefined) hooks.note(otherBase);
  [...notes, ...await tableNotes(base_model, base)].forEach((line) => hooks.note(line));
  const longest = contextLength(config);
  const own = contextLength(base);
  if (peft_model === null && longest !== own) {
    hooks.note(
      `Positions are changed for ${longest} tokens, as context_size asks; the model is made for ${own}: ` +
        `leave context_size out to measure it as it is`,
    );
  }
  if (seq_len > longest && config.rope_scaling?.type !== "dynamic") {
    hooks.note(
      `seq_len ${seq_len} is longer than the ${longest} tokens that positions are made for, and they stay so: ` +
        `pass context_size ${seq_len} for positions scaled to it, or lower seq_len`,
    );
  }
  using gpu = await Gpu.open();
  const { model, notes: ofAdapter } = await openModel(gpu, {
    baseModel: base_model,
    ...(peft_model === null ? {} : { peftModel: peft_model }),
    config,
    loadIn4bit: options.load_in_4bit,
    format: FORMATS[dtype],
    onProgress: (tensor, done, total) => hooks.onLoad?.(done, total, tensor),
  });
  ofAdapter.forEach((line) => hooks.note(line));
  const started = performance.now();
  const scores = await scoreWindows(model, tokens, options, hooks);
  return {
    ...scores,
    protocol: {
      seq_len,
      sliding_window,
      batch_size,
      drop_last_window,
      attention: "full",
      data_path,
      data_tokens: tokens.length,
      documents,
    },
    model: {
      base_model,
      peft_model,
      dtype,
      quantized: quantisationOf(model, config, options.load_in_4bit),
      context_size: longest,
      rope_scaling: config.rope_scaling,
      rope_theta: config.rope_theta,
    },
    seconds: (performance.now() - started) / 1000,
    peak_bytes: gpu.peakBytes,
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
  options: WindowOptions,
  hooks: WorkHooks = SILENT,
): Promise<WindowScores> {
  const { seq_len, batch_size } = options;
  const starts = checkWindows(tokens.length, options);
  const targets = seq_len - 1;
  const sums = { batchLoss: 0, batchAccuracy: 0, loss: 0, hits: 0 };
  let batches = 0;
  for (let at = 0; at < starts.length; at += batch_size) {
    const windows = starts.slice(at, at + batch_size);
    const { loss, hits } = await scoreBatch(model, tokens, windows, seq_len);
    sums.batchLoss += loss / (windows.length * targets);
    sums.batchAccuracy += hits / (windows.length * seq_len);
    sums.loss += loss;
    sums.hits += hits;
    batches++;
    const done = at + windows.length;
    hooks.onProgress(
      done,
      starts.length,
      `perplexity ${Math.exp(sums.loss / (done * targets)).toPrecision(5)}`,
    );
  }
  const val_loss = sums.batchLoss / batches;
  const token_loss = sums.loss / (starts.length * targets);
  return {
    val_loss,
    val_perplexity: Math.exp(val_loss),
    val_acc: sums.batchAccuracy / batches,
    val_perplexity_per_chunk: [Math.exp(val_loss)],
    token_loss,
    token_perplexity: Math.exp(token_loss),
    token_accuracy: sums.hits / (starts.length * seq_len),
    num_windows: starts.length,
    num_tokens: starts.length * targets,
  };
}

/** The windows' starts. @throws {UserError} if they cannot be cut */
function checkWindows(numTokens: number, options: WindowOptions): number[] {
  const { seq_len, sliding_window, batch_size, drop_last_window } = options;
  for (const [name, value, least] of [["seq_len", seq_len, 2], ["batch_size", batch_size, 1]] as const) {
    if (!(Number.isInteger(value) && value >= least)) {
      throw new UserError(`${name} must be a whole number of at least ${least}, got ${value}`, {
        exitCode: 2,
      });
    }
  }
  return windowStarts(numTokens, seq_len, sliding_window, { dropLastWindow: drop_last_window });
}

/** Summed loss of the windows' targets, and how many of all positions were predicted. */
async function scoreBatch(
  model: LanguageModel,
  tokens: Uint32Array,
  starts: readonly number[],
  length: number,
): Promise<{ loss: number; hits: number }> {
  const windows = starts.map((start) => ({ inputIds: tokens.subarray(start, start + length) }));
  const device = model.upload(makeBatch(windows));
  const { losses, argmax } = await model.predict(device);
  freeBatch(device);
  const loss = losses.reduce((sum, value) => sum + value, 0);
  if (!Number.isFinite(loss)) {
    const window = Math.floor(losses.findIndex((value) => !Number.isFinite(value)) / length);
    throw new UserError(
      `Cannot measure perplexity: the loss of the window at token ${starts[window]} is not finite. ` +
        `The weights are damaged, or their values too large for fp16: use --dtype fp32 or bf16`,
    );
  }
  let hits = 0;
  starts.forEach((start, window) => {
    for (let i = 0; i < length; i++) if (argmax[window * length + i] === tokens[start + 1 + i]) hits++;
  });
  return { loss, hits };
}

function quantisationOf(
  model: LanguageModel,
  { raw }: ModelConfig,
  loadIn4bit: boolean,
): LoadedModel["quantized"] {
  if (!model.linears().some(({ weight }) => isNf4(weight))) return "no";
  return loadIn4bit && raw.quantization_config === undefined ? "while loading" : "by the checkpoint";
}
