import { fillUniform } from "../kernels/elementwise/fill_random.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { Format } from "../kernels/wgsl.ts";

/** Every tensor of a process gets numbers of its own. */
let streams = 0;

/** A tensor of numbers in [-1, 1), made on the device. The caller frees it. */
export function randomTensor(gpu: Gpu, shape: readonly number[], format: Format = "f32"): Tensor {
  const tensor = gpu.empty(shape, format, "input");
  fillUniform(gpu, tensor, { seed: 1, stream: streams++, low: -1, high: 1 });
  return tensor;
}

/** `length` whole numbers below `limit`, on the host. */
export function randomIds(length: number, limit: number): Uint32Array<ArrayBuffer> {
  return Uint32Array.from({ length }, () => Math.floor(Math.random() * limit));
}
