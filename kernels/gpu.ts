import { type GpuInfo, MAPPABLE_BUFFERS, openDevice } from "./adapter.ts";
import { Discards } from "./discards.ts";
import { DeviceLostError, GpuError, GpuMemoryError } from "./errors.ts";
import { type DeviceLimits, DRY_INFO, dryDevice } from "./dry_device.ts";
import { type HostCopies, HostMemory } from "./host.ts";
import { BufferPool, type MemoryUse, type PooledBuffer, type Purpose } from "./pool.ts";
import { type KernelTiming, Profiler, TIMED_LAUNCHES } from "./profiler.ts";
import { type Pipeline, PipelineCache } from "./pipelines.ts";
import { traceSink } from "./trace.ts";
import { type Bound, bytesPerElement, type Dtype, ROW_ALIGNMENT, type Segment, Tensor } from "./tensor.ts";
import { knownTuning, type Tuning } from "./tuning.ts";
import type { Kernel, Specialisation } from "./wgsl.ts";

export type { DeviceLimits, GpuInfo, MemoryUse, Purpose };

/**
 * How threads that need the same operand get it: from registers of their subgroup's lanes (software adapters, where
 * barriers are dear and every load is one), or from a tile in workgroup memory (GPUs).
 */
export type Sharing = "subgroup" | "workgroup";

/** How a device is opened. */
export interface GpuOptions {
  /** Chosen by the adapter unless set. */
  readonly sharing?: Sharing;
  /** Most bytes on the device; the driver's own limit unless set. */
  readonly memoryLimitBytes?: number;
  /** Largest tensor segment in bytes; the adapter's binding limit unless set lower. */
  readonly maxBindingBytes?: number;
  /** Fills every new tensor with NaN, so that a kernel that leaves gaps shows (tests). */
  readonly poison?: boolean;
  /** Gives each dispatch its own pass with timestamps, for {@linkcode Gpu.timings}. */
  readonly profile?: boolean;
  /**
   * Variants chosen for this adapter; each kernel's default unless set.
   * @internal
   */
  readonly tuning?: Tuning;
  /**
   * How tensors go to host memory and back; the best way that the device has unless given.
   * @internal
   */
  readonly hostCopies?: HostCopies;
  /** Most multiplications and additions, in pairs, of one dispatch and of one submit; MOST_WORK unless set. */
  readonly mostWork?: number;
  /**
   * Told of every dispatch as it is recorded.
   * @internal
   */
  readonly onDispatch?: (dispatch: Dispatch) => void;
}

/** A device to count on, see {@linkcode Gpu.dry}. */
export interface DryOptions extends Omit<GpuOptions, "profile" | "poison"> {
  readonly limits: DeviceLimits;
  /** What the device says it is. */
  readonly info?: GpuInfo;
}

/** A dispatch as it is recorded. */
export interface Dispatch {
  readonly kernel: string;
  readonly grid: readonly [number, number, number];
  readonly uniforms: Readonly<Record<string, number>>;
  readonly bindings: readonly Bound[];
}

/** One dispatch: workgroups along x, y, z; the fields of the kernel's `struct Params`; what its pipeline fixes. */
export interface Launch extends Specialisation {
  readonly grid: readonly [number, number?, number?];
  readonly uniforms?: Readonly<Record<string, number>>;
  /** Pairs of a multiplication and an addition, about, where there are many. */
  readonly work?: number;
}

/**
 * Systems end what keeps a GPU busy for seconds (Windows for 2), so long work goes to it in pieces: of 2.2 TFLOP, a
 * second's on a small GPU.
 */
const MOST_WORK = 2 ** 40;
/** Dispatches between two submits at most: slots of the uniform ring. */
const RING_SLOTS = 4096;
/** Uploads wait in staging memory until a submit: give them one this often. */
const UPLOAD_CHUNK_BYTES = 64 * 2 ** 20;
/** Longest that a program is deaf to timers and signals, in milliseconds, where it asks: see {@linkcode Gpu.turn}. */
const DEAF_MS = 100;
/** Buffers that reads go through are kept for later ones, up to so many bytes. */
const STAGING_BYTES = 64 * 2 ** 20;

/**
 * The device. Work is recorded by {@linkcode Gpu.run} and goes to the device in one submit, at
 * {@linkcode Gpu.submit} or before a read. Errors that WebGPU reports out of band (a kernel that does not compile,
 * a lost device) are kept and thrown by the next read, before it returns any values.
 */
export class Gpu {
  /** What is known of the adapter. */
  readonly info: GpuInfo;
  /** How the threads of a workgroup share values. */
  readonly sharing: Sharing;
  /**
   * Variants chosen for this adapter.
   * @internal
   */
  readonly tuning: Tuning;
  /** The WebGPU device itself. */
  readonly device: GPUDevice;
  /** Largest segment of a tensor, in bytes. */
  readonly maxBindingBytes: number;
  /** Kernels that can cut their work into dispatches of at most so many multiply-adds do. */
  readonly mostWork: number;
  /** Whether nothing is stored or computed: then values need not be made, and what is read is zero. */
  readonly isDry: boolean;
  /**
   * For tensors that the device has no room for now.
   * @internal
   */
  readonly host: HostMemory;
  /** Told the kernels so far whenever work with new ones is sent: drivers compile them when they first run. */
  onCompile: ((kernels: number) => void) | undefined;
  readonly #pool: BufferPool;
  /** Mappable buffers, which drivers keep in host memory: counted apart from the device's. */
  readonly #staging: BufferPool;
  readonly #discards = new Discards();
  readonly #pipelines: PipelineCache;
  readonly #profiler: Profiler | undefined;
  readonly #trace: ((timing: KernelTiming) => void) | undefined;
  readonly #poison: boolean;
  readonly #onDispatch: GpuOptions["onDispatch"];
  readonly #ring: PooledBuffer;
  readonly #slotBytes: number;
  readonly #slots: Uint8Array<ArrayBuffer>;
  #slotsUsed = 0;
  #workRecorded = 0;
  #pipelinesSent = 0;
  #turnedAt = performance.now();
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  #failure: GpuError | undefined;
  /** Told before all others, which follow from it. */
  #loss: DeviceLostError | undefined;
  #isClosed = false;
  /** Told first, for other failures follow from it, and Dawn reports those before it. */
  #compileFailure: GpuError | undefined;

  private constructor(device: GPUDevice, info: GpuInfo, options: GpuOptions, isDry = false) {
    this.device = device;
    this.info = info;
    this.isDry = isDry;
    this.sharing = options.sharing ?? (info.isSoftware && info.subgroupSize >= 8 ? "subgroup" : "workgroup");
    this.tuning = options.tuning ?? {};
    const { maxStorageBufferBindingSize, maxBufferSize, minUniformBufferOffsetAlignment } = device.limits;
    this.maxBindingBytes = Math.min(
      maxStorageBufferBindingSize,
      maxBufferSize,
      options.maxBindingBytes ?? Infinity,
    );
    // Where nothing is computed, pieces would only take time to count.
    this.mostWork = options.mostWork ?? (isDry ? Infinity : MOST_WORK);
    this.#pipelines = new PipelineCache(
      device,
      (error) => this.#compileFailure ??= error,
      (groups) => this.#discards.add(groups),
    );
    const beforeDestroy = () => this.submit();
    this.#pool = new BufferPool(device, { limitBytes: options.memoryLimitBytes ?? Infinity, beforeDestroy });
    const { MAP_READ, COPY_DST, UNIFORM } = GPUBufferUsage;
    this.#staging = new BufferPool(device, {
      limitBytes: Infinity,
      usage: MAP_READ | COPY_DST,
      beforeDestroy,
    });
    this.#staging.expect(STAGING_BYTES);
    const canMap = isDry || info.features.has(MAPPABLE_BUFFERS);
    this.host = new HostMemory(
      this,
      options.hostCopies ?? (canMap ? "commands" : "javascript"),
      this.#hostTensors(),
    );
    this.#poison = options.poison ?? false;
    this.#onDispatch = options.onDispatch;
    this.#profiler = options.profile || traceSink() ? new Profiler(device) : undefined;
    this.#trace = options.profile ? undefined : traceSink();
    this.#slotBytes = Math.max(256, minUniformBufferOffsetAlignment);
    this.#slots = new Uint8Array(RING_SLOTS * this.#slotBytes);
    this.#ring = this.#pool.make(this.#slots.length, "uniform ring", UNIFORM | COPY_DST);
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      this.#failure ??= failureOf((event as GPUUncapturedErrorEvent).error, this.#pool.heldBytes);
    });
    device.lost.then(({ message }) => {
      if (!this.#isClosed) this.#loss = lossOf(message);
    });
  }

  /**
   * Opens the adapter with all it offers.
   * @throws {UserError} if no adapter answers
   */
  static async open(options: GpuOptions = {}): Promise<Gpu> {
    const timestamps = options.profile || traceSink() !== undefined;
    const { device, info } = await openDevice({ timestamps });
    if (options.sharing === "subgroup" && info.subgroupSize < 8) {
      device.destroy();
      throw new GpuError(
        `Subgroup sharing needs subgroups of 8 or more; "${info.description}" has ${info.subgroupSize}`,
      );
    }
    const tuning = options.tuning ?? (options.sharing ? {} : await knownTuning(info));
    return new Gpu(device, info, { ...options, tuning });
  }

  /**
   * A device that allocates and computes nothing, on which the engine runs to count: memory, dispatches, bindings. It
   * makes the choices that a GPU with these limits would.
   */
  static dry({ limits, info = DRY_INFO, ...options }: DryOptions): Gpu {
    return new Gpu(dryDevice(limits), info, options, true);
  }

  /** Bytes on the device in use now. */
  get liveBytes(): number {
    return this.#pool.liveBytes;
  }

  /** Keeps what is held, idle buffers included, within what was planned, as far as what is in use lets it. */
  expectPeak(bytes: number): void {
    this.#pool.expect(bytes);
  }

  /** Bytes that the limit leaves, idle buffers given back; Infinity without a limit. */
  get freeBytes(): number {
    return this.#pool.freeBytes;
  }

  /** Most bytes held on the device at once since {@linkcode resetPeak}, buffers that wait for reuse included. */
  get peakBytes(): number {
    return this.#pool.peak.heldBytes;
  }

  /** The memory when most was in use since {@linkcode resetPeak}, and the most that was held. */
  get peak(): MemoryUse {
    return this.#pool.peak;
  }

  /** The memory now. */
  get memory(): MemoryUse {
    return this.#pool.use;
  }

  /** Buffers asked from the driver so far: in the long run a training step asks for none. */
  get buffersCreated(): number {
    return this.#pool.created + this.#staging.created;
  }

  /** Says what is allocated from now on is for; disposing of the result, as `using` does, ends it. */
  purpose(purpose: Purpose): Disposable {
    const before = this.#pool.purpose;
    this.#pool.purpose = purpose;
    return { [Symbol.dispose]: () => this.#pool.purpose = before };
  }

  /** Says that a tensor is for something else than when it was made. */
  assign(tensor: Tensor, purpose: Purpose): void {
    for (const { buffer } of tensor.segments) this.#pool.assign(buffer, purpose);
  }

  /** Names what goes on, for {@linkcode peak}: `backward, layer 31`. */
  at(moment: string): void {
    this.#pool.moment = moment;
  }

  /** Kernels compiled so far, each specialisation counted. */
  get pipelineCount(): number {
    return this.#pipelines.count;
  }

  /** Makes what is held now the peak. */
  resetPeak(): void {
    this.#pool.resetPeak();
  }

  /** An uninitialised tensor. Rows past one binding go to further buffers. */
  empty(shape: readonly number[], dtype: Dtype = "f32", label = "tensor"): Tensor {
    const tensor = this.#allocate(shape, dtype, label);
    if (this.#poison) {
      for (const { buffer } of tensor.segments) this.#upload(buffer.gpu, 0, poisonOf(buffer.size));
    }
    return tensor;
  }

  /** A tensor of zeros. */
  zeros(shape: readonly number[], dtype: Dtype = "f32", label = "zeros"): Tensor {
    const tensor = this.#allocate(shape, dtype, label);
    this.clear(tensor);
    return tensor;
  }

  /** Sets every byte of the tensor to zero. */
  clear(tensor: Tensor): void {
    this.#endPass();
    for (const { buffer, offset, rows } of tensor.segments) {
      this.#encode().clearBuffer(buffer.gpu, offset, Math.ceil(rows * tensor.rowBytes / 4) * 4);
    }
  }

  /**
   * A tensor with the given values: f32 or u32 by the array's type; bytes for other dtypes. A function that makes f32
   * values is not called on a dry device.
   */
  tensor(
    shape: readonly number[],
    values: Float32Array | Uint32Array | Uint8Array | (() => Float32Array),
    { dtype, label = "tensor" }: { dtype?: Dtype; label?: string } = {},
  ): Tensor {
    const type = dtype ?? (values instanceof Uint32Array ? "u32" : "f32");
    const tensor = this.#allocate(shape, type, label);
    if (typeof values !== "function") this.write(tensor, values);
    else if (!this.isDry) this.write(tensor, values());
    return tensor;
  }

  /** Overwrites a tensor's values. Work recorded before sees the old values. */
  write(tensor: Tensor, values: Float32Array | Uint32Array | Uint8Array): void {
    if (values.byteLength !== tensor.byteLength) {
      throw new GpuError(
        `Cannot fill "${tensor.label}" [${tensor.shape}] of ${tensor.byteLength} bytes with ${values.byteLength} bytes`,
      );
    }
    const bytes = new Uint8Array(values.buffer as ArrayBuffer, values.byteOffset, values.byteLength);
    for (const { buffer, start, rows, offset } of tensor.segments) {
      const from = start * tensor.rowBytes;
      this.#upload(buffer.gpu, offset, bytes.subarray(from, from + rows * tensor.rowBytes));
    }
  }

  /** Copies all of `from` to `to`: same shape and dtype. */
  copy(from: Tensor, to: Tensor): void {
    if (from.byteLength !== to.byteLength || from.rows !== to.rows) {
      throw new GpuError(`Cannot copy "${from.label}" [${from.shape}] to "${to.label}" [${to.shape}]`);
    }
    this.#endPass();
    const encoder = this.#encode();
    for (const target of to.segments) {
      for (const source of from.slice(target.start, target.start + target.rows).segments) {
        const offset = target.offset + source.start * to.rowBytes;
        encoder.copyBufferToBuffer(
          source.buffer.gpu,
          source.offset,
          target.buffer.gpu,
          offset,
          source.rows * to.rowBytes,
        );
      }
    }
  }

  /**
   * Records one dispatch of `kernel` over `tensors`, in the order of its storage bindings.
   * @internal
   */
  run(kernel: Kernel, tensors: readonly Tensor[], launch: Launch): void {
    const bounds = tensors.map((tensor) => tensor.bound);
    const [x, y = 1, z = 1] = launch.grid;
    const most = this.device.limits.maxComputeWorkgroupsPerDimension;
    if (!(x >= 0 && y >= 0 && z >= 0 && x <= most && y <= most && z <= most)) {
      throw new GpuError(
        `Cannot run "${kernel.name}" over ${x} x ${y} x ${z} workgroups: at most ${most} an axis`,
      );
    }
    if (x * y * z === 0) return;
    this.#onDispatch?.({
      kernel: kernel.name,
      grid: [x, y, z],
      uniforms: launch.uniforms ?? {},
      bindings: bounds,
    });
    if (this.isDry) return;
    const pipeline = this.#pipelines.get(kernel, launch);
    const { work = 0 } = launch;
    const isFull = this.#slotsUsed === (this.#profiler ? TIMED_LAUNCHES : RING_SLOTS);
    if (isFull || this.#workRecorded + work > this.mostWork) this.submit();
    this.#workRecorded += work;
    const slot = this.#slotsUsed++ * this.#slotBytes;
    this.#pipelines.packUniforms(pipeline, launch.uniforms ?? {}, this.#slots, slot);
    const pass = this.#beginPass(pipeline, [x, y, z], bounds.reduce((sum, { size }) => sum + size, 0));
    pass.setPipeline(pipeline.gpu);
    const group = this.#pipelines.bindGroup(pipeline, bounds, this.#ring.gpu);
    pass.setBindGroup(0, group, pipeline.interface.uniforms.length > 0 ? [slot] : []);
    pass.dispatchWorkgroups(x, y, z);
    if (this.#profiler) this.#endPass();
  }

  /** Sends the recorded work to the device. */
  submit(): void {
    if (!this.#encoder) return;
    this.#endPass();
    this.#profiler?.resolve(this.#encoder);
    if (this.#slotsUsed > 0) {
      this.device.queue.writeBuffer(
        this.#ring.gpu,
        0,
        this.#slots.subarray(0, this.#slotsUsed * this.#slotBytes),
      );
    }
    if (this.#pipelines.count > this.#pipelinesSent) {
      this.#pipelinesSent = this.#pipelines.count;
      this.onCompile?.(this.#pipelinesSent);
    }
    this.device.queue.submit([this.#encoder.finish()]);
    this.#discards.add(1);
    this.#encoder = undefined;
    this.#slotsUsed = this.#workRecorded = 0;
  }

  /** The values of float tensors as f32, after all recorded work; one wait for all of them. */
  async read(tensor: Tensor): Promise<Float32Array> {
    const [bytes] = await this.readBytes([tensor]);
    return toFloat32(bytes!, tensor.format);
  }

  /** The values of a u32 tensor. */
  async readU32(tensor: Tensor): Promise<Uint32Array> {
    const [bytes] = await this.readBytes([tensor]);
    return new Uint32Array(bytes!.buffer);
  }

  /**
   * The bytes of several tensors, after all recorded work; one wait for all of them.
   * @throws {GpuError} if anything failed on the device since the last read
   */
  async readBytes(tensors: readonly Tensor[]): Promise<Uint8Array<ArrayBuffer>[]> {
    this.#endPass();
    const stagings = tensors.map((tensor) => {
      const staging = this.#staging.take(tensor.byteLength, `read ${tensor.label}`);
      for (const { buffer, start, rows, offset } of tensor.segments) {
        const length = Math.ceil(rows * tensor.rowBytes / 4) * 4;
        this.#encode().copyBufferToBuffer(buffer.gpu, offset, staging.gpu, start * tensor.rowBytes, length);
      }
      return staging;
    });
    this.submit();
    try {
      await this.#pipelines.settled();
      this.check();
      await Promise.all(stagings.map(({ gpu }) => gpu.mapAsync(GPUMapMode.READ)));
      this.check();
      if (this.#trace) (await this.timings()).forEach(this.#trace);
      return stagings.map(({ gpu }, i) => {
        const { byteLength } = tensors[i]!;
        const mapped = gpu.getMappedRange(0, Math.ceil(byteLength / 4) * 4);
        // A copy of zeros that nobody wrote would make them real.
        const bytes = new Uint8Array(this.isDry ? mapped : mapped.slice(0, byteLength));
        gpu.unmap();
        return bytes;
      });
    } catch (error) {
      return await this.#fail(error);
    } finally {
      stagings.forEach((staging) => this.#staging.give(staging));
      this.#staging.trim(STAGING_BYTES);
    }
  }

  /**
   * Lets timers and signals have their turn, if they had none for a while: a submit blocks the program where the device
   * is the processor, and nothing else in a step waits. What is recorded stays so.
   */
  async turn(): Promise<void> {
    if (performance.now() - this.#turnedAt < DEAF_MS) return;
    await new Promise((resolve) => setTimeout(resolve, 0));
    this.#turnedAt = performance.now();
  }

  /** Waits until the device has done all recorded work. */
  async settle(): Promise<void> {
    this.submit();
    await this.#pipelines.settled();
    await this.device.queue.onSubmittedWorkDone().catch((error) => this.#fail(error));
    this.check();
  }

  /** Throws what the device says of a wait that failed, which may be told a little later than that it did. */
  async #fail(error: unknown): Promise<never> {
    await new Promise((resolve) => setTimeout(resolve, 0));
    this.check();
    throw error;
  }

  /** Times of the dispatches since the last call; empty unless opened with `profile`. */
  async timings(): Promise<KernelTiming[]> {
    this.submit();
    return await this.#profiler?.collect() ?? [];
  }

  /** Gives idle memory back to the driver. */
  trim(): void {
    this.#pool.trim();
    this.#staging.trim();
  }

  /** Throws the first failure that the device has reported, if there is one. */
  check(): void {
    const failure = this.#loss ?? this.#compileFailure ?? this.#failure;
    if (failure) throw failure;
  }

  /** Ends the device and frees all memory. */
  close(): void {
    this.#isClosed = true;
    this.device.destroy();
  }

  /** {@linkcode Gpu.close}, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Makes tensors of buffers in host memory, which no kernel can read. */
  #hostTensors(): (shape: readonly number[], dtype: Dtype, label: string) => Tensor {
    const { MAP_READ, COPY_SRC, COPY_DST } = GPUBufferUsage;
    const pool = new BufferPool(this.device, {
      limitBytes: Infinity,
      usage: MAP_READ | COPY_SRC | COPY_DST,
      churn: 0,
      beforeDestroy: () => this.submit(),
    });
    return (shape, dtype, label) => this.#allocate(shape, dtype, label, pool);
  }

  #allocate(shape: readonly number[], dtype: Dtype, label: string, pool = this.#pool): Tensor {
    if (shape.some((axis) => !Number.isSafeInteger(axis) || axis < 1)) {
      throw new GpuError(
        `Cannot make "${label}" of shape [${shape}]: every axis must be a whole number above 0`,
      );
    }
    const rowBytes = (shape.length < 2 ? 1 : shape.at(-1)!) * bytesPerElement(dtype);
    const rows = shape.reduce((product, axis) => product * axis, 1) / (shape.length < 2 ? 1 : shape.at(-1)!);
    const most = rows * rowBytes <= this.maxBindingBytes
      ? rows
      : Math.floor(this.maxBindingBytes / rowBytes / ROW_ALIGNMENT) * ROW_ALIGNMENT;
    if (most < 1) {
      throw new GpuError(
        `Cannot make "${label}" [${shape}]: ${ROW_ALIGNMENT} rows of ${rowBytes} bytes pass the ` +
          `${this.maxBindingBytes} bytes that one binding may hold`,
      );
    }
    const segments: Segment[] = [];
    for (let start = 0; start < rows; start += most) {
      const count = Math.min(most, rows - start);
      const buffer = pool.take(count * rowBytes, label);
      segments.push({ buffer, start, rows: count, offset: 0 });
    }
    return new Tensor(shape, dtype, label, segments, (tensor) => {
      for (const { buffer } of tensor.segments) pool.give(buffer);
    });
  }

  /** A write goes ahead of work that is recorded but not submitted, so that goes first. */
  #upload(buffer: GPUBuffer, offset: number, bytes: Uint8Array<ArrayBuffer>): void {
    this.submit();
    for (let at = 0; at < bytes.length; at += UPLOAD_CHUNK_BYTES) {
      const chunk = bytes.subarray(at, at + UPLOAD_CHUNK_BYTES);
      const whole = chunk.length - chunk.length % 4;
      if (whole > 0) this.device.queue.writeBuffer(buffer, offset + at, chunk, 0, whole);
      if (whole < chunk.length) {
        const tail = new Uint8Array(4);
        tail.set(chunk.subarray(whole));
        this.device.queue.writeBuffer(buffer, offset + at + whole, tail);
      }
      if (bytes.length > UPLOAD_CHUNK_BYTES) this.device.queue.submit([]);
    }
  }

  #encode(): GPUCommandEncoder {
    return this.#encoder ??= this.device.createCommandEncoder();
  }

  #beginPass(pipeline: Pipeline, grid: [number, number, number], bytes: number): GPUComputePassEncoder {
    if (this.#pass) return this.#pass;
    const timestampWrites = this.#profiler?.begin(pipeline.name, grid, bytes);
    return this.#pass = this.#encode().beginComputePass(timestampWrites ? { timestampWrites } : {});
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = undefined;
  }
}

function lossOf(message: string): DeviceLostError {
  return new DeviceLostError(
    `The GPU device was lost (${message}): its driver was reset, or it went away. What was saved before is whole; start ` +
      `the command again, and if it happens again look for a newer driver`,
  );
}

/** What a device reports out of band, in words. */
function failureOf(error: GPUError, heldBytes: number): GpuError {
  if (!(error instanceof GPUOutOfMemoryError)) {
    return new GpuError(`The GPU reported an error: ${error.message}`);
  }
  return new GpuMemoryError(
    `The GPU has no more memory: ${
      (heldBytes / 2 ** 30).toFixed(2)
    } GiB were asked of it. The plan command tells which ` +
      `settings need less; set max_memory to what the device has, and training sees to it`,
  );
}

/** NaN in every float format, far out of range as an index. */
function poisonOf(bytes: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes).fill(0xff);
}

function toFloat32(bytes: Uint8Array<ArrayBuffer>, format: "f32" | "bf16" | "f16"): Float32Array {
  if (format === "f32") return new Float32Array(bytes.buffer);
  if (format === "f16") return Float32Array.from(new Float16Array(bytes.buffer));
  const bits = Uint32Array.from(new Uint16Array(bytes.buffer), (half) => half << 16);
  return new Float32Array(bits.buffer);
}
