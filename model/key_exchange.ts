/** What attention asks of other ranks, where each of them holds some rows of a batch. */
import type { AttentionShape } from "../kernels/attention/attention.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { Tensor } from "../kernels/tensor.ts";

/** Keys and values of the same rows (rows, K * D), or their gradients. */
export interface KeysAndValues {
  readonly k: Tensor;
  readonly v: Tensor;
}

/**
 * The way of one layer's keys and values to the rank that holds the next rows, and of their gradients back. Made for one
 * pass over a batch. Both ways start when called, so that what is recorded before waiting is computed meanwhile.
 */
export interface KeyExchange {
  /**
   * First own row that the next rank sees, rounded down to a multiple of ROW_ALIGNMENT; the number of rows where it sees
   * none.
   */
  readonly tail: number;
  /**
   * Sends the last rows, and writes the rows that this rank sees of the one before. In the backward pass of a layer that is
   * run again, writes the same rows again and sends nothing.
   * @param keys own rows, behind {@linkcode AttentionMap.before} rows that are overwritten
   */
  bringKeys(gpu: Gpu, keys: KeysAndValues, shape: AttentionShape): Promise<void>;
  /**
   * Sends the gradients of the rows that {@linkcode bringKeys} wrote.
   * @param gradients of those rows; undefined where there are none
   * @returns what the next rank sends for own rows, from {@linkcode tail} on; the caller frees it
   */
  returnGradients(
    gpu: Gpu,
    gradients: KeysAndValues | undefined,
    shape: AttentionShape,
  ): Promise<KeysAndValues | undefined>;
}
