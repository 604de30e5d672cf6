import { GpuError } from "../errors.ts";
import { requireSameShape } from "../shared/grid.ts";
import type { Tensor } from "../tensor.ts";
import actGeluWgsl from "./act_gelu.wgsl" with { type: "text" };
import actSiluWgsl from "./act_silu.wgsl" with { type: "text" };
import tanhWgsl from "./gelu_tanh.wgsl" with { type: "text" };
import sigmoidWgsl from "./sigmoid.wgsl" with { type: "text" };

/** A gated activation, act(gate) * up: SwiGLU with act = silu, GEGLU with GELU by its tanh. */
export type GatedActivation = "swiglu" | "geglu";

/** Pieces that define `act(vec4f)` of each. */
export const ACTS: Readonly<Record<GatedActivation, readonly string[]>> = {
  swiglu: [actSiluWgsl, sigmoidWgsl],
  geglu: [actGeluWgsl, tanhWgsl, sigmoidWgsl],
};

/** @throws {GpuError} if what a gate multiplies has another shape or format */
export function requireTwins(op: string, gate: Tensor, up: Tensor): void {
  requireSameShape(op, gate, up);
  if (gate.dtype !== up.dtype) {
    throw new GpuError(`Cannot apply ${op}: gate is ${gate.dtype}, but up is ${up.dtype}`);
  }
}
