/** Speed of every kernel, of a step, of decoding: `deno task bench`; `--help` tells the flags. */
import { formatSeconds } from "../text.ts";
import { gpuOptionsOf } from "../cli/gpu_options.ts";
import { type Io, terminalIo } from "../cli/io.ts";
import { fileVerdicts, tellOnce } from "../cli/verdicts.ts";
import { describeRefusal } from "../kernels/refusal.ts";
import { createProgress } from "../cli/progress.ts";
import { readTuning, saveTuning, tuningFile } from "../cli/tuning.ts";
import { EXIT, exitCodeOf } from "../cli/exit.ts";
import { UserError } from "../errors.ts";
import { GpuError } from "../kernels/errors.ts";
import { Gpu, type GpuInfo, type Sharing } from "../kernels/gpu.ts";
import { openGpu as openTrusted } from "../kernels/open.ts";
import type { Tuning } from "../kernels/tuning.ts";
import { TYPICAL_DEVICE } from "../train/plan/step_cost.ts";
import { answerRate, decodeCases, decodeModel } from "./decode.ts";
import { benchLoad, describeLoad } from "./loading.ts";
import type { Effort } from "./measure.ts";
import { describeMemory, planMemory } from "./memory.ts";
import { type BenchOptions, HELP, readOptions } from "./options.ts";
import { type ClockState, clockState, type Peaks, probe, warmUp } from "./probe.ts";
import { describeChanges, describeRows, describeSurroundings } from "./describe.ts";
import {
  type BenchResult,
  compareRows,
  type LoadResult,
  lookAround,
  type MemoryResult,
  readResult,
  type Row,
  type StepReport,
} from "./result.ts";
import { ROOM_GIB, runCases, selectCases } from "./run_cases.ts";
import { describeStep, measureStep, stepRow } from "./step.ts";
import { attentionCases } from "./suites/attention.ts";
import type { Case, Extent } from "./suites/case.ts";
import { productCases } from "./suites/products.ts";
import { judgeS2, s2Cases } from "./suites/s2.ts";
import { smallOpCases } from "./suites/small_ops.ts";
import { describeChoices, tune, tuningOf } from "./tune.ts";

/** Seconds a row takes, unless told. */
const SECONDS: Record<Extent, number> = { quick: 0.4, all: 2 };
const STEP_SECONDS = 10;

/** Measurements, and the device they were made on. */
interface Measured {
  readonly peaks: Peaks;
  readonly gpuClock: ClockState | null;
  readonly info: GpuInfo;
  readonly rows: readonly Row[];
  readonly steps: readonly StepReport[];
  /** Lines below the tables. */
  readonly notes: readonly string[];
}

/**
 * Runs the bench and returns the exit code.
 * @param env reads a variable of the environment
 */
async function runBench(
  words: readonly string[],
  io: Io,
  env?: (name: string) => string | undefined,
): Promise<number> {
  try {
    const options = readOptions(words, env);
    if (options === null) io.out(HELP.trimEnd());
    else if (options.mode === "tune" || options.mode === "variants") await runTuner(options, io);
    else if (options.mode === "memory") await runMemory(options, words, io);
    else if (options.mode === "load") await runLoad(options, words, io, env?.("TMPDIR"));
    else await report(options, words, io);
    return EXIT.ok;
  } catch (error) {
    if (!(error instanceof UserError || error instanceof GpuError)) throw error;
    io.err(error.message);
    return exitCodeOf(error);
  }
}

async function runTuner(options: BenchOptions, io: Io): Promise<void> {
  const file = options.mode === "variants" ? undefined : tuningFile();
  if (file === null) {
    throw new UserError("Cannot keep the tuning: set HOME or XDG_CACHE_HOME to a folder that can be written");
  }
  const { clock, filter, webgpu, toggles } = options;
  if (options.sharing !== undefined) {
    throw new UserError("--tune and --variants measure every sharing mode: leave out --sharing and --both", {
      kind: "usage",
    });
  }
  let info: GpuInfo | undefined;
  const open = async (tuning: Tuning) => {
    const gpu = await Gpu.open({ webgpu, toggles, profile: clock === "device", tuning });
    if (info === undefined) await warmUp(gpu, { clock, budgetMs: 0 });
    info = gpu.info;
    return gpu;
  };
  const choices = await tune(open, {
    clock,
    filter,
    progressOf: (total) => createProgress(io, "class", total),
  });
  io.out(describeChoices(choices));
  await save(options, choices);
  if (file === undefined) return;
  const before = await readTuning(info!, file);
  await saveTuning(info!, { ...before.tuning, ...tuningOf(choices) }, file);
  io.out(`\nSaved in ${file} for ${info!.description}; every command uses it from now on`);
}

async function runMemory(options: BenchOptions, words: readonly string[], io: Io): Promise<void> {
  const memory = await planMemory(options.filter, (line) => io.err(line));
  io.out(describeMemory(memory));
  const surroundings = await lookAround(TYPICAL_DEVICE.info, options.clock, words);
  await save(options, { version: 1, kind: "memory", surroundings, ...memory } satisfies MemoryResult);
}

async function runLoad(
  options: BenchOptions,
  words: readonly string[],
  io: Io,
  folder: string | undefined,
): Promise<void> {
  using gpu = await openGpu({ ...options, clock: "cpu" }, io);
  const load = await benchLoad(gpu, folder, io);
  io.out(describeLoad(load));
  const surroundings = await lookAround(gpu.info, options.clock, words);
  await save(options, { version: 1, kind: "load", surroundings, ...load } satisfies LoadResult);
}

async function save({ json }: BenchOptions, result: unknown): Promise<void> {
  if (json !== undefined) await Deno.writeTextFile(json, JSON.stringify(result, null, 1) + "\n");
}

async function report(options: BenchOptions, words: readonly string[], io: Io): Promise<void> {
  const old = options.compare === undefined ? undefined : await readResult(options.compare);
  const { info, notes, ...measured } = options.mode === "step"
    ? await benchStep(options, io)
    : await benchCases(options, io);
  const surroundings = await lookAround(info, options.clock, words);
  const kind = options.mode as BenchResult["kind"];
  const result: BenchResult = { version: 1, kind, surroundings, ...measured };
  const { peaks, rows, steps } = result;
  if (rows.length > 0) io.out(`${describeRows(rows)}\n`);
  for (const step of steps) io.out(`${describeStep(step, peaks.gflops)}\n`);
  for (const line of [...judgeS2(rows), ...notes]) io.out(line);
  io.out(describeSurroundings(surroundings, peaks, result.gpuClock));
  await save(options, result);
  if (old) io.out(`\n${describeChanges(compareRows(old.rows, rows), options.compare!)}`);
}

async function benchCases(options: BenchOptions, io: Io): Promise<Measured> {
  const started = performance.now();
  const rows: Row[] = [];
  const notes: string[] = [];
  let peaks: Peaks | undefined;
  let info: GpuInfo | undefined;
  let gpuClock: ClockState | null = null;
  for (const sharing of await sharingsOf(options, io)) {
    using gpu = await openGpu(options, io, sharing);
    info = gpu.info;
    const effort = effortOf(options, gpu);
    const cases = selectCases(await casesOf(options, gpu, notes), options.filter);
    if (cases.length === 0) {
      throw new UserError(`--filter: no row has ${options.filter} in it`, { kind: "usage" });
    }
    const begun = await warmUp(gpu, effort);
    peaks ??= await probe(gpu, effort);
    const progress = createProgress(io, "row", cases.length);
    try {
      const room = options.room ?? ROOM_GIB[gpu.info.isSoftware ? "software" : "gpu"];
      const roomBytes = room * 2 ** 30;
      const { rows: measured, tooLarge } = await runCases(gpu, cases, { effort, peaks, roomBytes, progress });
      rows.push(...measured);
      gpuClock = await clockState(gpu, begun);
      if (tooLarge.length > 0) {
        progress.note(`Left out, as they need more than ${room} GiB: ${tooLarge.join("; ")}`);
      }
    } finally {
      progress.stop();
    }
  }
  io.err(`${rows.length} rows in ${formatSeconds((performance.now() - started) / 1000)}`);
  return { peaks: peaks!, gpuClock, info: info!, rows, steps: [], notes };
}

async function benchStep(options: BenchOptions, io: Io): Promise<Measured> {
  if (options.clock === "cpu" || options.sharing === "both") {
    throw new UserError("--step is timed by the device and the clock on the wall, in one sharing mode", {
      kind: "usage",
    });
  }
  using gpu = await openGpu(options, io, options.sharing);
  const effort = effortOf(options, gpu);
  const begun = await warmUp(gpu, effort);
  const peaks = await probe(gpu, effort);
  gpu.memory.trim();
  gpu.memory.resetPeak();
  const step = await measureStep(gpu, options, options.seconds ?? STEP_SECONDS);
  const gpuClock = await clockState(gpu, begun);
  return {
    peaks,
    gpuClock,
    info: gpu.info,
    rows: [stepRow(step, gpu.sharing, peaks)],
    steps: [step],
    notes: [],
  };
}

async function casesOf(options: BenchOptions, gpu: Gpu, notes: string[]): Promise<Case[]> {
  const extent = extentOf(options, gpu);
  switch (options.mode) {
    case "s2":
      return s2Cases(extent);
    case "decode": {
      const model = await decodeModel(gpu, options.shape);
      const rate = await answerRate(model);
      notes.push(
        `Writing ${options.shape}: ${rate.toFixed(1)} tokens a second on the clock, reading included`,
      );
      return decodeCases(model, options.shape);
    }
    default:
      return [...productCases(extent), ...attentionCases(extent), ...smallOpCases(extent)];
  }
}

/** Opens the device as commands do: without kernels that are wrong on it. */
async function openGpu(
  { clock, webgpu, toggles, mostWork }: BenchOptions,
  io: Io,
  sharing?: Sharing,
): Promise<Gpu> {
  const { verdicts } = io;
  // With other toggles the kernels are those of the usual ones, so that times can be compared; nothing is learnt of them.
  const known = toggles.length > 0 && verdicts && {
    verdicts: { read: verdicts.read.bind(verdicts), save: () => Promise.resolve() },
  };
  return await openTrusted({
    ...gpuOptionsOf({ ...io, ...known }, webgpu),
    profile: clock === "device",
    ...(toggles.length > 0 && { toggles }),
    ...(mostWork !== undefined && { mostWork }),
    ...(sharing && { sharing }),
  });
}

function extentOf({ extent }: BenchOptions, gpu: Gpu): Extent {
  return extent ?? (gpu.info.isSoftware ? "quick" : "all");
}

function effortOf(options: BenchOptions, gpu: Gpu): Effort {
  return { clock: options.clock, budgetMs: 1000 * (options.seconds ?? SECONDS[extentOf(options, gpu)]) };
}

/** The sharing modes to measure; undefined is the adapter's own. */
async function sharingsOf(options: BenchOptions, io: Io): Promise<(Sharing | undefined)[]> {
  const { sharing } = options;
  if (sharing !== "both") return [sharing];
  using gpu = await openGpu({ ...options, clock: "cpu" }, io);
  return gpu.info.subgroupSize >= 8 ? ["subgroup", "workgroup"] : ["workgroup"];
}

if (import.meta.main) {
  const from = Deno.env.get("INIT_CWD");
  if (from !== undefined && from !== "") Deno.chdir(from);
  // What is measured is what the commands run.
  const terminal = terminalIo();
  const tell = tellOnce((text) => terminal.err(text));
  const io: Io = {
    ...terminal,
    tuning: async (info) => (await readTuning(info)).tuning,
    verdicts: fileVerdicts({ onNote: tell }),
    onRefusal: (verdict) => tell(describeRefusal(verdict)),
  };
  Deno.exit(await runBench(Deno.args, io, (name) => Deno.env.get(name)));
}
