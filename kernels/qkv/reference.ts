/** The definition of the split of queries, keys and values that the kernels are tested against. */

/** Split: q, k and v (rows, H * D) of `fused` (rows, H, 3, D). */
export function splitQkvReference(
  fused: ArrayLike<number>,
  headDim: number,
): { q: Float64Array; k: Float64Array; v: Float64Array } {
  const part = (number: number) =>
    Float64Array.from({ length: fused.length / 3 }, (_, i) => {
      const head = Math.floor(i / headDim);
      return fused[(3 * head + number) * headDim + i % headDim]!;
    });
  return { q: part(0), k: part(1), v: part(2) };
}
