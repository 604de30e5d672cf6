import { GpuMemoryError } from "./errors.ts";

/** A device buffer and its name in bind-group keys. */
export interface PooledBuffer {
  readonly id: number;
  readonly gpu: GPUBuffer;
  readonly size: number;
}

/** A freed buffer serves a later request if at most this much larger than it. */
const LARGEST_WASTE = 1.25;

/**
 * Buffers by size: freed ones are handed out again, since a training step asks for the same sizes over and over.
 * Counts every byte it holds on the device, in use or idle.
 */
export class BufferPool {
  readonly #device: GPUDevice;
  readonly #limitBytes: number;
  readonly #onDestroy: (buffer: PooledBuffer) => void;
  readonly #idle = new Map<number, PooledBuffer[]>();
  #nextId = 1;
  #heldBytes = 0;
  #liveBytes = 0;
  #peakBytes = 0;

  constructor(device: GPUDevice, limitBytes: number, onDestroy: (buffer: PooledBuffer) => void) {
    this.#device = device;
    this.#limitBytes = limitBytes;
    this.#onDestroy = onDestroy;
  }

  /** Bytes of buffers in use. */
  get liveBytes(): number {
    return this.#liveBytes;
  }

  /** Bytes of buffers on the device, in use or idle. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** The most bytes ever in use at once since the last {@linkcode resetPeak}. */
  get peakBytes(): number {
    return this.#peakBytes;
  }

  resetPeak(): void {
    this.#peakBytes = this.#liveBytes;
  }

  /** @throws {GpuMemoryError} if a new buffer would pass the limit; idle buffers of other sizes count */
  take(bytes: number, label: string): PooledBuffer {
    const size = Math.ceil(Math.max(bytes, 16) / 16) * 16;
    const buffer = this.#takeIdle(size) ?? this.#create(size, label);
    this.#liveBytes += buffer.size;
    this.#peakBytes = Math.max(this.#peakBytes, this.#liveBytes);
    return buffer;
  }

  give(buffer: PooledBuffer): void {
    this.#liveBytes -= buffer.size;
    const list = this.#idle.get(buffer.size);
    if (list) list.push(buffer);
    else this.#idle.set(buffer.size, [buffer]);
  }

  /** Destroys idle buffers. Nothing that names them may be waiting for its submit. */
  trim(): void {
    for (const list of this.#idle.values()) {
      for (const buffer of list) {
        this.#onDestroy(buffer);
        buffer.gpu.destroy();
        this.#heldBytes -= buffer.size;
      }
    }
    this.#idle.clear();
  }

  #takeIdle(size: number): PooledBuffer | undefined {
    let best: number | undefined;
    for (const candidate of this.#idle.keys()) {
      const fits = candidate >= size && candidate <= size * LARGEST_WASTE;
      if (fits && (best === undefined || candidate < best)) best = candidate;
    }
    if (best === undefined) return undefined;
    const list = this.#idle.get(best)!;
    const buffer = list.pop()!;
    if (list.length === 0) this.#idle.delete(best);
    return buffer;
  }

  #create(size: number, label: string): PooledBuffer {
    const { maxBufferSize } = this.#device.limits;
    if (size > maxBufferSize) {
      throw new GpuMemoryError(
        `Cannot make "${label}" of ${mib(size)}: this device allows ${mib(maxBufferSize)} in one buffer`,
      );
    }
    if (this.#heldBytes + size > this.#limitBytes) {
      throw new GpuMemoryError(
        `Not enough GPU memory for "${label}": it needs ${mib(size)}, ${mib(this.#liveBytes)} are in use ` +
          `and ${mib(this.#limitBytes)} are allowed. Lower max_seq_length or per_device_train_batch_size, ` +
          `or set gradient_checkpointing: true or load_in_4bit: true`,
      );
    }
    const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
    const gpu = this.#device.createBuffer({ label, size, usage: STORAGE | COPY_SRC | COPY_DST });
    this.#heldBytes += size;
    return { id: this.#nextId++, gpu, size };
  }
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
