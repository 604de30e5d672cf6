import type { TensorSource } from "../checkpoint/safetensors.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { Tensor } from "../kernels/tensor.ts";

/** Host memory for tensors on their way to a file. */
const GROUP_BYTES = 64 * 2 ** 20;

/** A tensor on the device, and the name it gets in a file. */
export interface NamedTensor {
  readonly name: string;
  readonly value: Tensor;
  /** What its bytes are in the file; f32 of its own shape unless given. */
  readonly stored?: Pick<TensorSource, "dtype" | "shape">;
}

/**
 * Sources that read tensors back when they are written, several with each wait: a wait costs more than 10 ms in Deno
 * whatever it brings. To be read in their order.
 */
export function tensorSources(gpu: Gpu, tensors: readonly NamedTensor[]): TensorSource[] {
  const ready = new Map<number, Uint8Array>();

  async function read(index: number): Promise<Uint8Array> {
    if (!ready.has(index)) {
      ready.clear();
      const group: Tensor[] = [];
      let bytes = 0;
      for (const { value } of tensors.slice(index)) {
        bytes += value.byteLength;
        if (group.length > 0 && bytes > GROUP_BYTES) break;
        group.push(value);
      }
      (await gpu.readBytes(group)).forEach((values, i) => ready.set(index + i, values));
    }
    return ready.get(index)!;
  }

  return tensors.map(({ name, value, stored }, index) => ({
    name,
    dtype: stored?.dtype ?? "F32",
    shape: stored?.shape ?? value.shape,
    read: () => read(index),
  }));
}

/** The values of all tensors (f32), by name. */
export async function readNamed(
  gpu: Gpu,
  tensors: readonly NamedTensor[],
): Promise<Map<string, Float32Array>> {
  const values = new Map<string, Float32Array>();
  for (const source of tensorSources(gpu, tensors)) {
    const bytes = await source.read() as Uint8Array<ArrayBuffer>;
    values.set(source.name, new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4));
  }
  return values;
}
