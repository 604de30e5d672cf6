/** Uniform values in [0, 1) from a 32-bit seed (mulberry32): test inputs only. */
export function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** `length` standard normal values, rounded to f32 (Box-Muller). */
export function normal(seed: number, length: number, deviation = 1): Float32Array {
  const next = uniform(seed);
  const values = new Float32Array(length);
  for (let i = 0; i < length; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - next()));
    values[i] = deviation * radius * Math.cos(2 * Math.PI * next());
  }
  return values;
}

/** `length` whole numbers in [0, limit). */
export function integers(seed: number, length: number, limit: number): Uint32Array {
  const next = uniform(seed);
  return Uint32Array.from({ length }, () => Math.floor(next() * limit));
}
