/** A model for tests that reads its prompt as text, and answers by a rule. */
import type { Answer, AnswerOptions } from "../../chat/engine.ts";
import { encodePrompt } from "../../data/encode.ts";
import { builtInTemplate, type Message } from "../../data/templates.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import type { Subject } from "../../eval/ask.ts";

/** One question to a {@linkcode Reader}. */
export interface Asked {
  readonly ids: readonly number[];
  readonly text: string;
  readonly options: AnswerOptions;
}

/** Answers with `rule` of the last `window` tokens of its prompt. */
export class Reader implements Subject {
  readonly asked: Asked[] = [];

  constructor(
    readonly tokenizer: Tokenizer,
    readonly rule: (prompt: string) => string,
    readonly options: { readonly contextSize?: number; readonly window?: number } = {},
  ) {}

  static async of(
    folder: string,
    rule: (prompt: string) => string,
    options?: { readonly contextSize?: number; readonly window?: number },
  ): Promise<Reader> {
    return new Reader(await Tokenizer.load(folder), rule, options);
  }

  get contextSize(): number {
    return this.options.contextSize ?? 100_000;
  }

  promptOf(messages: readonly Message[]): number[] {
    const specials = { bos: "<s>", eos: "</s>" };
    return encodePrompt(this.tokenizer, builtInTemplate("no", specials), messages);
  }

  answer(prompt: readonly number[], options: AnswerOptions = {}): Promise<Answer> {
    const seen = prompt.slice(-(this.options.window ?? prompt.length));
    this.asked.push({ ids: prompt, text: this.tokenizer.decode(prompt, { skipSpecial: true }), options });
    const answer = this.rule(this.tokenizer.decode(seen, { skipSpecial: true }));
    const ids = this.tokenizer.encode(answer, { bos: false }).slice(0, options.maxNewTokens);
    let text = this.tokenizer.decode(ids);
    for (const stop of options.stop ?? []) text = text.split(stop)[0]!;
    options.onText?.(text, []);
    return Promise.resolve({
      text,
      ids,
      finishReason: "length",
      promptTokens: prompt.length,
      cachedTokens: 0,
      completionTokens: ids.length,
      promptSeconds: 0,
      writeSeconds: 0,
    });
  }
}
