/** Whether a model finds again what stands far back in its prompt: one token, likeliest or not. */
import { readJsonl } from "../data/jsonl.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import { freeBatch, makeBatch } from "../model/batch.ts";
import { SILENT, type WorkHooks } from "../model/hooks.ts";
import type { LanguageModel } from "../model/language_model.ts";

/** A prompt that ends right before the token to be recalled. */
export interface RecallPrompt {
  readonly tokens: Uint32Array;
  readonly answer: number;
}

export interface RecallScore {
  readonly right: number;
  readonly cases: number;
}

/** Rows of one forward pass at most. */
const BATCH_ROWS = 4096;

/**
 * Reads recall cases: jsonl rows with `prompt` and `answer`.
 * @throws {UserError} if a row lacks a key or its answer is not one token
 */
export async function readRecallCases(path: string, tokenizer: Tokenizer): Promise<RecallPrompt[]> {
  const cases: RecallPrompt[] = [];
  for await (const { line, values } of readJsonl(path, ["prompt", "answer"])) {
    const tokens = Uint32Array.from(tokenizer.encode(values.prompt, { bos: true, eos: false }));
    const answer = tokenizer.encode(values.answer, { bos: false, eos: false });
    if (answer.length !== 1) {
      throw new UserError(
        `Cannot use ${path}:${line}: the answer ${JSON.stringify(values.answer)} is not one token`,
      );
    }
    cases.push({ tokens, answer: answer[0]! });
  }
  return cases;
}

/** Counts the prompts after which the answer is the likeliest token. Full attention. */
export async function scoreRecall(
  model: LanguageModel,
  cases: readonly RecallPrompt[],
  hooks: WorkHooks = SILENT,
): Promise<RecallScore> {
  let right = 0;
  let done = 0;
  while (done < cases.length) {
    const batch: RecallPrompt[] = [];
    let rows = 0;
    while (done + batch.length < cases.length && (batch.length === 0 || rows < BATCH_ROWS)) {
      const next = cases[done + batch.length]!;
      batch.push(next);
      rows += next.tokens.length;
    }
    const device = model.upload(makeBatch(batch.map(({ tokens }) => ({ inputIds: tokens }))));
    const { argmax } = await model.predict(device);
    freeBatch(device);
    let end = 0;
    for (const { tokens, answer } of batch) {
      end += tokens.length;
      if (argmax[end - 1] === answer) right++;
    }
    done += batch.length;
    hooks.onProgress(done, cases.length);
  }
  return { right, cases: cases.length };
}
