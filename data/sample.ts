/** One training sequence. */
export interface Sample {
  /** (T) token ids. */
  readonly inputIds: Uint32Array;
  /**
   * (T) the token at the same position, or `NO_TARGET`. The model shifts: position `i` predicts label
   * `i + 1`, so label 0 is never used.
   */
  readonly labels: Int32Array;
  /** Start of each packed document, which sees only itself; absent where the sample is one document. */
  readonly documents?: Uint32Array;
}
