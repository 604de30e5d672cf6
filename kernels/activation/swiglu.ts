import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { quadsOf, requireSameShape, threadGrid } from "../shared/grid.ts";
import { rowRanges, slices, type Tensor } from "../tensor.ts";
import sigmoidWgsl from "./sigmoid.wgsl" with { type: "text" };
import forwardWgsl from "./swiglu.wgsl" with { type: "text" };
import backwardWgsl from "./swiglu_backward.wgsl" with { type: "text" };

const FORWARD = { name: "swiglu", wgsl: forwardWgsl, libraries: [sigmoidWgsl] };
const BACKWARD = { name: "swiglu_backward", wgsl: backwardWgsl, libraries: [sigmoidWgsl] };

/** Inputs of SwiGLU, (rows, F) each, in one format. */
export interface SwigluSaved {
  readonly gate: Tensor;
  readonly up: Tensor;
}

/**
 * Computes silu(gate) * up, element by element.
 *
 * @param gate (rows, F), any format
 * @param up (rows, F) in the format of `gate`
 * @returns (rows, F) in the format of `gate`; the caller frees it
 * @throws {GpuError} if shapes or formats differ, or elements are not a multiple of 4
 * @see Shazeer, 2020, arXiv:2002.05202
 */
export function swiglu(gpu: Gpu, gate: Tensor, up: Tensor): Tensor {
  requireTwins(gate, up);
  quadsOf(gate);
  const y = gpu.empty(gate.shape, gate.dtype, "swiglu");
  for (const range of rowRanges([gate, up, y])) {
    const parts = slices({ gate, up, y }, range);
    const quads = quadsOf(parts.y);
    gpu.run(FORWARD, parts, { grid: threadGrid(quads), uniforms: { quads }, formats: { X: gate.format } });
  }
  return y;
}

/**
 * Computes the gradient of {@linkcode swiglu}, written over its inputs: afterwards `gate` holds dGate and `up` holds dUp.
 *
 * @param dy (rows, F), any format
 * @returns the same two tensors under the names of what they now hold
 * @throws {GpuError} if shapes or formats differ, or elements are not a multiple of 4
 */
export function swigluBackwardInPlace(
  gpu: Gpu,
  dy: Tensor,
  { gate, up }: SwigluSaved,
): { dGate: Tensor; dUp: Tensor } {
  requireTwins(gate, up);
  requireSameShape("swigluBackwardInPlace", dy, gate);
  for (const range of rowRanges([dy, gate, up])) {
    const parts = slices({ dy, gate, up }, range);
    const quads = quadsOf(parts.dy);
    gpu.run(BACKWARD, parts, {
      grid: threadGrid(quads),
      uniforms: { quads },
      formats: { Y: dy.format, X: gate.format },
    });
  }
  return { dGate: gate, dUp: up };
}

function requireTwins(gate: Tensor, up: Tensor): void {
  requireSameShape("swiglu", gate, up);
  if (gate.dtype !== up.dtype) {
    throw new GpuError(`Cannot apply swiglu: gate is ${gate.dtype}, but up is ${up.dtype}`);
  }
}
