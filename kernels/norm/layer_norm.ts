import { BLOCK_ROWS, columnSum, LONGEST_RANGE } from "../elementwise/column_sum.ts";
import type { Gpu } from "../gpu.ts";
import { requireSameShape, requireVector, rowQuadsOf, THREADS, wrappedGrid } from "../shared/grid.ts";
import reduceWgsl from "../shared/reduce.wgsl" with { type: "text" };
import { rowRanges, type Tensor } from "../tensor.ts";
import forwardWgsl from "./layer_norm.wgsl" with { type: "text" };
import backwardWgsl from "./layer_norm_backward.wgsl" with { type: "text" };
import weightBackwardWgsl from "./layer_norm_weight_backward.wgsl" with { type: "text" };

const FORWARD = { name: "layer_norm", wgsl: forwardWgsl, libraries: [reduceWgsl] };
const BACKWARD = { name: "layer_norm_backward", wgsl: backwardWgsl, libraries: [reduceWgsl] };
const WEIGHT_BACKWARD = { name: "layer_norm_weight_backward", wgsl: weightBackwardWgsl };

/** What {@linkcode layerNormBackward} needs back from the forward pass. */
export interface LayerNormSaved {
  /** (rows, C), the input. */
  readonly x: Tensor;
  /** (C) f32 */
  readonly weight: Tensor;
  /** (rows, 2) f32, mean and reciprocal deviation of each row. */
  readonly stats: Tensor;
}

/**
 * Shifts and scales each row of `x` to mean 0 and deviation 1, then scales by `weight` and shifts by `bias`.
 *
 * @param x (rows, C), any format
 * @param weight (C) f32
 * @param bias (C) f32
 * @param eps added to the variance before the root; GPT-NeoX uses 1e-5
 * @returns `y` (rows, C) in the format of `x` and `stats` (rows, 2) f32; the caller frees both
 * @throws {GpuError} if C is not a multiple of 4, or `weight` or `bias` not (C) f32
 * @see Ba, Kiros and Hinton, 2016, arXiv:1607.06450, equation 4
 */
export function layerNorm(
  gpu: Gpu,
  x: Tensor,
  { weight, bias, eps }: { readonly weight: Tensor; readonly bias: Tensor; readonly eps: number },
): { y: Tensor; stats: Tensor } {
  requireVector("layerNorm", weight, x.width, "f32");
  requireVector("layerNorm", bias, x.width, "f32");
  const quads = rowQuadsOf(x);
  const y = gpu.empty(x.shape, x.dtype, "layer norm");
  const stats = gpu.empty([x.rows, 2], "f32", "layer norm stats");
  for (const { start, end } of rowRanges([x, y, stats])) {
    const rows = end - start;
    const [xPart, yPart, statsPart] = [x, y, stats].map((tensor) => tensor.slice(start, end));
    gpu.run(FORWARD, [xPart!, weight, bias, yPart!, statsPart!], {
      grid: wrappedGrid(rows),
      uniforms: { rows, quads, eps },
      formats: { X: x.format },
    });
  }
  return { y, stats };
}

/** Where the gradients of {@linkcode layerNormBackward} go. */
export interface LayerNormGradients {
  /** (rows, C), any format: the gradient of x is added to it in place, and it is returned. */
  readonly addTo?: Tensor;
  /** (C) f32: accumulated in place; sums run in a fixed order. */
  readonly dWeight?: Tensor | undefined;
  /** (C) f32, likewise. */
  readonly dBias?: Tensor | undefined;
}

/**
 * Gradient of {@linkcode layerNorm}.
 *
 * @param dy (rows, C), any format
 * @returns dx (rows, C): `addTo`, or a new tensor in the format of `dy` that the caller frees
 * @throws {GpuError} if shapes differ
 */
export function layerNormBackward(
  gpu: Gpu,
  dy: Tensor,
  { x, weight, stats }: LayerNormSaved,
  { addTo, dWeight, dBias }: LayerNormGradients = {},
): Tensor {
  requireSameShape("layerNormBackward", dy, x);
  requireVector("layerNormBackward", stats, 2 * x.rows, "f32");
  if (addTo) requireSameShape("layerNormBackward", addTo, x);
  if (dWeight) addWeightGradient(gpu, dy, x, stats, dWeight);
  if (dBias) columnSum(gpu, dy, dBias);
  const quads = rowQuadsOf(x);
  const dx = addTo ?? gpu.empty(x.shape, dy.dtype, "layer norm dx");
  for (const { start, end } of rowRanges([dy, x, stats, dx])) {
    const rows = end - start;
    const [dyPart, xPart, statsPart, dxPart] = [dy, x, stats, dx].map((tensor) => tensor.slice(start, end));
    gpu.run(BACKWARD, [dyPart!, xPart!, weight, statsPart!, dxPart!], {
      grid: wrappedGrid(rows),
      uniforms: { rows, quads },
      constants: { ADD: addTo ? 1 : 0 },
      formats: { Y: dy.format, X: x.format, D: dx.format },
    });
  }
  return dx;
}

/** Sums by blocks of rows first, then over the blocks: parallel, and the same every time. */
function addWeightGradient(gpu: Gpu, dy: Tensor, x: Tensor, stats: Tensor, dWeight: Tensor): void {
  requireVector("layerNormBackward", dWeight, x.width, "f32");
  const quads = rowQuadsOf(x);
  for (const { start, end } of rowRanges([dy, x, stats], LONGEST_RANGE)) {
    const rows = end - start;
    const blocks = Math.ceil(rows / BLOCK_ROWS);
    const partial = gpu.empty([blocks, x.width], "f32", "layer norm dWeight by block");
    const parts = [dy, x, stats].map((tensor) => tensor.slice(start, end));
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
