import { GpuError } from "./errors.ts";
import { BufferPool, type MemoryUse, type PooledBuffer, type Purpose } from "./pool.ts";
import { bytesPerElement, type Dtype, OFFSET_BYTES, ROW_ALIGNMENT, type Segment, Tensor } from "./tensor.ts";

/** Limits of a device's memory. */
export interface MemoryOptions {
  /** Most bytes on the device. */
  readonly limitBytes: number;
  /** Largest segment of a tensor, in bytes. */
  readonly maxBindingBytes: number;
  /** Called before buffers are destroyed: submits the work that names them. */
  readonly beforeDestroy: () => void;
}

/** Bytes of tensors that share a buffer, at most: more would be hard to find in one piece. */
const SHARED_BYTES = 2 ** 29;

/** Bytes of idle buffers for reads that are kept for later reads. */
const STAGING_BYTES = 64 * 2 ** 20;

/** A tensor to be made. */
export interface NamedShape {
  /** Rows and columns, or one axis. */
  readonly shape: readonly number[];
  /** Name in errors. */
  readonly label: string;
}

/**
 * The buffers of one device: makes tensors of them, and counts them by what they are for. Buffers that the host maps lie
 * in its memory and are not counted.
 */
export class DeviceMemory {
  readonly #options: MemoryOptions;
  readonly #pool: BufferPool;
  readonly #staging: BufferPool;
  readonly #mappable: BufferPool;

  /** @internal a device makes its own */
  constructor(device: GPUDevice, options: MemoryOptions) {
    this.#options = options;
    const { MAP_READ, COPY_SRC, COPY_DST } = GPUBufferUsage;
    const { limitBytes, beforeDestroy } = options;
    const unlimited = { limitBytes: Infinity, beforeDestroy };
    this.#pool = new BufferPool(device, { limitBytes, beforeDestroy });
    this.#staging = new BufferPool(device, { ...unlimited, usage: MAP_READ | COPY_DST });
    this.#staging.expect(STAGING_BYTES);
    this.#mappable = new BufferPool(device, {
      ...unlimited,
      usage: MAP_READ | COPY_SRC | COPY_DST,
      churn: 0,
    });
  }

  /** Bytes in use now. */
  get liveBytes(): number {
    return this.#pool.liveBytes;
  }

  /** Bytes held now, buffers that wait for reuse included. */
  get heldBytes(): number {
    return this.#pool.heldBytes;
  }

  /** Bytes that the limit leaves, idle buffers given back; Infinity without a limit. */
  get freeBytes(): number {
    return this.#pool.freeBytes;
  }

  /** Most bytes held at once since {@linkcode resetPeak}. */
  get peakBytes(): number {
    return this.#pool.peak.heldBytes;
  }

  /** The memory when most was in use since {@linkcode resetPeak}, and the most that was held. */
  get peak(): MemoryUse {
    return this.#pool.peak;
  }

  /** The memory now. */
  get use(): MemoryUse {
    return this.#pool.use;
  }

  /** Buffers asked from the driver so far, for reads included: in the long run a training step asks for none. */
  get buffersCreated(): number {
    return this.#pool.created + this.#staging.created;
  }

  /** Keeps what is held, idle buffers included, within `bytes` as far as what is in use lets it. */
  expectPeak(bytes: number): void {
    this.#pool.expect(bytes);
  }

  /** Makes what is held now the peak. */
  resetPeak(): void {
    this.#pool.resetPeak();
  }

  /** Gives idle buffers back to the driver. */
  trim(): void {
    this.#pool.trim();
    this.#staging.trim();
  }

  /** Counts what is allocated from now on for `purpose`; disposing of the result, as `using` does, ends it. */
  purpose(purpose: Purpose): Disposable {
    const before = this.#pool.purpose;
    this.#pool.purpose = purpose;
    return { [Symbol.dispose]: () => this.#pool.purpose = before };
  }

  /** Counts a tensor for another purpose than when it was made. */
  assign(tensor: Tensor, purpose: Purpose): void {
    for (const { buffer } of tensor.segments) this.#pool.assign(buffer, purpose);
  }

  /** Names the phase of the work from now on, for {@linkcode peak}: `backward, layer 31`. */
  at(phase: string): void {
    this.#pool.phase = phase;
  }

  /**
   * Makes an uninitialised tensor. Rows past one binding go to further buffers.
   * @throws {GpuError} if an axis is not a whole number above 0, or too few rows fit in one binding
   * @throws {GpuMemoryError} if the limit, or the device, has no room for it
   * @internal
   */
  allocate(shape: readonly number[], dtype: Dtype, label: string): Tensor {
    return this.#allocate(this.#pool, shape, dtype, label);
  }

  /**
   * Makes uninitialised tensors one after the other, in few buffers, each where a binding may begin; those that are too
   * large have their own. A buffer is given back when all its tensors are freed.
   * @throws {GpuError} and {@linkcode GpuMemoryError} as {@linkcode allocate}
   * @internal
   */
  allocateTogether(wanted: readonly NamedShape[], dtype: Dtype): Tensor[] {
    const most = Math.min(SHARED_BYTES, this.#options.maxBindingBytes);
    const tensors: Tensor[] = [];
    for (let first = 0; first < wanted.length;) {
      const offsets: number[] = [];
      let end = 0;
      for (const { shape } of wanted.slice(first)) {
        const bytes = shape.reduce((product, axis) => product * axis, 1) * bytesPerElement(dtype);
        const offset = Math.ceil(end / OFFSET_BYTES) * OFFSET_BYTES;
        if (offset + bytes > most) break;
        offsets.push(offset);
        end = offset + bytes;
      }
      if (offsets.length < 2) {
        const { shape, label } = wanted[first++]!;
        tensors.push(this.allocate(shape, dtype, label));
        continue;
      }
      const group = wanted.slice(first, first += offsets.length);
      tensors.push(...this.#share(end, group, offsets, dtype));
    }
    return tensors;
  }

  /** Makes a buffer of `bytes` with a tensor at each offset. */
  #share(bytes: number, group: readonly NamedShape[], offsets: readonly number[], dtype: Dtype): Tensor[] {
    const buffer = this.#pool.take(bytes, `${group[0]!.label} and ${group.length - 1} more`);
    let left = group.length;
    const free = () => {
      if (--left === 0) this.#pool.give(buffer);
    };
    return group.map(({ shape, label }, i) => {
      const width = shape.length < 2 ? 1 : shape.at(-1)!;
      const rows = shape.reduce((product, axis) => product * axis, 1) / width;
      return new Tensor(shape, dtype, label, [{ buffer, start: 0, rows, offset: offsets[i]! }], free);
    });
  }

  /**
   * Makes a tensor of buffers in host memory, which no kernel can read. Needs the feature MAPPABLE_BUFFERS.
   * @internal
   */
  allocateMappable(shape: readonly number[], dtype: Dtype, label: string): Tensor {
    return this.#allocate(this.#mappable, shape, dtype, label);
  }

  /**
   * Makes a buffer of another kind than tensors have, counted and never reused.
   * @internal
   */
  make(size: number, label: string, usage: GPUBufferUsageFlags): PooledBuffer {
    return this.#pool.make(size, label, usage);
  }

  /**
   * Takes a buffer that the device copies to and the host maps to read; {@linkcode giveStaging} takes it back.
   * @internal
   */
  takeStaging(byteLength: number, label: string): PooledBuffer {
    return this.#staging.take(byteLength, label);
  }

  /** @internal */
  giveStaging(buffers: readonly PooledBuffer[]): void {
    buffers.forEach((buffer) => this.#staging.give(buffer));
    this.#staging.trim(STAGING_BYTES);
  }

  #allocate(pool: BufferPool, shape: readonly number[], dtype: Dtype, label: string): Tensor {
    if (shape.some((axis) => !Number.isSafeInteger(axis) || axis < 1)) {
      throw new GpuError(
        `Cannot make "${label}" of shape [${shape}]: every axis must be a whole number above 0`,
      );
    }
    const { maxBindingBytes } = this.#options;
    const width = shape.length < 2 ? 1 : shape.at(-1)!;
    const rowBytes = width * bytesPerElement(dtype);
    const rows = shape.reduce((product, axis) => product * axis, 1) / width;
    const most = rows * rowBytes <= maxBindingBytes
      ? rows
      : Math.floor(maxBindingBytes / rowBytes / ROW_ALIGNMENT) * ROW_ALIGNMENT;
    if (most < 1) {
      throw new GpuError(
        `Cannot make "${label}" [${shape}]: ${ROW_ALIGNMENT} rows of ${rowBytes} bytes pass the ` +
          `${maxBindingBytes} bytes that one binding may hold`,
      );
    }
    const segments: Segment[] = [];
    for (let start = 0; start < rows; start += most) {
      const count = Math.min(most, rows - start);
      segments.push({ buffer: pool.take(count * rowBytes, label), start, rows: count, offset: 0 });
    }
    return new Tensor(shape, dtype, label, segments, (tensor) => {
      for (const { buffer } of tensor.segments) pool.give(buffer);
    });
  }
}
