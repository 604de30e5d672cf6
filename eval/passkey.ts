/** Passkey retrieval: a key to be found that a long text tells once (Mohtashami and Jaggi 2023). */
import type { Tokenizer } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import type { WorkHooks } from "../model/hooks.ts";
import { quote } from "../text.ts";
import { ask, checkContext, type Subject } from "./ask.ts";
import { fitPrompt, Haystack } from "./haystack.ts";
import { RandomState } from "./mersenne_twister.ts";
import { fuzzRatio } from "./metrics.ts";
import type { Settings } from "./results_file.ts";
import { type GridResult, type OutputOptions, randomOf, runGrid } from "./trials.ts";
import { checkSpellable, WordingFile } from "./wording.ts";

/** The parts of a prompt. */
export interface PasskeyWording {
  /** Text before the filler; may be empty. */
  readonly task: string;
  /** Sentences that the text is made of, over and over. */
  readonly filler: readonly string[];
  /** The sentence to be found, with `{key}` where the key stands. */
  readonly key: string;
  /** Text behind the filler, up to where the key is to be written. */
  readonly question: string;
  /** Words that keys are drawn from; null for numbers. */
  readonly keys: readonly string[] | null;
}

/** Our own wording; the filler has the 89 characters of LongLoRA's, and its length in tokens. */
export const WORDING: PasskeyWording = {
  task: "A number is hidden somewhere in the long text below. Read the text and keep the number in mind: " +
    "at the end there is a question about it.",
  filler: [
    "The grass is soft.",
    "The sky is high.",
    "The sun is bright.",
    "Here we walk.",
    "There we rest again.",
  ],
  key: "The pass key is {key}. Keep it in mind. {key} is the pass key.",
  question: "What is the pass key? The pass key is",
  keys: null,
};

/** Options of either protocol. */
export interface PasskeyOptions extends OutputOptions {
  readonly wording?: PasskeyWording;
  /** Draws the keys; 123 unless given. */
  readonly seed?: number;
  /** Further settings that decide the answers, for the file of results: the model. */
  readonly settings?: Settings;
}

/** Options of {@linkcode measurePasskey}. */
export interface TokensProtocol extends PasskeyOptions {
  /** Tokens of prompt and answer together. */
  readonly lengths: readonly number[];
  /** Percent of the text before the key. */
  readonly depths: readonly number[];
  /** Keys at each place. */
  readonly trials: number;
  /** Digits of each key, the first not 0; 5 unless given. */
  readonly digits?: number;
  /** Room for the answer, in tokens; 32 unless given. */
  readonly maxNewTokens?: number;
}

/** Options of {@linkcode measurePasskeyAsLongLora}. */
export interface LongLoraProtocol extends PasskeyOptions {
  /** Tokens of the longest text, by LongLoRA's count of 3.75 characters to one; 32,000 there. */
  readonly maxTokens: number;
  /** Tokens between two lengths; 1,000 there. */
  readonly interval: number;
  /** Keys at each length; 10 there. */
  readonly trials: number;
}

/** Reads a wording. @throws {UserError} naming the part that is missing or is not what it must be */
export async function readWording(path: string): Promise<PasskeyWording> {
  const file = await WordingFile.open(
    path,
    "a JSON object with filler (a list of sentences), key (a sentence with {key}), question, and maybe task and keys " +
      "(a list of words)",
  );
  const wording = {
    task: file.text("task", ""),
    filler: file.texts("filler"),
    key: file.text("key"),
    question: file.text("question"),
    keys: file.has("keys") ? file.texts("keys") : null,
  };
  if (!wording.key.includes("{key}")) throw file.refusal("key is no sentence with {key}");
  const other = wording.keys?.find((word) => !/^\p{L}+$/u.test(word));
  if (other !== undefined) throw file.refusal(`keys has ${quote(other)}, which is not one word of letters`);
  file.close();
  return wording;
}

/** @throws {UserError} naming words of the wording that the tokenizer cannot write */
export function checkWording(wording: PasskeyWording, tokenizer: Tokenizer): void {
  const { task, filler, key, question, keys } = wording;
  const texts = [task, ...filler, key.replaceAll("{key}", " "), question, ...(keys ?? ["1234567890"])];
  checkSpellable(texts, tokenizer, "passkey");
}

/** Finds the first key that a text tells; undefined if there is none. */
export function keyIn(text: string, { keys }: PasskeyWording): string | undefined {
  return (keys === null ? /\d+/ : /\p{L}+/u).exec(text)?.[0];
}

/** Tells whether a text has its first key to the end. */
function hasKey(text: string, wording: PasskeyWording): boolean {
  const key = keyIn(text, wording);
  return key !== undefined && text.indexOf(key) + key.length < text.length;
}

/**
 * Measures passkey over lengths in real tokens: prompt, template and answer fit into each length as closely as whole sentences allow.
 * The first number of the answer counts.
 *
 * @throws {UserError} if the tokenizer lacks words of the wording, or a length passes the model's context
 */
export function measurePasskey(
  engine: Subject,
  options: TokensProtocol,
  hooks: WorkHooks = {},
): Promise<GridResult> {
  const { wording = WORDING, seed = 123, digits = 5, maxNewTokens = 32, settings, ...grid } = options;
  checkWording(wording, engine.tokenizer);
  checkContext(engine, Math.max(...grid.lengths));
  const haystack = Haystack.of(wording.filler.map((sentence) => `${sentence} `), engine.tokenizer);
  return runGrid(
    {
      task: "passkey",
      settings: { ...settings, protocol: "tokens", seed, digits, max_new_tokens: maxNewTokens, wording },
      ...grid,
      async run(place, trial) {
        const random = randomOf(seed, place, trial);
        const key = wording.keys === null
          ? String(10 ** (digits - 1) + random.below(9 * 10 ** (digits - 1)))
          : random.pick(wording.keys);
        const needle = { text: wording.key.replaceAll("{key}", key), depth: place.depth! };
        const { ids, depths } = fitPrompt(
          haystack,
          [needle],
          place.length - maxNewTokens,
          (context) =>
            engine.promptOf([{
              role: "user",
              content: [wording.task, context, wording.question].filter((part) => part !== "").join("\n"),
            }]),
        );
        const { text } = await ask(engine, ids, { maxNewTokens, isEnough: (text) => hasKey(text, wording) });
        const found = keyIn(text, wording);
        return {
          prompt_tokens: ids.length,
          depth_found: depths[0]!,
          target: key,
          prediction: text,
          score: found?.toLowerCase() === key.toLowerCase() ? 1 : 0,
          similarity: fuzzRatio(found ?? "", key),
        };
      },
    },
    options,
    hooks,
  );
}

/** One prompt of LongLoRA's, and what it draws. */
export interface LongLoraPrompt {
  readonly text: string;
  readonly key: string;
  /** Characters of filler, and those of them before the key. */
  readonly characters: number;
  readonly prefix: number;
}

/**
 * Makes prompt `seed` of a length as LongLoRA's `passkey_retrivial.py` makes it: characters by 3.75 to a token, whole KiB of
 * them; numpy's `RandomState(seed)` draws the characters before the key and then the key, 1 to 49,999; five parts on lines of
 * their own; the filler begins again behind the key. Its cap at 449,999 characters is not kept.
 */
export function longLoraPrompt(
  tokens: number,
  seed: number,
  wording: PasskeyWording = WORDING,
): LongLoraPrompt {
  const characters = Math.floor(3.75 * tokens / 1024) * 1024;
  if (characters === 0) {
    throw new UserError(`Cannot make a LongLoRA prompt of ${tokens} tokens: it has at least 274`, {
      kind: "usage",
    });
  }
  const random = new RandomState(seed);
  const prefix = random.randint(0, characters);
  const number = random.randint(1, 50000);
  const key = wording.keys === null ? String(number) : wording.keys[number % wording.keys.length]!;
  const chain = `${wording.filler.join(" ")} `;
  const filler = chain.repeat(Math.ceil(characters / chain.length));
  const text = [
    wording.task,
    filler.slice(0, prefix),
    wording.key.replaceAll("{key}", key),
    filler.slice(0, characters - prefix),
    wording.question,
  ].join("\n");
  return { text, key, characters, prefix };
}

/**
 * Measures passkey by LongLoRA's protocol: lengths `interval`, 2 `interval` ... `maxTokens`, plain text without a template, as many new tokens
 * as the key has by itself, right if they are the key's. Greedy, which LongLoRA leaves to `generation_config.json`.
 *
 * @throws {UserError} as {@linkcode measurePasskey}
 */
export function measurePasskeyAsLongLora(
  engine: Subject,
  options: LongLoraProtocol,
  hooks: WorkHooks = {},
): Promise<GridResult> {
  const { wording = WORDING, settings, maxTokens, interval, trials } = options;
  checkWording(wording, engine.tokenizer);
  const lengths = Array.from({ length: Math.floor(maxTokens / interval) }, (_, i) => (i + 1) * interval);
  if (lengths.length === 0) {
    throw new UserError(
      `max_tokens ${maxTokens} is below interval ${interval}: there is no length to measure`,
      {
        kind: "usage",
      },
    );
  }
  return runGrid(
    {
      task: "passkey",
      settings: { ...settings, protocol: "longlora", wording },
      lengths,
      depths: null,
      trials,
      async run({ length }, seed) {
        const { text, key, characters, prefix } = longLoraPrompt(length, seed, wording);
        const prompt = engine.tokenizer.encode(text);
        const target = engine.tokenizer.encode(key, { bos: false });
        checkContext(engine, prompt.length + target.length);
        const answer = await ask(engine, prompt, { maxNewTokens: target.length });
        return {
          prompt_tokens: prompt.length,
          depth_found: 100 * prefix / characters,
          target: key,
          prediction: answer.text,
          score: answer.ids.join() === target.join() ? 1 : 0,
          similarity: fuzzRatio(answer.text.trim(), key),
        };
      },
    },
    options,
    hooks,
  );
}
