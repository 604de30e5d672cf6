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
const WARM_ACCUMULATORS = 4;
/** Links of a chain that the kernel writes out. */
const UNROLLED = 16;
/** Bytes read at a time: far past any cache. */
const READ_BYTES = { software: 128 * 2 ** 20, gpu: 2 ** 30 } as const;

/** Rates of the multiply-add probe, GFLOP/s: they tell at which clock a GPU ran. */
export interface ClockState {
  /** First sample, after the device had nothing to do. */
  readonly cold: number;
  /** When it rose no more. */
  readonly warm: number;
  /** After the measurements. */
  readonly end: number;
}

/** A GPU is warm when so many samples in a row are no faster by this share, or after so long. */
const WARM = { samples: 3, gain: 0.02, mostMs: 3000 } as const;
const SAMPLE: Effort = { clock: "device", budgetMs: 0 };

/**
 * Keeps the device busy until its clock rises no more: an idle GPU runs at a fraction of its rate.
 * @returns the rates at first and at last; `null` on a processor, and where the device is not opened with `profile`
 */
export async function warmUp(gpu: Gpu, { clock }: Effort): Promise<Omit<ClockState, "end"> | null> {
  if (gpu.info.isSoftware || clock !== "device") return null;
  const start = performance.now();
  const cold = await fmaRate(gpu, WARM_ACCUMULATORS, SAMPLE);
  let warm = cold;
  for (let same = 0; same < WARM.samples && performance.now() - start < WARM.mostMs;) {
    const rate = await fmaRate(gpu, WARM_ACCUMULATORS, SAMPLE);
    same = rate > warm * (1 + WARM.gain) ? 0 : same + 1;
    warm = Math.max(warm, rate);
  }
  return { cold, warm };
}

/** Adds the rate at the end to those of {@linkcode warmUp}. */
export async function clockState(
  gpu: Gpu,
  begun: Omit<ClockState, "end"> | null,
): Promise<ClockState | null> {
  return begun && { ...begun, end: await fmaRate(gpu, WARM_ACCUMULATORS, SAMPLE) };
}

/** Measures both peaks. */
export async function probe(gpu: Gpu, effort: Effort): Promise<Peaks> {
  return { gflops: await probeFma(gpu, effort), gbps: await probeRead(gpu, effort) };
}

async function probeFma(gpu: Gpu, effort: Effort): Promise<number> {
  let best = 0;
  for (const accumulators of ACCUMULATORS) best = Math.max(best, await fmaRate(gpu, accumulators, effort));
  return best;
}

/** GFLOP/s of so many chains of multiply-adds. */
async function fmaRate(gpu: Gpu, accumulators: number, effort: Effort): Promise<number> {
  const { isSoftware } = gpu.info;
  const [threads, turns] = isSoftware ? [2 ** 12, 500] : [2 ** 20, 500];
  const y = gpu.empty([threads, 4], "f32", "probe");
  const { bestMs } = await measure(gpu, () =>
    gpu.run(FMA, { y }, {
      grid: [threads / 64],
      uniforms: { turns, factor: 0.75, term: 0.25 },
      constants: { ACCUMULATORS: accumulators },
    }), effort);
  y.free();
  return threads * turns * UNROLLED * accumulators * 8 / bestMs / 1e6;
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
