/** LongBench (Bai et al. 2023): 21 tasks of long texts, each with its prompt, its length of answer and its score. */
import { exists } from "../checkpoint/files.ts";
import { join } from "../checkpoint/deps.ts";
import { readText } from "../data/jsonl.ts";
import { UserError } from "../errors.ts";
import type { WorkHooks } from "../model/hooks.ts";
import type { Subject } from "./ask.ts";
import {
  classificationScore,
  codeSimilarity,
  countScore,
  retrievalScore,
  rougeL,
  rougeLChinese,
  tokenF1,
  tokenF1Chinese,
} from "./metrics.ts";
import {
  type Answered,
  askAll,
  type AskAllOptions,
  type Question,
  type QuestionSource,
  taskSource,
} from "./questions.ts";
import { filled, readTaskRows, TaskRow } from "./task_rows.ts";
import { mean } from "./trials.ts";

type Score = (answer: string, truth: string, classes: readonly string[]) => number;

interface LongBenchTask {
  readonly category: (typeof CATEGORIES)[number];
  readonly score: Score;
  readonly newTokens: number;
  /** Prompt in our own wording, in LongBench's order of parts; `{context}` and `{input}` stand for those of a row. */
  readonly prompt: string;
}

/** Kinds of tasks, in the order of tables. */
export const CATEGORIES = [
  "single-document QA",
  "multi-document QA",
  "summarisation",
  "few-shot",
  "synthetic",
  "code",
] as const;

const qa = (task: string, text: string, form: string): string =>
  `${task} ${form}\n\n${text}: {context}\n\n${task} ${form}\n\nQuestion: {input}\n\nAnswer:`;
const SHORT = "Answer with as few words as you can, and nothing else.";
const PASSAGES = qa("Answer the question by what the passages say.", "The passages", SHORT);
const CODE = "Write the next line of this code.\n{context}{input}Next line of code:\n";

/** Every task by name, as LongBench lists them. */
export const LONGBENCH: Readonly<Record<string, LongBenchTask>> = {
  narrativeqa: {
    category: "single-document QA",
    score: tokenF1,
    newTokens: 128,
    prompt: qa("Answer the question about the story, a book or a film script.", "The story", SHORT),
  },
  qasper: {
    category: "single-document QA",
    score: tokenF1,
    newTokens: 128,
    prompt: qa(
      "Answer the question about the scientific paper.",
      "The paper",
      'Use a phrase or a sentence; write "unanswerable" if the paper does not say it, and "yes" or "no" where that ' +
        "is asked.",
    ),
  },
  multifieldqa_en: {
    category: "single-document QA",
    score: tokenF1,
    newTokens: 64,
    prompt: qa("Answer the question by what the text says.", "The text", SHORT),
  },
  multifieldqa_zh: {
    category: "single-document QA",
    score: tokenF1Chinese,
    newTokens: 64,
    prompt:
      "请根据下面的文章回答问题，答案要简短。\n\n文章：{context}\n\n请根据上面的文章回答问题，只写答案。\n\n问题：{input}\n答案：",
  },
  hotpotqa: { category: "multi-document QA", score: tokenF1, newTokens: 32, prompt: PASSAGES },
  "2wikimqa": { category: "multi-document QA", score: tokenF1, newTokens: 32, prompt: PASSAGES },
  musique: { category: "multi-document QA", score: tokenF1, newTokens: 32, prompt: PASSAGES },
  dureader: {
    category: "multi-document QA",
    score: rougeLChinese,
    newTokens: 128,
    prompt:
      "请根据下面的文章回答问题。\n\n文章：{context}\n\n请根据上面的文章回答问题。\n\n问题：{input}\n答案：",
  },
  gov_report: {
    category: "summarisation",
    score: rougeL,
    newTokens: 512,
    prompt:
      "Here is a report of a government agency. Read it to summarise it on one page.\n\nThe report:\n{context}\n\n" +
      "Now write the summary of the report.\n\nSummary:",
  },
  qmsum: {
    category: "summarisation",
    score: rougeL,
    newTokens: 512,
    prompt:
      "Here is what was said in a meeting, and a request about it. Answer it in a sentence or some.\n\n" +
      "The meeting:\n{context}\n\nNow answer the request by what was said.\n\nRequest: {input}\nAnswer:",
  },
  multi_news: {
    category: "summarisation",
    score: rougeL,
    newTokens: 512,
    prompt:
      "Here are articles on the same news. Read them to summarise them on one page.\n\nThe articles:\n{context}\n\n" +
      "Now write one summary of all articles.\n\nSummary:",
  },
  vcsum: {
    category: "summarisation",
    score: rougeLChinese,
    newTokens: 512,
    prompt: "下面是一段会议记录，请阅读后写出总结。\n会议记录：\n{context}\n\n会议总结：",
  },
  trec: {
    category: "few-shot",
    score: classificationScore,
    newTokens: 64,
    prompt: "Tell the type of the last question, as in the examples.\n\n{context}\n{input}",
  },
  triviaqa: {
    category: "few-shot",
    score: tokenF1,
    newTokens: 32,
    prompt:
      "Answer the last question by its passage, with the answer alone, as in the examples.\n\n{context}\n\n{input}",
  },
  samsum: {
    category: "few-shot",
    score: rougeL,
    newTokens: 128,
    prompt: "Summarise the last dialogue in a few sentences, as in the examples.\n\n{context}\n\n{input}",
  },
  lsht: {
    category: "few-shot",
    score: classificationScore,
    newTokens: 64,
    prompt: "请像例子那样判断最后一条新闻的类别。\n\n{context}\n{input}",
  },
  passage_count: {
    category: "synthetic",
    score: countScore,
    newTokens: 32,
    prompt:
      "Below are paragraphs, some of which may be there more than once. Tell how many different ones there are.\n\n" +
      "{context}\n\nWrite the number of different paragraphs, and nothing else, such as 1, 2 or 3.\n\nNumber:",
  },
  passage_retrieval_en: {
    category: "synthetic",
    score: retrievalScore,
    newTokens: 32,
    prompt: "Below are 30 paragraphs, and then the summary of one of them. Tell which one.\n\n{context}\n\n" +
      'The summary:\n\n{input}\n\nWrite the number of its paragraph, as in "Paragraph 1" or "Paragraph 2".\n\nAnswer:',
  },
  passage_retrieval_zh: {
    category: "synthetic",
    score: retrievalScore,
    newTokens: 32,
    prompt: "下面有若干段落，最后是其中一段的摘要，请找出是哪一段。\n\n{context}\n\n摘要：\n\n{input}\n\n" +
      "请写出段落的编号，例如“段落1”、“段落2”。\n\n答案：",
  },
  lcc: { category: "code", score: codeSimilarity, newTokens: 64, prompt: CODE },
  "repobench-p": { category: "code", score: codeSimilarity, newTokens: 64, prompt: CODE },
};

/** Long-LLM's choice: English and code, without the synthetic ones. */
export const LONGBENCH_ENGLISH: readonly string[] = Object.keys(LONGBENCH).filter((name) =>
  LONGBENCH[name]!.category !== "synthetic" && !/_zh$|^(dureader|vcsum|lsht)$/.test(name)
);

/** Tasks whose answers end with their line, in Long-LLM. */
const ONE_LINE: ReadonlySet<string> = new Set([
  "narrativeqa",
  "qasper",
  "multifieldqa_en",
  "hotpotqa",
  "2wikimqa",
  "musique",
  "samsum",
]);
/** Tasks of which only the first line of an answer is scored. */
const FIRST_LINE: ReadonlySet<string> = new Set(["trec", "triviaqa", "samsum", "lsht"]);

/** Parts of a row that scoring needs, under LongBench's names. */
export interface LongBenchKept {
  readonly answers: readonly string[];
  readonly all_classes: readonly string[] | null;
  /** Words or characters of the text, as the data has it; null without. */
  readonly length: number | null;
}

/** Scores one answer: the best over the true ones, 0 to 1. */
export function longBenchScore(
  task: string,
  pred: string,
  { answers, all_classes }: Pick<LongBenchKept, "answers" | "all_classes">,
): number {
  const answer = FIRST_LINE.has(task) ? pred.replace(/^\n+/, "").split("\n")[0]! : pred;
  return Math.max(0, ...answers.map((truth) => LONGBENCH[task]!.score(answer, truth, all_classes ?? [])));
}

/** Scores of tasks, in percent with two decimals. */
export interface TaskScores {
  readonly tasks: readonly {
    readonly task: string;
    readonly category: string;
    readonly rows: number;
    readonly score: number;
  }[];
  /** Means over the tasks of each category that were measured. */
  readonly categories: readonly { readonly category: string; readonly score: number }[];
  /** Mean over tasks. */
  readonly average: number;
}

/** Scores answers of any tasks, those of each task together. */
export function scoreLongBench(
  rows: readonly (LongBenchKept & { readonly task: string; readonly pred: string })[],
): TaskScores {
  const tasks = Object.entries(LONGBENCH).flatMap(([task, { category }]) => {
    const scores = rows.filter((row) => row.task === task).map((row) => longBenchScore(task, row.pred, row));
    return scores.length === 0
      ? []
      : [{ task, category, rows: scores.length, score: hundredths(100 * mean(scores)) }];
  });
  const categories = CATEGORIES.flatMap((category) => {
    const own = tasks.filter((task) => task.category === category);
    return own.length === 0 ? [] : [{ category, score: hundredths(mean(own.map(({ score }) => score))) }];
  });
  return { tasks, categories, average: hundredths(mean(tasks.map(({ score }) => score))) };
}

function hundredths(value: number): number {
  return Math.round(100 * value) / 100;
}

/** Options of {@linkcode measureLongBench}. */
export interface LongBenchOptions extends AskAllOptions {
  /** Folder with `TASK.jsonl` of each task, as LongBench has them. */
  readonly evalData: string;
  readonly tasks: readonly string[];
  /** Prompts by task in place of ours, as LongBench's `dataset2prompt.json` has them. */
  readonly prompts: Readonly<Record<string, string>>;
  /** End the answers of QA and of samsum at their first line, as Long-LLM does. */
  readonly newlineAsEos: boolean;
}

/** @throws {UserError} naming `file:line` of a row that is not LongBench's, or the file that is missing */
export function longBenchSource(
  { evalData, tasks, prompts, newlineAsEos }: Pick<
    LongBenchOptions,
    "evalData" | "tasks" | "prompts" | "newlineAsEos"
  >,
): Promise<QuestionSource<LongBenchKept>> {
  const kindOf = (task: string) => {
    const { category, newTokens } = LONGBENCH[task]!;
    return { task, isChat: category !== "few-shot" && category !== "code", maxNewTokens: newTokens };
  };
  const questionOf = (task: string, index: number, row: TaskRow): Question<LongBenchKept> => {
    const values = { context: row.text("context"), input: row.text("input") };
    return {
      ...kindOf(task),
      index,
      prompt: filled(prompts[task] ?? LONGBENCH[task]!.prompt, values),
      stop: newlineAsEos && ONE_LINE.has(task) ? ["\n"] : [],
      kept: {
        answers: row.texts("answers"),
        all_classes: row.has("all_classes") ? row.texts("all_classes") : null,
        length: row.has("length") ? row.number("length") : null,
      },
    };
  };
  return taskSource({ name: "LongBench", folder: evalData, tasks }, kindOf, questionOf);
}

/** Asks all questions and scores the answers. @throws {UserError} as {@linkcode askAll} */
export async function measureLongBench(
  engine: Subject,
  source: QuestionSource<LongBenchKept>,
  options: LongBenchOptions,
  hooks: WorkHooks = {},
): Promise<{ scores: TaskScores; answers: readonly Answered<LongBenchKept>[] }> {
  const answers = await askAll(engine, source, options, hooks);
  return { scores: scoreLongBench(answers), answers };
}

/** Rows on the lines behind the first. */
function* rowsBehindFirst(path: string, text: string): Generator<TaskRow> {
  for (const [i, line] of text.split("\n").entries()) {
    if (i === 0 || line.trim() === "") continue;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      value = null;
    }
    if (typeof value !== "object" || value === null) {
      throw new UserError(`Cannot read ${path}:${i + 1}: the line is not a JSON object`);
    }
    yield new TaskRow(`${path}:${i + 1}`, value as Record<string, unknown>);
  }
}

/**
 * Reads answers to score them again: `TASK.jsonl` of a folder, rows of `pred`, `answers` and `all_classes`, as LongBench's
 * and LongLoRA's scripts write them. A first line that is a number, as Long-LLM writes it, is left out.
 *
 * @throws {UserError} naming the file or the row that cannot be used
 */
export async function readLongBenchAnswers(
  folder: string,
): Promise<(LongBenchKept & { readonly task: string; readonly pred: string })[]> {
  const rows: (LongBenchKept & { task: string; pred: string })[] = [];
  for (const task of Object.keys(LONGBENCH)) {
    const path = join(folder, `${task}.jsonl`);
    if (!await exists(path)) continue;
    const text = await readText(path);
    const isScored = /^\s*-?[\d.]+\s*\n/.test(text);
    for await (const row of isScored ? rowsBehindFirst(path, text) : readTaskRows(path)) {
      rows.push({
        task,
        pred: row.text("pred"),
        answers: row.texts("answers"),
        all_classes: row.has("all_classes") ? row.texts("all_classes") : null,
        length: row.has("length") ? row.number("length") : null,
      });
    }
  }
  if (rows.length > 0) return rows;
  throw new UserError(
    `Cannot score "${folder}": it has no TASK.jsonl of LongBench's tasks, such as qasper.jsonl`,
    {
      kind: "usage",
    },
  );
}
