import type { TensorSource } from "../checkpoint/safetensors.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { Tensor } from "../kernels/tensor.ts";

/** Most bytes on their way from the device at once. */
const GROUP_BYTES = 64 * 2 ** 20;
/** Least bytes, however little memory is free: a wait costs more than 10 ms in Deno whatever it brings. */
const LEAST_BYTES = 64 * 2 ** 10;

/** A tensor on the device, and the name it gets in a file. */
export interface NamedTensor {
  /** As the file has it. */
  readonly name: string;
  /** On the device. */
  readonly value: Tensor;
  /** Type and shape in the file; f32 and its own shape unless given. */
  readonly stored?: Pick<TensorSource, "dtype" | "shape">;
}

/**
 * Sources that read tensors back when they are written, several with each wait. To be read in their order, while no other
 * work changes them.
 *
 * Reads through the device's memory, as much at once as fits into what is free there, and into what the device held at its
 * peak: saving takes no more memory than training did. Tensors that are larger come in pieces of their rows.
 */
export function tensorSources(gpu: Gpu, tensors: readonly NamedTensor[]): TensorSource[] {
  const ready = new Map<number, Uint8Array>();

  async function read(index: number): Promise<Uint8Array> {
    if (!ready.has(index)) {
      ready.clear();
      const room = readRoom(gpu);
      const group: Tensor[] = [];
      let bytes = 0;
      for (const { value } of tensors.slice(index)) {
        bytes += value.byteLength;
        if (bytes > room) break;
        group.push(value);
      }
      if (group.length === 0) ready.set(index, await readPieces(gpu, tensors[index]!.value, room));
      else (await gpu.readBytes(group)).forEach((values, i) => ready.set(index + i, values));
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

/** Bytes that may be on their way at once. */
function readRoom(gpu: Gpu): number {
  const unused = Math.max(LEAST_BYTES, gpu.memory.peakBytes - gpu.memory.liveBytes);
  return Math.min(GROUP_BYTES, unused, Math.max(1, gpu.memory.freeBytes));
}

/** A tensor that is larger than `room`, some rows at a time. */
async function readPieces(gpu: Gpu, tensor: Tensor, room: number): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(tensor.byteLength);
  const rows = Math.max(1, Math.floor(room / tensor.rowBytes));
  for (let start = 0; start < tensor.rows; start += rows) {
    const [piece] = await gpu.readBytes([tensor.slice(start, Math.min(start + rows, tensor.rows))]);
    bytes.set(piece!, start * tensor.rowBytes);
  }
  return bytes;
}

/** Reads the values of all tensors (f32), by name. */
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
