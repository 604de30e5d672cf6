/** A run in words: for its header, its plan, its notes and its report. */
import type { Dataset, DatasetReport } from "../data/dataset.ts";
import { contextLength } from "../model/positions.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { formatMemory } from "../text.ts";
import { groupSize, type TrainArgs } from "../train_args/schema.ts";
import type { TrainInfo } from "./hooks.ts";
import { describeSources, sourcesOf } from "./inputs.ts";
import { formatOf } from "./options.ts";
import type { Plan } from "./plan/plan.ts";
import type { RunLength, Schedule } from "./schedule.ts";
import type { Trainee } from "./trainee.ts";

/** Describes the extension: `256 -> 1,024 tokens, positions linear by 4`. */
export function describeContext(base: ModelConfig, extended: ModelConfig, args: TrainArgs): string {
  const [from, to] = [contextLength(base), args.model_max_length].map(count);
  const { rope_scaling: scaling, rope_theta: theta } = extended;
  const words = [
    ...(theta === base.rope_theta ? [] : [`rope_theta ${base.rope_theta} -> ${theta}`]),
    ...(scaling ? [`${scaling.type} by ${scaling.factor}`] : []),
  ];
  const positions = words.length > 0 ? words.join(", ") : "as they are";
  return `${from === to ? to : `${from} -> ${to}`} tokens, positions ${positions}`;
}

/**
 * Describes attention in training: `S2-Attn in 4 groups of 256`, or `full attention`; with windows, which layers have
 * which.
 */
export function describeAttention(args: TrainArgs, { layers }: Pick<ModelConfig, "layers">): string {
  const windows = layers.map(({ sliding_window }) => sliding_window ?? Infinity)
    .filter((window) => window < args.max_seq_length);
  if (windows.length === 0) return describeRule(args);
  const sizes = [...new Set(windows)].map(count).join(" or ");
  const others = layers.length - windows.length;
  return others === 0
    ? `a window of ${sizes} tokens in every layer${args.attention === "full" ? "" : ", S2-Attn in none"}`
    : `${
      describeRule(args)
    } in ${others} of ${layers.length} layers, a window of ${sizes} tokens in the others`;
}

/** Describes attention of the layers that have no window. */
function describeRule(args: TrainArgs): string {
  if (args.attention === "full") return "full attention";
  const size = groupSize(args, args.max_seq_length);
  const groups = Math.ceil(args.max_seq_length / size);
  const shift = args.group_shift ? "" : ", not shifted";
  return `S2-Attn in ${groups} ${groups === 1 ? "group" : "groups"} of ${count(size)}${shift}`;
}

/** Describes learning rate, schedule and optimiser: `2.0e-4, cosine after 20 steps of warm-up, adamw_8bit`. */
export function describeSchedule({ learningRate, name, warmupSteps }: Schedule, optim: string): string {
  const warmUp = warmupSteps > 0 && name !== "constant" ? ` after ${warmupSteps} steps of warm-up` : "";
  return `${learningRate.toExponential(1)}, ${name.replace("_with_warmup", "")}${warmUp}, ${optim}`;
}

/** Writes a number as people do: `1,024`. */
export function count(value: number): string {
  return value.toLocaleString("en-US");
}

/** A run that is about to start. */
export interface StartingRun {
  readonly args: TrainArgs;
  /** The base model's, before its positions were extended. */
  readonly baseConfig: ModelConfig;
  readonly trainee: Trainee;
  /** Counts of the training data's rows. */
  readonly report: DatasetReport;
  readonly plan: Plan;
  readonly length: RunLength;
  /** The adapter's name. */
  readonly device: string;
  readonly startStep: number;
}

/** Describes a run that is about to start. */
export function describeRun(run: StartingRun): TrainInfo {
  const { args, trainee, report, plan: { peak, hostBytes }, length } = run;
  const { samples, longest } = report;
  const onHost = hostBytes > 0 ? ` and ${formatMemory(hostBytes)} of host memory` : "";
  return {
    model: args.model_name_or_path,
    context: describeContext(run.baseConfig, trainee.model.config, args),
    attention: describeAttention(args, trainee.model.config),
    schedule: describeSchedule(length.schedule, args.optim),
    seed: args.seed,
    outputDir: args.output_dir,
    method: trainee.method,
    data: `${count(samples)} ${samples === 1 ? "sequence" : "sequences"} of up to ${count(longest)} tokens ` +
      `from ${describeSources(args)} (${describeKinds(report)})`,
    device: run.device,
    memory: `${formatMemory(peak.heldBytes)} on the device at the peak (${peak.phase})${onHost}`,
    plannedBytes: peak.heldBytes,
    precision: { f32: "f32", bf16: "bf16", f16: "fp16" }[formatOf(args)],
    trainableParameters: trainee.trainableParameters,
    totalParameters: trainee.totalParameters,
    sequencesPerStep: length.sequencesPerStep,
    tokensPerStep: length.sequencesPerStep * args.max_seq_length,
    totalSteps: length.totalSteps,
    totalEpochs: length.totalEpochs,
    startStep: run.startStep,
  };
}

/** Says what of the rows is learnt: `the answers are learnt`, or how many rows of each kind. */
function describeKinds({ drawn, texts }: DatasetReport): string {
  const answers = sumOf(drawn) - texts;
  if (answers === 0) return "all of each text is learnt";
  if (texts === 0) return "the answers are learnt";
  return `${count(texts)} texts are learnt whole, of ${count(answers)} rows the answers`;
}

/** Tells what of the training data is cut, left out, drawn or packed, one line each. */
export function dataNotes({ report, preview, notes }: Dataset, args: TrainArgs): string[] {
  const { rows, truncated, tooShort, tooLong, skippedWithoutTargets, kept, samples } = report;
  const some = (count: number, text: string) => count > 0 ? [`${count} of ${rows} rows ${text}`] : [];
  const share = (100 * report.tokensLost / report.tokensRead).toPrecision(2);
  const whole = report.texts > 0 && !args.packing ? "; packing: true learns all of a text" : "";
  const drawn = sumOf(report.drawn);
  const sources = sourcesOf(args);
  return [
    ...notes,
    ...some(
      truncated,
      `are longer than ${args.max_seq_length} tokens and were cut: ${count(report.tokensLost)} of ` +
        `${count(report.tokensRead)} tokens (${Number(share)} %) are not learnt${whole}`,
    ),
    ...some(tooLong, `are longer than ${args.max_seq_length} tokens and were left out`),
    ...some(tooShort, `are shorter than min_length ${args.min_length} and were left out`),
    ...some(skippedWithoutTargets, "have nothing to train on and were left out"),
    ...preview.neverEnds
      ? ["No answer is learnt with its end, so the model may never stop writing: is the end cut off?"]
      : [],
    ...drawn === kept ? [] : [`${drawn} rows were drawn from ${kept}, as train_data says`],
    ...report.drawn.length > 1
      ? [`Rows by file: ${report.drawn.map((each, i) => `${count(each)} of ${sources[i]!.path}`).join(", ")}`]
      : [],
    ...args.packing ? [`${drawn} rows were packed into ${samples} sequences`] : [],
  ];
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}
