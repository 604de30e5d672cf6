import type { Gpu } from "../kernels/gpu.ts";
import { type Clock, repeatsFor, timed, timedOften } from "./clock.ts";

/** Duration and clock of a measurement. */
export interface Effort {
  readonly clock: Clock;
  /** Milliseconds to spend on one row, after its first run. */
  readonly budgetMs: number;
}

/** Times of several runs of one piece of work. */
export interface RunTimes {
  /** Runs that counted. */
  readonly runs: number;
  readonly bestMs: number;
  readonly medianMs: number;
  /** Milliseconds that the first run took longer than a usual one: compiling. Null where it compiled nothing. */
  readonly compileMs: number | null;
}

const RUNS = { least: 3, most: 50 } as const;

/**
 * Runs `work` once to compile and touch memory, then again and again until the budget is spent: three times at least,
 * unless one run alone is past four budgets.
 * @param work records the work and frees what it makes
 */
export async function measure(gpu: Gpu, work: () => void, { clock, budgetMs }: Effort): Promise<RunTimes> {
  const compiledBefore = gpu.pipelineCount;
  const first = await timed(gpu, clock, work);
  const compiled = gpu.pipelineCount > compiledBefore;
  const second = await timed(gpu, clock, work);
  const repeats = repeatsFor(clock, second.ms);
  const times = repeats === 1 ? [second.ms] : [];
  const wholes = [second.wholeMs];
  let spent = repeats === 1 ? second.wholeMs : 0;
  const isDone = () => {
    if (times.length >= RUNS.most) return true;
    return spent >= budgetMs && (times.length >= RUNS.least || spent >= 4 * budgetMs);
  };
  while (!isDone()) {
    const { ms, wholeMs } = await timedOften(gpu, clock, repeats, work);
    times.push(ms);
    wholes.push(wholeMs);
    spent += repeats * wholeMs;
  }
  return {
    runs: times.length,
    bestMs: Math.min(...times),
    medianMs: median(times),
    compileMs: compiled ? Math.max(0, first.wholeMs - median(wholes)) : null,
  };
}

/** The middle value, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
