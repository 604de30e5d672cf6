import type { Gpu } from "../gpu.ts";
import { rowRanges, type Tensor } from "../tensor.ts";
import { requireVector, wrappedGrid } from "./grid.ts";
import sumWgsl from "./sum.wgsl" with { type: "text" };

const SUM = { name: "sum", wgsl: sumWgsl };

/** Values that one workgroup adds up. */
const SPAN = 1024;

/**
 * Adds the sum of a vector to a scalar, in a fixed order that keeps rounding near that of one addition.
 *
 * @param values f32, flat
 * @param out (1) f32, accumulated in place
 * @throws {GpuError} if a type differs, or `out` has more elements
 */
export function sumInto(gpu: Gpu, values: Tensor, out: Tensor): void {
  requireVector("sumInto", values, values.size, "f32");
  requireVector("sumInto", out, 1, "f32");
  for (const { start, end } of rowRanges([values])) sumSpans(gpu, values.slice(start, end), out);
}

function sumSpans(gpu: Gpu, values: Tensor, out: Tensor): void {
  const spans = Math.ceil(values.size / SPAN);
  const isLast = spans === 1;
  const sums = isLast ? out : gpu.empty([spans], "f32", "sums");
  gpu.run(SUM, { values, sums }, {
    grid: wrappedGrid(spans),
    uniforms: { count: values.size, zero: 0 },
    constants: { SPAN, ADD: isLast },
  });
  if (isLast) return;
  sumSpans(gpu, sums, out);
  sums.free();
}
