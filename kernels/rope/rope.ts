import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { requireVector, threadGrid } from "../shared/grid.ts";
import { rowRanges, type Tensor } from "../tensor.ts";
import ropeWgsl from "./rope.wgsl" with { type: "text" };
import word16Wgsl from "./word_16.wgsl" with { type: "text" };
import wordF32Wgsl from "./word_f32.wgsl" with { type: "text" };

const ROPE_F32 = { name: "rope_f32", wgsl: ropeWgsl, libraries: [wordF32Wgsl] };
const ROPE_16 = { name: "rope_16", wgsl: ropeWgsl, libraries: [word16Wgsl] };

/**
 * Applies rotary position embedding in place: rotates the pairs (i, i + R / 2) among the first R elements of each head by
 * the angles of the row's position.
 *
 * @param x (rows, H * D), any format
 * @param cos (P, R / 2) f32, cosines of the angles of each position
 * @param sin (P, R / 2) f32, their sines
 * @param positions (rows) u32, each below P
 * @param headDim D, a multiple of 4
 * @param options.inverse rotates back, which is the gradient of the rotation; false unless given
 * @param options.rotaryDim R, a multiple of 4 up to D; D unless given (a quarter of it in GPT-NeoX)
 * @throws {GpuError} if D or R is not a multiple of 4, or shapes differ
 * @see Su et al., 2021, arXiv:2104.09864, equation 34; pairs (i, i + R / 2) as in Hugging Face checkpoints
 */
export function rope(
  gpu: Gpu,
  x: Tensor,
  cos: Tensor,
  sin: Tensor,
  positions: Tensor,
  headDim: number,
  { inverse = false, rotaryDim = headDim }: { readonly inverse?: boolean; readonly rotaryDim?: number } = {},
): void {
  if (headDim < 4 || headDim % 4 !== 0) {
    throw new GpuError(`Cannot apply rope: head size ${headDim} is not a multiple of 4`);
  }
  if (rotaryDim < 4 || rotaryDim % 4 !== 0 || rotaryDim > headDim) {
    throw new GpuError(
      `Cannot apply rope: ${rotaryDim} of a head of ${headDim} is not a multiple of 4 of it`,
    );
  }
  if (x.width % headDim !== 0) {
    throw new GpuError(
      `Cannot apply rope: rows of ${x.width} elements do not divide into heads of ${headDim}`,
    );
  }
  if (cos.width !== rotaryDim / 2 || sin.width !== rotaryDim / 2 || cos.rows !== sin.rows) {
    throw new GpuError(
      `Cannot apply rope: tables must be (P, ${rotaryDim / 2}), got [${cos.shape}] and [${sin.shape}]`,
    );
  }
  requireVector("rope", positions, x.rows, "u32");
  const heads = x.width / headDim;
  const halfWords = rotaryDim / 4;
  for (const { start, end } of rowRanges([x, positions])) {
    const rows = end - start;
    gpu.run(
      x.format === "f32" ? ROPE_F32 : ROPE_16,
      { x: x.slice(start, end), cosines: cos, sines: sin, positions: positions.slice(start, end) },
      {
        grid: threadGrid(rows * heads * halfWords),
        uniforms: { rows, heads, half_words: halfWords, head_words: headDim / 2, sign: inverse ? -1 : 1 },
        formats: { X: x.format },
      },
    );
  }
}
