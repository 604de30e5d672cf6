/**
 * The constants of NF4 as bitsandbytes stores it. The kernels' WGSL spells the sixteen values and the block sizes itself;
 * tests/kernels/nf4_test.ts holds both against a checkpoint that bitsandbytes wrote.
 */

/**
 * The sixteen values of NormalFloat4, ascending; code i stands for NF4_VALUES[i].
 * Dettmers et al. 2023, QLoRA, arXiv:2305.14314, appendix E.
 */
export const NF4_VALUES = Float32Array.of(
  -1,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1,
);

/** Weights that share a scale. */
export const BLOCK = 64;
/** Scales that share a scale. */
export const NESTED_BLOCK = 256;

/**
 * The 256 values of the dynamic 8-bit map, ascending: 0, 1, and for each of seven decades from 1e-6 to 1
 * twice as many steps as for the one below; on both sides of zero if signed, else twice as many above it.
 * Dettmers 2016, arXiv:1511.04561, section 2; as built by bitsandbytes' create_dynamic_map(signed, 7, 8).
 */
export function dynamicMap(signed = true): Float32Array {
  const values = [0, 1];
  for (let exponent = 0; exponent < 7; exponent++) {
    const edges = linspace(2 ** (signed ? exponent : exponent + 1) + 1);
    const scale = Math.fround(10 ** (exponent - 6));
    for (let i = 0; i + 1 < edges.length; i++) {
      const value = Math.fround(scale * Math.fround((edges[i]! + edges[i + 1]!) / 2));
      values.push(value);
      if (signed) values.push(-value);
    }
  }
  return Float32Array.from(values).sort();
}

/** `count` values from 0.1 to 1, rounded as PyTorch rounds them: the upper half counts down from the end. */
function linspace(count: number): Float32Array {
  const [first, last] = [Math.fround(0.1), 1];
  const step = Math.fround(Math.fround(last - first) / (count - 1));
  return Float32Array.from(
    { length: count },
    (_, i) => 2 * i < count ? first + Math.fround(step * i) : last - Math.fround(step * (count - 1 - i)),
  );
}
