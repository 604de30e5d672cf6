/** The float64 definition of rotary position embedding that the kernel is tested against. */

/**
 * Rotation of the first `rotaryDim` elements of each head of `x` (rows, H * headDim) by the angles `cos`, `sin`
 * (P, rotaryDim / 2) of `positions` (rows).
 */
export function ropeReference(
  x: ArrayLike<number>,
  cos: ArrayLike<number>,
  sin: ArrayLike<number>,
  positions: ArrayLike<number>,
  headDim: number,
  rotaryDim = headDim,
): Float64Array {
  const half = rotaryDim / 2;
  const y = Float64Array.from(x);
  const width = x.length / positions.length;
  for (let head = 0; head < x.length; head += headDim) {
    const position = positions[Math.floor(head / width)]!;
    for (let i = 0; i < half; i++) {
      const [c, s] = [cos[position * half + i]!, sin[position * half + i]!];
      const [x1, x2] = [x[head + i]!, x[head + i + half]!];
      y[head + i] = x1 * c - x2 * s;
      y[head + i + half] = x2 * c + x1 * s;
    }
  }
  return y;
}
