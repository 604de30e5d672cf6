/** InfiniteBench (Zhang et al. 2024): 12 tasks of texts of 100,000 tokens and more. */
import type { WorkHooks } from "../model/hooks.ts";
import type { Subject } from "./ask.ts";
import { characterF1, rougeL, tokenF1 } from "./metrics.ts";
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
    score: (pred, { answers }) => best(answers, (truth) => rougeL(pred, truth)),
  },
  longbook_choice_eng: {
    newTokens: 40,
    prompt: "Read the book below and choose the right answer to the question behind it.\n\n{context}\n\n" +
      "Question: {input}\n\n{options}\n\nThe letter of the right answer is",
    score: (pred, kept) => score(choiceIn(pred, kept, { anywhere: true })),
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
      score(
        wordsOf(pred, /[\n:"'.,?!{}]/g).some((word) => word.toUpperCase() === answers[0]!.toUpperCase()),
      ),
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
    score: (pred, kept) => score(choiceIn(pred, kept, { anywhere: false })),
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

/** Words that an answer stands behind; the first of this list that is there counts. */
const MARKERS = ["answer is:", "answer is", "answer:", "is:"] as const;

/**
 * Tells whether an answer chooses the right option: by its letter at the beginning, by letter or text behind words such as "the
 * answer is", or, if it may stand anywhere, by the first letter that stands alone.
 */
function choiceIn(
  pred: string,
  { answers, options }: InfBenchKept,
  { anywhere }: { readonly anywhere: boolean },
): boolean {
  const text = answers[0]!;
  const letter = LETTERS[options.indexOf(text)];
  const letters = `[${LETTERS.slice(0, options.length)}](?=[^\\p{L}\\p{N}]|$)`;
  const answer = pred.trim().replace(/[\n`'"*-]|[Oo]ption/g, " ").replace(/ +/g, " ").trim();
  const first = new RegExp(`^${letters}`, "u").exec(answer)?.[0];
  if (first !== undefined) return first === letter;
  if (answer.startsWith(text)) return true;
  const marker = MARKERS.find((each) => answer.includes(each));
  if (marker !== undefined) {
    const behind = answer.slice(answer.indexOf(marker) + marker.length).trim();
    return behind.startsWith(text) || new RegExp(`^${letters}`, "u").exec(behind)?.[0] === letter;
  }
  return anywhere && new RegExp(`(?<![\\p{L}\\p{N}])${letters}`, "u").exec(answer)?.[0] === letter;
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
