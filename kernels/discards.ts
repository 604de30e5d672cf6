/** Objects of WebGPU left to the collector after which it is to run. */
const MOST_DISCARDS = 2048;
/** JavaScript's collector begins once this much memory outside its heap was allocated: V8's limit. */
const PRESSURE_BYTES = 64 * 2 ** 20;

/**
 * Counts what is left to JavaScript's collector. Command encoders and bind groups hold about 2 KB each of the driver's
 * memory until then, which the collector does not see: with a heap that hardly grows it would let hundreds of MB pile up
 * in a long run. WebGPU has no other way to end them.
 */
export class Discards {
  #count = 0;

  /** So many objects more were left. */
  add(count: number): void {
    this.#count += count;
    if (this.#count < MOST_DISCARDS) return;
    this.#count = 0;
    // Nothing touches its pages, so the system never gives them; the collector hears of the allocation and begins.
    new ArrayBuffer(PRESSURE_BYTES);
  }
}
