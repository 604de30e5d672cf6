/**
 * numpy's `RandomState`: MT19937 (Matsumoto and Nishimura 1998) and `randint`, for protocols whose samples it draws.
 */

const [N, M] = [624, 397];

/** Draws as `numpy.random.RandomState(seed)` draws. */
export class RandomState {
  readonly #state = new Uint32Array(N);
  #at = N;

  /** @param seed a whole number of 32 bits */
  constructor(seed: number) {
    this.#state[0] = seed;
    for (let i = 1; i < N; i++) {
      const last = this.#state[i - 1]!;
      this.#state[i] = Math.imul(1812433253, last ^ (last >>> 30)) + i;
    }
  }

  /** A whole number in [low, high): masked, and drawn again until it is below. */
  randint(low: number, high: number): number {
    const most = high - 1 - low;
    if (most === 0) return low;
    const mask = 2 ** (32 - Math.clz32(most)) - 1;
    for (;;) {
      const value = (this.#next() & mask) >>> 0;
      if (value <= most) return low + value;
    }
  }

  /** The next 32 bits. */
  #next(): number {
    if (this.#at === N) this.#turn();
    let y = this.#state[this.#at++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  #turn(): void {
    const state = this.#state;
    for (let i = 0; i < N; i++) {
      const y = (state[i]! & 0x80000000) | (state[(i + 1) % N]! & 0x7fffffff);
      state[i] = state[(i + M) % N]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.#at = 0;
  }
}
