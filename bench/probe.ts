import type { Gpu } from "../kernels/gpu.ts";
import type { Kernel } from "../kernels/wgsl.ts";
import { randomTensor } from "./inputs.ts";
import { type Effort, measure } from "./measure.ts";
import fmaWgsl from "./probe_fma.wgsl" with { type: "text" };
import readWgsl from "./probe_read.wgsl" with { type: "text" };

const FMA: Kernel = { name: "probe fma", wgsl: fmaWgsl };
const READ: Kernel = { name: "probe read", wgsl: readWgsl };

/** Peaks that simple kernels reach on this adapter: the roof of all others. */
export interface Peaks {
  /** GFLOP/s in f32, a multiplication and an addition counted as two. */
  readonly gflops: number;
  /** Memory read, 10^9 bytes a second. */
  readonly gbps: number;
}

/** Chains of quads to try: more hide latency, too many do not fit the registers. */
const ACCUMULATORS = [2, 3, 4, 8];
/** Links of a chain that the kernel writes out. */
const UNROLLED = 16;
/** Bytes read at a time: far past any cache. */
const READ_BYTES = { software: 128 * 2 ** 20, gpu: 2 ** 30 } as const;

/** Measures both peaks. */
export async function probe(gpu: Gpu, effort: Effort): Promise<Peaks> {
  return { gflops: await probeFma(gpu, effort), gbps: await probeRead(gpu, effort) };
}

async function probeFma(gpu: Gpu, effort: Effort): Promise<number> {
  const { isSoftware } = gpu.info;
  const [threads, turns] = isSoftware ? [2 ** 12, 500] : [2 ** 20, 500];
  const y = gpu.empty([threads, 4], "f32", "probe");
  let best = 0;
  for (const accumulators of ACCUMULATORS) {
    const { bestMs } = await measure(gpu, () =>
      gpu.run(FMA, { y }, {
        grid: [threads / 64],
        uniforms: { turns, factor: 0.75, term: 0.25 },
        constants: { ACCUMULATORS: accumulators },
      }), effort);
    best = Math.max(best, threads * turns * UNROLLED * accumulators * 8 / bestMs / 1e6);
  }
  y.free();
  return best;
}

async function probeRead(gpu: Gpu, effort: Effort): Promise<number> {
  const { isSoftware } = gpu.info;
  const wanted = Math.min(READ_BYTES[isSoftware ? "software" : "gpu"], gpu.maxBindingBytes);
  // One subgroup of a software adapter is one run of memory, which its processor can foresee.
  const [groups, WIDTH] = isSoftware ? [512, 8] : [4096, 256];
  const turns = Math.floor(wanted / (groups * 4 * WIDTH * 16));
  const x = randomTensor(gpu, [groups * turns * 4 * WIDTH, 4]);
  const y = gpu.empty([groups * WIDTH, 4], "f32", "probe");
  const { bestMs } = await measure(
    gpu,
    () => gpu.run(READ, { x, y }, { grid: [groups], uniforms: { turns }, constants: { WIDTH } }),
    effort,
  );
  const bytes = x.byteLength;
  x.free();
  y.free();
  return bytes / bestMs / 1e6;
}
