/** Chunks of a batch's rows, which go through a layer one after the other. */
import { rowChunks, type RowRange } from "../kernels/shared/row_chunks.ts";
import type { Tensor } from "../kernels/tensor.ts";

/** A chunk of the rows of a batch. */
export interface Rows extends RowRange {
  /** Slices these rows of a tensor of all rows. */
  of(tensor: Tensor): Tensor;
}

/**
 * Cuts rows of `x` into chunks of at most `most`.
 * @param range rows to cut, from a multiple of ROW_ALIGNMENT on; all unless given
 */
export function chunksOf(x: Tensor, most: number, range: RowRange = { start: 0, end: x.rows }): Rows[] {
  return rowChunks(range.end - range.start, most).map((chunk) => {
    const [start, end] = [range.start + chunk.start, range.start + chunk.end];
    return { start, end, of: (tensor) => tensor.slice(start, end) };
  });
}

/** Frees them all. */
export function free(...tensors: Tensor[]): void {
  for (const tensor of tensors) tensor.free();
}
