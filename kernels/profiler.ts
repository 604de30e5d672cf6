/** Time of one dispatch, as measured by the device. */
export interface KernelTiming {
  /** Name of the kernel. */
  readonly kernel: string;
  /** Workgroups along x, y, z. */
  readonly grid: readonly [number, number, number];
  /** Bytes of the tensors bound: the most that it could have touched. */
  readonly bytes: number;
  /** Time on the device. */
  readonly microseconds: number;
}

type Launch = Omit<KernelTiming, "microseconds">;

/** Most queries of a set, by the standard. */
const QUERIES = 4096;
/** Most dispatches of a submit whose dispatches are all timed. */
export const TIMED_LAUNCHES = QUERIES / 2;

/** Collects pass timestamps: two queries a dispatch. */
export class Profiler {
  readonly #device: GPUDevice;
  #set: GPUQuerySet | undefined;
  #launches: Launch[] = [];
  #resolved: { launches: Launch[]; resolved: GPUBuffer; values: GPUBuffer }[] = [];

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** Returns the timestamps that the next pass writes: at most {@linkcode TIMED_LAUNCHES} times before each {@linkcode resolve}. */
  begin(
    kernel: string,
    grid: [number, number, number],
    bytes: number,
  ): GPUComputePassTimestampWrites {
    const at = 2 * this.#launches.length;
    this.#set ??= this.#device.createQuerySet({ type: "timestamp", count: QUERIES });
    this.#launches.push({ kernel, grid, bytes });
    return { querySet: this.#set, beginningOfPassWriteIndex: at, endOfPassWriteIndex: at + 1 };
  }

  /** Records the copy of this submit's timestamps. */
  resolve(encoder: GPUCommandEncoder): void {
    if (!this.#set || this.#launches.length === 0) return;
    const { QUERY_RESOLVE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
    const size = 16 * this.#launches.length;
    const resolved = this.#device.createBuffer({ size, usage: QUERY_RESOLVE | COPY_SRC });
    const values = this.#device.createBuffer({ size, usage: COPY_DST | MAP_READ });
    encoder.resolveQuerySet(this.#set, 0, size / 8, resolved, 0);
    encoder.copyBufferToBuffer(resolved, 0, values, 0, size);
    this.#resolved.push({ launches: this.#launches, resolved, values });
    this.#launches = [];
  }

  /** Waits for the times of all submits since the last call. */
  async collect(): Promise<KernelTiming[]> {
    const timings: KernelTiming[] = [];
    for (const { launches, resolved, values } of this.#resolved.splice(0)) {
      await values.mapAsync(GPUMapMode.READ);
      const stamps = new BigUint64Array(values.getMappedRange());
      launches.forEach((launch, i) => {
        timings.push({ ...launch, microseconds: Number(stamps[2 * i + 1]! - stamps[2 * i]!) / 1000 });
      });
      resolved.destroy();
      values.destroy();
    }
    return timings;
  }
}
