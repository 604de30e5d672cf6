import { fromF32, toF32 } from "../checkpoint/dtype.ts";
import type { Communicator } from "../distributed/communicator.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { Tensor } from "../kernels/tensor.ts";
import { bucketsOf, readTogether, writeTogether } from "./buckets.ts";

/** Form of numbers between ranks; sums are of 32 bits in any case. */
export type WireFormat = "f32" | "bf16";

/**
 * Sums f32 tensors over ranks, each in place, by way of the host. While one bucket of them is on the wire, the next is read
 * from the device.
 */
export async function sumOverRanks(
  gpu: Gpu,
  ranks: Communicator,
  tensors: readonly Tensor[],
  wire: WireFormat = "f32",
): Promise<void> {
  if (ranks.size === 1 || gpu.isDry) return;
  let onWire: Promise<void> = Promise.resolve();
  for (const bucket of bucketsOf(tensors)) {
    const parts = bucket.map(({ tensor }) => tensor);
    const values = await readTogether(gpu, parts);
    await onWire;
    const summing = wire === "f32" ? ranks.allReduce(values) : allReduceBf16(ranks, values);
    onWire = summing.then(() => writeTogether(gpu, parts, values));
    // It is awaited in any case, but perhaps after something else has failed.
    onWire.catch(() => {});
  }
  await onWire;
}

/**
 * Sums values over ranks in place, with half the bytes: each rank gives its part of {@linkcode reduceScatterBf16} to all in
 * bf16. So a value is rounded twice, however many ranks there are.
 */
export async function allReduceBf16(ranks: Communicator, values: Float32Array): Promise<void> {
  const sums = await ranks.allGather(fromF32(await reduceScatterBf16(ranks, values), "BF16"));
  sums.forEach((bytes, of) => partOf(values, of, ranks.size).set(toF32(bytes, "BF16")));
}

/**
 * Sums values over ranks and returns this rank's part of the sum, the last ones being shorter where the ranks do not divide the
 * values. Each rank gets its part of all others in bf16, and adds them up in f32 in the order of the ranks.
 */
export async function reduceScatterBf16(
  ranks: Communicator,
  values: Float32Array,
): Promise<Float32Array> {
  const { rank, size } = ranks;
  const own = partOf(values, rank, size);
  const parts: Float32Array[] = [];
  parts[rank] = toF32(fromF32(own, "BF16"), "BF16");
  for (let distance = 1; distance < size; distance++) {
    const [to, from] = [(rank + distance) % size, (rank - distance + size) % size];
    const received = new Uint8Array(2 * own.length);
    await ranks.exchange(
      { rank: to, bytes: fromF32(partOf(values, to, size), "BF16") },
      { rank: from, bytes: received },
    );
    parts[from] = toF32(received, "BF16");
  }
  const sum = new Float32Array(own.length);
  for (const addend of parts) addend.forEach((value, i) => sum[i]! += value);
  return sum;
}

function partOf(values: Float32Array, rank: number, size: number): Float32Array {
  const length = Math.ceil(values.length / size);
  return values.subarray(rank * length, (rank + 1) * length);
}
