import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { quadsOf, threadGrid } from "../shared/grid.ts";
import { rowRanges, slices, type Tensor } from "../tensor.ts";
import { ACTS } from "./acts.ts";
import forwardWgsl from "./fused_swiglu.wgsl" with { type: "text" };
import backwardWgsl from "./fused_swiglu_backward.wgsl" with { type: "text" };
import sigmoidWgsl from "./sigmoid.wgsl" with { type: "text" };

const FORWARD = { name: "fused_swiglu", wgsl: forwardWgsl, libraries: ACTS.swiglu };
const BACKWARD = { name: "fused_swiglu_backward", wgsl: backwardWgsl, libraries: [sigmoidWgsl] };

/**
 * Computes silu(gate) * up where one product holds both: each of its rows is gate, then up.
 *
 * @param fused (rows, 2 F), any format; F a multiple of 4
 * @returns (rows, F) in the format of `fused`; the caller frees it
 * @throws {GpuError} if half a row is not a multiple of 4
 * @see Shazeer, 2020, arXiv:2002.05202
 */
export function fusedSwiglu(gpu: Gpu, fused: Tensor): Tensor {
  const width = halfOf("fusedSwiglu", fused);
  const y = gpu.empty([fused.rows, width], fused.dtype, "swiglu");
  for (const range of rowRanges([fused, y])) {
    const parts = slices({ fused, y }, range);
    const quads = quadsOf(parts.y);
    gpu.run(FORWARD, parts, {
      grid: threadGrid(quads),
      uniforms: { quads, row_quads: width / 4 },
      formats: { X: fused.format },
    });
  }
  return y;
}

/**
 * Computes the gradient of {@linkcode fusedSwiglu}, written over its input: afterwards each row of `fused` holds dGate,
 * then dUp.
 *
 * @param dy (rows, F), any format
 * @returns `fused`
 * @throws {GpuError} if shapes do not fit
 */
export function fusedSwigluBackwardInPlace(gpu: Gpu, dy: Tensor, fused: Tensor): Tensor {
  const width = halfOf("fusedSwigluBackwardInPlace", fused);
  if (dy.width !== width || dy.rows !== fused.rows) {
    throw new GpuError(
      `Cannot apply fusedSwigluBackwardInPlace: dy [${dy.shape}] is not of half the width of [${fused.shape}]`,
    );
  }
  for (const range of rowRanges([dy, fused])) {
    const parts = slices({ dy, fused }, range);
    const quads = quadsOf(parts.dy);
    gpu.run(BACKWARD, parts, {
      grid: threadGrid(quads),
      uniforms: { quads, row_quads: width / 4 },
      formats: { Y: dy.format, X: fused.format },
    });
  }
  return fused;
}

function halfOf(op: string, fused: Tensor): number {
  const width = fused.width / 2;
  if (Number.isInteger(width / 4)) return width;
  throw new GpuError(`Cannot apply ${op}: half a row of [${fused.shape}] is not a multiple of 4`);
}
