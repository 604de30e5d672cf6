/** How fast an adapter does what a training step consists of. */
export interface Rates {
  /** Of products with 4-bit weights. */
  readonly productFlops: number;
  /** Of attention, pairs that are not seen left out. */
  readonly attentionFlops: number;
  readonly bytesPerSecond: number;
}
