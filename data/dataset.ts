/** Training files to samples of token ids. What is cut or left out is counted and reported, never silent. */
import { UserError } from "../errors.ts";
import { readTokenBin } from "./bin.ts";
import { readJsonl } from "./jsonl.ts";
import { LONGQLORA_VICUNA, type PromptTemplate } from "./templates.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** The label of a token that is not trained on. */
export const NO_TARGET = -100;

/** One training sequence. */
export interface Sample {
  /** (T) token ids. */
  readonly inputIds: Uint32Array;
  /**
   * (T) the token at the same position, or {@linkcode NO_TARGET}. The model shifts: position `i` predicts label
   * `i + 1`, so label 0 is never used.
   */
  readonly labels: Int32Array;
  /** Start of each packed document; absent where the sample is one document. */
  readonly documents?: Uint32Array;
}

/** What became of the rows of a file. */
export interface DatasetReport {
  readonly rows: number;
  /** Rows that became samples. */
  readonly kept: number;
  /** Kept or skipped rows that lost tokens at `max_seq_length`. */
  readonly truncated: number;
  /** Rows without a single target: empty, or the prompt alone fills `max_seq_length`. */
  readonly skippedWithoutTargets: number;
  /** Tokens, and targets among them, of the kept rows. */
  readonly tokens: number;
  readonly targets: number;
  /** Tokens of the longest kept row. */
  readonly longest: number;
}

export interface Dataset {
  readonly samples: readonly Sample[];
  readonly report: DatasetReport;
}

export interface DatasetOptions {
  /** Longest sample in tokens; what is beyond it on the right is cut. */
  readonly max_seq_length: number;
}

/**
 * Reads pre-training data: jsonl rows with `text`, each one sample of `<s>`, its tokens and, if there is room, `</s>`;
 * or a `.bin` token file, cut into rows of `max_seq_length` as they come.
 *
 * Every token but the first is a target. Labels follow positions, never ids: a padding token equal to `</s>` hides none
 * (LongQLoRA hides them all).
 *
 * @throws {UserError} if the file cannot be read or no row is left
 */
export async function loadPretrainSamples(
  file: string,
  tokenizer: Tokenizer,
  { max_seq_length }: DatasetOptions,
): Promise<Dataset> {
  const builder = new DatasetBuilder(file, max_seq_length);
  if (file.endsWith(".bin")) {
    const tokens = await readTokenBin(file, { vocabSize: tokenizer.vocabSize });
    for (let start = 0; start < tokens.length; start += max_seq_length) {
      builder.add(tokens.subarray(start, start + max_seq_length), 0);
    }
    return builder.finish();
  }
  for await (const { values } of readJsonl(file, ["text"])) {
    const ids = tokenizer.encode(values.text, { bos: true, eos: false });
    if (values.text.trim() === "") builder.skip();
    else builder.add(ids.length < max_seq_length ? [...ids, tokenizer.eosId] : ids, 0);
  }
  return builder.finish();
}

/**
 * Reads fine-tuning data: jsonl rows with `input` and `output`, both stripped. The prompt is made by the template and
 * is no target; the output is tokenised on its own, ends with `</s>` and is the target.
 *
 * @throws {UserError} if the file cannot be read or no row with a target is left
 */
export async function loadSftSamples(
  file: string,
  tokenizer: Tokenizer,
  { max_seq_length, template = LONGQLORA_VICUNA }: DatasetOptions & { readonly template?: PromptTemplate },
): Promise<Dataset> {
  const builder = new DatasetBuilder(file, max_seq_length);
  for await (const { values } of readJsonl(file, ["input", "output"])) {
    const prompt = tokenizer.encode(template.prompt(values.input.trim()), { bos: false, eos: false });
    const output = tokenizer.encode(values.output.trim(), { bos: false, eos: true });
    builder.add([...prompt, ...output], prompt.length);
  }
  return builder.finish();
}

/** Cuts, labels and counts rows. */
class DatasetBuilder {
  readonly #samples: Sample[] = [];
  #rows = 0;
  #truncated = 0;
  #tokens = 0;
  #targets = 0;
  #longest = 0;

  constructor(readonly file: string, readonly maxLength: number) {
    if (!(Number.isInteger(maxLength) && maxLength >= 2)) {
      throw new UserError(`max_seq_length must be a whole number of at least 2 tokens, got ${maxLength}`, {
        exitCode: 2,
      });
    }
  }

  /** Counts a row that has nothing to train on. */
  skip(): void {
    this.#rows++;
  }

  /** Adds a row whose first `promptLength` tokens are not targets. */
  add(ids: ArrayLike<number>, promptLength: number): void {
    this.#rows++;
    if (ids.length > this.maxLength) this.#truncated++;
    const inputIds = Uint32Array.from(ids).slice(0, this.maxLength);
    // The first token has nothing before it to be predicted from.
    const targets = inputIds.length - Math.max(promptLength, 1);
    if (targets <= 0) return;
    this.#samples.push({ inputIds, labels: Int32Array.from(inputIds).fill(NO_TARGET, 0, promptLength) });
    this.#tokens += inputIds.length;
    this.#targets += targets;
    this.#longest = Math.max(this.#longest, inputIds.length);
  }

  finish(): Dataset {
    const kept = this.#samples.length;
    if (kept === 0) {
      throw new UserError(
        `Cannot train on "${this.file}": none of its ${this.#rows} rows has a target within max_seq_length ` +
          `${this.maxLength}. Raise max_seq_length, or check that the rows are not empty`,
      );
    }
    return {
      samples: this.#samples,
      report: {
        rows: this.#rows,
        kept,
        truncated: this.#truncated,
        skippedWithoutTargets: this.#rows - kept,
        tokens: this.#tokens,
        targets: this.#targets,
        longest: this.#longest,
      },
    };
  }
}
