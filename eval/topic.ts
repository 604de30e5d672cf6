/** Topic retrieval (LongChat 2023): the first topic of a long conversation is to be named. */
import { UserError } from "../errors.ts";
import type { WorkHooks } from "../model/hooks.ts";
import { formatCount } from "../text.ts";
import type { Subject } from "./ask.ts";
import { tokenF1 } from "./metrics.ts";
import { askAll, type AskAllOptions, type QuestionSource } from "./questions.ts";
import { readTaskRows } from "./task_rows.ts";
import { mean } from "./trials.ts";

/** Parts of a row that scoring needs. */
export interface TopicKept {
  /** The topic that is asked for: the conversation's first. */
  readonly target: string;
  readonly num_topics: number;
}

/** Conversations of as many topics together. */
export interface TopicScore {
  readonly numTopics: number;
  readonly rows: number;
  /** Mean tokens of the prompts. */
  readonly promptTokens: number;
  /** The share of answers that hold the topic, in any case of letters. */
  readonly accuracy: number;
  /** Mean F1 of the bags of words. */
  readonly f1: number;
}

/** Tokens of an answer. */
const NEW_TOKENS = 50;

/** Numbers of topics unless others are asked for: Long-LLM's. */
export const NUM_TOPICS: readonly number[] = [5, 10, 15, 20, 25, 30, 40, 50, 60, 70];

/**
 * Reads the conversations of a file that have one of the numbers of topics.
 * @throws {UserError} naming `file:line` of a row that lacks `context`, `question`, `topics` or `num_topics`, or if none is left
 */
export async function topicSource(
  path: string,
  numTopics: readonly number[],
): Promise<QuestionSource<TopicKept>> {
  const kind = { task: "topic", isChat: true, maxNewTokens: NEW_TOKENS };
  async function* questions() {
    let index = 0;
    for await (const row of readTaskRows(path)) {
      const num_topics = row.number("num_topics");
      const prompt = `${row.text("context")} ${row.text("question")}`;
      const [target = ""] = row.texts("topics");
      if (numTopics.includes(num_topics)) {
        yield { ...kind, index, prompt, stop: [], kept: { target, num_topics } };
      }
      index++;
    }
  }
  const found = new Set<number>();
  let count = 0;
  for await (const { kept } of questions()) {
    found.add(kept.num_topics);
    count++;
  }
  if (count > 0) return { count, tasks: [kind], questions };
  throw new UserError(`Cannot use "${path}": none of its rows has num_topics of ${numTopics.join(", ")}`);
}

/** Asks all questions and scores the answers by number of topics. @throws {UserError} as {@linkcode askAll} */
export async function measureTopic(
  engine: Subject,
  source: QuestionSource<TopicKept>,
  options: AskAllOptions,
  hooks: WorkHooks = {},
): Promise<TopicScore[]> {
  const answers = await askAll(engine, source, options, hooks);
  const counts = [...new Set(answers.map(({ num_topics }) => num_topics))].sort((a, b) => a - b);
  return counts.map((numTopics) => {
    const rows = answers.filter(({ num_topics }) => num_topics === numTopics);
    return {
      numTopics,
      rows: rows.length,
      promptTokens: Math.round(mean(rows.map(({ prompt_tokens }) => prompt_tokens))),
      accuracy: mean(
        rows.map(({ pred, target }) => pred.toLowerCase().includes(target.toLowerCase()) ? 1 : 0),
      ),
      f1: mean(rows.map(({ pred, target }) => tokenF1(pred, target))),
    };
  });
}

/** Makes the rows of a table, names first. */
export function topicTable(scores: readonly TopicScore[]): string[][] {
  return [
    ["topics", "tokens", "rows", "accuracy", "F1"],
    ...scores.map(({ numTopics, promptTokens, rows, accuracy, f1 }) => [
      String(numTopics),
      formatCount(promptTokens),
      formatCount(rows),
      `${(100 * accuracy).toFixed(1)} %`,
      f1.toFixed(3),
    ]),
  ];
}
