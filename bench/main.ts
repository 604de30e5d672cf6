/** Speed of every kernel, of a step, of decoding: `deno task bench`; `--help` tells the flags. */
import { formatSeconds } from "../cli/format.ts";
import { type Io, terminalIo } from "../cli/io.ts";
import { createProgress } from "../cli/progress.ts";
import { EXIT, UserError } from "../errors.ts";
import { GpuError } from "../kernels/errors.ts";
import { Gpu, type Sharing } from "../kernels/gpu.ts";
import type { Effort } from "./measure.ts";
import { type BenchOptions, HELP, readOptions } from "./options.ts";
import { type Peaks, probe } from "./probe.ts";
import { describeChanges, describeRows, describeSurroundings } from "./report.ts";
import { type BenchResult, compareRows, lookAround, readResult, type Row } from "./result.ts";
import { runCases, selectCases } from "./run_cases.ts";
import { attentionCases } from "./suites/attention.ts";
import type { Case, Extent } from "./suites/case.ts";
import { productCases } from "./suites/products.ts";
import { smallOpCases } from "./suites/small_ops.ts";

/** Seconds a row takes, unless told. */
const SECONDS: Record<Extent, number> = { quick: 0.4, all: 2 };

/** What every part of the bench is handed. */
export interface BenchRun {
  readonly options: BenchOptions;
  readonly io: Io;
  readonly extent: Extent;
  readonly effort: Effort;
}

/** Runs the bench and returns the exit code. */
export async function runBench(words: readonly string[], io: Io): Promise<number> {
  try {
    const options = readOptions(words);
    if (options === null) {
      io.out(HELP.trimEnd());
      return EXIT.ok;
    }
    const old = options.compare === undefined ? undefined : await readResult(options.compare);
    const { peaks, rows, gpu } = await measureAll(options, io);
    const result: BenchResult = {
      version: 1,
      surroundings: await lookAround(gpu.info, options.clock, words),
      peaks,
      rows,
    };
    io.out(`${describeRows(rows)}\n\n${describeSurroundings(result.surroundings, peaks)}`);
    if (options.json !== undefined) {
      await Deno.writeTextFile(options.json, JSON.stringify(result, null, 1) + "\n");
    }
    if (old) io.out(`\n${describeChanges(compareRows(old.rows, rows), options.compare!)}`);
    return EXIT.ok;
  } catch (error) {
    if (!(error instanceof UserError || error instanceof GpuError)) throw error;
    io.err(error.message);
    return error instanceof UserError ? error.exitCode : EXIT.failed;
  }
}

async function measureAll(
  options: BenchOptions,
  io: Io,
): Promise<{ peaks: Peaks; rows: Row[]; gpu: Gpu }> {
  const started = performance.now();
  const rows: Row[] = [];
  let peaks: Peaks | undefined;
  let gpu: Gpu | undefined;
  for (const sharing of await sharingsOf(options)) {
    gpu = await Gpu.open({ profile: options.clock === "device", ...(sharing ? { sharing } : {}) });
    const extent = options.extent ?? (gpu.info.isSoftware ? "quick" : "all");
    const effort = { clock: options.clock, budgetMs: 1000 * (options.seconds ?? SECONDS[extent]) };
    peaks ??= await probe(gpu, effort);
    const cases = selectCases(casesOf(extent), options.filter);
    if (cases.length === 0) {
      throw new UserError(`--filter: no row has ${options.filter} in it`, { exitCode: EXIT.usage });
    }
    const progress = createProgress(io, "row", cases.length);
    try {
      const { rows: measured, tooLarge } = await runCases(gpu, cases, { effort, peaks, progress });
      rows.push(...measured);
      if (tooLarge.length > 0) progress.note(`Left out as too large here: ${tooLarge.join("; ")}`);
    } finally {
      progress.stop();
      gpu.close();
    }
  }
  io.err(`${rows.length} rows in ${formatSeconds((performance.now() - started) / 1000)}`);
  return { peaks: peaks!, rows, gpu: gpu! };
}

function casesOf(extent: Extent): Case[] {
  return [...productCases(extent), ...attentionCases(extent), ...smallOpCases(extent)];
}

/** The sharing modes to measure; undefined is the adapter's own. */
async function sharingsOf({ sharing }: BenchOptions): Promise<(Sharing | undefined)[]> {
  if (sharing !== "both") return [sharing];
  using gpu = await Gpu.open();
  return gpu.info.subgroupSize >= 8 ? ["subgroup", "workgroup"] : ["workgroup"];
}

if (import.meta.main) {
  const from = Deno.env.get("INIT_CWD");
  if (from !== undefined && from !== "") Deno.chdir(from);
  Deno.exit(await runBench(Deno.args, terminalIo()));
}
