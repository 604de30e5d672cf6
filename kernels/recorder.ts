import { Discards } from "./discards.ts";
import { GpuError } from "./errors.ts";
import type { Failures } from "./failures.ts";
import type { DeviceMemory } from "./memory.ts";
import { type Pipeline, PipelineCache } from "./pipelines.ts";
import type { PooledBuffer } from "./pool.ts";
import { type KernelTiming, Profiler, TIMED_LAUNCHES } from "./profiler.ts";
import type { Bound } from "./tensor.ts";
import type { Kernel, KernelForm, Specialisation } from "./wgsl.ts";

/** One dispatch: workgroups along x, y, z; the fields of the kernel's `struct Params`; what its pipeline fixes. */
export interface Launch extends Specialisation {
  readonly grid: readonly [number, number?, number?];
  readonly uniforms?: Readonly<Record<string, number>>;
  /** Multiply-adds, about, of a dispatch that has many. */
  readonly work?: number;
  /** For a launch that comes again as it is, on one device: what was made of it the first time. */
  readonly kept?: Kept;
}

/** What a {@linkcode Recorder} made of a launch; empty before its first time. */
export interface Kept {
  pipeline?: Pipeline;
  /** Its uniforms as the kernel reads them. */
  uniforms?: Uint8Array;
}

/** A dispatch as it is recorded. */
export interface Dispatch {
  readonly kernel: string;
  readonly grid: readonly [number, number, number];
  readonly uniforms: Readonly<Record<string, number>>;
  readonly bindings: readonly Bound[];
  /** What its device compiles. */
  readonly form: KernelForm;
}

/** Options of a recorder. */
export interface RecorderOptions {
  /** Counts dispatches and records none. */
  readonly isDry: boolean;
  /** Multiply-adds after which the work is submitted. */
  readonly mostWork: number;
  /** Gives each dispatch a pass of its own with timestamps, for {@linkcode Recorder.timings}. */
  readonly isTimed: boolean;
  /** Told of every dispatch as it is recorded. */
  readonly onDispatch?: ((dispatch: Dispatch) => void) | undefined;
  /** Told the number of kernels so far when work with new ones is submitted. */
  readonly onCompile?: ((kernels: number) => void) | undefined;
}

/** Dispatches between two submits at most: slots of the uniform ring. */
const RING_SLOTS = 4096;

/** Records dispatches and copies in their order, and submits them together. */
export class Recorder {
  readonly #device: GPUDevice;
  readonly #failures: Failures;
  readonly #options: RecorderOptions;
  readonly #pipelines: PipelineCache;
  readonly #profiler: Profiler | undefined;
  /** The profiler while dispatches are timed. */
  #timing: Profiler | undefined;
  readonly #discards = new Discards();
  /** Uniforms of the dispatches that are recorded, a slot each. */
  readonly #ring: PooledBuffer;
  readonly #slots: Uint8Array<ArrayBuffer>;
  readonly #slotBytes: number;
  /** Workgroups along an axis of a grid. */
  readonly #mostGroups: number;
  #slotsUsed = 0;
  #workRecorded = 0;
  #pipelinesSent = 0;
  #submits = 0;
  /** Recorded whole, and not sent. */
  #finished: GPUCommandBuffer[] = [];
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;

  constructor(device: GPUDevice, memory: DeviceMemory, failures: Failures, options: RecorderOptions) {
    this.#device = device;
    this.#failures = failures;
    this.#options = options;
    this.#pipelines = new PipelineCache(
      device,
      (error) => failures.addCompileFailure(error),
      (groups) => this.#discards.add(groups),
    );
    this.#timing = this.#profiler = options.isTimed ? new Profiler(device) : undefined;
    const { minUniformBufferOffsetAlignment, maxComputeWorkgroupsPerDimension } = device.limits;
    this.#slotBytes = Math.max(256, minUniformBufferOffsetAlignment);
    this.#mostGroups = maxComputeWorkgroupsPerDimension;
    this.#slots = new Uint8Array(RING_SLOTS * this.#slotBytes);
    const { UNIFORM, COPY_DST } = GPUBufferUsage;
    this.#ring = memory.make(this.#slots.length, "uniform ring", UNIFORM | COPY_DST);
  }

  /** Kernels compiled so far, each specialisation counted. */
  get pipelineCount(): number {
    return this.#pipelines.count;
  }

  /** Times that work was sent to the device. */
  get submits(): number {
    return this.#submits;
  }

  /** Compiles kernels ahead, as {@linkcode PipelineCache.prepare} does. */
  async prepare(forms: readonly KernelForm[]): Promise<void> {
    await this.#pipelines.prepare(forms);
  }

  /** Whether the compilers of all kernels recorded so far have been waited for. */
  get isCompiled(): boolean {
    return this.#pipelines.isSettled;
  }

  /**
   * Records one dispatch.
   * @param bounds what it binds, by the names that the kernel's source gives them
   * @throws {GpuError} if grid, uniforms, constants or bindings are not what the kernel declares
   */
  run(kernel: Kernel, bounds: Readonly<Record<string, Bound>>, launch: Launch): void {
    const [x, y = 1, z = 1] = launch.grid;
    const most = this.#mostGroups;
    if (!(x >= 0 && y >= 0 && z >= 0 && x <= most && y <= most && z <= most)) {
      throw new GpuError(
        `Cannot run "${kernel.name}" over ${x} x ${y} x ${z} workgroups: at most ${most} an axis`,
      );
    }
    if (x * y * z === 0) return;
    const { uniforms = {}, work = 0, kept } = launch;
    this.#options.onDispatch?.({
      kernel: kernel.name,
      grid: [x, y, z],
      uniforms,
      bindings: Object.values(bounds),
      form: { kernel, constants: launch.constants, formats: launch.formats },
    });
    if (this.#options.isDry) return;
    const pipeline = kept?.pipeline ?? this.#pipelines.get(kernel, launch);
    const isFull = this.#slotsUsed === (this.#timing ? TIMED_LAUNCHES : RING_SLOTS);
    if (isFull || this.#workRecorded + work > this.#options.mostWork) this.submit();
    this.#workRecorded += work;
    const slot = this.#slotsUsed++ * this.#slotBytes;
    if (kept?.uniforms) this.#slots.set(kept.uniforms, slot);
    else {
      const bytes = this.#pipelines.packUniforms(pipeline, uniforms, this.#slots, slot);
      if (kept) Object.assign(kept, { pipeline, uniforms: bytes.slice() });
    }
    const pass = this.#beginPass(pipeline, [x, y, z], bounds);
    pass.setPipeline(pipeline.gpu);
    const group = this.#pipelines.bindGroup(pipeline, bounds, this.#ring.gpu);
    pass.setBindGroup(0, group, pipeline.interface.uniforms.length > 0 ? [slot] : []);
    pass.dispatchWorkgroups(x, y, z);
    if (this.#timing) this.#endPass();
  }

  /** Whether dispatches are timed from here on; has no effect where they are never timed. */
  set isTimed(isTimed: boolean) {
    this.submit();
    this.#timing = isTimed ? this.#profiler : undefined;
  }

  /** The encoder for commands that belong to no pass: they come after all that is recorded. */
  commands(): GPUCommandEncoder {
    this.#endPass();
    return this.#encode();
  }

  /** Ends the recording of what goes together, so that sending it later takes less time. Not where dispatches are timed. */
  seal(): void {
    if (!this.#profiler) this.#finish();
  }

  /** Sends what is recorded to the device. */
  submit(): void {
    this.#finish();
    if (this.#finished.length === 0) return;
    const { queue } = this.#device;
    if (this.#slotsUsed > 0) {
      queue.writeBuffer(this.#ring.gpu, 0, this.#slots.subarray(0, this.#slotsUsed * this.#slotBytes));
    }
    if (this.#pipelines.count > this.#pipelinesSent) {
      this.#pipelinesSent = this.#pipelines.count;
      this.#options.onCompile?.(this.#pipelinesSent);
    }
    queue.submit(this.#finished);
    this.#submits++;
    this.#discards.add(this.#finished.length);
    this.#finished = [];
    this.#slotsUsed = this.#workRecorded = 0;
  }

  /**
   * Waits for the compilers of all kernels recorded so far.
   * @throws {GpuError} if anything has failed on the device
   */
  async compiled(): Promise<void> {
    await this.#pipelines.settled();
    this.#failures.check();
  }

  /**
   * Waits until the device has done all recorded work.
   * @throws {GpuError} if anything has failed on the device
   */
  async settle(): Promise<void> {
    this.submit();
    await this.#pipelines.settled();
    await this.#device.queue.onSubmittedWorkDone().catch((error) => this.#failures.explain(error));
    this.#failures.check();
  }

  /** Times of the dispatches since the last call; empty unless they are timed. */
  async timings(): Promise<KernelTiming[]> {
    this.submit();
    return await this.#profiler?.collect() ?? [];
  }

  #finish(): void {
    if (!this.#encoder) return;
    this.#endPass();
    this.#profiler?.resolve(this.#encoder);
    this.#finished.push(this.#encoder.finish());
    this.#encoder = undefined;
  }

  #encode(): GPUCommandEncoder {
    return this.#encoder ??= this.#device.createCommandEncoder();
  }

  #beginPass(
    { name }: Pipeline,
    grid: [number, number, number],
    bounds: Readonly<Record<string, Bound>>,
  ): GPUComputePassEncoder {
    if (this.#pass) return this.#pass;
    const bytes = Object.values(bounds).reduce((sum, { size }) => sum + size, 0);
    const timestampWrites = this.#timing?.begin(name, grid, bytes);
    return this.#pass = this.#encode().beginComputePass(timestampWrites ? { timestampWrites } : {});
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = undefined;
  }
}
