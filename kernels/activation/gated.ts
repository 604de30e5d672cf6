import type { Gpu } from "../gpu.ts";
import { quadsOf, requireSameShape, threadGrid } from "../shared/grid.ts";
import { requireTwins } from "./acts.ts";
import { rowRanges, slices, type Tensor } from "../tensor.ts";
import type { Kernel } from "../wgsl.ts";

/** Kernels of a gated activation, act(gate) * up. */
export interface GatedKernels {
  /** The op's name, for errors. */
  readonly op: string;
  /** (gate, up) -> y */
  readonly forward: Kernel;
  /** (dy, gate, up): the last two become their gradients. */
  readonly backward: Kernel;
}

/** Inputs of a gated activation, (rows, F) each, in one format. */
export interface GatedInputs {
  readonly gate: Tensor;
  readonly up: Tensor;
}

/**
 * Computes act(gate) * up, element by element.
 *
 * @returns (rows, F) in the format of `gate`; the caller frees it
 * @throws {GpuError} if shapes or formats differ, or elements are not a multiple of 4
 */
export function gated(gpu: Gpu, { op, forward }: GatedKernels, { gate, up }: GatedInputs): Tensor {
  requireTwins(op, gate, up);
  quadsOf(gate);
  const y = gpu.empty(gate.shape, gate.dtype, op);
  for (const range of rowRanges([gate, up, y])) {
    const parts = slices({ gate, up, y }, range);
    const quads = quadsOf(parts.y);
    gpu.run(forward, parts, { grid: threadGrid(quads), uniforms: { quads }, formats: { X: gate.format } });
  }
  return y;
}

/**
 * Computes the gradient of {@linkcode gated}, written over its inputs: afterwards `gate` holds dGate and `up` holds dUp.
 *
 * @param dy (rows, F), any format
 * @returns the same two tensors under the names of what they now hold
 * @throws {GpuError} if shapes or formats differ, or elements are not a multiple of 4
 */
export function gatedBackwardInPlace(
  gpu: Gpu,
  { op, backward }: GatedKernels,
  dy: Tensor,
  { gate, up }: GatedInputs,
): { dGate: Tensor; dUp: Tensor } {
  requireTwins(op, gate, up);
  requireSameShape(`${op}BackwardInPlace`, dy, gate);
  for (const range of rowRanges([dy, gate, up])) {
    const parts = slices({ dy, gate, up }, range);
    const quads = quadsOf(parts.dy);
    gpu.run(backward, parts, {
      grid: threadGrid(quads),
      uniforms: { quads },
      formats: { Y: dy.format, X: gate.format },
    });
  }
  return { dGate: gate, dUp: up };
}
