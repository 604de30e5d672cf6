/** Chunks of a batch's rows, which go through a layer one after the other. */
import { rowChunks, type RowRange } from "../kernels/shared/row_chunks.ts";
import type { Tensor } from "../kernels/tensor.ts";

/** A chunk of the rows of a batch. */
export interface Rows extends RowRange {
  /** Slices these rows of a tensor of all rows. */
  of(tensor: Tensor): Tensor;
}

/** Cuts the rows of `x` into chunks of at most `most`. */
export function chunksOf(x: Tensor, most: number): Rows[] {
  return rowChunks(x.rows, most).map(({ start, end }) => ({
    start,
    end,
    of: (tensor) => tensor.slice(start, end),
  }));
}

/** Frees them all. */
export function free(...tensors: Tensor[]): void {
  for (const tensor of tensors) tensor.free();
}
