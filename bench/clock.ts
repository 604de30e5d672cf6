import { process } from "./deps.ts";
import type { Gpu } from "../kernels/gpu.ts";

/**
 * The clock of a measurement.
 *
 * - `device`: pass timestamps, the only right clock on a GPU;
 * - `cpu`: processor time of this process, all threads together. On a software adapter of a machine that others use
 *   too, timestamps tell how busy they are; processor time does not. With `LP_NUM_THREADS=1` it is the time that one
 *   core alone would take.
 */
export type Clock = "device" | "cpu";

/** Time of a piece of work, in milliseconds. */
export interface Elapsed {
  /** By the clock, the device's part only. */
  readonly ms: number;
  /** By the same kind of time, with recording and compiling. */
  readonly wholeMs: number;
}

/**
 * Records `work`, waits for the device, and says what it took.
 * @param gpu opened with `profile` for the clock `device`
 */
export async function timed(gpu: Gpu, clock: Clock, work: () => void): Promise<Elapsed> {
  return clock === "device" ? await timedByDevice(gpu, work) : await timedByProcessor(gpu, work);
}

async function timedByDevice(gpu: Gpu, work: () => void): Promise<Elapsed> {
  const start = performance.now();
  work();
  await gpu.settle();
  const wholeMs = performance.now() - start;
  const timings = await gpu.timings();
  return { ms: timings.reduce((sum, { microseconds }) => sum + microseconds, 0) / 1000, wholeMs };
}

async function timedByProcessor(gpu: Gpu, work: () => void): Promise<Elapsed> {
  const start = processorMs();
  work();
  await gpu.settle();
  const ms = processorMs() - start;
  return { ms, wholeMs: ms };
}

/**
 * Each sample is at least this long: processor time is only known to about 0.1 ms, and waiting takes some; a GPU that
 * waits for work lowers its clock, so that one short dispatch after a wait is slow.
 */
const LONG_ENOUGH_MS = 20;
/** Repetitions of a sample at most. */
const MOST_REPEATS: Record<Clock, number> = { device: 50, cpu: 1000 };

/** Repetitions of work that takes `ms`, in one sample of a clock. */
export function repeatsFor(clock: Clock, ms: number): number {
  return Math.min(MOST_REPEATS[clock], Math.ceil(LONG_ENOUGH_MS / Math.max(ms, 0.02)));
}

/** The time of `work` on average over several runs recorded together. */
export async function timedOften(
  gpu: Gpu,
  clock: Clock,
  repeats: number,
  work: () => void,
): Promise<Elapsed> {
  const { ms, wholeMs } = await timed(gpu, clock, () => {
    for (let i = 0; i < repeats; i++) work();
  });
  return { ms: ms / repeats, wholeMs: wholeMs / repeats };
}

/** Processor time of this process since it began, user and system, in milliseconds. */
export function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
