import { BLOCK_ROWS, columnSum, LONGEST_RANGE } from "../elementwise/column_sum.ts";
import type { Gpu } from "../gpu.ts";
import { requireSameShape, requireVector, rowQuadsOf, THREADS, wrappedGrid } from "../shared/grid.ts";
import reduceWgsl from "../shared/reduce.wgsl" with { type: "text" };
import { rowRanges, type Tensor } from "../tensor.ts";
import forwardWgsl from "./rms_norm.wgsl" with { type: "text" };
import backwardWgsl from "./rms_norm_backward.wgsl" with { type: "text" };
import weightBackwardWgsl from "./rms_norm_weight_backward.wgsl" with { type: "text" };

const FORWARD = { name: "rms_norm", wgsl: forwardWgsl, libraries: [reduceWgsl] };
const BACKWARD = { name: "rms_norm_backward", wgsl: backwardWgsl, libraries: [reduceWgsl] };
const WEIGHT_BACKWARD = { name: "rms_norm_weight_backward", wgsl: weightBackwardWgsl };

/** What {@linkcode rmsNormBackward} needs back from the forward pass. */
export interface RmsNormSaved {
  /** (rows, C), the input. */
  readonly x: Tensor;
  /** (C) f32 */
  readonly weight: Tensor;
  /** (rows) f32, reciprocal root mean square of each row. */
  readonly rstd: Tensor;
}

/**
 * Scales each row of `x` to unit root mean square, then by `weight`.
 *
 * @param x (rows, C), any format
 * @param weight (C) f32
 * @param eps added to the mean square before the root; LLaMA uses 1e-5 or 1e-6
 * @returns `y` (rows, C) in the format of `x` and `rstd` (rows) f32; the caller frees both
 * @throws {GpuError} if C is not a multiple of 4, or `weight` not (C) f32
 * @see Zhang and Sennrich, 2019, arXiv:1910.07467, equation 4
 */
export function rmsNorm(gpu: Gpu, x: Tensor, weight: Tensor, eps: number): { y: Tensor; rstd: Tensor } {
  requireVector("rmsNorm", weight, x.width, "f32");
  const quads = rowQuadsOf(x);
  const y = gpu.empty(x.shape, x.dtype, "rms norm");
  const rstd = gpu.empty([x.rows], "f32", "rstd");
  for (const { start, end } of rowRanges([x, y, rstd])) {
    const rows = end - start;
    gpu.run(FORWARD, [x.slice(start, end), weight, y.slice(start, end), rstd.slice(start, end)], {
      grid: wrappedGrid(rows),
      uniforms: { rows, quads, eps },
      formats: { X: x.format },
    });
  }
  return { y, rstd };
}

/**
 * Gradient of {@linkcode rmsNorm}.
 *
 * @param dy (rows, C), any format
 * @param addTo (rows, C), any format: the gradient is added to it in place, and it is returned
 * @param dWeight (C) f32: accumulated in place; sums run in a fixed order
 * @returns dx (rows, C): `addTo`, or a new tensor in the format of `dy` that the caller frees
 * @throws {GpuError} if shapes differ
 */
export function rmsNormBackward(
  gpu: Gpu,
  dy: Tensor,
  { x, weight, rstd }: RmsNormSaved,
  { addTo, dWeight }: { readonly addTo?: Tensor; readonly dWeight?: Tensor } = {},
): Tensor {
  requireSameShape("rmsNormBackward", dy, x);
  requireVector("rmsNormBackward", rstd, x.rows, "f32");
  if (addTo) requireSameShape("rmsNormBackward", addTo, x);
  if (dWeight) addWeightGradient(gpu, dy, x, rstd, dWeight);
  const quads = rowQuadsOf(x);
  const dx = addTo ?? gpu.empty(x.shape, dy.dtype, "rms norm dx");
  for (const { start, end } of rowRanges([dy, x, rstd, dx])) {
    const rows = end - start;
    const [dyPart, xPart, rstdPart, dxPart] = [dy, x, rstd, dx].map((tensor) => tensor.slice(start, end));
    gpu.run(BACKWARD, [dyPart!, xPart!, weight, rstdPart!, dxPart!], {
      grid: wrappedGrid(rows),
      uniforms: { rows, quads },
      constants: { ADD: addTo ? 1 : 0 },
      formats: { Y: dy.format, X: x.format, D: dx.format },
    });
  }
  return dx;
}

/** Sums by blocks of rows first, then over the blocks: parallel, and the same every time. */
function addWeightGradient(gpu: Gpu, dy: Tensor, x: Tensor, rstd: Tensor, dWeight: Tensor): void {
  requireVector("rmsNormBackward", dWeight, x.width, "f32");
  const quads = rowQuadsOf(x);
  for (const { start, end } of rowRanges([dy, x, rstd], LONGEST_RANGE)) {
    const rows = end - start;
    const blocks = Math.ceil(rows / BLOCK_ROWS);
    const partial = gpu.empty([blocks, x.width], "f32", "rms norm dWeight by block");
    const parts = [dy, x, rstd].map((tensor) => tensor.slice(start, end));
    gpu.run(WEIGHT_BACKWARD, [...parts, partial], {
      grid: [Math.ceil(quads / THREADS), blocks],
      uniforms: { rows, quads },
      constants: { BLOCK_ROWS },
      formats: { Y: dy.format, X: x.format },
    });
    columnSum(gpu, partial, dWeight);
    partial.free();
  }
}
