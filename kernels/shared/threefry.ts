/**
 * Threefry-2x32 with 20 rounds, bit for bit as in threefry.wgsl.
 *
 * @see Salmon, Moraes, Dror and Shaw, 2011, "Parallel random numbers: as easy as 1, 2, 3"
 */
export function threefry(
  key: readonly [number, number],
  counter: readonly [number, number],
): [number, number] {
  const keys = [key[0] >>> 0, key[1] >>> 0, (0x1bd11bda ^ key[0] ^ key[1]) >>> 0] as const;
  let x = (counter[0] + keys[0]) >>> 0;
  let y = (counter[1] + keys[1]) >>> 0;
  for (let block = 0; block < 5; block++) {
    for (const rotation of block % 2 === 0 ? [13, 15, 26, 6] : [17, 29, 16, 24]) {
      x = (x + y) >>> 0;
      y = (((y << rotation) | (y >>> (32 - rotation))) ^ x) >>> 0;
    }
    x = (x + keys[(block + 1) % 3]!) >>> 0;
    y = (y + keys[(block + 2) % 3]! + block + 1) >>> 0;
  }
  return [x, y];
}

/** The random word of one element: elements go by fours, each four from two counters. At most 2^53 elements. */
export function randomWord(seed: number, stream: number, element: number): number {
  const [quad, lane] = quadOf(element);
  return threefry([seed, stream], [quad.low, 2 * quad.high + (lane >> 1)])[lane % 2]!;
}

/** The random number of 16 bits of one element: each four from one counter. At most 2^53 elements. */
export function randomHalfWord(seed: number, stream: number, element: number): number {
  const [quad, lane] = quadOf(element);
  const word = threefry([seed, stream], [quad.low, quad.high])[lane >> 1]!;
  return lane % 2 === 0 ? word & 0xffff : word >>> 16;
}

/** Number of an element's quad, in two words, and its place there. */
function quadOf(element: number): [quad: { low: number; high: number }, lane: number] {
  const quad = Math.floor(element / 4);
  return [{ low: quad % 2 ** 32, high: Math.floor(quad / 2 ** 32) }, element % 4];
}
