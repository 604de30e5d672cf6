/**
 * InfiniteBench (Zhang et al. 2024, arXiv:2402.13718): 12 tasks of texts of 100,000 tokens and more, scored as its
 * `compute_scores.py` does since August 2024.
 */
import type { WorkHooks } from "../model/hooks.ts";
import type { Subject } from "./ask.ts";
import { characterF1, rougeLSum, tokenF1 } from "./metrics.ts";
import {
  type Answered,
  askAll,
  type AskAllOptions,
  type Question,
  type QuestionSource,
  taskSource,
} from "./questions.ts";
import { filled, type TaskRow } from "./task_rows.ts";
import { mean } from "./trials.ts";

/** Parts of a row that scoring needs. */
export interface InfBenchKept {
  /** True answers; of a choice its text. */
  readonly answers: readonly string[];
  /** Texts to choose from; none where there is no choice. */
  readonly options: readonly string[];
}

interface InfBenchTask {
  readonly newTokens: number;
  /** Prompt in our own wording; `{context}`, `{input}` and `{options}` stand for those of a row. */
  readonly prompt: string;
  readonly score: (pred: string, kept: InfBenchKept) => number;
}

const LETTERS = "ABCDEFGHIJ";

/** Every task by name. */
export const INFBENCH: Readonly<Record<string, InfBenchTask>> = {
  passkey: {
    newTokens: 6,
    prompt:
      "A pass key is hidden in the long text below. Find it.\n\n{context}\n\n{input}\n\nThe pass key is",
    score: firstNumber,
  },
  number_string: {
    newTokens: 12,
    prompt:
      "A row of digits is hidden in the long text below. Find it.\n\n{context}\n\n{input}\n\nThe row of digits is",
    score: firstNumber,
  },
  kv_retrieval: {
    newTokens: 50,
    prompt: "Find the value of a key in the JSON object below.\n\n{context}\n\n{input}",
    score: (pred, { answers }) => score(wordsOf(pred, /[\n:"'.,?!{}]/g).includes(answers[0]!)),
  },
  longbook_sum_eng: {
    newTokens: 1200,
    prompt: "Read the book below and summarise it.\n\n{context}\n\nSummary:",
    score: (pred, { answers }) => best(answers, (truth) => rougeLSum(pred, truth)),
  },
  longbook_choice_eng: {
    newTokens: 40,
    prompt: "Read the book below and choose the right answer to the question behind it.\n\n{context}\n\n" +
      "Question: {input}\n\n{options}\n\nThe letter of the right answer is",
    score: (pred, kept) => score(isBookChoice(pred, kept)),
  },
  longbook_qa_eng: {
    newTokens: 40,
    prompt: "Read the book below and answer the question behind it in few words.\n\n{context}\n\n" +
      "Question: {input}\n\nAnswer:",
    score: (pred, { answers }) => best(answers, (truth) => tokenF1(pred, truth)),
  },
  longbook_qa_chn: {
    newTokens: 40,
    prompt: "请阅读下面的书并简短地回答问题。\n\n{context}\n\n问题：{input}\n答案：",
    score: (pred, { answers }) => best(answers, (truth) => characterF1(pred, truth)),
  },
  longdialogue_qa_eng: {
    newTokens: 40,
    prompt:
      "In the dialogue below $$MASK$$ stands for the name of one who speaks. Guess the name.\n\n{context}\n\n" +
      "The name behind $$MASK$$ is",
    score: (pred, { answers }) =>
      score(answers.some((name) => pred.toUpperCase().includes(name.toUpperCase()))),
  },
  math_find: {
    newTokens: 3,
    prompt: "{input}\n\n{context}\n\nThe number is",
    score: (pred, { answers }) => {
      const number = /\d+\.\d+|\d+/.exec(pred)?.[0];
      return score(number !== undefined && Number(number) === Number(answers[0]));
    },
  },
  math_calc: {
    newTokens: 30_000,
    prompt:
      "Compute the long expression below from the left, and write the value after every step, with commas between " +
      "them.\n\n{context}\n\nValues:",
    score: (pred, { answers }) => {
      const values = pred.match(/\d+/g) ?? [];
      const wrong = answers.findIndex((truth, i) => Number(values[i] ?? NaN) !== Number(truth));
      return (wrong < 0 ? answers.length : wrong) / answers.length;
    },
  },
  code_run: {
    newTokens: 5,
    prompt: "Read the functions below.\n\n{context}\n\n{input}\n\nThe value is",
    score: (pred, { answers }) => {
      const last = wordsOf(pred, /[\n.`'":]/g).at(-1) ?? "";
      return score(/^[+-]?\d+$/.test(last) && Number(last) === Number(answers[0]));
    },
  },
  code_debug: {
    newTokens: 5,
    prompt:
      "One function of the code below has an obvious mistake. Find out which one.\n\n{context}\n\n{options}\n\n" +
      "The letter of the function with the mistake is",
    score: (pred, kept) => score(isDebugChoice(pred, kept)),
  },
};

/** Long-LLM's choice. */
export const INFBENCH_USUAL: readonly string[] = ["longbook_qa_eng", "longbook_sum_eng"];

function score(isRight: boolean): number {
  return isRight ? 1 : 0;
}

function best(answers: readonly string[], one: (truth: string) => number): number {
  return Math.max(0, ...answers.map(one));
}

function wordsOf(text: string, marks: RegExp): string[] {
  return text.replace(marks, " ").split(/\s+/).filter((word) => word !== "");
}

function firstNumber(pred: string, { answers }: InfBenchKept): number {
  return score(/\d+/.exec(pred)?.[0] === answers[0]);
}

/** The right option of a choice: its letter, and its text. */
function rightOf({ answers, options }: InfBenchKept): { letter: string; text: string } {
  return { letter: LETTERS[options.indexOf(answers[0]!)]!, text: answers[0]! };
}

/** The last letter that stands alone, in the first line that has one. @param letters a class of a regular expression */
function lastLetter(pred: string, letters: string): string | undefined {
  const alone = `(?<![\\p{L}\\p{N}_])[${letters}](?![\\p{L}\\p{N}_])`;
  return new RegExp(`${alone}(?![^\\n]*${alone})`, "u").exec(pred)?.[0];
}

/**
 * What stands behind the first of the markers that an answer has, one character left out; undefined if it has none of
 * them.
 */
function behindMarker(pred: string, markers: readonly string[]): string | undefined {
  const marker = markers.find((each) => pred.includes(each));
  return marker === undefined ? undefined : pred.slice(pred.indexOf(marker) + marker.length + 1);
}

function withoutMarks(pred: string, marks: RegExp): string {
  return pred.replace(marks, " ").replace(/ +/g, " ");
}

/**
 * Tells whether an answer chooses the right option of four, as InfiniteBench does: by the last letter that stands alone; or
 * its first letter whatever it begins; or the option's text alone; or letter or text behind words such as "answer is"; or the
 * first word made of A, B, C, D in this order.
 */
function isBookChoice(pred: string, kept: InfBenchKept): boolean {
  const { letter, text } = rightOf(kept);
  const answer = pred.trim();
  if (lastLetter(answer, "A-D") === letter) return true;
  if (answer === "") return false;
  if ("ABCD".includes(answer[0]!)) return answer[0] === letter || answer[0] === text;
  if (answer === text) return true;
  const plain = withoutMarks(answer, /[\n"'.,?!{}]/g);
  const behind = behindMarker(plain, ["answer is:", "answer:", "answer is", "option is"]);
  if (behind !== undefined) return behind.startsWith(letter) || behind.startsWith(text);
  const word = plain.split(/\s+/).find((each) => each !== "" && "ABCD".includes(each));
  return word === letter || word === text;
}

/**
 * Tells whether an answer names the function with the mistake, as InfiniteBench does: by the last letter that stands alone; or it
 * begins with the letter or the name; or has them behind words such as "is:".
 */
function isDebugChoice(pred: string, kept: InfBenchKept): boolean {
  const { letter, text } = rightOf(kept);
  const answer = pred.trim();
  if (lastLetter(answer, "A-J") === letter) return true;
  const plain = withoutMarks(answer, /[\n`'"*-]|[Oo]ption/g);
  if (plain.startsWith(letter) || plain.startsWith(text)) return true;
  // "correct option is:" is not among them: "option" is gone by now, and "is:" finds it.
  const behind = behindMarker(plain, ["answer is:", "is:", "answer:"]);
  return behind !== undefined && (behind.startsWith(letter) || behind.startsWith(text));
}

/** Scores of tasks: means over rows, shares with four decimals. */
export interface InfBenchScores {
  readonly tasks: readonly { readonly task: string; readonly rows: number; readonly score: number }[];
  /** Mean over tasks. */
  readonly average: number;
}

/** Scores answers of any tasks. */
export function scoreInfBench(
  rows: readonly (InfBenchKept & { readonly task: string; readonly pred: string })[],
): InfBenchScores {
  const rounded = (value: number) => Math.round(10_000 * value) / 10_000;
  const tasks = Object.entries(INFBENCH).flatMap(([task, { score }]) => {
    const scores = rows.filter((row) => row.task === task).map((row) => score(row.pred, row));
    return scores.length === 0 ? [] : [{ task, rows: scores.length, score: rounded(mean(scores)) }];
  });
  return { tasks, average: rounded(mean(tasks.map(({ score }) => score))) };
}

/** @throws {UserError} naming `file:line` of a row that is not InfiniteBench's, or the file that is missing */
export function infBenchSource(
  { evalData, tasks, prompts }: {
    /** Folder with `TASK.jsonl` of each task, as InfiniteBench has them. */
    readonly evalData: string;
    readonly tasks: readonly string[];
    /** Prompts by task in place of ours. */
    readonly prompts: Readonly<Record<string, string>>;
  },
): Promise<QuestionSource<InfBenchKept>> {
  const kindOf = (task: string) => ({ task, isChat: true, maxNewTokens: INFBENCH[task]!.newTokens });
  const questionOf = (task: string, index: number, row: TaskRow): Question<InfBenchKept> => {
    const template = prompts[task] ?? INFBENCH[task]!.prompt;
    const isChoice = /_choice_eng$|^code_debug$/.test(task);
    const kept = { answers: row.oneOrMore("answer"), options: isChoice ? row.texts("options") : [] };
    if (isChoice && !kept.options.includes(kept.answers[0]!)) {
      throw row.refusal('"answer" is not among its "options"');
    }
    const options = kept.options.map((text, i) => `${LETTERS[i]}. ${text}`).join("\n");
    return {
      ...kindOf(task),
      index,
      prompt: filled(template, { context: row.text("context"), input: row.text("input"), options }),
      stop: [],
      kept,
    };
  };
  return taskSource({ name: "InfiniteBench", folder: evalData, tasks }, kindOf, questionOf);
}

/** Asks all questions and scores the answers. @throws {UserError} as {@linkcode askAll} */
export async function measureInfBench(
  engine: Subject,
  source: QuestionSource<InfBenchKept>,
  options: AskAllOptions,
  hooks: WorkHooks = {},
): Promise<{ scores: InfBenchScores; answers: readonly Answered<InfBenchKept>[] }> {
  const answers = await askAll(engine, source, options, hooks);
  return { scores: scoreInfBench(answers), answers };
}
