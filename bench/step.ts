/** One whole training step: where its time goes, on the device and on the clock. */
import { formatBytes, formatMs, formatTable } from "../text.ts";
import type { Gpu, Sharing } from "../kernels/gpu.ts";
import type { KernelTiming } from "../kernels/profiler.ts";
import { makeBatch } from "../model/batch.ts";
import { readConfig } from "../model/config.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { addFlops, totalFlops } from "../model/flops.ts";
import { shapeConfig } from "../model/shapes.ts";
import { planTraining } from "../train/plan/plan.ts";
import { randomTrainee } from "../train/plan/random_trainee.ts";
import { planDevice } from "../train/plan/step_cost.ts";
import { trainerOptions } from "../train/options.ts";
import { Trainer } from "../train/trainer.ts";
import { loadTrainArgs, type TrainArgs } from "../train_args/load.ts";
import { processorMs } from "./clock.ts";
import { type Commands, countCommands } from "./commands.ts";
import { randomIds } from "./inputs.ts";
import { median } from "./measure.ts";
import type { BenchOptions } from "./options.ts";
import type { Peaks } from "./probe.ts";
import { type KernelShare, type Row, rowOf, type StepReport } from "./result.ts";

/** Least of the goals for the demo's step. */
const STEP_GOALS = { productsAndAttention: 0.8, onDevice: 0.9 } as const;

const DEMO_RECIPE = new URL("../demo/study/recipe.yaml", import.meta.url).pathname;
const DEMO_MODEL = new URL("../demo/model", import.meta.url).pathname;
const DEFAULTS = { demo: { tokens: 1024 }, real: { tokens: 8192, rank: 64 } } as const;

/**
 * Trains on random tokens with random weights, and times each step: on the clock, and then one by the device.
 * @param gpu opened with `profile`
 * @throws {UserError} if the shape is not known
 */
export async function measureStep(gpu: Gpu, options: BenchOptions, seconds: number): Promise<StepReport> {
  const { args, config } = await settingsOf(options);
  const plan = await planTraining(args, config, { device: planDevice(gpu), listsKernels: true });
  const compileStart = performance.now();
  await gpu.compile(plan.kernels);
  const aheadMs = performance.now() - compileStart;
  const trainer = new Trainer(await randomTrainee(gpu, args, config), trainerOptions(args, plan.placement));
  const batch = makeBatch(
    Array.from({ length: args.per_device_train_batch_size }, () => ({
      inputIds: randomIds(args.max_seq_length, config.vocab_size),
    })),
  );
  const countedSince = countCommands(gpu);
  const step = async () => {
    countedSince();
    const [start, cpu] = [performance.now(), processorMs()];
    await trainer.step([batch], 1e-5);
    return { wallMs: performance.now() - start, cpuMs: processorMs() - cpu, commands: countedSince() };
  };
  // Timing each dispatch takes time: the clock on the wall is read without.
  gpu.isTimed = false;
  const first = await step();
  const steps: Awaited<ReturnType<typeof step>>[] = [];
  const started = performance.now();
  do steps.push(await step()); while (performance.now() - started < 1000 * seconds && steps.length < 50);
  const best = steps.reduce((a, b) => b.wallMs < a.wallMs ? b : a);
  gpu.isTimed = true;
  await step();
  const byKernel = sumByKernel(await gpu.timings());
  const deviceMs = byKernel.reduce((sum, { ms }) => sum + ms, 0);
  const flops = totalFlops(addFlops(plan.flops.forward, plan.flops.recompute, plan.flops.backward));
  return {
    name: nameOf(options.shape, args),
    tokens: batch.rows,
    compileMs: aheadMs + Math.max(0, first.wallMs - best.wallMs),
    kernels: gpu.pipelineCount,
    steps: steps.length,
    wallMs: best.wallMs,
    medianMs: median(steps.map(({ wallMs }) => wallMs)),
    cpuMs: best.cpuMs,
    commands: best.commands,
    deviceMs,
    productsAndAttention: byKernel.filter(({ kernel }) => isProductOrAttention(kernel))
      .reduce((sum, { ms }) => sum + ms, 0) / deviceMs,
    onDevice: deviceMs / best.wallMs,
    flops,
    gflops: flops / best.wallMs / 1e6,
    plannedBytes: plan.peak.heldBytes,
    peakBytes: gpu.memory.peakBytes,
    byKernel,
  };
}

/** The demo's own recipe, or QLoRA as LongQLoRA does it: NF4, bf16, LoRA on every linear, checkpointing. */
async function settingsOf(
  { shape, tokens, rank, full, room }: BenchOptions,
): Promise<{ args: TrainArgs; config: ModelConfig }> {
  const isDemo = shape === "demo";
  const length = String(tokens ?? DEFAULTS[isDemo ? "demo" : "real"].tokens);
  const lengths = { max_seq_length: length, model_max_length: length, use_full_attn: String(full) };
  const paths = {
    model_name_or_path: DEMO_MODEL,
    train_file: "unused",
    output_dir: "unused",
    ...(room === undefined ? {} : { max_memory: `${room}GiB` }),
  };
  if (isDemo) {
    const { args } = await loadTrainArgs(DEMO_RECIPE, {
      ...paths,
      ...lengths,
      ...(rank === undefined ? {} : { lora_rank: String(rank) }),
    });
    return { args, config: await baseConfig(shape) };
  }
  const { args } = await loadTrainArgs(null, {
    ...paths,
    ...lengths,
    bf16: "true",
    optim: "paged_adamw_32bit",
    lora_rank: String(rank ?? DEFAULTS.real.rank),
  });
  return { args, config: await baseConfig(shape) };
}

/**
 * The configuration of the demo's model, or of a model that everybody knows.
 * @throws {UserError} if the name is not known
 */
export async function baseConfig(shape: string): Promise<ModelConfig> {
  return shape === "demo" ? await readConfig(DEMO_MODEL) : shapeConfig(shape);
}

function describeCommands(
  { submits, passes, dispatches, clears, lastSubmitMs }: Commands,
  cpuMs: number,
): string {
  return `${dispatches} dispatches and ${clears} clears in ${passes} passes and ${submits} submits, the last after ${
    formatMs(lastSubmitMs)
  }; ${formatMs(cpuMs)} of processor time`;
}

function nameOf(shape: string, args: TrainArgs): string {
  const batch = args.per_device_train_batch_size;
  return `${shape}, ${batch > 1 ? `${batch} x ` : ""}${args.max_seq_length} tokens, ` +
    `${args.attention === "s2" ? "S2-Attn" : "full attention"}, LoRA rank ${args.lora_rank} on NF4`;
}

function sumByKernel(timings: readonly KernelTiming[]): KernelShare[] {
  const groups = Map.groupBy(timings, ({ kernel }) => kernel);
  return [...groups].map(([kernel, all]) => ({
    kernel,
    dispatches: all.length,
    ms: all.reduce((sum, { microseconds }) => sum + microseconds, 0) / 1000,
  })).sort((a, b) => b.ms - a.ms);
}

function isProductOrAttention(kernel: string): boolean {
  return /^(matmul|matvec|attention|cache.attention)/.test(kernel);
}

/** The step as a row, by which it is compared with that of another run; its times are those on the clock. */
export function stepRow(step: StepReport, sharing: Sharing, peaks: Peaks): Row {
  const { name: shape, flops, steps: runs, wallMs: bestMs, medianMs, compileMs } = step;
  const work = { suite: "step", op: "step", shape, format: "", flops, bytes: 0 };
  return rowOf(work, sharing, { runs, bestMs, medianMs, compileMs }, peaks);
}

/** The step as text: by kernel, and what the goals ask. */
export function describeStep(report: StepReport, peakGflops: number): string {
  const { deviceMs, wallMs } = report;
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  const table = formatTable(
    [
      ["kernel", "dispatches", "time", "of device"],
      ...report.byKernel.map(({ kernel, dispatches, ms }) => [
        kernel,
        String(dispatches),
        formatMs(ms),
        percent(ms / deviceMs),
      ]),
    ],
    "lrrr",
  );
  const goal = (share: number, least: number) =>
    `${percent(share)} (goal at least ${percent(least)}: ${share >= least ? "met" : "missed"})`;
  const rows = [
    ["step", report.name],
    ["time", `${formatMs(wallMs)}, median ${formatMs(report.medianMs)} of ${report.steps}`],
    ...(report.commands && report.cpuMs !== undefined
      ? [["commands", describeCommands(report.commands, report.cpuMs)]]
      : []),
    ["compiling", `${report.kernels} kernels in ${formatMs(report.compileMs)}`],
    ["tokens per second", (1000 * report.tokens / wallMs).toFixed(1)],
    [
      "products and attention",
      `${goal(report.productsAndAttention, STEP_GOALS.productsAndAttention)} of device time`,
    ],
    ["on the device", `${goal(report.onDevice, STEP_GOALS.onDevice)} of the time on the clock`],
    [
      "arithmetic",
      `${(report.flops / 1e9).toFixed(1)} GFLOP, ${report.gflops.toFixed(1)} GFLOP/s, ${
        percent(report.gflops / peakGflops)
      } of the probe`,
    ],
    [
      "memory",
      `${formatBytes(report.peakBytes)} at most, ${formatBytes(report.plannedBytes)} planned (${
        percent(report.peakBytes / report.plannedBytes - 1)
      } more)`,
    ],
  ];
  return `${table}\n\n${formatTable(rows)}`;
}
