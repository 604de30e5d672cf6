import type { KernelTiming } from "./profiler.ts";

/** Where the timings of every dispatch go; see {@linkcode traceKernels}. */
let sink: ((timing: KernelTiming) => void) | undefined;

/**
 * Makes every device opened from now on time each dispatch and hand the times to `print`, after each read. For finding
 * out what a run does; it makes runs slower.
 */
export function traceKernels(print: (timing: KernelTiming) => void): void {
  sink = print;
}

/** Whether somebody listens, and to whom to tell. */
export function traceSink(): ((timing: KernelTiming) => void) | undefined {
  return sink;
}
