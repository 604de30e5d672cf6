import { type GpuInfo, MAPPABLE_BUFFERS, openDevice } from "./device.ts";
import { type DeviceLimits, DRY_INFO, dryDevice, limitsOf } from "./dry_device.ts";
import { GpuError } from "./errors.ts";
import { Failures } from "./failures.ts";
import type { DryOptions, GpuOptions, Sharing } from "./gpu_options.ts";
import { HostMemory } from "./host.ts";
import { DeviceMemory, type NamedShape } from "./memory.ts";
import type { MemoryUse, Purpose } from "./pool.ts";
import type { KernelTiming } from "./profiler.ts";
import { type Dispatch, type Launch, Recorder } from "./recorder.ts";
import type { Refused } from "./refusal.ts";
import { type Bound, type Dtype, joined, type Tensor } from "./tensor.ts";
import { type Reading, type TensorValues, toFloat32, Transfers } from "./transfers.ts";
import type { Tuning } from "./tuning.ts";
import type { Kernel, KernelForm } from "./wgsl.ts";

export type { DeviceLimits, Dispatch, DryOptions, GpuInfo, GpuOptions, Launch, MemoryUse, Purpose, Sharing };

/**
 * Systems end what keeps a GPU busy for seconds (Windows for 2), so long work goes to it in pieces of 2.2 TFLOP: a second
 * on a small GPU.
 */
const MOST_WORK = 2 ** 40;
/** Milliseconds that a program may go without timers and signals, see {@linkcode Gpu.yieldToEvents}. */
const MOST_DEAF_MS = 100;

/**
 * One device and all that lives on it. Several can be open side by side, each with its own WebGPU, tuning and trace.
 *
 * - Order. {@linkcode run}, {@linkcode clear}, {@linkcode copy} and {@linkcode write} take effect in the order of the
 *   calls. They only record: {@linkcode submit} sends the work, and so does a write, a read, or the amount of it. Only
 *   reads, {@linkcode settle} and {@linkcode timings} wait for the device.
 * - Values. A read returns the values that all work recorded before it leaves.
 * - Errors. Wrong arguments throw at once. Failures that WebGPU reports out of band (a kernel that does not compile, no
 *   memory, a lost device) are kept, and thrown by the next read, `settle` or {@linkcode check}, so that no value that
 *   follows from a failure is returned. A device that has failed throws for ever: open another.
 * - Memory. Whoever makes a tensor frees it, and its buffer is then reused, in the order of the work.
 *   {@linkcode memory} counts the tensors on the device, {@linkcode host} those that wait in host memory.
 * - Large tensors. A tensor of more than {@linkcode maxBindingBytes} lies in several buffers of whole rows.
 *
 * It is not responsible for
 * - what a kernel computes, and which variant of it runs: each op's folder is;
 * - shapes and types that an op cannot take: the op checks them;
 * - dispatches that take too long, and tensors in several buffers: ops cut their work by {@linkcode mostWork}, and go over
 *   `rowRanges`;
 * - gradients: every op has its own, and nothing is taped;
 * - tensors that nobody frees: they stay until {@linkcode close}.
 *
 * recorder.ts records the work, transfers.ts moves values, memory.ts and pool.ts count, failures.ts keeps errors.
 */
export class Gpu {
  /** Facts about the adapter, and the features it was opened with. */
  readonly info: GpuInfo;
  /** Way in which the threads of a workgroup share operands. */
  readonly sharing: Sharing;
  /** Variants of kernels chosen for this device. */
  readonly tuning: Tuning;
  /** Kernels that are not used on this device, because they compute wrong values there. */
  readonly refused: Refused;
  /** The WebGPU device itself. Work given to it directly is in no order with work recorded here. */
  readonly device: GPUDevice;
  /** Limits of the device's buffers and workgroups. */
  readonly limits: DeviceLimits;
  /** Largest segment of a tensor, in bytes. */
  readonly maxBindingBytes: number;
  /** Most multiply-adds of a dispatch by an op that can cut its work. */
  readonly mostWork: number;
  /** Whether nothing is stored or computed: then values need not be made, and what is read is zero. */
  readonly isDry: boolean;
  /** Memory on the device: how much is in use, for which purpose, and the peak. */
  readonly memory: DeviceMemory;
  /**
   * Host memory, for tensors that the device has no room for now.
   * @internal
   */
  readonly host: HostMemory;
  readonly #failures: Failures;
  readonly #recorder: Recorder;
  readonly #transfers: Transfers;
  readonly #poison: boolean;
  #yieldedAt = performance.now();

  private constructor(
    device: GPUDevice,
    info: GpuInfo,
    tuning: Tuning,
    options: Omit<GpuOptions, "tuning" | "refused"> & { readonly refused?: Refused },
    isDry = false,
  ) {
    this.device = device;
    this.info = info;
    this.isDry = isDry;
    this.sharing = options.sharing ?? (info.isSoftware && info.subgroupSize >= 8 ? "subgroup" : "workgroup");
    this.tuning = tuning;
    this.refused = options.refused ?? new Set();
    this.limits = limitsOf(device);
    const { maxStorageBufferBindingSize, maxBufferSize } = this.limits;
    this.maxBindingBytes = Math.min(
      maxStorageBufferBindingSize,
      maxBufferSize,
      options.maxBindingBytes ?? Infinity,
    );
    // Where nothing is computed, pieces would only take time to count.
    this.mostWork = options.mostWork ?? (isDry ? Infinity : MOST_WORK);
    this.memory = new DeviceMemory(device, {
      limitBytes: options.memoryLimitBytes ?? Infinity,
      maxBindingBytes: this.maxBindingBytes,
      beforeDestroy: () => this.submit(),
    });
    this.#failures = new Failures(device, () => this.memory.heldBytes);
    const { profile = false, onTiming, onDispatch, onCompile } = options;
    this.#recorder = new Recorder(device, this.memory, this.#failures, {
      isDry,
      mostWork: this.mostWork,
      isTimed: profile || onTiming !== undefined,
      onDispatch,
      onCompile,
    });
    const afterRead = onTiming && !profile
      ? async () => (await this.#recorder.timings()).forEach(onTiming)
      : undefined;
    const parts = [device, this.memory, this.#recorder, this.#failures] as const;
    this.#transfers = new Transfers(...parts, { isDry, afterRead });
    const canMap = isDry || info.features.has(MAPPABLE_BUFFERS);
    this.host = new HostMemory(
      this.#transfers,
      options.hostCopies ?? (canMap ? "commands" : "javascript"),
      (...tensor) => this.memory.allocateMappable(...tensor),
    );
    this.#poison = options.poison ?? false;
  }

  /**
   * Opens the adapter with all it offers. Trusts its kernels, unless told which to refuse: see `openGpu`.
   * @throws {UserError} if no adapter answers, or Dawn is asked for and cannot be loaded
   * @throws {GpuError} if the adapter cannot time or share as asked
   */
  static async open(options: GpuOptions = {}): Promise<Gpu> {
    const { webgpu = "deno", sharing, tuning = {}, profile = false, onTiming } = options;
    const { toggles, without, maxStorageBuffers } = options;
    const timestamps = profile || onTiming !== undefined;
    const asked = { timestamps, toggles, without, maxStorageBuffers };
    const { device, info } = await openDevice(webgpu, asked);
    if (sharing === "subgroup" && info.subgroupSize < 8) {
      device.destroy();
      throw new GpuError(
        `Subgroup sharing needs subgroups of 8 or more; "${info.description}" has ${info.subgroupSize}`,
      );
    }
    try {
      const chosen = typeof tuning !== "function" ? tuning : sharing === undefined ? await tuning(info) : {};
      const refused = typeof options.refused === "function"
        ? await options.refused({ limits: device.limits, info, tuning: chosen })
        : options.refused ?? new Set();
      return new Gpu(device, info, chosen, { ...options, refused });
    } catch (error) {
      device.destroy();
      throw error;
    }
  }

  /**
   * Makes a device that allocates and computes nothing, on which the engine runs to count: memory, dispatches, bindings.
   * It makes the choices that a GPU with these limits would.
   */
  static dry({ limits, info = DRY_INFO, tuning = {}, ...options }: DryOptions): Gpu {
    return new Gpu(dryDevice(limits), info, tuning, options, true);
  }

  /** Makes an uninitialised tensor. @throws {GpuError} see {@linkcode DeviceMemory.allocate} */
  empty(shape: readonly number[], dtype: Dtype = "f32", label = "tensor"): Tensor {
    const tensor = this.memory.allocate(shape, dtype, label);
    if (this.#poison) this.#transfers.poison(tensor);
    return tensor;
  }

  /** Makes a tensor of zeros. */
  zeros(shape: readonly number[], dtype: Dtype = "f32", label = "zeros"): Tensor {
    const tensor = this.memory.allocate(shape, dtype, label);
    this.clear(tensor);
    return tensor;
  }

  /** Makes uninitialised tensors side by side in memory: what treats all alike can then be one dispatch. */
  emptyTogether(wanted: readonly NamedShape[], dtype: Dtype): Tensor[] {
    const tensors = this.memory.allocateTogether(wanted, dtype);
    if (this.#poison) tensors.forEach((tensor) => this.#transfers.poison(tensor));
    return tensors;
  }

  /**
   * Makes f32 tensors of zeros side by side in memory: {@linkcode joined} makes one of them again, for ops that treat all
   * alike.
   */
  zerosTogether(wanted: readonly NamedShape[]): Tensor[] {
    const tensors = this.memory.allocateTogether(wanted, "f32");
    this.clearAll(tensors);
    return tensors;
  }

  /**
   * Makes a tensor of the given values: f32 or u32 by the array's type; bytes for other dtypes. A function that makes f32
   * values is not called on a dry device.
   */
  tensor(
    shape: readonly number[],
    values: TensorValues | (() => Float32Array),
    { dtype, label = "tensor" }: { dtype?: Dtype; label?: string } = {},
  ): Tensor {
    const type = dtype ?? (values instanceof Uint32Array ? "u32" : "f32");
    const tensor = this.memory.allocate(shape, type, label);
    if (typeof values !== "function") this.write(tensor, values);
    else if (!this.isDry) this.write(tensor, values());
    return tensor;
  }

  /** Sets every byte of the tensor to zero. */
  clear(tensor: Tensor): void {
    this.#transfers.clear(tensor);
  }

  /** Sets every byte of f32 tensors to zero, of neighbours at once. */
  clearAll(tensors: readonly Tensor[]): void {
    joined(tensors)[0]!.forEach((tensor) => this.clear(tensor));
  }

  /** Overwrites a tensor's values. @throws {GpuError} if `values` are not as many bytes as it has */
  write(tensor: Tensor, values: TensorValues): void {
    this.#transfers.write(tensor, values);
  }

  /** Copies all of `from` to `to`, of the same shape and dtype. @throws {GpuError} if they differ in rows or bytes */
  copy(from: Tensor, to: Tensor): void {
    this.#transfers.copy(from, to);
  }

  /**
   * Records one dispatch of `kernel` over `tensors`, by the names that its source gives them.
   * @throws {GpuError} if grid, uniforms, constants or tensors are not what the kernel declares
   * @internal
   */
  run(kernel: Kernel, tensors: Readonly<Record<string, Tensor>>, launch: Launch): void {
    const bounds: Record<string, Bound> = {};
    for (const name in tensors) bounds[name] = tensors[name]!.bound;
    this.#recorder.run(kernel, bounds, launch);
  }

  /** Sends the recorded work to the device. */
  submit(): void {
    this.#recorder.submit();
  }

  /** Sends what is recorded and written: drivers then free the copies that they keep of what was written. */
  flush(): void {
    this.#transfers.flush();
  }

  /** Reads the values of a float tensor as f32. @throws {GpuError} if anything has failed on the device */
  async read(tensor: Tensor): Promise<Float32Array> {
    const [bytes] = await this.readBytes([tensor]);
    return toFloat32(bytes!, tensor.format);
  }

  /** Reads the values of a u32 tensor. @throws {GpuError} if anything has failed on the device */
  async readU32(tensor: Tensor): Promise<Uint32Array> {
    const [bytes] = await this.readBytes([tensor]);
    return new Uint32Array(bytes!.buffer);
  }

  /** Reads the bytes of several tensors in one wait. @throws {GpuError} if anything has failed on the device */
  async readBytes(tensors: readonly Tensor[]): Promise<Uint8Array<ArrayBuffer>[]> {
    return await this.#transfers.readBytes(tensors);
  }

  /**
   * Records a read of the bytes that several tensors have after all work recorded so far, to wait for later. They may then be
   * freed.
   */
  startRead(tensors: readonly Tensor[]): Reading {
    return this.#transfers.startRead(tensors);
  }

  /** Waits until the device has done all recorded work. @throws {GpuError} if anything has failed on the device */
  async settle(): Promise<void> {
    await this.#recorder.settle();
  }

  /** Throws the failure that the device has reported, if there is one. */
  check(): void {
    this.#failures.check();
  }

  /** Times of the dispatches since the last call; empty unless opened with `profile`. */
  async timings(): Promise<KernelTiming[]> {
    return await this.#recorder.timings();
  }

  /** Whether dispatches are timed from here on, on a device opened with `profile`: timing takes time. */
  set isTimed(isTimed: boolean) {
    this.#recorder.isTimed = isTimed;
  }

  /** Kernels compiled so far, each specialisation counted. */
  get pipelineCount(): number {
    return this.#recorder.pipelineCount;
  }

  /**
   * Compiles kernels ahead of the work that needs them: side by side, where the implementation of WebGPU has threads for it,
   * and meanwhile the program goes on. A kernel that fails is reported by the next read.
   * @internal
   */
  async compile(forms: readonly KernelForm[]): Promise<void> {
    await this.#recorder.prepare(forms);
  }

  /**
   * Lets timers and signals run, if they could not for a while: a submit blocks the program where the device is the
   * processor, and nothing else in a step waits. What is recorded stays so.
   */
  async yieldToEvents(): Promise<void> {
    if (performance.now() - this.#yieldedAt < MOST_DEAF_MS) return;
    await new Promise((resolve) => setTimeout(resolve, 0));
    this.#yieldedAt = performance.now();
  }

  /** Ends the device and frees all memory. */
  close(): void {
    this.#failures.expectLoss();
    this.device.destroy();
  }

  /** {@linkcode Gpu.close}, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }
}
