/** Objects of WebGPU that may be left to the collector before it is made to run. */
const MOST_DISCARDS = 2048;
/** Memory outside its heap after whose allocation JavaScript's collector runs: V8's limit. */
const PRESSURE_BYTES = 64 * 2 ** 20;

/**
 * Counts what is left to JavaScript's collector, and makes it run when that is much. Command encoders and bind groups hold
 * about 2 KB of the driver's memory each until they are collected. The collector does not see that memory: with a heap that
 * hardly grows it would let hundreds of MB pile up in a long run, and WebGPU has no other way to free them.
 */
export class Discards {
  #count = 0;

  /** Counts objects that were just left. */
  add(count: number): void {
    this.#count += count;
    if (this.#count < MOST_DISCARDS) return;
    this.#count = 0;
    // Costs no memory, since nothing touches its pages; but V8 counts the allocation and starts its collector.
    new ArrayBuffer(PRESSURE_BYTES);
  }
}
