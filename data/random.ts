/**
 * A counter-based generator: draw `n` of a seed is a pure function of both, so that its whole state is one
 * number that a checkpoint can keep. Not for secrets.
 */
export class Random {
  /** Draws made so far; setting it resumes exactly there. */
  position: number;
  readonly #key: number;

  constructor(readonly seed: number, position = 0) {
    this.#key = mix((Math.trunc(seed) ^ 0x9e3779b9) >>> 0) ^ mix(Math.floor(seed / 4294967296) >>> 0);
    this.position = position;
  }

  /** The next value, uniform in [0, 1) with 32 bits. */
  uniform(): number {
    const low = this.position >>> 0;
    const high = Math.floor(this.position / 4294967296) >>> 0;
    this.position++;
    return mix(mix((low ^ this.#key) >>> 0) + Math.imul(this.#key, 0x85ebca6b) + high) / 4294967296;
  }

  /** The next whole number in [0, limit). */
  below(limit: number): number {
    return Math.floor(this.uniform() * limit);
  }

  /** One element of a list that is not empty. */
  pick<T>(list: readonly T[]): T {
    if (list.length === 0) throw new RangeError("Cannot pick from an empty list");
    return list[this.below(list.length)]!;
  }

  /** A shuffled copy (Fisher-Yates). */
  shuffled<T>(list: readonly T[]): T[] {
    const copy = [...list];
    for (let i = copy.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [copy[i], copy[j]] = [copy[j]!, copy[i]!];
    }
    return copy;
  }
}

/** A bijective scrambling of 32 bits: every input bit reaches every output bit (two multiply-xorshift rounds). */
function mix(value: number): number {
  let x = value >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}
