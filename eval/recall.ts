/** Whether a model finds again what stands far back in its prompt: one token, likeliest or not. */
import { readJsonl } from "../data/jsonl.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import { freeBatch, makeBatch } from "../model/batch.ts";
import type { WorkHooks } from "../model/hooks.ts";
import type { LanguageModel } from "../model/language_model.ts";

/** A prompt that ends right before the token to be recalled. */
export interface RecallPrompt {
  readonly tokens: Uint32Array;
  readonly answer: number;
}

export interface RecallScore {
  /** Prompts after which the answer was the likeliest token. */
  readonly right: number;
  readonly cases: number;
  /** exp of the answers' mean loss: 1 where every answer is certain, the vocabulary's size where none is known. */
  readonly answerPerplexity: number;
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

/** Scores the answers: whether each is the likeliest token, and how likely it is. Full attention. */
export async function scoreRecall(
  model: LanguageModel,
  cases: readonly RecallPrompt[],
  hooks: WorkHooks = {},
): Promise<RecallScore> {
  let right = 0;
  let loss = 0;
  let done = 0;
  while (done < cases.length) {
    const batch: RecallPrompt[] = [];
    let rows = 0;
    while (done + batch.length < cases.length && (batch.length === 0 || rows < BATCH_ROWS)) {
      const next = cases[done + batch.length]!;
      batch.push(next);
      rows += next.tokens.length + 1;
    }
    const sequences = batch.map(({ tokens, answer }) => ({ inputIds: Uint32Array.of(...tokens, answer) }));
    const device = model.upload(makeBatch(sequences));
    const { losses, argmax } = await model.predict(device);
    freeBatch(device);
    let start = 0;
    for (const { tokens, answer } of batch) {
      // What the prompt's last token predicts.
      const at = start + tokens.length - 1;
      if (argmax[at] === answer) right++;
      loss += losses[at]!;
      start += tokens.length + 1;
    }
    done += batch.length;
    hooks.onProgress?.(done, cases.length);
  }
  return { right, cases: cases.length, answerPerplexity: Math.exp(loss / cases.length) };
}
