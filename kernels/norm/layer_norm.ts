import { columnSum } from "../elementwise/column_sum.ts";
import type { Gpu } from "../gpu.ts";
import { requireVector, rowQuadsOf, wrappedGrid } from "../shared/grid.ts";
import { REDUCE_64 } from "../shared/reduce.ts";
import { rowRanges, slices, type Tensor } from "../tensor.ts";
import forwardWgsl from "./layer_norm.wgsl" with { type: "text" };
import backwardWgsl from "./layer_norm_backward.wgsl" with { type: "text" };
import weightBackwardWgsl from "./layer_norm_weight_backward.wgsl" with { type: "text" };
import { normBackward, type NormGradients } from "./norm_backward.ts";
import { normResult } from "./norm_result.ts";

const FORWARD = { name: "layer_norm", wgsl: forwardWgsl, ...REDUCE_64 };
const BACKWARD = {
  op: "layerNormBackward",
  backward: { name: "layer_norm_backward", wgsl: backwardWgsl, ...REDUCE_64 },
  weightBackward: { name: "layer_norm_weight_backward", wgsl: weightBackwardWgsl },
};

/** Values of the forward pass that {@linkcode layerNormBackward} needs. */
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
 * @param into (rows, C) in the format of `x`, other memory than its: overwritten; a new tensor unless given
 * @returns `y` (rows, C) and `stats` (rows, 2) f32; the caller frees both
 * @throws {GpuError} if C is not a multiple of 4, `weight` or `bias` not (C) f32, or `into` not as `x`
 * @see Ba, Kiros and Hinton, 2016, arXiv:1607.06450, equation 4
 */
export function layerNorm(
  gpu: Gpu,
  x: Tensor,
  { weight, bias, eps }: { readonly weight: Tensor; readonly bias: Tensor; readonly eps: number },
  into?: Tensor,
): { y: Tensor; stats: Tensor } {
  requireVector("layerNorm", weight, x.width, "f32");
  requireVector("layerNorm", bias, x.width, "f32");
  const quads = rowQuadsOf(x);
  const y = normResult(gpu, "layerNorm", x, into);
  const stats = gpu.empty([x.rows, 2], "f32", "layer norm stats");
  for (const range of rowRanges([x, y, stats])) {
    const rows = range.end - range.start;
    gpu.run(FORWARD, { ...slices({ x, y, stats }, range), w: weight, b: bias }, {
      grid: wrappedGrid(rows),
      uniforms: { rows, quads, eps },
      formats: { X: x.format },
    });
  }
  return { y, stats };
}

/** Tensors that the gradients of {@linkcode layerNormBackward} are added to. */
export interface LayerNormGradients extends NormGradients {
  /** (C) f32, likewise. */
  readonly dBias?: Tensor | undefined;
}

/**
 * Computes the gradient of {@linkcode layerNorm}.
 *
 * @param dy (rows, C), any format
 * @returns dx (rows, C): `addTo`, or a new tensor in the format of `dy` that the caller frees
 * @throws {GpuError} if shapes differ
 */
export function layerNormBackward(
  gpu: Gpu,
  dy: Tensor,
  saved: LayerNormSaved,
  { dBias, ...gradients }: LayerNormGradients = {},
): Tensor {
  requireVector(BACKWARD.op, saved.stats, 2 * saved.x.rows, "f32");
  const dx = normBackward(gpu, BACKWARD, dy, saved, gradients);
  if (dBias) columnSum(gpu, dy, dBias);
  return dx;
}
