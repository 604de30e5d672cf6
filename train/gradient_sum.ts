import type { Communicator } from "../distributed/communicator.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { rowsWithin } from "../kernels/shared/row_chunks.ts";
import { rowRanges, type Tensor } from "../kernels/tensor.ts";

/** Bytes that are summed in one message: enough to fill any wire, and little beside a device's memory. */
const BUCKET_BYTES = 32 * 2 ** 20;

/**
 * Sums tensors over ranks, each in place, by way of the host. Tensors go in buckets: while one is on the wire, the next is
 * read from the device.
 */
export async function sumOverRanks(
  gpu: Gpu,
  ranks: Communicator,
  tensors: readonly Tensor[],
  bucketBytes = BUCKET_BYTES,
): Promise<void> {
  if (ranks.size === 1) return;
  let onWire: Promise<void> = Promise.resolve();
  for (const bucket of bucketsOf(tensors, bucketBytes)) {
    const values = joined(await gpu.readBytes(bucket));
    await onWire;
    onWire = ranks.allReduce(values).then(() => {
      let at = 0;
      for (const tensor of bucket) gpu.write(tensor, values.subarray(at, at += tensor.size));
    });
    // It is awaited in any case, but perhaps after something else has failed.
    onWire.catch(() => {});
  }
  await onWire;
}

/** Puts f32 tensors, cut by rows where they are large, into groups of about so many bytes. */
function bucketsOf(tensors: readonly Tensor[], bucketBytes: number): Tensor[][] {
  const parts = tensors.flatMap((tensor) =>
    rowRanges([tensor], rowsWithin(bucketBytes, tensor.rowBytes)).map(({ start, end }) =>
      tensor.slice(start, end)
    )
  );
  const buckets: Tensor[][] = [];
  let left = 0;
  for (const part of parts) {
    if (buckets.length === 0 || part.byteLength > left) {
      buckets.push([]);
      left = bucketBytes;
    }
    buckets.at(-1)!.push(part);
    left -= part.byteLength;
  }
  return buckets;
}

function joined(parts: readonly Uint8Array[]): Float32Array {
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return new Float32Array(bytes.buffer);
}
