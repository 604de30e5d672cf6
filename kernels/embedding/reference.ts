/** The float64 definition of the embedding lookup that the kernels are tested against. */

/** y[r] = table[ids[r]] for `table` (V, width) */
export function embed64(ids: ArrayLike<number>, table: ArrayLike<number>, width: number): Float64Array {
  const y = new Float64Array(ids.length * width);
  for (let row = 0; row < ids.length; row++) {
    for (let c = 0; c < width; c++) y[row * width + c] = table[ids[row]! * width + c]!;
  }
  return y;
}
