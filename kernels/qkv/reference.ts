/** The definition of the split of queries, keys and values that the kernels are tested against. */

/** Split: q (rows, Q), k and v (rows, K) of `fused` (rows, Q + 2 K). */
export function splitQkvReference(
  fused: ArrayLike<number>,
  { Q, K }: { readonly Q: number; readonly K: number },
): { q: Float64Array; k: Float64Array; v: Float64Array } {
  const width = Q + 2 * K;
  const part = (first: number, own: number) =>
    Float64Array.from({ length: fused.length / width * own }, (_, i) => {
      const row = Math.floor(i / own);
      return fused[row * width + first + i % own]!;
    });
  return { q: part(0, Q), k: part(Q, K), v: part(Q + K, K) };
}
