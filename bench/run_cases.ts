import type { Progress } from "../cli/progress.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { type Effort, measure } from "./measure.ts";
import type { Peaks } from "./probe.ts";
import { type Row, rowOf } from "./result.ts";
import type { Case } from "./suites/case.ts";

/** Device memory that rows may take: a driver of a CPU takes the machine's own. */
const MEMORY = { software: 3 * 2 ** 30, gpu: 60 * 2 ** 30 } as const;

/** The cases whose suite, op, shape or format the filter finds. */
export function selectCases(cases: readonly Case[], filter: RegExp | undefined): Case[] {
  return cases.filter(({ suite, op, shape, format }) =>
    filter === undefined || filter.test([suite, op, shape, format].join(" "))
  );
}

/**
 * Measures the cases one after the other; a device at a time holds the inputs of one.
 * @returns the rows, and the names of cases that are too large for this adapter
 */
export async function runCases(
  gpu: Gpu,
  cases: readonly Case[],
  { effort, peaks, progress, done = 0 }: {
    effort: Effort;
    peaks: Peaks;
    progress: Progress;
    /** Cases that `progress` has counted before these. */
    done?: number;
  },
): Promise<{ rows: Row[]; tooLarge: string[] }> {
  const rows: Row[] = [];
  const tooLarge: string[] = [];
  const most = MEMORY[gpu.info.isSoftware ? "software" : "gpu"];
  for (const [i, each] of cases.entries()) {
    const label = `${each.op} ${each.shape} ${each.format}`;
    progress.update(done + i, [label]);
    if (each.memory > most) {
      tooLarge.push(label);
      continue;
    }
    const work = each.prepare(gpu);
    const sample = await measure(gpu, work.run, effort);
    work.free();
    gpu.trim();
    rows.push(rowOf(each, gpu.sharing, sample, peaks));
    progress.update(done + i + 1, [label]);
  }
  return { rows, tooLarge };
}
