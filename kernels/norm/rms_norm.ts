import type { Gpu } from "../gpu.ts";
import { requireVector, rowQuadsOf, wrappedGrid } from "../shared/grid.ts";
import { REDUCE_64 } from "../shared/reduce.ts";
import { rowRanges, slices, type Tensor } from "../tensor.ts";
import forwardWgsl from "./rms_norm.wgsl" with { type: "text" };
import backwardWgsl from "./rms_norm_backward.wgsl" with { type: "text" };
import weightBackwardWgsl from "./rms_norm_weight_backward.wgsl" with { type: "text" };
import { normBackward, type NormGradients } from "./norm_backward.ts";
import { normResult } from "./norm_result.ts";

const FORWARD = { name: "rms_norm", wgsl: forwardWgsl, ...REDUCE_64 };
const BACKWARD = {
  op: "rmsNormBackward",
  backward: { name: "rms_norm_backward", wgsl: backwardWgsl, ...REDUCE_64 },
  weightBackward: { name: "rms_norm_weight_backward", wgsl: weightBackwardWgsl },
};

/** Values of the forward pass that {@linkcode rmsNormBackward} needs. */
export interface RmsNormSaved {
  /** (rows, C), the input. */
  readonly x: Tensor;
  /** (C) f32 */
  readonly weight: Tensor;
  /** (rows) f32, reciprocal root mean square of each row. */
  readonly rstd: Tensor;
  /** As in the forward pass. */
  readonly offset?: number | undefined;
}

/** Numbers of {@linkcode rmsNorm}. */
export interface RmsNormScale {
  /** (C) f32 */
  readonly weight: Tensor;
  /** Added to the mean square before the root; LLaMA uses 1e-5 or 1e-6. */
  readonly eps: number;
  /** Added to each weight; 0 unless given. Gemma's weights lie around 0, with an offset of 1. */
  readonly offset?: number | undefined;
}

/**
 * Scales each row of `x` to unit root mean square, then by `offset + weight`.
 *
 * @param x (rows, C), any format
 * @param into (rows, C) in the format of `x`, other memory than its: overwritten; a new tensor unless given
 * @returns `y` (rows, C) and `rstd` (rows) f32; the caller frees both
 * @throws {GpuError} if C is not a multiple of 4, `weight` not (C) f32, or `into` not as `x`
 * @see Zhang and Sennrich, 2019, arXiv:1910.07467, equation 4
 */
export function rmsNorm(
  gpu: Gpu,
  x: Tensor,
  { weight, eps, offset = 0 }: RmsNormScale,
  into?: Tensor,
): { y: Tensor; rstd: Tensor } {
  requireVector("rmsNorm", weight, x.width, "f32");
  const quads = rowQuadsOf(x);
  const y = normResult(gpu, "rmsNorm", x, into);
  const rstd = gpu.empty([x.rows], "f32", "rstd");
  for (const range of rowRanges([x, y, rstd])) {
    const rows = range.end - range.start;
    gpu.run(FORWARD, { ...slices({ x, y, rstd }, range), w: weight }, {
      grid: wrappedGrid(rows),
      uniforms: { rows, quads, eps, offset },
      formats: { X: x.format },
    });
  }
  return { y, rstd };
}

/**
 * Computes the gradient of {@linkcode rmsNorm}.
 *
 * @param dy (rows, C), any format
 * @returns dx (rows, C): `addTo`, or a new tensor in the format of `dy` that the caller frees
 * @throws {GpuError} if shapes differ
 */
export function rmsNormBackward(
  gpu: Gpu,
  dy: Tensor,
  { x, weight, rstd, offset = 0 }: RmsNormSaved,
  gradients: NormGradients = {},
): Tensor {
  requireVector(BACKWARD.op, rstd, x.rows, "f32");
  return normBackward(gpu, BACKWARD, dy, { x, weight, stats: rstd }, gradients, { offset });
}
