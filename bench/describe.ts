/** Measurements in words: tables, changes, and where they were made. */
import { formatMs, formatTable } from "../text.ts";
import type { ClockState, Peaks } from "./probe.ts";
import type { Change, Row, Surroundings } from "./result.ts";

/** Describes machine, commit, command and, of a GPU, the clock of a measurement in two lines. */
export function describeSurroundings(
  around: Surroundings,
  peaks: Peaks,
  gpuClock?: ClockState | null,
): string {
  const clock = around.clock === "cpu" ? "processor time" : "pass timestamps";
  const threads = around.threads === null ? "" : `, LP_NUM_THREADS=${around.threads}`;
  const commit = `${around.commit}${around.dirty ? " with changes" : ""}`;
  return `${around.adapter}${threads}; Deno ${around.deno}; commit ${commit}; ${around.date}\n` +
    `By ${clock}. Probes reach ${peaks.gflops.toFixed(1)} GFLOP/s f32 and read ${
      peaks.gbps.toFixed(1)
    } GB/s; ` +
    `"peak" is the share of what they allow${gpuClock ? `. ${describeClock(gpuClock)}` : ""}`;
}

/** Says by the multiply-add probe at which clock a GPU ran. */
function describeClock({ cold, warm, end }: ClockState): string {
  const of = (rate: number) => `${(100 * rate / warm).toFixed(0)} %`;
  return `The GPU's clock by that probe: ${of(cold)} of the warm one when idle, ${of(end)} of it at the end`;
}

/** The rows as an aligned table; rates are those of the best run. */
export function describeRows(rows: readonly Row[]): string {
  const several = new Set(rows.map(({ sharing }) => sharing)).size > 1;
  const head = ["op", "shape", "format", ...(several ? ["sharing"] : [])];
  const numbers = ["best", "median", "runs", "GFLOP/s", "GB/s", "peak", "compile"];
  const lines = rows.map((row) => [
    row.op,
    row.shape,
    row.format,
    ...(several ? [row.sharing] : []),
    formatMs(row.bestMs),
    formatMs(row.medianMs),
    String(row.runs),
    row.gflops === null ? "" : row.gflops.toFixed(1),
    row.gbps.toFixed(1),
    `${(100 * row.share).toFixed(0)} %`,
    row.compileMs === null ? "" : formatMs(row.compileMs),
  ]);
  return formatTable([[...head, ...numbers], ...lines], "l".repeat(head.length) + "r".repeat(numbers.length));
}

/** Ratios against an earlier run, and how many rows moved. */
export function describeChanges(changes: readonly Change[], file: string): string {
  if (changes.length === 0) return `No row of this run is in ${file}`;
  const rows = changes.map(({ name, beforeMs, nowMs, ratio, verdict }) => [
    name,
    formatMs(beforeMs),
    formatMs(nowMs),
    `${ratio.toFixed(2)}x`,
    verdict === "same" ? "" : verdict,
  ]);
  const count = (verdict: Change["verdict"]) => changes.filter((change) => change.verdict === verdict).length;
  return formatTable([["row", "before", "now", "speed", ""], ...rows], "lrrrl") +
    `\n${count("faster")} faster, ${count("slower")} slower, ${count("same")} within the noise`;
}
