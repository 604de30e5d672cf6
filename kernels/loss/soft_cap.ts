import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { quadsOf, threadGrid } from "../shared/grid.ts";
import softCapLibrary from "../shared/soft_cap.wgsl" with { type: "text" };
import { rowRanges, type Tensor } from "../tensor.ts";
import softCapWgsl from "./soft_cap.wgsl" with { type: "text" };

const SOFT_CAP = { name: "soft_cap", wgsl: softCapWgsl, libraries: [softCapLibrary] };

/**
 * Caps logits softly, in place: each y becomes cap * tanh(y / cap). The gradient is part of `crossEntropy`.
 *
 * @param logits (rows, Vp) f32
 * @param cap above 0
 * @throws {GpuError} if the logits are not f32, or their elements no multiple of 4
 * @see Gemma Team, 2024, arXiv:2408.00118, section 2
 */
export function softCapInPlace(gpu: Gpu, logits: Tensor, cap: number): void {
  if (logits.dtype !== "f32") {
    throw new GpuError(`Cannot apply softCapInPlace: logits must be f32, got ${logits.dtype}`);
  }
  for (const { start, end } of rowRanges([logits])) {
    const part = logits.slice(start, end);
    const quads = quadsOf(part);
    gpu.run(SOFT_CAP, { logits: part }, { grid: threadGrid(quads), uniforms: { quads, cap } });
  }
}
