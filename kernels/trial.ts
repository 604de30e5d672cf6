/** One trial: a piece of work whose values are known, and how it is judged. */
import type { Gpu } from "./gpu.ts";
import type { Risk, Verdict, Wrong } from "./refusal.ts";

/** One kernel to try, or one thing that kernels depend on. */
export interface Trial extends Pick<Verdict, "kernel" | "risks" | "tolerance"> {
  /** Names of the parts that its values are made of, with their lengths; one unless given. */
  readonly parts?: readonly Part[];
  /** Computes the device's values and the expected ones. */
  readonly run: (gpu: Gpu) => Promise<readonly [ArrayLike<number>, ArrayLike<number>]>;
}

/** A stretch of a trial's values. */
export interface Part {
  readonly name: string;
  readonly length: number;
  /** What is refused where it is wrong; all that the trial has unless given. */
  readonly risks?: readonly Risk[];
}

/** Runs a trial. Never throws: what it throws is its failure. */
export async function runTrial(gpu: Gpu, trial: Trial): Promise<Verdict> {
  const { kernel, risks, tolerance } = trial;
  try {
    const [actual, expected] = await trial.run(gpu);
    const error = largestError(actual, expected);
    const wrong = wrongParts(trial, actual, expected);
    const atRisk = wrong.flatMap(({ part }) =>
      trial.parts?.find(({ name }) => name === part)?.risks ?? risks
    );
    return {
      kernel,
      risks: atRisk.length > 0 ? [...new Set(atRisk)] : risks,
      tolerance,
      ok: error <= tolerance,
      error: Number.isFinite(error) ? error : null,
      failure: null,
      wrong,
    };
  } catch (error) {
    return failedTrial(trial, error);
  }
}

/** The verdict on a kernel that gave no values. */
export function failedTrial({ kernel, risks, tolerance }: Trial, error: unknown): Verdict {
  const failure = (error as Error).message.split("\n")[0]!;
  return { kernel, risks, tolerance, ok: false, error: null, failure, wrong: [] };
}

/** Largest difference as a share of the largest expected value; infinite where a value is NaN or missing. */
export function largestError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Infinity;
  let difference = 0;
  for (let i = 0; i < expected.length; i++) {
    const off = Math.abs(actual[i]! - expected[i]!);
    if (!(off <= Number.MAX_VALUE)) return Infinity;
    difference = Math.max(difference, off);
  }
  return difference / largestOf(expected);
}

/** The parts with values that are further off than is allowed. */
function wrongParts(
  { tolerance, parts = [] }: Trial,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
): Wrong[] {
  const most = tolerance * largestOf(expected);
  const wrong: Wrong[] = [];
  let start = 0;
  for (const { name, length } of parts.length > 0 ? parts : [{ name: "", length: expected.length }]) {
    let [count, first] = [0, -1];
    for (let i = 0; i < length; i++) {
      if (Math.abs(actual[start + i]! - expected[start + i]!) <= most) continue;
      if (count++ === 0) first = i;
    }
    if (count > 0) wrong.push({ part: name, count, of: length, first });
    start += length;
  }
  return wrong;
}

function largestOf(values: ArrayLike<number>): number {
  let largest = 0;
  for (let i = 0; i < values.length; i++) largest = Math.max(largest, Math.abs(values[i]!));
  return largest;
}
