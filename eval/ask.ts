/** One prompt to a model, answered greedily: what every evaluation by prompts does. */
import type { Engine } from "../chat/engine.ts";
import { UserError } from "../errors.ts";
import { formatCount } from "../text.ts";

/** A model as evaluations see it. */
export type Subject = Pick<Engine, "answer" | "promptOf" | "tokenizer" | "contextSize">;

/** Limits of an answer. */
export interface AskOptions {
  /** Most tokens of the answer. */
  readonly maxNewTokens: number;
  /** Texts that end the answer, and are no part of it. */
  readonly stop?: readonly string[];
  /** Tells whether the answer so far holds all that counts; it then ends early. */
  readonly isEnough?: (text: string) => boolean;
}

/** Likeliest tokens alone, whatever `generation_config.json` says. */
const GREEDY = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 } as const;

/** Asks a model. @throws {UserError} if prompt and answer pass its context */
export async function ask(
  engine: Subject,
  prompt: readonly number[],
  { maxNewTokens, stop = [], isEnough }: AskOptions,
): Promise<{ text: string; ids: readonly number[] }> {
  const ending = new AbortController();
  let text = "";
  const answer = await engine.answer(prompt, {
    ...GREEDY,
    maxNewTokens,
    stop,
    signal: ending.signal,
    onText: (piece) => {
      text += piece;
      if (isEnough?.(text)) ending.abort();
    },
  });
  return { text: answer.text, ids: answer.ids };
}

/** Refuses lengths that the model is not made for. @throws {UserError} naming both */
export function checkContext(engine: Subject, longest: number): void {
  if (longest <= engine.contextSize) return;
  throw new UserError(
    `Cannot measure ${formatCount(longest)} tokens: the model is made for ${
      formatCount(engine.contextSize)
    }. ` +
      `Ask for shorter lengths, pass --context_size ${longest} for positions scaled to it, or --beyond_context to see ` +
      "what comes of it as it is",
    { kind: "usage" },
  );
}
