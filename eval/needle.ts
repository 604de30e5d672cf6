/** Needle in a haystack: sentences to be found between others in a long text (Kamradt 2023). */
import { createHash, join } from "../checkpoint/deps.ts";
import { readText } from "../data/jsonl.ts";
import { UnknownTokens } from "../data/spelling.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import type { WorkHooks } from "../model/hooks.ts";
import { formatCount } from "../text.ts";
import { ask, checkContext, type Subject } from "./ask.ts";
import { fitPrompt, Haystack, sentencesOf } from "./haystack.ts";
import { rougeL } from "./metrics.ts";
import type { Settings } from "./results_file.ts";
import { type GridResult, type OutputOptions, randomOf, runGrid } from "./trials.ts";
import { checkSpellable, WordingFile } from "./wording.ts";

/** Parts of a prompt: the hidden sentences and the question about them. */
export interface NeedleWording {
  /** Text before the haystack; may be empty. */
  readonly task: string;
  /** Sentences that are put into the text. */
  readonly needles: readonly string[];
  /** Texts that an answer must hold, in any case of letters. */
  readonly answers: readonly string[];
  /** Text behind the haystack, up to where the answer begins. */
  readonly question: string;
}

const TASK = "Here is a long text. Read it with care: at the end there is a question that it answers.";

/** Our own wording: one sentence, or some that are asked for together. */
const ONE: NeedleWording = {
  task: TASK,
  needles: [
    "The best thing to do in Lisbon is to ride the oldest tram at sunrise with a warm custard tart in hand.",
  ],
  answers: ["ride the oldest tram at sunrise"],
  question: "What is the best thing to do in Lisbon, by the text? The best thing to do in Lisbon is",
};
const THINGS = [
  "brass compass",
  "woollen blanket",
  "tin whistle",
  "jar of honey",
  "blue lantern",
  "coil of rope",
];

/** Most needles that there is a wording for. */
export const MOST_NEEDLES: number = THINGS.length;

/** Gives our wording for a number of needles. */
export function needleWording(count: number): NeedleWording {
  if (count === 1) return ONE;
  const answers = THINGS.slice(0, count);
  return {
    task: TASK,
    needles: answers.map((thing) => `One thing to pack for the island is a ${thing}.`),
    answers,
    question:
      "Which things are there to pack for the island, by the text? The things to pack for the island are",
  };
}

/** Options of {@linkcode measureNeedle}. */
export interface NeedleOptions extends OutputOptions {
  /** Tokens of prompt and answer together. */
  readonly lengths: readonly number[];
  /** Percent of the text before the first needle; others stand evenly between it and the end. */
  readonly depths: readonly number[];
  /** Texts at each place: the haystack begins with another sentence in each. */
  readonly trials: number;
  readonly haystack: HaystackText;
  readonly wording?: NeedleWording;
  /** Room for the answer, in tokens; 50 unless given. */
  readonly maxNewTokens?: number;
  /** Draws where texts begin; 123 unless given. */
  readonly seed?: number;
  /** Further settings that decide the answers, for the file of results: the model. */
  readonly settings?: Settings;
}

/** Texts to hide something in. */
export interface HaystackText {
  readonly sentences: readonly string[];
  /** SHA-256 of the text. */
  readonly hash: string;
}

/** Characters of a haystack that are read at most. */
const MOST_CHARACTERS = 2 ** 23;

/**
 * Reads a text file, or the `.txt` files of a folder in the order of their names, up to 8 Mi characters.
 * @throws {UserError} if there is none, or one cannot be read
 */
export async function readHaystack(path: string): Promise<HaystackText> {
  const files: string[] = [];
  const info = await Deno.stat(path).catch(() => undefined);
  if (info?.isDirectory) {
    for await (const { name } of Deno.readDir(path)) if (/\.txt$/i.test(name)) files.push(join(path, name));
    files.sort();
  } else files.push(path);
  if (files.length === 0) {
    throw new UserError(`Cannot use the haystack "${path}": the folder has no .txt files`);
  }
  let text = "";
  for (const file of files) {
    if (text.length >= MOST_CHARACTERS) break;
    text += `${(await readText(file)).trim()}\n\n`;
  }
  text = text.slice(0, MOST_CHARACTERS);
  const sentences = sentencesOf(text);
  if (sentences.length === 0) throw new UserError(`Cannot use the haystack "${path}": it has no text`);
  return { sentences, hash: createHash("sha256").update(text).digest("hex") };
}

/** Reads a wording. @throws {UserError} naming the part that is missing or is not what it must be */
export async function readNeedles(path: string): Promise<NeedleWording> {
  const form = "a JSON object with needles and answers (lists of texts), question, and maybe task";
  const file = await WordingFile.open(path, form);
  const wording = {
    task: file.text("task", TASK),
    needles: file.texts("needles"),
    answers: file.texts("answers"),
    question: file.text("question"),
  };
  file.close();
  return wording;
}

/** @throws {UserError} naming words that the tokenizer cannot write, or if most of the haystack is such */
function checkWords(
  options: NeedleOptions & { wording: NeedleWording },
  tokenizer: Tokenizer,
): string | undefined {
  const { wording: { task, needles, answers, question }, haystack } = options;
  checkSpellable([task, ...needles, ...answers, question], tokenizer, "needle");
  const counter = new UnknownTokens(tokenizer);
  for (const sentence of haystack.sentences) {
    counter.add(Uint32Array.from(tokenizer.encode(sentence, { bos: false })));
  }
  return counter.describe("the haystack");
}

/** Counts the share of the answers that a text holds, in any case of letters. */
export function shareFound(text: string, answers: readonly string[]): number {
  const lower = text.toLowerCase();
  return answers.filter((answer) => lower.includes(answer.toLowerCase())).length / answers.length;
}

/**
 * Measures needles over lengths and depths: `score` is the share of the answers that the model's answer holds, `similarity` its
 * ROUGE-L against the needles, which is Long-LLM's score. Needles stand between whole sentences, by the text's own length:
 * depth 0 is its beginning, 100 its end.
 *
 * @throws {UserError} if the tokenizer lacks words, or a length passes the model's context
 */
export function measureNeedle(
  engine: Subject,
  options: NeedleOptions,
  hooks: WorkHooks = {},
): Promise<GridResult> {
  const { wording = ONE, seed = 123, maxNewTokens = 50, settings, haystack: given, ...grid } = options;
  checkContext(engine, Math.max(...grid.lengths));
  const note = checkWords({ ...options, wording }, engine.tokenizer);
  if (note !== undefined) hooks.note?.(note);
  const haystack = Haystack.of(given.sentences, engine.tokenizer);
  const longest = Math.max(...grid.lengths);
  if (haystack.tokens < longest) {
    hooks.note?.(
      `The haystack has about ${formatCount(haystack.tokens)} tokens: it is repeated in texts of up to ${
        formatCount(longest)
      }`,
    );
  }
  const target = wording.needles.join(" ");
  return runGrid(
    {
      task: "needle",
      settings: { ...settings, seed, max_new_tokens: maxNewTokens, wording, haystack: given.hash },
      ...grid,
      async run(place, trial) {
        const depth = place.depth!;
        const { length } = wording.needles;
        const needles = wording.needles.map((text, i) => ({
          text,
          depth: depth + i * (100 - depth) / length,
        }));
        const start = trial === 0 ? 0 : randomOf(seed, place, trial).below(haystack.sentences);
        const { ids, depths } = fitPrompt(
          haystack.startingAt(start),
          needles,
          place.length - maxNewTokens,
          (context) =>
            engine.promptOf([{
              role: "user",
              content: [wording.task, context, wording.question].filter((part) => part !== "").join("\n\n"),
            }]),
        );
        const { text } = await ask(engine, ids, { maxNewTokens });
        return {
          prompt_tokens: ids.length,
          depth_found: depths[0]!,
          target,
          prediction: text,
          score: shareFound(text, wording.answers),
          similarity: rougeL(text, target),
        };
      },
    },
    options,
    hooks,
  );
}
