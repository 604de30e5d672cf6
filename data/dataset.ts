/** Training files to samples of token ids. What is cut, left out or packed is counted and reported, never silent. */
import { quoteNames } from "../text.ts";
import { UserError } from "../errors.ts";
import { isTokenFile, readTokenBin } from "./bin.ts";
import { type EncodedRow, NO_TARGET, type TemplateChoice, templateReader, textRow } from "./encode.ts";
import { encodeRows } from "./encode_pool.ts";
import { countTargets, packStream, packWhole } from "./packing.ts";
import { type DataPreview, previewData } from "./preview.ts";
import { Random } from "./random.ts";
import { cachedRows, type RowCache, rowsKey } from "./row_cache.ts";
import { type PlacedRow, readRows, type RowReading } from "./rows.ts";
import type { Sample } from "./sample.ts";
import type { DataSource } from "./sources.ts";
import { spelledMarks, UnknownTokens } from "./spelling.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { UnusedKeys } from "./unused_keys.ts";

/** Counts of what became of the rows of all files. */
export interface DatasetReport {
  /** Rows of all files. */
  readonly rows: number;
  /** Rows that became samples, or parts of packed ones. */
  readonly kept: number;
  /** Rows that lost tokens at `maxSeqLength`, kept or not. */
  readonly truncated: number;
  /** Tokens that they lost. */
  readonly tokensLost: number;
  /** Tokens of all rows. */
  readonly tokensRead: number;
  /** Rows shorter than `minLength`. */
  readonly tooShort: number;
  /** Rows longer than `maxSeqLength` where such are dropped. */
  readonly tooLong: number;
  /** Rows without a single target: empty, or the prompt alone fills `maxSeqLength`. */
  readonly skippedWithoutTargets: number;
  /** Rows drawn of those kept, of each source in its turn: fewer by `[n]`, fewer or more often by weights. */
  readonly drawn: readonly number[];
  /** Drawn rows of text alone; the others have answers, and only those are learnt. */
  readonly texts: number;
  /** Samples made of them. */
  readonly samples: number;
  /** Tokens of all samples. */
  readonly tokens: number;
  /** Targets among them. */
  readonly targets: number;
  /** Tokens of the longest sample. */
  readonly longest: number;
}

/** Data as it is trained on. */
export interface Dataset {
  /** In the order of the files; training draws its own. */
  readonly samples: readonly Sample[];
  /** Counts of what became of the rows. */
  readonly report: DatasetReport;
  /** Excerpt of what the model will learn. */
  readonly preview: DataPreview;
  /** One line for each file with keys that nothing reads, with many unknown tokens, or with marks that are no tokens. */
  readonly notes: readonly string[];
}

/** Options of {@linkcode loadDataset}. */
export interface DatasetOptions {
  /** Longest sample in tokens. */
  readonly maxSeqLength: number;
  /** Rows with fewer tokens are left out. */
  readonly minLength?: number;
  /** Treatment of rows that are too long: cut on the right, or left out. */
  readonly overlong?: "cut" | "drop";
  /** Lay several rows into one sample. */
  readonly packing?: boolean;
  /** Packed documents see those before them, as in LongLoRA. */
  readonly crossDocumentAttention?: boolean;
  /** True: every row must have an answer; false: every row must be text; null: both may be. */
  readonly sft?: boolean | null;
  /**
   * Template for rows with answers: a built-in one, or the model's own (`model`). Unless given, each form of row
   * has its own: LongAlpaca's prompts, LongQLoRA's Vicuna form, the model's template for conversations.
   */
  readonly chatTemplate?: TemplateChoice | null;
  /** Seed of the choice of rows. */
  readonly seed?: number;
  /** Cache of tokenized rows; none unless given. */
  readonly cache?: RowCache | undefined;
}

/**
 * Reads training data: rows of text, each `<s>`, its tokens and, if there is room, `</s>`; rows with answers, whose
 * prompts are no targets; or `.bin` token files, cut into rows as they come. The kind of each row is found by its keys.
 *
 * Labels follow positions, never ids: a padding token equal to `</s>` hides none (LongQLoRA hides them all).
 *
 * @throws {UserError} if a file cannot be read or no row with a target is left
 */
export async function loadDataset(
  sources: readonly DataSource[],
  tokenizer: Tokenizer,
  options: DatasetOptions,
): Promise<Dataset> {
  const { maxSeqLength } = options;
  if (!(Number.isInteger(maxSeqLength) && maxSeqLength >= 2)) {
    throw new UserError(`max_seq_length must be a whole number of at least 2 tokens, got ${maxSeqLength}`, {
      kind: "usage",
    });
  }
  const filter = new RowFilter(options);
  const sets: EncodedRow[][] = [];
  const notes: string[] = [];
  for (const { path } of sources) {
    const rows: EncodedRow[] = [];
    const unused = new UnusedKeys();
    const unknown = new UnknownTokens(tokenizer);
    for await (const row of encodeFile(path, tokenizer, options, unused)) {
      unknown.add(row.ids);
      const kept = filter.apply(row);
      if (kept) rows.push(kept);
    }
    sets.push(rows);
    for (
      const note of [unused.describe(path), unknown.describe(path), describeMarks(path, rows, tokenizer)]
    ) {
      if (note !== undefined) notes.push(note);
    }
  }
  const drawn = draw(sets, sources, new Random(options.seed ?? 0));
  const samples = layOut(drawn.flat(), options);
  if (samples.length === 0) {
    throw new UserError(
      `Cannot train on ${
        sources.map(({ path }) => `"${path}"`).join(", ")
      }: none of its ${filter.rows} rows has a target ` +
        `within max_seq_length ${maxSeqLength}. Raise max_seq_length, or check that the rows are not empty and their ` +
        `answers not all of weight 0`,
    );
  }
  const report = filter.report(drawn, samples);
  return { samples, report, preview: previewData(samples, tokenizer), notes: [...new Set(notes)] };
}

/** Describes marks of the model's own template that are no tokens, from the first row with answers. */
function describeMarks(path: string, rows: readonly EncodedRow[], tokenizer: Tokenizer): string | undefined {
  const row = rows.find(({ kind }) => kind === "answers");
  const marks = row ? spelledMarks(row.ids, tokenizer) : [];
  if (marks.length === 0) return undefined;
  return `${quoteNames(marks)} of the model's chat template ${
    marks.length === 1 ? "is no token" : "are no tokens"
  } of ` +
    `its tokenizer: in ${path} they are written letter by letter`;
}

async function* encodeFile(
  path: string,
  tokenizer: Tokenizer,
  { maxSeqLength, chatTemplate: template = null, sft = null, cache }: DatasetOptions,
  unused: UnusedKeys,
): AsyncGenerator<EncodedRow> {
  if (!isTokenFile(path)) {
    const reading = { unused, templateReads: templateReader(tokenizer, template) };
    const encode = () => encodeRows(checkedRows(path, sft, reading), tokenizer, { template });
    yield* cache
      ? cachedRows(cache, await rowsKey(path, tokenizer, { template, sft }), encode, unused)
      : encode();
    return;
  }
  const tokens = await readTokenBin(path, { vocabSize: tokenizer.vocabSize });
  for (let start = 0; start < tokens.length; start += maxSeqLength) {
    yield textRow(tokens.slice(start, start + maxSeqLength));
  }
}

async function* checkedRows(
  path: string,
  sft: boolean | null,
  reading: RowReading,
): AsyncGenerator<PlacedRow> {
  for await (const placed of readRows(path, reading)) {
    if (sft !== null && sft === (placed.row.kind === "text")) throw wrongKind(placed.where, sft);
    yield placed;
  }
}

function wrongKind(where: string, sft: boolean): UserError {
  return new UserError(
    sft
      ? `Cannot use ${where}: sft is true, but the row is plain "text" with no answer. Set sft: false to learn all of it`
      : `Cannot use ${where}: sft is false, but the row has an answer and no "text". Set sft: true to learn the answers`,
  );
}

/** Cuts, leaves out and counts rows. */
class RowFilter {
  rows = 0;
  #truncated = 0;
  #tokensLost = 0;
  #tokensRead = 0;
  #tooShort = 0;
  #tooLong = 0;
  #withoutTargets = 0;

  constructor(readonly options: DatasetOptions) {}

  /** The row as it is trained on, or undefined. */
  apply(row: EncodedRow): EncodedRow | undefined {
    const { maxSeqLength: most, minLength = 0, overlong = "cut", packing = false } = this.options;
    this.rows++;
    this.#tokensRead += row.ids.length;
    const isStream = packing && row.kind === "text";
    const isLong = row.ids.length > most && !isStream;
    if (row.ids.length > 0 && row.ids.length < minLength) return void this.#tooShort++;
    if (isLong && overlong === "drop") return void this.#tooLong++;
    if (isLong && !isOnlyEnd(row, most)) {
      this.#truncated++;
      this.#tokensLost += row.ids.length - most;
    }
    const kept = isLong ? { ...row, ids: row.ids.slice(0, most), labels: row.labels.slice(0, most) } : row;
    // The first token has nothing before it to be predicted from.
    if (kept.labels.some((label, i) => i > 0 && label !== NO_TARGET)) return kept;
    this.#withoutTargets++;
    return undefined;
  }

  report(drawn: readonly EncodedRow[][], samples: readonly Sample[]): DatasetReport {
    const kept = this.rows - this.#tooShort - this.#tooLong - this.#withoutTargets;
    return {
      rows: this.rows,
      kept,
      truncated: this.#truncated,
      tokensLost: this.#tokensLost,
      tokensRead: this.#tokensRead,
      tooShort: this.#tooShort,
      tooLong: this.#tooLong,
      skippedWithoutTargets: this.#withoutTargets,
      drawn: drawn.map((rows) => rows.length),
      texts: drawn.flat().filter(({ kind }) => kind === "text").length,
      samples: samples.length,
      tokens: samples.reduce((sum, { inputIds }) => sum + inputIds.length, 0),
      targets: samples.reduce((sum, sample) => sum + countTargets(sample), 0),
      longest: samples.reduce((most, { inputIds }) => Math.max(most, inputIds.length), 0),
    };
  }
}

/** Whether a text loses nothing but its `</s>`: then it counts as whole. */
function isOnlyEnd({ kind, ids }: EncodedRow, most: number): boolean {
  return kind === "text" && ids.length === most + 1;
}

/** The rows of each file after `[n]` and weights. With weights there are as many in all, shared out by them. */
function draw(
  sets: readonly EncodedRow[][],
  sources: readonly DataSource[],
  random: Random,
): EncodedRow[][] {
  const limited = sets.map((rows, i) => {
    const { most } = sources[i]!;
    return most !== undefined && most < rows.length ? random.shuffled(rows).slice(0, most) : rows;
  });
  const weights = sources.map(({ weight }) => weight ?? 0);
  const all = weights.reduce((sum, weight) => sum + weight, 0);
  if (all === 0) return limited;
  const total = limited.reduce((sum, rows) => sum + rows.length, 0);
  return limited.map((rows, i) => take(rows, Math.round(total * weights[i]! / all), random));
}

/** `count` of the rows: all of them as often as that goes, then some at random. */
function take(rows: readonly EncodedRow[], count: number, random: Random): EncodedRow[] {
  if (rows.length === 0) return [];
  const whole = Math.floor(count / rows.length);
  const rest = random.shuffled(rows).slice(0, count - whole * rows.length);
  return [...Array.from({ length: whole }, () => rows).flat(), ...rest];
}

function layOut(rows: readonly EncodedRow[], options: DatasetOptions): Sample[] {
  const { packing = false, crossDocumentAttention = false, maxSeqLength } = options;
  if (!packing) return rows.map(alone);
  const texts = rows.filter(({ kind }) => kind === "text");
  const answers = rows.filter(({ kind }) => kind === "answers");
  const packed = [...packStream(texts, maxSeqLength), ...packWhole(answers, maxSeqLength)];
  return packed
    .map(({ documents, ...sample }) =>
      documents && !crossDocumentAttention ? { ...sample, documents } : sample
    )
    .filter((sample) => countTargets(sample) > 0);
}

function alone({ ids, labels }: EncodedRow): Sample {
  return { inputIds: ids, labels };
}
