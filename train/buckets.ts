/** Tensors on their way through the host, several at once. */
import type { Gpu } from "../kernels/gpu.ts";
import { rowsWithin } from "../kernels/shared/row_chunks.ts";
import { rowRanges, type Tensor } from "../kernels/tensor.ts";

/** Bytes that go through the host at once, but for tensors that are larger: they fill any wire. */
const BUCKET_BYTES = 32 * 2 ** 20;

/** A tensor, and its place in the list that it came in. */
export interface Listed {
  readonly tensor: Tensor;
  readonly index: number;
}

/** Puts tensors into groups of about {@linkcode BUCKET_BYTES}, in their order. */
export function bucketsOf(tensors: readonly Tensor[]): Listed[][] {
  const buckets: Listed[][] = [];
  let left = 0;
  for (const [index, tensor] of tensors.entries()) {
    if (buckets.length === 0 || tensor.byteLength > left) {
      buckets.push([]);
      left = BUCKET_BYTES;
    }
    buckets.at(-1)!.push({ tensor, index });
    left -= tensor.byteLength;
  }
  return buckets;
}

/** Reads f32 tensors, one behind the other. */
export async function readTogether(gpu: Gpu, tensors: readonly Tensor[]): Promise<Float32Array<ArrayBuffer>> {
  const values = new Float32Array(tensors.reduce((sum, { size }) => sum + size, 0));
  const bytes = new Uint8Array(values.buffer);
  let at = 0;
  const parts = tensors.flatMap((tensor) => {
    const ranges = rowRanges([tensor], rowsWithin(BUCKET_BYTES, tensor.rowBytes));
    return ranges.map(({ start, end }) => tensor.slice(start, end));
  });
  for (const bucket of bucketsOf(parts)) {
    for (const part of await gpu.readBytes(bucket.map(({ tensor }) => tensor))) {
      bytes.set(part, at);
      at += part.length;
    }
  }
  return values;
}

/** Writes f32 tensors whose values stand one behind the other. */
export function writeTogether(gpu: Gpu, tensors: readonly Tensor[], values: Float32Array): void {
  let at = 0;
  for (const tensor of tensors) gpu.write(tensor, values.subarray(at, at += tensor.size));
}
