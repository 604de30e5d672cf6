import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { quadsOf, threadGrid } from "../shared/grid.ts";
import maskWgsl from "../shared/mask.wgsl" with { type: "text" };
import threefryWgsl from "../shared/threefry.wgsl" with { type: "text" };
import { rowRanges, type Tensor } from "../tensor.ts";
import inOrderWgsl from "./rows_in_order.wgsl" with { type: "text" };
import numberedWgsl from "./rows_numbered.wgsl" with { type: "text" };
import dropoutWgsl from "./dropout.wgsl" with { type: "text" };

/** WGSL of masks, which `maskUniforms` go with. */
export const MASK: readonly string[] = [maskWgsl, threefryWgsl];

const DROPOUT = { name: "dropout", wgsl: dropoutWgsl, libraries: [...MASK, inOrderWgsl] };
const NUMBERED = { name: "dropout_numbered", wgsl: dropoutWgsl, libraries: [...MASK, numberedWgsl] };

/** Key of a mask: the same key gives the same mask, on every device. */
export interface DropoutKey {
  /** Share of elements that become 0: at least 0, below 1. {@linkcode dropThreshold} rounds it to 16 bits. */
  readonly p: number;
  /** u32 */
  readonly seed: number;
  /** u32: masks of different streams are independent. */
  readonly stream: number;
  /** Number of the first element of `x` within the stream, a multiple of 4; 0 unless `x` is a part of a whole. */
  readonly offset?: number;
  /** Numbers of the rows of `x`, where they stand in another order than in the stream. */
  readonly numbers?: RowNumbers | undefined;
}

/** A number for each row, in one tensor with others. */
export interface RowNumbers {
  /** u32 */
  readonly table: Tensor;
  /** Place of the first row's. */
  readonly at: number;
}

export interface DropoutOptions {
  /** Factor of what is kept; {@linkcode keptFactor} unless given. */
  readonly factor?: number;
}

/**
 * Sets each element to 0 with probability `p`, rounded to 16 bits, and divides the others by the share that is kept: the
 * mean of an element stays what it was. The gradient is the same function of the gradient, with the same key.
 *
 * @param x any shape with a multiple of 4 elements, any format
 * @returns the shape and format of `x`; the caller frees it
 * @throws {GpuError} if `p` is not in [0, 1), or elements pass the 2^53 of a stream
 */
export function dropout(
  gpu: Gpu,
  x: Tensor,
  key: DropoutKey,
  { factor = keptFactor(key.p) }: DropoutOptions = {},
): Tensor {
  requireMask("dropout", key, x.size);
  const y = gpu.empty(x.shape, x.dtype, "dropout");
  for (const { start, end } of rowRanges([x, y])) {
    const part = x.slice(start, end);
    const quads = quadsOf(part);
    const { numbers } = key;
    const tensors = { x: part, y: y.slice(start, end) };
    gpu.run(numbers ? NUMBERED : DROPOUT, numbers ? { ...tensors, numbers: numbers.table } : tensors, {
      grid: threadGrid(quads),
      uniforms: {
        quads,
        ...maskUniforms(key, numbers ? 0 : start * x.width),
        factor,
        row_quads: numbers ? x.width / 4 : 0,
        numbers_at: numbers ? numbers.at + start : 0,
      },
      formats: { X: x.format },
    });
  }
  return y;
}

/** @throws {GpuError} if `p` is not in [0, 1), or `size` elements pass the 2^53 of a stream */
export function requireMask(op: string, { p, offset = 0 }: DropoutKey, size: number): void {
  if (!(p >= 0 && p < 1)) throw new GpuError(`Cannot apply ${op}: p must be in [0, 1), got ${p}`);
  if (offset % 4 !== 0 || offset < 0 || offset + size > 2 ** 53) {
    throw new GpuError(
      `Cannot apply ${op}: elements ${offset} to ${offset + size} are not quads of a stream of 2^53`,
    );
  }
}

/** What `shared/mask.wgsl` reads of a key. @param first number of the first element that a dispatch is about, within the key's */
export function maskUniforms({ p, seed, stream, offset = 0 }: DropoutKey, first = 0) {
  const firstQuad = (offset + first) / 4;
  return {
    mask_quad: firstQuad % 2 ** 32,
    mask_quad_high: Math.floor(firstQuad / 2 ** 32),
    mask_seed: seed,
    mask_stream: stream,
    mask_threshold: dropThreshold(p) * 2 ** 16,
  };
}

/**
 * Limit below which a random number of 16 bits drops its element: 2^16 p, rounded. Any p above 0 drops a share of 2^-16 at
 * least, and any below 1 keeps as much.
 */
export function dropThreshold(p: number): number {
  return p === 0 ? 0 : Math.min(Math.max(Math.round(p * 2 ** 16), 1), 2 ** 16 - 1);
}

/** What kept elements are taken times: 1 over the share that their mask keeps. */
export function keptFactor(p: number): number {
  return 2 ** 16 / (2 ** 16 - dropThreshold(p));
}
