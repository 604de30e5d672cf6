/** Questions out of files of rows: each is cut to what a model reads, asked once, and its answer kept to be scored. */
import { lockFolder } from "../checkpoint/lock.ts";
import { createHash, join } from "../checkpoint/deps.ts";
import { exists } from "../checkpoint/files.ts";
import { fromFirst, inRounds, requireSame } from "../distributed/agreement.ts";
import { ALONE } from "../distributed/communicator.ts";
import { UserError } from "../errors.ts";
import { UnknownTokens } from "../data/spelling.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import type { WorkHooks } from "../model/hooks.ts";
import { formatCount } from "../text.ts";
import { ask, type Subject } from "./ask.ts";
import { ResultsFile, type Settings } from "./results_file.ts";
import { readTaskRows, type TaskRow } from "./task_rows.ts";
import type { OutputOptions } from "./trials.ts";

/** One question of a task. */
export interface Question<K extends object> {
  readonly task: string;
  /** From 0, in its task. */
  readonly index: number;
  readonly prompt: string;
  /** True for a user's turn; else the prompt is plain text that goes on. */
  readonly isChat: boolean;
  readonly maxNewTokens: number;
  /** Texts that end the answer. */
  readonly stop: readonly string[];
  /** Parts of the row that scoring needs. */
  readonly kept: K;
}

/** An answer: a row of `results.jsonl`, with what scoring needs beside it. */
export type Answered<K extends object> = K & {
  readonly task: string;
  readonly index: number;
  /** Half of the SHA-256 of the question's prompt, by which another question in its place is known. */
  readonly question: string;
  /** The model's answer, as LongBench's files name it. */
  readonly pred: string;
  readonly prompt_tokens: number;
  /** True where its text was cut. */
  readonly is_cut: boolean;
  readonly seconds: number;
};

/** Limits of a prompt's text. */
export interface CutOptions {
  /** Tokens of a prompt's text at most, its template and answer not counted; null for what the context holds, up to `most`. */
  readonly maxLength: number | null;
  /** The most unless `maxLength` is given. */
  readonly most: number;
  /** Keep the first and the last half of them, as LongBench does; else the last ones. */
  readonly truncateFromMiddle: boolean;
}

/** A prompt as the model reads it. */
interface CutPrompt {
  readonly ids: readonly number[];
  readonly isCut: boolean;
}

/** Cuts a question's text. @throws {UserError} if the context has no room for it and the answer */
export function cutPrompt(
  engine: Subject,
  { task, prompt, isChat, maxNewTokens }: Pick<
    Question<object>,
    "task" | "prompt" | "isChat" | "maxNewTokens"
  >,
  { maxLength, most, truncateFromMiddle }: CutOptions,
): CutPrompt {
  const { tokenizer, contextSize } = engine;
  const around = (text: string) =>
    isChat ? engine.promptOf([{ role: "user", content: text }]) : tokenizer.encode(text);
  const room = contextSize - maxNewTokens - around("").length;
  if (room < 1 || (maxLength ?? 1) > room) {
    throw new UserError(
      `Cannot ask ${task}: ${
        maxLength === null ? "an answer" : `${formatCount(maxLength)} tokens of text and an answer`
      } of up to ${formatCount(maxNewTokens)} pass the model's context of ${formatCount(contextSize)}. ` +
        `Lower --max_length, leave the task out of --tasks, or pass a longer --context_size`,
      { kind: "usage" },
    );
  }
  const whole = tokenizer.encode(prompt, { bos: false });
  // Text that is decoded and read again may have a token more: then it is cut again, by as many.
  for (let length = maxLength ?? Math.min(most, room);;) {
    const ids = around(
      whole.length <= length ? prompt : cutText(tokenizer, whole, length, truncateFromMiddle),
    );
    const excess = ids.length + maxNewTokens - contextSize;
    if (excess <= 0) return { ids, isCut: whole.length > length };
    length = Math.min(length, whole.length) - excess;
  }
}

/** Joins the first and the last half of so many tokens, or takes the last of them alone. */
function cutText(tokenizer: Tokenizer, ids: readonly number[], length: number, fromMiddle: boolean): string {
  const half = Math.floor(length / 2);
  // Without a token nothing is sliced off the end.
  const last = (count: number) => tokenizer.decode(ids.slice(ids.length - count), { skipSpecial: true });
  return fromMiddle ? tokenizer.decode(ids.slice(0, half), { skipSpecial: true }) + last(half) : last(length);
}

/** Questions in their order, as often as they are asked for: they are read from files, which may be large. */
export interface QuestionSource<K extends object> {
  /** Number of all of them. */
  readonly count: number;
  /** The tasks that they are of, and what their prompts have in common. */
  readonly tasks: readonly Pick<Question<K>, "task" | "isChat" | "maxNewTokens">[];
  questions(): AsyncIterable<Question<K>>;
}

/**
 * Makes the questions of a folder with `TASK.jsonl` of each task. Every row is looked at once before any is asked.
 *
 * @param data.name whose format the files have, for errors
 * @param kindOf what the prompts of a task have in common
 * @throws {UserError} naming a file that is missing, or `file:line` of a row that `questionOf` refuses
 */
export async function taskSource<K extends object>(
  { name, folder, tasks }: {
    readonly name: string;
    readonly folder: string;
    readonly tasks: readonly string[];
  },
  kindOf: (task: string) => QuestionSource<K>["tasks"][number],
  questionOf: (task: string, index: number, row: TaskRow) => Question<K>,
): Promise<QuestionSource<K>> {
  const pathOf = (task: string) => join(folder, `${task}.jsonl`);
  for (const task of tasks) {
    if (await exists(pathOf(task))) continue;
    throw new UserError(
      `Cannot measure ${task}: there is no "${
        pathOf(task)
      }". Name the folder of ${name}'s files with --eval_data, or ` +
        "leave the task out of --tasks",
      { kind: "usage" },
    );
  }
  async function* questions() {
    for (const task of tasks) {
      let index = 0;
      for await (const row of readTaskRows(pathOf(task))) yield questionOf(task, index++, row);
    }
  }
  let count = 0;
  for await (const _ of questions()) count++;
  return { count, tasks: tasks.map(kindOf), questions };
}

/** Options of {@linkcode askAll}. */
export interface AskAllOptions extends OutputOptions {
  readonly task: string;
  readonly settings: Settings;
  readonly cut: CutOptions;
}

/**
 * Asks every question that has no answer in the folder's `results.jsonl` yet, greedily.
 *
 * @returns the answers to these questions, in their order
 * @throws {UserError} if the folder has answers of other settings, a prompt cannot be cut to the context, or most of the
 * first is unknown to the tokenizer
 */
export async function askAll<K extends object>(
  engine: Subject,
  source: QuestionSource<K>,
  { task, settings, cut, outputDir, overwrite = false, ranks = ALONE }: AskAllOptions,
  hooks: WorkHooks = {},
): Promise<Answered<K>[]> {
  for (const each of source.tasks) cutPrompt(engine, { ...each, prompt: "" }, cut);
  const isFirst = ranks.rank === 0;
  using _lock = isFirst ? await lockFolder(outputDir) : undefined;
  const path = join(outputDir, "results.jsonl");
  const all = {
    task,
    ...settings,
    max_length: cut.maxLength ?? `up to ${cut.most}`,
    truncate_from_middle: cut.truncateFromMiddle,
  };
  await requireSame(ranks, { "the settings": JSON.stringify(all) });
  using file = isFirst ? await ResultsFile.open<Answered<K>>(path, all, { isNew: overwrite }) : undefined;
  const keyOf = (row: { readonly task: string; readonly index: number; readonly question: string }) =>
    [row.task, row.index, row.question].join(" ");
  const earlier = await fromFirst(ranks, file?.rows ?? []);
  const known = new Map(earlier.map((row) => [keyOf(row), row]));
  const answers: Answered<K>[] = [];
  let [asked, cuts, done] = [0, 0, 0];
  const unknown = new UnknownTokens(engine.tokenizer);
  const add = (place: number, answer: Answered<K>) => {
    if (answer.is_cut) cuts++;
    answers[place] = answer;
    hooks.onProgress?.(++done, source.count, answer.task);
  };
  async function* unanswered() {
    let place = 0;
    for await (const question of source.questions()) {
      const hash = createHash("sha256").update(question.prompt).digest("hex").slice(0, 32);
      const answer = known.get(keyOf({ ...question, question: hash }));
      if (answer === undefined) yield { question, hash, place };
      else add(place, answer);
      place++;
    }
  }
  let isFirstPrompt = true;
  const answer = async (
    { question, hash }: { readonly question: Question<K>; readonly hash: string },
  ): Promise<Answered<K>> => {
    const started = performance.now();
    const { ids, isCut } = cutPrompt(engine, question, cut);
    unknown.add(Uint32Array.from(ids));
    // Text that is not the tokenizer's is refused at once, and less of it told at the end.
    if (isFirstPrompt) unknown.describe("the prompts");
    isFirstPrompt = false;
    const { maxNewTokens, stop } = question;
    const { text } = await ask(engine, ids, { maxNewTokens, stop });
    return {
      ...question.kept,
      task: question.task,
      index: question.index,
      question: hash,
      pred: text,
      prompt_tokens: ids.length,
      is_cut: isCut,
      seconds: (performance.now() - started) / 1000,
    };
  };
  for await (const { item: { place }, result } of inRounds(ranks, unanswered(), answer)) {
    await file?.add(result);
    asked++;
    add(place, result);
  }
  if (asked < answers.length) {
    hooks.note?.(`${answers.length - asked} of ${answers.length} answers were in ${path} already`);
  }
  const line = unknown.describe("the prompts");
  if (line !== undefined) hooks.note?.(line);
  if (cuts > 0) hooks.note?.(`${cuts} of ${answers.length} prompts were cut to fit`);
  return answers;
}
