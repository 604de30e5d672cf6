/** `plan`: what training with these settings would take, before anything is loaded. */
import { formatBytes, formatCount } from "../text.ts";
import { diskFiles } from "../checkpoint/files.ts";
import { UserError } from "../errors.ts";
import { openGpu } from "../kernels/open.ts";
import type { WebGpu } from "../kernels/device.ts";
import { PURPOSES } from "../kernels/pool.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { configForPositions } from "../model/positions.ts";
import { addFlops, forwardFlops, paperPairs, totalFlops } from "../model/flops.ts";
import { SHAPE_NAMES, shapeConfig } from "../model/shapes.ts";
import { withAdapterSettings } from "../train/lora.ts";
import { type Plan, planTraining, TYPICAL_NETWORK } from "../train/plan/plan.ts";
import { longestContext } from "../train/plan/longest_context.ts";
import { measureHostCopies, measureThroughput, type Throughput } from "../train/plan/throughput.ts";
import { readBaseModel } from "../train/inputs.ts";
import {
  type PlanDevice,
  planDevice,
  type StepCost,
  stepCost,
  TYPICAL_DEVICE,
} from "../train/plan/step_cost.ts";
import { loadTrainArgs, type TrainSettings } from "../train_args/load.ts";
import { groupSize, type OptionName, type TrainArgs } from "../train_args/schema.ts";
import { bytes, oneOf, real, whole } from "../train_args/values.ts";
import { CommandError } from "./exit.ts";
import { booleanFlag, type BuiltCommand, newCommand, optionalFlag, valueFlag } from "./flags.ts";
import { locate } from "./hub.ts";
import { formatJson } from "./format.ts";
import { CountProgress } from "./progress.ts";
import { gpuOptionsOf } from "./gpu_options.ts";
import type { Io } from "./io.ts";
import { narrowFetched } from "./permissions.ts";
import { describeLongest, describePlan, type LongestRow } from "./plan_text.ts";
import { addTrainFlags, givenSettings } from "./train_flags.ts";

/** Memory of common cards, for the table of longest contexts. */
const CARDS_GIB = [8, 12, 16, 24, 48, 80];
/** Longer contexts are not looked for. */
const LONGEST = 2 ** 19;

interface Flags {
  readonly json: boolean;
  readonly webgpu: WebGpu;
  readonly shape: (typeof SHAPE_NAMES)[number] | null;
  readonly max_binding: number | null;
  readonly rates: boolean;
  readonly longest: boolean;
  readonly ranks: number | null;
  readonly bandwidth: number;
  readonly latency: number;
}

/** The command; every option of train_args/schema.ts is a flag of it. */
export function build(summary: string, io: Io): BuiltCommand {
  const command: BuiltCommand = newCommand("plan", summary, io, {
    examples: [
      "plan my.yaml",
      "plan --shape llama2-7b --model_max_length 8192 --bf16 true --max_memory 10GiB",
      "plan --shape llama2-7b --bf16 true --longest",
      "plan my.yaml --ranks 64 --bandwidth 25",
    ],
  })
    .addOption(
      optionalFlag(
        "shape",
        "plan for this model in place of a folder",
        oneOf(SHAPE_NAMES),
        "the model folder",
      ),
    )
    .addOption(booleanFlag("longest", "the longest context that fits, for common sizes of memory", false))
    .addOption(
      optionalFlag(
        "max_binding",
        "plan for a device with this limit, without an adapter",
        bytes(),
        "the adapter's",
      ),
    )
    .addOption(
      optionalFlag(
        "ranks",
        "processes of the job, each with a GPU, to tell what their messages cost",
        whole(1, 1_000_000),
        "sequence_parallel_size",
      ),
    )
    .addOption(
      valueFlag(
        "bandwidth",
        "GB/s that each rank sends and receives at once",
        real({ above: 0 }),
        TYPICAL_NETWORK.bytesPerSecond / 1e9,
      ),
    )
    .addOption(
      valueFlag(
        "latency",
        "microseconds that a message takes besides",
        real({ min: 0 }),
        TYPICAL_NETWORK.latencySeconds * 1e6,
      ),
    )
    .addOption(
      booleanFlag("rates", "measure the adapter for a few seconds, to tell the time of a step", true),
    );
  addTrainFlags(command, { requires: false });
  return command.action(async () => {
    const flags = command.opts();
    const own = flags as unknown as Flags;
    const { file, overrides } = givenSettings(command);
    if (file === null) requireSubject(own, overrides);
    const { args: given, notes } = await loadTrainArgs(
      file,
      overrides,
      (isGiven) => unneeded(own, isGiven),
    );
    notes.forEach((line) => io.err(line));
    const { low_rank_training, adapter_name_or_path } = given;
    const adapter = low_rank_training && adapter_name_or_path !== null
      ? { path: await locate(io, adapter_name_or_path, "model"), files: diskFiles }
      : undefined;
    const settled = adapter === undefined ? undefined : await withAdapterSettings(given, adapter);
    settled?.notes.forEach((line) => io.err(line));
    const { args } = settled ?? { args: given };
    const config = own.shape === null
      ? (await readBaseModel(args, {
        model: await locate(io, args.model_name_or_path, "config"),
        adapter: adapter?.path,
      }, adapter)).config
      : shapeConfig(own.shape);
    narrowFetched();
    configForPositions(config, args).notes.forEach((line) => io.err(line));
    await (own.longest ? runLongest : runPlan)(own, args, config, io);
  });
}

/** Says what to plan for, where neither a file nor flags do. */
function requireSubject({ shape, longest }: Flags, overrides: Readonly<Record<string, string>>): void {
  const has = (...names: readonly string[]) => names.some((name) => overrides[name] !== undefined);
  const missing = [
    ...(shape === null && !has("model_name_or_path")
      ? [`a model (--model_name_or_path, or --shape: ${SHAPE_NAMES.join(", ")})`]
      : []),
    ...(longest || has("model_max_length", "max_seq_length", "max_length")
      ? []
      : ["a length (--model_max_length in tokens, or --longest)"]),
  ];
  if (missing.length === 0) return;
  throw new UserError(
    `Cannot plan without ${
      missing.join(" and ")
    }: see longreach plan --help, or give a settings file, as in: plan my.yaml`,
    { kind: "usage" },
  );
}

/** Settings that a run needs but a plan does not, where nobody gives them. */
function unneeded(
  { shape, longest }: Flags,
  isGiven: (...names: readonly OptionName[]) => boolean,
): TrainSettings {
  return {
    ...(isGiven("train_file", "train_data") ? {} : { train_file: "-" }),
    ...(isGiven("output_dir") ? {} : { output_dir: "-" }),
    ...(shape === null || isGiven("model_name_or_path") ? {} : { model_name_or_path: shape }),
    ...(!longest || isGiven("max_seq_length", "model_max_length") ? {} : { max_seq_length: "8192" }),
  };
}

async function runPlan(flags: Flags, args: TrainArgs, config: ModelConfig, io: Io): Promise<void> {
  const ranks = flags.ranks ?? args.sequence_parallel_size;
  if (ranks % args.sequence_parallel_size !== 0) {
    throw new UserError(
      `--ranks: ${ranks} ranks cannot share batches by ${args.sequence_parallel_size} (sequence_parallel_size): give a ` +
        "multiple of that",
      { kind: "usage" },
    );
  }
  const { device, throughput, hostBytesPerSecond } = await examineDevice(flags, io, ranks > 1);
  const network = {
    bytesPerSecond: flags.bandwidth * 1e9,
    latencySeconds: flags.latency / 1e6,
    hostBytesPerSecond,
  };
  const plan = await planTraining(args, config, { device, throughput, worldSize: ranks, network });
  io.out(
    flags.json
      ? formatJson(planRecord(plan, args, config, throughput))
      : describePlan(plan, args, config, throughput),
  );
  if (plan.fits !== false) return;
  throw new CommandError("This does not fit in max_memory", { kind: "doesNotFit", isTold: true });
}

/** The device to plan for: the adapter's, or where none answers or a limit is given, one as most are. */
async function examineDevice(
  { max_binding, rates, webgpu }: Pick<Flags, "max_binding" | "rates" | "webgpu">,
  io: Io,
  hasMessages = false,
): Promise<
  { device: PlanDevice; throughput: Throughput | null; hostBytesPerSecond: number }
> {
  const { hostBytesPerSecond } = TYPICAL_NETWORK;
  if (max_binding !== null) {
    const device = { ...TYPICAL_DEVICE, maxBindingBytes: max_binding };
    return { device, throughput: null, hostBytesPerSecond };
  }
  try {
    using gpu = await openGpu(gpuOptionsOf(io, webgpu));
    return {
      device: planDevice(gpu),
      throughput: rates ? await measureThroughput(gpu) : null,
      hostBytesPerSecond: rates && hasMessages ? await measureHostCopies(gpu) : hostBytesPerSecond,
    };
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    io.err("No GPU adapter answers: the plan is for the limits of a typical GPU, and without times");
    return { device: TYPICAL_DEVICE, throughput: null, hostBytesPerSecond };
  }
}

async function runLongest(flags: Flags, args: TrainArgs, config: ModelConfig, io: Io): Promise<void> {
  const { device } = await examineDevice({ ...flags, rates: false }, io);
  const sizes = args.max_memory === null ? CARDS_GIB.map((gib) => gib * 2 ** 30) : [args.max_memory];
  const rows: LongestRow[] = [];
  const progress = new CountProgress(io, "size of memory");
  try {
    progress.onProgress(0, sizes.length, `looking in ${formatBytes(sizes[0]!)}`);
    for (const [i, memoryBytes] of sizes.entries()) {
      const tokens = await longestContext(args, config, memoryBytes, { device, below: LONGEST + 1 });
      rows.push({ memoryBytes, ...await costOf(tokens, args, config, device) });
      progress.onProgress(
        i + 1,
        sizes.length,
        `${formatCount(tokens)} tokens in ${formatBytes(memoryBytes)}`,
      );
    }
  } finally {
    progress.stop();
  }
  io.out(flags.json ? formatJson(rows) : describeLongest(rows));
}

/** Cost of a step over one sequence of this length; attention in groups and full differ in arithmetic alone. */
async function costOf(
  tokens: number,
  args: TrainArgs,
  config: ModelConfig,
  device: PlanDevice,
): Promise<Omit<LongestRow, "memoryBytes">> {
  if (tokens === 0) return { tokens, hostBytes: 0, s2Flops: 0, fullFlops: 0 };
  const length = { max_seq_length: tokens, model_max_length: Math.max(tokens, args.model_max_length) };
  const placement = { pageStates: true, offloadActivations: args.offload_activations !== false };
  const cost = (attention: TrainArgs["attention"]) =>
    stepCost({ ...args, ...length, attention }, config, { device, placement });
  const [s2, full] = [await cost("s2"), await cost("full")];
  return { tokens, hostBytes: full.hostBytes, s2Flops: flopsOf(s2), fullFlops: flopsOf(full) };
}

function flopsOf({ flops: { forward, recompute, backward } }: StepCost): number {
  return totalFlops(addFlops(forward, recompute, backward));
}

/**
 * A forward pass over one sequence as papers count it, future pairs included and without LoRA: what LongLoRA's table of
 * attention's share has (Chen et al. 2023, arXiv:2309.12307, figure of FLOPs).
 */
function paperShares(config: ModelConfig, args: TrainArgs) {
  const tokens = args.max_seq_length;
  const count = (groups?: number) => {
    const flops = forwardFlops(config, { tokens, pairs: paperPairs(tokens, groups) });
    return { forwardFlops: totalFlops(flops), attentionShare: flops.attention / totalFlops(flops) };
  };
  return { tokens, full: count(), s2: count(groupSize(args, tokens)) };
}

/** The plan as one JSON object. */
function planRecord(plan: Plan, args: TrainArgs, config: ModelConfig, throughput: Throughput | null) {
  const { device: { info, limits, maxBindingBytes }, peak, ...rest } = plan;
  return {
    device: info.description,
    maxBindingBytes: maxBindingBytes ?? limits.maxStorageBufferBindingSize,
    peakBytes: peak.heldBytes,
    phase: peak.phase,
    bytes: Object.fromEntries(PURPOSES.map((purpose) => [purpose, peak.byPurpose[purpose]])),
    idleBytes: peak.heldBytes - peak.liveBytes,
    ...rest,
    throughput,
    papers: paperShares(config, args),
  };
}
