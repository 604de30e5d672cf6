/** Head counts of one attention layer. */
interface Shape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/**
 * The definition of attention of new rows over the keys and values of their sequence up to their own positions, in float64.
 *
 * @param q (sequences * per sequence, heads * headDim)
 * @param k (sequences * capacity, kvHeads * headDim), as v
 * @param positions of the rows of q in their sequences
 * @param options.window most keys that a query sees, itself included
 * @param options.cap soft cap of the scores, cap * tanh(score / cap); none unless given
 * @returns o like q
 */
export function cacheAttentionReference(
  q: ArrayLike<number>,
  { k, v, capacity }: { k: ArrayLike<number>; v: ArrayLike<number>; capacity: number },
  positions: ArrayLike<number>,
  { heads, kvHeads, headDim }: Shape,
  { window = Infinity, scale = 1 / Math.sqrt(headDim), cap }: {
    readonly window?: number;
    readonly scale?: number;
    readonly cap?: number | undefined;
  } = {},
): Float64Array {
  const o = new Float64Array(q.length);
  const sequences = k.length / (capacity * kvHeads * headDim);
  const perSequence = positions.length / sequences;
  for (let row = 0; row < positions.length; row++) {
    const base = Math.floor(row / perSequence) * capacity;
    for (let h = 0; h < heads; h++) {
      const at = (row * heads + h) * headDim;
      const keyOf = (position: number) =>
        ((base + position) * kvHeads + Math.floor(h * kvHeads / heads)) * headDim;
      const scores = Float64Array.from({ length: positions[row]! + 1 }, (_, position) => {
        let dot = 0;
        for (let c = 0; c < headDim; c++) dot += q[at + c]! * k[keyOf(position) + c]!;
        const score = cap === undefined ? scale * dot : cap * Math.tanh(scale * dot / cap);
        return positions[row]! - position < window ? score : -Infinity;
      });
      const most = scores.reduce((a, b) => Math.max(a, b));
      const weights = scores.map((score) => Math.exp(score - most));
      const sum = weights.reduce((a, b) => a + b);
      weights.forEach((weight, position) => {
        for (let c = 0; c < headDim; c++) o[at + c]! += weight / sum * v[keyOf(position) + c]!;
      });
    }
  }
  return o;
}

/**
 * The definition of rows in 8 bits: each head of a row has the scale max |x| / 127, and its elements the nearest whole
 * multiples of it.
 *
 * @param x (rows, kvHeads * headDim)
 * @returns the multiples like x, and the scales (rows, kvHeads)
 */
export function quantiseRowsReference(
  x: ArrayLike<number>,
  headDim: number,
): { codes: Float64Array; scales: Float64Array } {
  const codes = new Float64Array(x.length);
  const scales = new Float64Array(x.length / headDim);
  for (let head = 0; head < scales.length; head++) {
    const at = head * headDim;
    for (let c = 0; c < headDim; c++) scales[head] = Math.max(scales[head]!, Math.abs(x[at + c]!) / 127);
    if (scales[head] === 0) continue;
    for (let c = 0; c < headDim; c++) codes[at + c] = Math.round(x[at + c]! / scales[head]!);
  }
  return { codes, scales };
}
