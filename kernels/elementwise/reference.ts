/** The float64 definitions of the elementwise ops that are not one expression. */
import { randomHalfWord, randomWord } from "../shared/threefry.ts";
import { type DropoutKey, dropThreshold, keptFactor } from "./dropout.ts";
import type { UniformKey } from "./fill_random.ts";

/** The mask of `length` elements: 0 where an element's random number is below p, else 1. */
export function maskReference(
  length: number,
  { p, seed, stream, offset = 0 }: DropoutKey,
): Float64Array {
  const threshold = dropThreshold(p);
  return Float64Array.from(
    { length },
    (_, i) => randomHalfWord(seed, stream, offset + i) < threshold ? 0 : 1,
  );
}

/** x over the share that is kept, or 0 where the mask is. */
export function dropoutReference(x: ArrayLike<number>, key: DropoutKey): Float64Array {
  return maskReference(x.length, key).map((kept, i) => kept * x[i]! * keptFactor(key.p));
}

/** Sum of each column of `x` (rows, width). */
export function columnSumReference(x: ArrayLike<number>, width: number): Float64Array {
  const sums = new Float64Array(width);
  for (let i = 0; i < x.length; i++) sums[i % width]! += x[i]!;
  return sums;
}

/** Uniform draws from `low` to `high`: the upper 24 bits of each element's random word. */
export function uniformReference(
  length: number,
  { seed, stream = 0, low, high }: UniformKey,
): Float64Array {
  return Float64Array.from(
    { length },
    (_, i) => low + (high - low) * (randomWord(seed, stream, i) >>> 8) / 2 ** 24,
  );
}
