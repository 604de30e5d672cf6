/** The figures of a check by name, taken from what its parts wrote, and set beside those of an earlier check. */
import type { WebGpu } from "../../kernels/device.ts";
import type { BenchResult, Row, StepReport } from "../result.ts";
import type { FitResult } from "./fit.ts";

/** Numbers by name: "deno | step of 8192 tokens | s". The unit tells whether more is better. */
export type Figures = Readonly<Record<string, number>>;

/** Units of which less is better. */
const COSTS = new Set(["s", "ms", "GiB", "dispatches"]);

/** Name of a figure. */
export function nameOf(webgpu: WebGpu, what: string, unit: string): string {
  return [webgpu, what, unit].join(" | ");
}

/** What a row is called. */
export function nameOfRow({ op, shape, format }: Pick<Row, "op" | "shape" | "format">): string {
  return [op, shape, format].filter(Boolean).join(" ");
}

/** Figures of a bench: the probes', a row's rate, a step's times. */
export function figuresOfBench(webgpu: WebGpu, { peaks, rows, steps }: BenchResult): Figures {
  const figures: Record<string, number> = {
    [nameOf(webgpu, "f32 probe", "TFLOP/s")]: peaks.gflops / 1000,
    [nameOf(webgpu, "memory probe", "GB/s")]: peaks.gbps,
  };
  for (const row of rows.filter(({ op }) => op !== "step")) {
    const what = nameOfRow(row);
    figures[nameOf(webgpu, what, "ms")] = row.bestMs;
    figures[nameOf(webgpu, what, "GB/s")] = row.gbps;
    if (row.gflops !== null) figures[nameOf(webgpu, what, "TFLOP/s")] = row.gflops / 1000;
  }
  for (const step of steps) Object.assign(figures, figuresOfStep(webgpu, step));
  return figures;
}

function figuresOfStep(webgpu: WebGpu, step: StepReport): Figures {
  const name = `step of ${step.tokens} tokens`;
  return {
    [nameOf(webgpu, name, "s")]: step.wallMs / 1000,
    [nameOf(webgpu, `${name}, on the device`, "s")]: step.deviceMs / 1000,
    [nameOf(webgpu, `${name}, compiling`, "s")]: step.compileMs / 1000,
    [nameOf(webgpu, name, "tokens/s")]: 1000 * step.tokens / step.wallMs,
    [nameOf(webgpu, name, "TFLOP/s")]: step.gflops / 1000,
    [nameOf(webgpu, `${name}, planned`, "GiB")]: step.plannedBytes / 2 ** 30,
    [nameOf(webgpu, `${name}, counted`, "GiB")]: step.peakBytes / 2 ** 30,
    ...(step.commands && { [nameOf(webgpu, name, "dispatches")]: step.commands.dispatches }),
  };
}

/** The rate of a whole answer, from the line that the bench prints of it. */
export function figuresOfAnswer(webgpu: WebGpu, output: string): Figures {
  const rate = /([\d.]+) tokens a second on the clock/.exec(output)?.[1];
  return rate === undefined
    ? {}
    : { [nameOf(webgpu, "an answer, reading included", "tokens/s")]: Number(rate) };
}

/** The largest plan that fits. */
export function figuresOfFit(webgpu: WebGpu, { plans }: FitResult): Figures {
  const largest = plans.findLast(({ fits }) => fits);
  if (!largest) return {};
  const { shape, tokens, plannedBytes } = largest;
  // Larger is better here, unlike for other memory.
  return {
    [nameOf(webgpu, `largest plan that fits: ${shape}, ${tokens} tokens`, "GiB given")]: plannedBytes /
      2 ** 30,
  };
}

/** A figure beside the same of an earlier check. */
export interface Change {
  readonly name: string;
  readonly before: number;
  readonly now: number;
  /** Times as good as before. */
  readonly ratio: number;
}

/** Every figure that both checks have. */
export function compareFigures(before: Figures, now: Figures): Change[] {
  return Object.entries(now).flatMap(([name, value]) => {
    const old = before[name];
    if (old === undefined || !(old > 0 && value > 0)) return [];
    const ratio = COSTS.has(name.split(" | ")[2]!) ? old / value : value / old;
    return [{ name, before: old, now: value, ratio }];
  });
}
