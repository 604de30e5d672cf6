/** Perplexity of documents by a window that moves on, as Long-LLM's `eval_lm` measures it. */
import { isTokenFile } from "../data/bin.ts";
import { readDocumentTokens } from "../data/tokenize.ts";
import { inRounds } from "../distributed/agreement.ts";
import { ALONE, type Communicator } from "../distributed/communicator.ts";
import { UserError } from "../errors.ts";
import { freeBatch, inParts, makeBatch } from "../model/batch.ts";
import type { WorkHooks } from "../model/hooks.ts";
import type { LanguageModel } from "../model/language_model.ts";
import { requireSameMeasurement } from "./identity.ts";
import { type LoadedModel, type MeasuredModel, notFinite, settleModel } from "./measured_model.ts";

/** Protocol of `eval_lm`, with its defaults. */
export interface StridedOptions {
  /** Tokens in one window; 4,096 unless given. */
  readonly maxLength: number;
  /** Tokens from a window's start to the next's; 0 reads one window of each document. 2,048 unless given. */
  readonly stride: number;
  /** Windows in one forward pass; 1 unless given. */
  readonly batchSize: number;
  /** Documents at most, from the first; 100 unless given. */
  readonly maxSampleNum: number;
  /** Tokens that a document has at least to be read; none unless given. */
  readonly minLength: number;
}

const DEFAULTS: StridedOptions = {
  maxLength: 4096,
  stride: 2048,
  batchSize: 1,
  maxSampleNum: 100,
  minLength: 0,
};

/** A window of a document: tokens from `start` to before `end`, of which those from `first` on are targets. */
export interface StridedWindow {
  readonly start: number;
  readonly end: number;
  readonly first: number;
}

/** Scores of documents. */
export interface StridedScores {
  /** exp of the mean over documents of a document's loss. */
  readonly perplexity: number;
  /** The mean over documents of the mean loss of a document's targets, in nats. */
  readonly loss: number;
  /** exp of the mean loss of all targets of all documents. */
  readonly tokenPerplexity: number;
  readonly numDocuments: number;
  readonly numWindows: number;
  readonly numTokens: number;
}

/** Scores, and how they were measured. */
export interface StridedResult extends StridedScores {
  readonly protocol: StridedOptions & {
    readonly name: "strided";
    readonly attention: "full";
    readonly dataPath: string;
    /** True where every window begins with the beginning-of-text token: where the tokenizer puts one. */
    readonly bos: boolean;
    /** Documents that were left out since they are shorter than `minLength`. */
    readonly tooShort: number;
  };
  readonly model: LoadedModel;
  readonly seconds: number;
  readonly secondsPerWindow: number;
  readonly peakBytes: number;
}

/**
 * Cuts a document into windows: they start at 0, s, 2 s ... and the last ends with the document. What the window before has read
 * is context, the rest is targets.
 *
 * @param length tokens of the document
 * @param maxLength tokens of a window
 * @param stride s; 0 for the first window alone
 */
export function stridedWindows(length: number, maxLength: number, stride: number): StridedWindow[] {
  const windows: StridedWindow[] = [];
  for (let start = 0, first = 0; first < length; start += stride) {
    const end = Math.min(start + maxLength, length);
    windows.push({ start, end, first });
    first = end;
    if (stride === 0) break;
  }
  return windows;
}

/**
 * Scores documents of token ids without special tokens.
 *
 * @param bosId put before every window, of which it takes one place; then a document's first token is a target, too
 * @throws {UserError} if a loss is not finite, or no document has a target
 */
export async function scoreStrided(
  model: LanguageModel,
  documents: readonly ArrayLike<number>[],
  { bosId, ...given }: Partial<StridedOptions> & { readonly bosId?: number | undefined },
  hooks: WorkHooks = {},
  ranks: Communicator = ALONE,
): Promise<StridedScores> {
  const { maxLength, stride, batchSize } = checkStrided({ ...DEFAULTS, ...given });
  const before = bosId === undefined ? [] : [bosId];
  const room = maxLength - before.length;
  if (stride > room) throw tokensLeftOut(stride, room);
  const windows = documents.flatMap((ids, document) =>
    stridedWindows(ids.length, room, stride).map((window) => ({ document, ...window }))
  );
  const loss = new Float64Array(documents.length);
  const targets = new Float64Array(documents.length);
  const score = async (batch: typeof windows) => {
    const sequences = batch.map(({ document, start, end, first }) => {
      const own = Array.prototype.slice.call(documents[document]!, start, end) as number[];
      return {
        inputIds: Uint32Array.from([...before, ...own]),
        labels: Int32Array.from([
          ...before.map(() => -100),
          ...own.map((id, i) => start + i < first ? -100 : id),
        ]),
      };
    });
    const made = makeBatch(sequences);
    const device = model.upload(made);
    const { losses } = await model.predict(device);
    freeBatch(device);
    return batch.map(({ document, start, end, first }, i) => {
      const targetLosses: number[] = [];
      const row = made.starts[i]!;
      // Row r holds the loss of the token behind it; without a token before it a window's first has none.
      for (let position = Math.max(first, start + 1 - before.length); position < end; position++) {
        targetLosses.push(losses[row + before.length + position - start - 1]!);
      }
      if (!targetLosses.every(Number.isFinite)) {
        throw notFinite(`document ${document + 1}'s window at token ${start}`, model);
      }
      return { document, targetLosses };
    });
  };
  let done = 0;
  for await (const { result } of inRounds(ranks, inParts(windows, batchSize), score)) {
    for (const { document, targetLosses } of result) {
      for (const each of targetLosses) loss[document]! += each;
      targets[document]! += targetLosses.length;
    }
    done += result.length;
    hooks.onProgress?.(done, windows.length);
  }
  const scored = [...targets.keys()].filter((document) => targets[document]! > 0);
  if (scored.length === 0) {
    throw new UserError("Cannot measure perplexity: no document has a token that is predicted from another");
  }
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  const numTokens = sum([...targets]);
  const mean = sum(scored.map((document) => loss[document]! / targets[document]!)) / scored.length;
  return {
    perplexity: Math.exp(mean),
    loss: mean,
    tokenPerplexity: Math.exp(sum([...loss]) / numTokens),
    numDocuments: scored.length,
    numWindows: windows.length,
    numTokens,
  };
}

/** @throws {UserError} naming the option that cannot be */
function checkStrided(options: StridedOptions): StridedOptions {
  const { maxLength, stride, batchSize } = options;
  const refuse = (what: string) => new UserError(what, { kind: "usage" });
  if (!(Number.isInteger(maxLength) && maxLength >= 2)) {
    throw refuse(`seq_len must be a whole number of at least 2, got ${maxLength}`);
  }
  if (!(Number.isInteger(stride) && stride >= 0)) {
    throw refuse(`sliding_window must be a whole number of at least 0, got ${stride}`);
  }
  if (stride > maxLength) throw tokensLeftOut(stride, maxLength);
  if (!(Number.isInteger(batchSize) && batchSize >= 1)) {
    throw refuse(`batch_size must be a whole number of at least 1, got ${batchSize}`);
  }
  return options;
}

function tokensLeftOut(stride: number, room: number): UserError {
  return new UserError(
    `sliding_window ${stride} is more than the ${room} tokens of text in a window: what is between would be left out`,
    { kind: "usage" },
  );
}

/**
 * Loads a model and measures the perplexity of documents: text, rows, or a folder of them. Attention is full. The first
 * `maxSampleNum` documents are read; Long-LLM's script takes the last ones.
 *
 * @throws {UserError} if a file is missing or damaged, the data does not tell its documents, or losses are not finite
 */
export async function evaluateStrided(
  options: MeasuredModel & Partial<StridedOptions> & { readonly dataPath: string },
  hooks: WorkHooks = {},
): Promise<StridedResult> {
  const { dataPath } = options;
  const { maxLength, stride, batchSize, maxSampleNum, minLength } = checkStrided({ ...DEFAULTS, ...options });
  if (isTokenFile(dataPath)) {
    throw new UserError(
      `Cannot use "${dataPath}" by this protocol: a token file does not tell where documents end. Name their text`,
      { kind: "usage" },
    );
  }
  const settled = await settleModel(options, maxLength);
  const tokenizer = await settled.loadTokenizer(hooks);
  const documents: ArrayLike<number>[] = [];
  let tooShort = 0;
  const note = (line: string) => hooks.note?.(line);
  const reading = { bos: false, eos: false, vocabSize: settled.vocabSize, note };
  for await (const ids of readDocumentTokens(dataPath, tokenizer, reading)) {
    if (ids.length < Math.max(1, minLength)) tooShort++;
    else if (documents.push(ids) === maxSampleNum) break;
  }
  if (documents.length === 0) {
    throw new UserError(
      `Cannot use "${dataPath}": none of its documents has ${minLength} tokens, as min_length asks`,
    );
  }
  const [bosId] = tokenizer.lackingBefore([]);
  await requireSameMeasurement(options, { maxLength, stride, batchSize, minLength }, documents);
  using opened = await settled.open(hooks);
  const started = performance.now();
  const scores = await scoreStrided(
    opened.model,
    documents,
    { maxLength, stride, batchSize, bosId },
    hooks,
    options.ranks,
  );
  const seconds = (performance.now() - started) / 1000;
  return {
    ...scores,
    protocol: {
      name: "strided",
      maxLength,
      stride,
      batchSize,
      maxSampleNum,
      minLength,
      attention: "full",
      dataPath,
      bos: bosId !== undefined,
      tooShort,
    },
    model: opened.loaded,
    seconds,
    secondsPerWindow: seconds / scores.numWindows,
    peakBytes: opened.gpu.memory.peakBytes,
  };
}
