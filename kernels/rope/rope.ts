import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { requireVector, threadGrid } from "../shared/grid.ts";
import { rowRanges, slices, type Tensor } from "../tensor.ts";
import type { Format } from "../wgsl.ts";
import ropeWgsl from "./rope.wgsl" with { type: "text" };
import word16Wgsl from "./word_16.wgsl" with { type: "text" };
import wordF32Wgsl from "./word_f32.wgsl" with { type: "text" };

/**
 * The WGSL of a word of two elements of X, by its format.
 * @internal
 */
export const WORDS: Readonly<Record<Format, string>> = {
  f32: wordF32Wgsl,
  bf16: word16Wgsl,
  f16: word16Wgsl,
};
const ROPE_F32 = { name: "rope_f32", wgsl: ropeWgsl, libraries: [WORDS.f32] };
const ROPE_16 = { name: "rope_16", wgsl: ropeWgsl, libraries: [WORDS.bf16] };

/** Cosines and sines of the angles of each position. */
export interface RopeTable {
  /** (P, R / 2) f32 for the R elements of a head that rotate. */
  readonly cos: Tensor;
  readonly sin: Tensor;
}

/**
 * Applies rotary position embedding in place: rotates the pairs (i, i + R / 2) among the first R elements of each head by
 * the angles of the row's position.
 *
 * @param tensors one or two (rows, H * D), of any format and each its own H: queries and keys, say
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
  tensors: readonly Tensor[],
  cos: Tensor,
  sin: Tensor,
  positions: Tensor,
  headDim: number,
  { inverse = false, rotaryDim = headDim }: { readonly inverse?: boolean; readonly rotaryDim?: number } = {},
): void {
  requireTable({ cos, sin }, headDim, rotaryDim);
  const [x, other] = tensors as [Tensor, Tensor?];
  for (const { width, rows, format } of tensors) {
    if (width % headDim !== 0) {
      throw new GpuError(
        `Cannot apply rope: rows of ${width} elements do not divide into heads of ${headDim}`,
      );
    }
    if (tensors.length > 2 || rows !== x.rows || format !== x.format) {
      throw new GpuError(`Cannot apply rope: it takes two tensors at most, of as many rows and one format`);
    }
  }
  requireVector("rope", positions, x.rows, "u32");
  const [heads, otherHeads] = [x.width / headDim, (other?.width ?? 0) / headDim];
  const halfWords = rotaryDim / 4;
  for (const range of rowRanges([...tensors, positions])) {
    const rows = range.end - range.start;
    const parts = slices({ x_0: x, ...(other && { x_1: other }), positions }, range);
    gpu.run(x.format === "f32" ? ROPE_F32 : ROPE_16, { ...parts, cosines: cos, sines: sin }, {
      grid: threadGrid(rows * (heads + otherHeads) * halfWords),
      constants: { TENSORS: tensors.length },
      uniforms: {
        rows,
        heads_0: heads,
        heads_1: otherHeads,
        half_words: halfWords,
        head_words: headDim / 2,
        sign: inverse ? -1 : 1,
      },
      formats: { X: x.format },
    });
  }
}

/** @throws {GpuError} unless the first `rotaryDim` elements of heads of `headDim` can rotate by the table's angles */
export function requireTable(
  { cos, sin }: RopeTable,
  headDim: number,
  rotaryDim: number = 2 * cos.width,
): void {
  if (headDim < 4 || headDim % 4 !== 0) {
    throw new GpuError(`Cannot apply rope: head size ${headDim} is not a multiple of 4`);
  }
  if (rotaryDim < 4 || rotaryDim % 4 !== 0 || rotaryDim > headDim) {
    throw new GpuError(
      `Cannot apply rope: ${rotaryDim} of a head of ${headDim} is not a multiple of 4 of it`,
    );
  }
  if (cos.width !== rotaryDim / 2 || sin.width !== rotaryDim / 2 || cos.rows !== sin.rows) {
    throw new GpuError(
      `Cannot apply rope: tables must be (P, ${rotaryDim / 2}), got [${cos.shape}] and [${sin.shape}]`,
    );
  }
}
