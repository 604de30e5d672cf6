import { UserError } from "../errors.ts";
import { GpuError } from "../kernels/errors.ts";
import { NO_TOKEN, type Sampling } from "../kernels/sample/sample.ts";
import type { Reading } from "../kernels/transfers.ts";
import type { ModelConfig } from "./model_config.ts";
import { Decoder } from "./decoder.ts";
import type { LanguageModel } from "./language_model.ts";
import { logprobsOf, type TokenLogprob } from "./logprobs.ts";

/** Sampling and its end. Steps of the sampling that are not given are left out. */
export interface GenerateOptions extends Partial<Sampling> {
  /** Most tokens to write, of each sequence; 256 unless given. */
  readonly maxNewTokens?: number;
  /** Tokens that end a sequence; they are part of it. The model's `eos_token_id` unless given. */
  readonly stopIds?: readonly number[];
  /** Steps whose tokens are read at once; as many as take about 50 ms unless given. */
  readonly readEvery?: number;
  /**
   * Tell the logprob of each token, and of this many of the likeliest at its place. Logits are then read back after each
   * step; none unless given.
   */
  readonly topLogprobs?: number | undefined;
  /** Called with each sequence's new tokens as they are read; `logprobs` is empty unless they were asked for. */
  readonly onTokens?: (ids: readonly number[], sequence: number, logprobs: readonly TokenLogprob[]) => void;
  /** Ends the writing after the tokens that are read next. */
  readonly signal?: AbortSignal;
}

/** Draws from all tokens as the model gives them. */
const DEFAULTS: Sampling & Pick<Required<GenerateOptions>, "maxNewTokens"> = {
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  seed: 0,
  maxNewTokens: 256,
};

/** Milliseconds that a reader waits for tokens, and the most steps that are read at once. */
const READ_MS = 50;
const MOST_STEPS = 16;

/**
 * Continues a prompt.
 *
 * @param promptIds one token or more
 * @returns the new tokens; the last is a stop token where one came
 * @throws {UserError} if the prompt or an option is out of range
 * @throws {GpuError} if the model gives logits that are not numbers
 */
export async function generate(
  model: LanguageModel,
  promptIds: ArrayLike<number>,
  options: GenerateOptions = {},
): Promise<number[]> {
  const [ids] = await generateBatch(model, [promptIds], options);
  return ids!;
}

/** {@linkcode generate} for several prompts side by side: each weight is read once for all of them. */
export async function generateBatch(
  model: LanguageModel,
  prompts: readonly ArrayLike<number>[],
  options: GenerateOptions = {},
): Promise<number[][]> {
  const { vocab_size } = model.config;
  for (const prompt of prompts) {
    const wrong = Array.from(prompt).find((id) => !(Number.isInteger(id) && id >= 0 && id < vocab_size));
    if (prompt.length === 0 || wrong !== undefined) {
      throw new UserError(
        prompt.length === 0
          ? "Cannot continue an empty prompt: give it one token at least"
          : `Cannot continue the prompt: its token ${wrong} is not below the model's vocab_size ${vocab_size}`,
        { kind: "usage" },
      );
    }
  }
  const longest = Math.max(...prompts.map(({ length }) => length));
  checkOptions(options);
  const decoder = new Decoder(model, {
    sequences: prompts.length,
    capacity: longest + (options.maxNewTokens ?? DEFAULTS.maxNewTokens),
  });
  try {
    prompts.forEach((prompt, sequence) => decoder.prefill(sequence, prompt));
    return await continueAll(decoder, options);
  } finally {
    decoder.free();
  }
}

/**
 * Continues the sequences of a decoder, all of which were just prefilled, and leaves in it what was written.
 * @returns the new tokens of each sequence
 */
export async function continueAll(decoder: Decoder, options: GenerateOptions = {}): Promise<number[][]> {
  checkOptions(options);
  const { stopIds = endIds(decoder.model.config), onTokens, signal, topLogprobs } = options;
  const written = Array.from({ length: decoder.sequences }, (): number[] => []);
  const done = new Set<number>();
  for await (const steps of drawnTokens(decoder, { ...DEFAULTS, ...options })) {
    written.forEach((ids, sequence) => {
      if (done.has(sequence)) return;
      const drawn = steps.map(({ tokens }) => tokens[sequence]!);
      const stop = drawn.findIndex((id) => stopIds.includes(id));
      const fresh = stop < 0 ? drawn : drawn.slice(0, stop + 1);
      if (fresh.includes(NO_TOKEN)) {
        throw new GpuError(
          "The model gives logits that are not numbers: its weights are damaged, or its format overflows. " +
            "Try bf16 or f32",
        );
      }
      if (stop >= 0) done.add(sequence);
      ids.push(...fresh);
      const logprobs = topLogprobs === undefined
        ? []
        : fresh.map((id, i) => logprobsOf(steps[i]!.logits(sequence), id, topLogprobs));
      onTokens?.(fresh, sequence, logprobs);
    });
    if (done.size === written.length || signal?.aborted) break;
  }
  written.forEach((ids, sequence) => decoder.accept(sequence, ids));
  return written;
}

/** The tokens that end a text by config.json: one, a list, or none. */
export function endIds({ raw: { eos_token_id } }: ModelConfig): number[] {
  return [eos_token_id].flat().filter((id) => typeof id === "number");
}

/** Steps that are recorded, and the read of their tokens; of one step also of its logits, where they are wanted. */
interface Recorded {
  readonly steps: number;
  /** Tokens (steps, sequences) u32, and logits (sequences, V rounded up to a multiple of 4) f32. */
  readonly reading: Reading;
}

/** A step whose tokens were read. */
interface Step {
  /** (sequences) */
  readonly tokens: Uint32Array;
  /** (V) of a sequence, where they were wanted. */
  logits(sequence: number): Float32Array;
}

/**
 * Tokens of all sequences, step by step, as they are read: one step first, then some at a time. The device always has work:
 * while it makes some tokens the host records the next steps, and it gets those as soon as it is done, before the host
 * looks at any token.
 */
async function* drawnTokens(
  decoder: Decoder,
  { maxNewTokens, topLogprobs, ...options }:
    & typeof DEFAULTS
    & Pick<GenerateOptions, "readEvery" | "topLogprobs">,
): AsyncGenerator<Step[]> {
  const { readEvery: given, ...sampling } = options;
  const readEvery = topLogprobs === undefined ? given : 1;
  const { gpu, config: { vocab_size } } = decoder.model;
  const width = 4 * Math.ceil(vocab_size / 4);
  const rows = decoder.sequences;
  let recorded = 0;
  const record = (wanted: number): Recorded | undefined => {
    const steps = Math.min(wanted, maxNewTokens - recorded);
    if (steps === 0) return undefined;
    const drawn = gpu.empty([steps * rows], "u32", "drawn tokens");
    const logits = topLogprobs === undefined ? undefined : gpu.empty([rows, width], "f32", "logits");
    for (let step = 0; step < steps; step++, recorded++) {
      if (recorded > 0) decoder.advance();
      decoder.sample(sampling, drawn, step, logits);
    }
    const reading = gpu.startRead(logits ? [drawn, logits] : [drawn]);
    drawn.free();
    logits?.free();
    return { steps, reading };
  };
  let next = record(1);
  let wanted = readEvery ?? 1;
  let readAt = performance.now();
  try {
    gpu.submit();
    while (next) {
      const { steps, reading }: Recorded = next;
      next = record(wanted);
      const bytesRead = reading.bytes();
      // A failure is thrown where the bytes are awaited, not before.
      bytesRead.catch(() => {});
      gpu.submit();
      const [bytes, logitBytes] = await bytesRead;
      const now = performance.now();
      const inTime = Math.floor(READ_MS * steps / (now - readAt));
      wanted = readEvery ?? Math.max(1, Math.min(MOST_STEPS, 2 * steps, inTime));
      readAt = now;
      const tokens = new Uint32Array(bytes!.buffer);
      yield Array.from({ length: steps }, (_, step) => ({
        tokens: tokens.subarray(step * rows, (step + 1) * rows),
        logits: (sequence) => new Float32Array(logitBytes!.buffer, sequence * width * 4, vocab_size),
      }));
    }
  } finally {
    next?.reading.drop();
  }
}

/** @throws {UserError} naming every option that is out of range */
export function checkOptions(options: GenerateOptions): void {
  const { readEvery = 1, topLogprobs = 0 } = options;
  const { maxNewTokens, temperature, topK, topP, minP, repetitionPenalty, seed } = {
    ...DEFAULTS,
    ...options,
  };
  const problems: string[] = [];
  const demand = (holds: boolean, name: string, value: number, what: string) => {
    if (!holds) problems.push(`${name} must be ${what}, got ${value}`);
  };
  const isWhole = (value: number, least: number) =>
    Number.isInteger(value) && value >= least && value < 2 ** 32;
  demand(isWhole(maxNewTokens, 1), "maxNewTokens", maxNewTokens, "a whole number above 0");
  demand(isWhole(readEvery, 1), "readEvery", readEvery, "a whole number above 0");
  const isTop = isWhole(topLogprobs, 0) && topLogprobs <= 100;
  demand(isTop, "topLogprobs", topLogprobs, "a whole number up to 100");
  const isTemperature = temperature === 0 || (temperature >= 0.01 && temperature <= 100);
  demand(isTemperature, "temperature", temperature, "0, or from 0.01 to 100");
  demand(isWhole(topK, 0), "topK", topK, "a whole number, 0 for all tokens");
  demand(topP >= 0 && topP <= 1, "topP", topP, "from 0 to 1");
  demand(minP >= 0 && minP <= 1, "minP", minP, "from 0 to 1");
  const isPenalty = repetitionPenalty > 0 && repetitionPenalty <= 100;
  demand(isPenalty, "repetitionPenalty", repetitionPenalty, "above 0 and at most 100");
  demand(isWhole(seed, 0), "seed", seed, "a whole number from 0 to 4294967295");
  if (problems.length > 0) throw new UserError(`Cannot generate: ${problems.join("; ")}`, { kind: "usage" });
}
