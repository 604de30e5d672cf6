/** One library's way of doing a contest's work, with the inputs on its device. */
export interface Entrant {
  readonly name: string;
  /** Does the work `times` times and waits until the device is done. Results of all of them are kept until then. */
  run(times: number): Promise<void>;
  /** Does it once and reads the results, in the contest's order. */
  values(): Promise<Float32Array[]>;
  /** Expected {@linkcode values}, where the library computes with numbers of its own; the others' values else. */
  expected?(): Promise<Float32Array[]>;
  free(): Promise<void>;
}

/** An array of f32 on the host with its shape. */
export interface HostArray {
  readonly shape: readonly number[];
  readonly data: Float32Array<ArrayBuffer>;
}

/** Numbers in (-bound, bound), the same for all entrants. */
export function randomArray(shape: readonly number[], bound: number): HostArray {
  const size = shape.reduce((product, axis) => product * axis, 1);
  return { shape, data: Float32Array.from({ length: size }, () => bound * (2 * Math.random() - 1)) };
}
