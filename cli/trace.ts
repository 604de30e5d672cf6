/** LONGREACH_TRACE=1: where the device's time goes, as a table by kernel at the end of each step and of the command. */
import { formatCount, formatTable } from "../text.ts";
import type { KernelTiming } from "../kernels/profiler.ts";

interface Sum {
  calls: number;
  microseconds: number;
  bytes: number;
}

/** Times of dispatches, added up by kernel. */
export class Trace {
  readonly #sums = new Map<string, Sum>();

  /** Adds one dispatch to what {@linkcode show} shows next. */
  add({ kernel, microseconds, bytes }: KernelTiming): void {
    const sum = this.#sums.get(kernel) ?? { calls: 0, microseconds: 0, bytes: 0 };
    sum.calls++;
    sum.microseconds += microseconds;
    sum.bytes += bytes;
    this.#sums.set(kernel, sum);
  }

  /** Shows what was timed since the last table, the longest first; nothing where nothing was. */
  show(io: { err(text: string): void }, title: string): void {
    if (this.#sums.size === 0) return;
    const rows = [...this.#sums].sort(([, a], [, b]) => b.microseconds - a.microseconds);
    this.#sums.clear();
    const all = rows.reduce((total, [, { microseconds }]) => total + microseconds, 0);
    const calls = rows.reduce((total, [, sum]) => total + sum.calls, 0);
    const line = (
      name: string,
      { calls, microseconds }: Pick<Sum, "calls" | "microseconds">,
      rate: string,
    ) => [
      name,
      formatCount(calls),
      (microseconds / 1000).toFixed(2),
      `${(100 * microseconds / (all || 1)).toFixed(1)} %`,
      rate,
    ];
    const table = formatTable(
      [
        ["kernel", "calls", "ms", "share", "GB/s bound"],
        ...rows.map(([kernel, sum]) => line(kernel, sum, rateText(sum.bytes / sum.microseconds / 1000))),
        line("all", { calls, microseconds: all }, ""),
      ],
      "lrrrr",
      "  ",
    );
    io.err(`${title}\n${table}`);
  }
}

/** GB/s; below 0.1 in two significant digits. */
function rateText(rate: number): string {
  return rate > 0 && rate < 0.1 ? rate.toPrecision(2) : rate.toFixed(1);
}
