import type { Progress } from "../cli/progress.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { type Effort, measure } from "./measure.ts";
import type { Peaks } from "./probe.ts";
import { type Row, rowOf } from "./result.ts";
import type { Case } from "./suites/case.ts";

/** GiB on the device that a row may take, unless told: a driver on the processor takes the machine's own memory. */
export const ROOM_GIB = { software: 3, gpu: 12 } as const;

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
  { effort, peaks, roomBytes, progress }: {
    effort: Effort;
    peaks: Peaks;
    /** Most bytes on the device. */
    roomBytes: number;
    progress: Progress;
  },
): Promise<{ rows: Row[]; tooLarge: string[] }> {
  const rows: Row[] = [];
  const tooLarge: string[] = [];
  for (const [i, each] of cases.entries()) {
    const label = `${each.op} ${each.shape} ${each.format}`;
    progress.update(i, [label]);
    if (each.memory > roomBytes) {
      tooLarge.push(label);
      continue;
    }
    const work = each.prepare(gpu);
    const sample = await measure(gpu, work.run, effort);
    work.free();
    gpu.memory.trim();
    rows.push(rowOf(each, gpu.sharing, sample, peaks));
    progress.update(i + 1, [label]);
  }
  return { rows, tooLarge };
}
