import type { Gpu } from "../gpu.ts";
import type { Tensor } from "../tensor.ts";
import { ACTS } from "./acts.ts";
import { gated, gatedBackwardInPlace, type GatedInputs } from "./gated.ts";
import forwardWgsl from "./gated.wgsl" with { type: "text" };
import sigmoidWgsl from "./sigmoid.wgsl" with { type: "text" };
import backwardWgsl from "./swiglu_backward.wgsl" with { type: "text" };

const SWIGLU = {
  op: "swiglu",
  forward: { name: "swiglu", wgsl: forwardWgsl, libraries: ACTS.swiglu },
  backward: { name: "swiglu_backward", wgsl: backwardWgsl, libraries: [sigmoidWgsl] },
};

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
  return gated(gpu, SWIGLU, { gate, up });
}

/** Computes the gradient of {@linkcode swiglu} as {@linkcode gatedBackwardInPlace} says. */
export function swigluBackwardInPlace(
  gpu: Gpu,
  dy: Tensor,
  inputs: GatedInputs,
): { dGate: Tensor; dUp: Tensor } {
  return gatedBackwardInPlace(gpu, SWIGLU, dy, inputs);
}
