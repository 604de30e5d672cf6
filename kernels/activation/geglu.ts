import type { Gpu } from "../gpu.ts";
import type { Tensor } from "../tensor.ts";
import { ACTS } from "./acts.ts";
import { gated, gatedBackwardInPlace, type GatedInputs } from "./gated.ts";
import forwardWgsl from "./gated.wgsl" with { type: "text" };
import backwardWgsl from "./geglu_backward.wgsl" with { type: "text" };
import tanhWgsl from "./gelu_tanh.wgsl" with { type: "text" };
import sigmoidWgsl from "./sigmoid.wgsl" with { type: "text" };

const GEGLU = {
  op: "geglu",
  forward: { name: "geglu", wgsl: forwardWgsl, libraries: ACTS.geglu },
  backward: { name: "geglu_backward", wgsl: backwardWgsl, libraries: [tanhWgsl, sigmoidWgsl] },
};

/**
 * Computes gelu(gate) * up, element by element, with GELU by its tanh.
 *
 * @param gate (rows, F), any format
 * @param up (rows, F) in the format of `gate`
 * @returns (rows, F) in the format of `gate`; the caller frees it
 * @throws {GpuError} if shapes or formats differ, or elements are not a multiple of 4
 * @see Shazeer, 2020, arXiv:2002.05202
 */
export function geglu(gpu: Gpu, gate: Tensor, up: Tensor): Tensor {
  return gated(gpu, GEGLU, { gate, up });
}

/** Computes the gradient of {@linkcode geglu} as {@linkcode gatedBackwardInPlace} says. */
export function gegluBackwardInPlace(
  gpu: Gpu,
  dy: Tensor,
  inputs: GatedInputs,
): { dGate: Tensor; dUp: Tensor } {
  return gatedBackwardInPlace(gpu, GEGLU, dy, inputs);
}
