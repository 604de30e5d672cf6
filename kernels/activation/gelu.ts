import type { Gpu } from "../gpu.ts";
import { quadsOf, requireSameShape, threadGrid } from "../shared/grid.ts";
import { rowRanges, slices, type Tensor } from "../tensor.ts";
import forwardWgsl from "./gelu.wgsl" with { type: "text" };
import backwardWgsl from "./gelu_backward.wgsl" with { type: "text" };
import erfWgsl from "./gelu_erf.wgsl" with { type: "text" };
import tanhWgsl from "./gelu_tanh.wgsl" with { type: "text" };
import sigmoidWgsl from "./sigmoid.wgsl" with { type: "text" };

/** Form of GELU: by the error function itself, or by the tanh that comes within 5e-4 of it. */
export type GeluForm = "erf" | "tanh";

const LIBRARIES = { erf: [erfWgsl], tanh: [tanhWgsl, sigmoidWgsl] };
const kernels = (name: string, wgsl: string) => ({
  erf: { name: `${name}_erf`, wgsl, libraries: LIBRARIES.erf },
  tanh: { name: `${name}_tanh`, wgsl, libraries: LIBRARIES.tanh },
});
const FORWARD = kernels("gelu", forwardWgsl);
const BACKWARD = kernels("gelu_backward", backwardWgsl);

/**
 * Computes GELU element by element: x times the probability that a standard normal variable is below x.
 *
 * @param x (rows, F), any format
 * @returns (rows, F) in the format of `x`; the caller frees it
 * @throws {GpuError} if elements are not a multiple of 4
 * @see Hendrycks and Gimpel, 2016, arXiv:1606.08415
 */
export function gelu(gpu: Gpu, x: Tensor, form: GeluForm): Tensor {
  quadsOf(x);
  const y = gpu.empty(x.shape, x.dtype, "gelu");
  for (const range of rowRanges([x, y])) {
    const parts = slices({ x, y }, range);
    const quads = quadsOf(parts.x);
    gpu.run(FORWARD[form], parts, { grid: threadGrid(quads), uniforms: { quads }, formats: { X: x.format } });
  }
  return y;
}

/**
 * Computes the gradient of {@linkcode gelu}, written over its input.
 *
 * @param dy (rows, F), any format
 * @param x (rows, F), the input of the forward pass; afterwards it holds dx
 * @returns `x`, under the name of what it now holds
 * @throws {GpuError} if shapes differ, or elements are not a multiple of 4
 */
export function geluBackwardInPlace(gpu: Gpu, dy: Tensor, x: Tensor, form: GeluForm): Tensor {
  requireSameShape("geluBackwardInPlace", dy, x);
  for (const range of rowRanges([dy, x])) {
    const parts = slices({ dy, x }, range);
    const quads = quadsOf(parts.x);
    gpu.run(BACKWARD[form], parts, {
      grid: threadGrid(quads),
      uniforms: { quads },
      formats: { Y: dy.format, X: x.format },
    });
  }
  return x;
}
