import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { quadsOf, requireVector, rowQuadsOf, threadGrid } from "../shared/grid.ts";
import threefryWgsl from "../shared/threefry.wgsl" with { type: "text" };
import { rowRanges, type Tensor } from "../tensor.ts";
import addNoiseWgsl from "./add_noise.wgsl" with { type: "text" };

const ADD_NOISE = { name: "add_noise", wgsl: addNoiseWgsl, libraries: [threefryWgsl] };

/**
 * Adds to each row of `x` noise drawn uniformly from -scale to scale of the row. The same key gives the same noise, on
 * every device; the gradient passes through unchanged.
 *
 * @param x (rows, C) in any float format, changed in place
 * @param scale (rows) f32
 * @param key u32 each: noise of different streams is independent; `firstRow` is the number of x's first row in a stream, 0
 *   unless x is a part of a whole
 * @throws {GpuError} if C is not a multiple of 4, `scale` is of another length, or elements pass the 2^34 of a stream
 * @see Jain et al. 2023, NEFTune, arXiv:2310.05914, algorithm 1
 */
export function addNoise(
  gpu: Gpu,
  x: Tensor,
  scale: Tensor,
  { seed, stream, firstRow = 0 }: {
    readonly seed: number;
    readonly stream: number;
    readonly firstRow?: number;
  },
): void {
  requireVector("addNoise", scale, x.rows, "f32");
  const rowQuads = rowQuadsOf(x);
  if (firstRow * rowQuads + quadsOf(x) > 2 ** 32) {
    throw new GpuError(`Cannot apply addNoise: [${x.shape}] has more elements than the 2^34 of a stream`);
  }
  for (const { start, end } of rowRanges([x, scale])) {
    const part = x.slice(start, end);
    gpu.run(ADD_NOISE, { x: part, scale: scale.slice(start, end) }, {
      grid: threadGrid(quadsOf(part)),
      uniforms: {
        quads: quadsOf(part),
        row_quads: rowQuads,
        first_quad: (firstRow + start) * rowQuads,
        seed,
        stream,
      },
      formats: { X: x.format },
    });
  }
}
