/** Trials over lengths and depths: their grid, each made once, and their means. */
import { lockFolder } from "../checkpoint/lock.ts";
import { join } from "../checkpoint/deps.ts";
import { Random } from "../data/random.ts";
import { fromFirst, inRounds, requireSame } from "../distributed/agreement.ts";
import { ALONE, type Communicator } from "../distributed/communicator.ts";
import type { WorkHooks } from "../model/hooks.ts";
import { ResultsFile, type Settings } from "./results_file.ts";

/** Place of results. */
export interface OutputOptions {
  /** Folder; rows that are there already, of the same settings, are not made again. */
  readonly outputDir: string;
  /** Begins anew, whatever is there; false unless given. */
  readonly overwrite?: boolean;
  /** The ranks that share the work, each by a call of its own: rank 0 keeps the results; one unless given. */
  readonly ranks?: Communicator | undefined;
}

/** One place of the grid. */
export interface Place {
  /** Tokens that are asked for: of the prompt and its answer. */
  readonly length: number;
  /** Percent of the context before what is to be found; null where every trial draws its own. */
  readonly depth: number | null;
}

/** Question and answer of one trial: a row of `results.jsonl`. */
export interface Trial extends Place {
  /** From 0, at the same place. */
  readonly trial: number;
  /** Tokens of the prompt as the model read it. */
  readonly prompt_tokens: number;
  /** True place in percent of the context; of several the first. */
  readonly depth_found: number;
  /** Text that was to be found. */
  readonly target: string;
  /** The model's answer. */
  readonly prediction: string;
  /** 1 where it was found, 0 where not; a share where it was one in part. */
  readonly score: number;
  /** Likeness of answer and target: 0 to 1. */
  readonly similarity: number;
  readonly seconds: number;
}

/** Trials of one place together. */
export interface Cell extends Place {
  readonly trials: number;
  /** Mean score. */
  readonly accuracy: number;
  /** Mean similarity. */
  readonly similarity: number;
  /** Mean tokens of the prompts. */
  readonly promptTokens: number;
}

/** Everything that a grid of trials gave, and how to make it again. */
export interface GridResult {
  readonly task: string;
  /** Settings that decide every answer. */
  readonly settings: Settings;
  readonly lengths: readonly number[];
  /** Null where trials draw their own. */
  readonly depths: readonly number[] | null;
  /** Trials at each place. */
  readonly trials: number;
  /** Mean over all trials of the grid. */
  readonly accuracy: number;
  readonly similarity: number;
  readonly cells: readonly Cell[];
  readonly byLength: readonly Cell[];
  /** Means of each depth over all lengths; none where trials draw their own. */
  readonly byDepth: readonly Cell[];
  /** Each trial of the grid. */
  readonly rows: readonly Trial[];
  /** Time of all trials together, those of earlier starts included. */
  readonly seconds: number;
}

/** A grid, and how one of its trials is made. */
export interface GridTask {
  readonly task: string;
  readonly settings: Settings;
  readonly lengths: readonly number[];
  readonly depths: readonly number[] | null;
  readonly trials: number;
  /** Makes one trial; it is a pure function of place, trial and settings. */
  run(place: Place, trial: number): Promise<Omit<Trial, keyof Place | "trial" | "seconds">>;
}

/** Makes `count` whole numbers from `from` to `to`, evenly apart and cut as numpy's `linspace` with `int` cuts them. */
export function evenly(from: number, to: number, count: number): number[] {
  if (count === 1) return [from];
  const step = (to - from) / (count - 1);
  return Array.from({ length: count }, (_, i) => i === count - 1 ? to : Math.trunc(from + i * step));
}

/** Makes a trial's generator: other trials and places draw other values, and each draws the same every time. */
export function randomOf(seed: number, { length, depth }: Place, trial: number): Random {
  let state = 0;
  for (const part of [length, depth ?? -1, trial]) {
    state = new Random(state * 4096 + part + 1).below(2 ** 32);
  }
  return new Random(seed, state);
}

/**
 * Makes the trials that are not in the folder's `results.jsonl` yet, from the shortest prompts to the longest.
 *
 * @throws {UserError} if the folder has results of other settings, or cannot be written
 */
export async function runGrid(
  task: GridTask,
  { outputDir, overwrite = false, ranks = ALONE }: OutputOptions,
  hooks: WorkHooks = {},
): Promise<GridResult> {
  const { lengths, depths, trials } = task;
  await requireSame(ranks, {
    "the settings": JSON.stringify({ task: task.task, ...task.settings, lengths, depths, trials }),
  });
  const isFirst = ranks.rank === 0;
  using _lock = isFirst ? await lockFolder(outputDir) : undefined;
  const path = join(outputDir, "results.jsonl");
  const settings = { task: task.task, ...task.settings };
  using file = isFirst ? await ResultsFile.open<Trial>(path, settings, { isNew: overwrite }) : undefined;
  const rows = new Map<string, Trial>();
  const keep = (row: Trial) => rows.set(keyOf(row, row.trial), row);
  (await fromFirst(ranks, file?.rows ?? [])).forEach(keep);
  const places = task.lengths.toSorted((a, b) => a - b)
    .flatMap((length) => (task.depths ?? [null]).map((depth): Place => ({ length, depth })));
  const wanted = places.flatMap((place) =>
    Array.from({ length: task.trials }, (_, trial) => ({ place, trial }))
  );
  const todo = wanted.filter(({ place, trial }) => !rows.has(keyOf(place, trial)));
  if (todo.length < wanted.length) {
    hooks.note?.(`${wanted.length - todo.length} of ${wanted.length} trials are in ${path} already`);
  }
  // Time goes with tokens, so progress counts them.
  const total = todo.reduce((sum, { place }) => sum + place.length, 0);
  let done = 0;
  const make = async ({ place, trial }: typeof todo[number]): Promise<Trial> => {
    const started = performance.now();
    const row = await task.run(place, trial);
    return { ...place, trial, ...row, seconds: (performance.now() - started) / 1000 };
  };
  for await (const { item: { place, trial }, result } of inRounds(ranks, todo, make)) {
    await file?.add(result);
    keep(result);
    done += place.length;
    hooks.onProgress?.(done, total, `${placeText(place)}, trial ${trial + 1}`);
  }
  return summarize(task, wanted.map(({ place, trial }) => rows.get(keyOf(place, trial))!));
}

function keyOf({ length, depth }: Place, trial: number): string {
  return [length, depth, trial].join();
}

function placeText({ length, depth }: Place): string {
  return `${length} tokens${depth === null ? "" : `, depth ${depth} %`}`;
}

function summarize(task: GridTask, rows: readonly Trial[]): GridResult {
  const { lengths, depths } = task;
  const of = (wanted: Partial<Place>) =>
    rows.filter((row) =>
      (wanted.length === undefined || row.length === wanted.length) &&
      (wanted.depth === undefined || row.depth === wanted.depth)
    );
  const cell = (place: Place, own: readonly Trial[]): Cell => ({
    ...place,
    trials: own.length,
    accuracy: mean(own.map(({ score }) => score)),
    similarity: mean(own.map(({ similarity }) => similarity)),
    promptTokens: Math.floor(mean(own.map((row) => row.prompt_tokens))),
  });
  return {
    task: task.task,
    settings: task.settings,
    lengths,
    depths,
    trials: task.trials,
    accuracy: mean(rows.map(({ score }) => score)),
    similarity: mean(rows.map(({ similarity }) => similarity)),
    cells: lengths.flatMap((length) =>
      (depths ?? [null]).map((depth) => cell({ length, depth }, of({ length, depth })))
    ),
    byLength: lengths.map((length) => cell({ length, depth: null }, of({ length }))),
    byDepth: (depths ?? []).map((depth) => cell({ length: 0, depth }, of({ depth }))),
    rows,
    seconds: rows.reduce((sum, { seconds }) => sum + seconds, 0),
  };
}

/** Takes the mean; 0 of nothing. */
export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / (values.length || 1);
}
