/** The float64 definitions of the embedding lookup and its noise that the kernels are tested against. */
import { randomWord } from "../shared/threefry.ts";

/** Lookup: y[r] = factor * table[ids[r]] for `table` (V, width). */
export function embedReference(
  ids: ArrayLike<number>,
  table: ArrayLike<number>,
  width: number,
  factor = 1,
): Float64Array {
  const y = new Float64Array(ids.length * width);
  for (let row = 0; row < ids.length; row++) {
    for (let c = 0; c < width; c++) y[row * width + c] = factor * table[ids[row]! * width + c]!;
  }
  return y;
}

/** Noise: x[r, c] + scale[r] * u, with u of the element's random word in [-1, 1) */
export function addNoiseReference(
  x: ArrayLike<number>,
  scale: ArrayLike<number>,
  { seed, stream }: { readonly seed: number; readonly stream: number },
): Float64Array {
  const width = x.length / scale.length;
  return Float64Array.from(x, (value, e) => {
    const noise = (randomWord(seed, stream, e) >>> 8) / 2 ** 23 - 1;
    return value + scale[Math.floor(e / width)]! * noise;
  });
}
