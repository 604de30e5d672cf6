import { largestError } from "../../kernels/trial.ts";
import { median } from "../measure.ts";
import type { Entrant } from "./entrant.ts";

/** One piece of work that several libraries do. */
export interface Contest {
  readonly op: string;
  readonly shape: string;
  readonly flops: number;
  /** Tokens that the work reads or writes, where it is a model's. */
  readonly tokens?: number;
  /** Largest difference of values that is none, as a share of the largest; that of f32 unless given. */
  readonly tolerance?: number;
  /** Goals: times as fast as each peer, by the start of its name. */
  readonly goals: Readonly<Record<string, number>>;
  /** Makes the entrants, ours first. */
  enter(): Promise<Entrant[]>;
}

/** Time of an entrant, and whether it computed the right values. */
export interface Score {
  readonly name: string;
  /** Milliseconds, best and middle of the rounds. */
  readonly bestMs: number;
  readonly medianMs: number;
  readonly gflops: number;
  /** Not there where the work is no model's. */
  readonly tokensPerSecond?: number;
  /** Largest difference from what is right, as a share of the largest value. */
  readonly error: number;
  /** Our best time over this one's is its inverse; 1 for ourselves. Null for the wrong result. */
  readonly ratio: number | null;
  /** Null where nothing is asked. */
  readonly goal: number | null;
}

export interface ContestResult {
  readonly op: string;
  readonly shape: string;
  readonly scores: readonly Score[];
}

/** Sums of some thousand f32 products, in any order, agree to this share of the largest. */
const TOLERANCE = 1e-4;

/** Milliseconds that count so far, by some clock. */
export type Reading = () => number;

/** Clock of a contest. */
export interface Timing {
  readonly now: Reading;
  /** Milliseconds that waiting itself takes of that clock. */
  readonly waitMs: number;
  /** Rounds of a contest, at least. */
  readonly rounds: number;
  /** A contest goes on for as many rounds as begin within this: short work is disturbed more easily. */
  readonly contestMs: number;
  /** A sample runs the work so often that it takes this long. */
  readonly sampleMs: number;
}

/**
 * Runs a contest: checks everybody's values, then times all in turn, round by round, so that whatever else the machine
 * does meets all of them.
 */
export async function hold(contest: Contest, timing: Timing): Promise<ContestResult> {
  const entrants = await contest.enter();
  const errors = await checkValues(entrants);
  const repeats: number[] = [];
  for (const entrant of entrants) repeats.push(await repeatsOf(entrant, timing));
  const times = entrants.map((): number[] => []);
  const start = timing.now();
  for (let round = 0; round < timing.rounds || timing.now() - start < timing.contestMs; round++) {
    for (const [i, entrant] of entrants.entries()) {
      times[i]!.push(await sample(entrant, repeats[i]!, timing));
    }
  }
  for (const entrant of entrants) await entrant.free();
  const ours = Math.min(...times[0]!);
  const scores = entrants.map(({ name }, i): Score => {
    const bestMs = Math.min(...times[i]!);
    return {
      name,
      bestMs,
      medianMs: median(times[i]!),
      gflops: contest.flops / bestMs / 1e6,
      ...(contest.tokens === undefined ? {} : { tokensPerSecond: 1000 * contest.tokens / bestMs }),
      error: errors[i]!,
      ratio: errors[i]! <= (contest.tolerance ?? TOLERANCE) ? bestMs / ours : null,
      goal: goalOf(contest, name),
    };
  });
  return { op: contest.op, shape: contest.shape, scores };
}

function goalOf({ goals }: Contest, name: string): number | null {
  const [, goal] = Object.entries(goals).find(([peer]) => name.startsWith(peer)) ?? [];
  return goal ?? null;
}

/** One run to compile, one to see how long it takes. */
async function repeatsOf(entrant: Entrant, timing: Timing): Promise<number> {
  await entrant.run(1);
  const ms = await sample(entrant, 1, timing);
  return Math.max(1, Math.min(200, Math.round(timing.sampleMs / Math.max(ms, 0.05))));
}

async function sample(entrant: Entrant, repeats: number, { now, waitMs }: Timing): Promise<number> {
  const start = now();
  await entrant.run(repeats);
  return Math.max(0.001, now() - start - waitMs) / repeats;
}

/** Everybody's largest difference from what they expect, or from the first entrant. */
async function checkValues(entrants: readonly Entrant[]): Promise<number[]> {
  const first = await entrants[0]!.values();
  const errors: number[] = [];
  for (const [i, entrant] of entrants.entries()) {
    const values = i === 0 ? first : await entrant.values();
    const expected = entrant.expected ? await entrant.expected() : first;
    errors.push(Math.max(...expected.map((right, j) => largestError(values[j] ?? [], right))));
  }
  return errors;
}
