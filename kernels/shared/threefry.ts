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
  const quad = Math.floor(element / 4);
  const lane = element % 4;
  const high = Math.floor(quad / 2 ** 32);
  return threefry([seed, stream], [quad % 2 ** 32, 2 * high + (lane >> 1)])[lane % 2]!;
}
