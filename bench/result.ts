import { UserError } from "../errors.ts";
import type { WebGpu } from "../kernels/device.ts";
import type { GpuInfo, Sharing } from "../kernels/gpu.ts";
import type { Clock } from "./clock.ts";
import type { Commands } from "./commands.ts";
import type { LoadReport } from "./loading.ts";
import type { RunTimes } from "./measure.ts";
import type { MemoryReport } from "./memory.ts";
import type { Mode } from "./options.ts";
import type { ClockState, Peaks } from "./probe.ts";
import type { Case } from "./suites/case.ts";

/** One measured case. */
export interface Row extends RunTimes {
  readonly suite: string;
  readonly op: string;
  readonly shape: string;
  readonly format: string;
  readonly sharing: Sharing;
  /** Null where memory alone counts. */
  readonly gflops: number | null;
  readonly gbps: number;
  /** Share of the roofline: the time that the probes' peaks would take, over the time taken. */
  readonly share: number;
}

/** Machine, commit and command of a measurement. */
export interface Surroundings {
  readonly commit: string;
  /** Whether files differ from the commit; null where nobody knows. */
  readonly dirty: boolean | null;
  /** ISO 8601, UTC. */
  readonly date: string;
  readonly webgpu: WebGpu;
  readonly adapter: string;
  readonly vendor: string;
  readonly isSoftware: boolean;
  readonly deno: string;
  readonly clock: Clock;
  /** Threads of the software driver, where the environment sets them. */
  readonly threads: string | null;
  /** The command line's words. */
  readonly command: string;
}

/** The time of one kind of kernel in a step. */
export interface KernelShare {
  readonly kernel: string;
  readonly dispatches: number;
  readonly ms: number;
}

/** A step as measured: the step that was quickest on the clock, untimed by the device, and one more that it timed. */
export interface StepReport {
  readonly name: string;
  readonly tokens: number;
  /** Milliseconds of compiling: the kernels of the plan ahead, and what the first step took longer than the best. */
  readonly compileMs: number;
  readonly kernels: number;
  readonly steps: number;
  readonly wallMs: number;
  readonly medianMs: number;
  /** Processor time of this process in that step. */
  readonly cpuMs?: number;
  readonly commands?: Commands;
  /** Milliseconds on the device, of the step that it timed. */
  readonly deviceMs: number;
  /** Shares of the device's time. */
  readonly productsAndAttention: number;
  /** The device's time over the time on the clock. */
  readonly onDevice: number;
  /** Floating-point operations of a step, recomputed layers included. */
  readonly flops: number;
  readonly gflops: number;
  /** Bytes on the device: as `plan` says, and as measured. */
  readonly plannedBytes: number;
  readonly peakBytes: number;
  readonly byKernel: readonly KernelShare[];
}

/** Part of every file that `--json` writes. */
export interface AnyResult {
  readonly version: 1;
  readonly surroundings: Surroundings;
}

/** File that `--json` writes of times. */
export interface BenchResult extends AnyResult {
  readonly kind: Exclude<Mode, "memory" | "load" | "tune" | "variants">;
  readonly peaks: Peaks;
  /** The clock of the GPU; `null` where nothing tells it. */
  readonly gpuClock?: ClockState | null;
  readonly rows: readonly Row[];
  readonly steps: readonly StepReport[];
}

/** File that `--memory --json` writes. */
export interface MemoryResult extends AnyResult, MemoryReport {
  readonly kind: "memory";
}

/** File that `--load --json` writes. */
export interface LoadResult extends AnyResult, LoadReport {
  readonly kind: "load";
}

/** A case and its sample as a row, measured against the peaks. */
export function rowOf(
  { suite, op, shape, format, flops, bytes }: Omit<Case, "memory" | "prepare">,
  sharing: Sharing,
  sample: RunTimes,
  peaks: Peaks,
): Row {
  const { bestMs } = sample;
  const idealMs = Math.max(flops / peaks.gflops, bytes / peaks.gbps) / 1e6;
  return {
    suite,
    op,
    shape,
    format,
    sharing,
    ...sample,
    gflops: flops === 0 ? null : flops / bestMs / 1e6,
    gbps: bytes / bestMs / 1e6,
    share: idealMs / bestMs,
  };
}

/** Names a row among those of all runs. */
export function rowName({ suite, op, shape, format, sharing }: Omit<Row, keyof RunTimes>): string {
  return [suite, op, shape, format, sharing].join(" | ");
}

/** Looks at the machine and the repository. */
export async function lookAround(
  info: GpuInfo,
  clock: Clock,
  words: readonly string[],
): Promise<Surroundings> {
  const commit = await git(["rev-parse", "--short=10", "HEAD"]);
  const changes = await git(["status", "--porcelain", "--untracked-files=no"]);
  return {
    commit: commit ?? "unknown",
    dirty: changes === null ? null : changes !== "",
    date: new Date().toISOString(),
    webgpu: info.webgpu,
    adapter: info.description,
    vendor: info.vendor,
    isSoftware: info.isSoftware,
    deno: Deno.version.deno,
    clock,
    threads: Deno.env.get("LP_NUM_THREADS") ?? null,
    command: ["deno task bench", ...words].join(" "),
  };
}

/** Runs git and returns what it prints; null where it is not there or not allowed. */
export async function git(words: string[]): Promise<string | null> {
  try {
    const { success, stdout } = await new Deno.Command("git", {
      args: words,
      cwd: new URL("..", import.meta.url),
      stderr: "null",
    }).output();
    return success ? new TextDecoder().decode(stdout).trim() : null;
  } catch {
    return null;
  }
}

/**
 * Reads what `--json` wrote.
 * @throws {UserError} if the file is not there or not of this form
 */
export async function readResult(path: string): Promise<BenchResult> {
  let result: Partial<BenchResult>;
  try {
    result = JSON.parse(await Deno.readTextFile(path));
  } catch (cause) {
    throw new UserError(`Cannot compare with "${path}": ${(cause as Error).message}`, { cause });
  }
  if (result.version !== 1 || !Array.isArray(result.rows)) {
    throw new UserError(`Cannot compare with "${path}": it was not written by deno task bench --json`);
  }
  return result as BenchResult;
}

/** A row beside the same row of an earlier run. */
export interface Change {
  readonly name: string;
  readonly beforeMs: number;
  readonly nowMs: number;
  /** Times as fast as before. */
  readonly ratio: number;
  readonly verdict: "faster" | "slower" | "same";
}

/** Two best runs of the same work differ by this much on a quiet machine. */
const LEAST_NOISE = 0.05;

/** Every row that both runs have. A change counts if it is past the spread of either run. */
export function compareRows(before: readonly Row[], now: readonly Row[]): Change[] {
  const known = new Map(before.map((row) => [rowName(row), row]));
  return now.flatMap((row) => {
    const old = known.get(rowName(row));
    if (!old) return [];
    const ratio = old.bestMs / row.bestMs;
    const noise = Math.max(LEAST_NOISE, spread(old), spread(row));
    const verdict = ratio > 1 + noise ? "faster" : ratio < 1 / (1 + noise) ? "slower" : "same";
    return [{ name: rowName(row), beforeMs: old.bestMs, nowMs: row.bestMs, ratio, verdict }];
  });
}

/** Distance of a usual run from the best one, as a share. */
function spread({ bestMs, medianMs }: RunTimes): number {
  return medianMs / bestMs - 1;
}
