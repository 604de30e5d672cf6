/** A run's settings and counts in words: for its header, its plan and its report. */
import { contextLength } from "../model/positions.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { groupSize, type TrainArgs } from "../train_args/schema.ts";
import type { Schedule } from "./schedule.ts";

/** `256 -> 1,024 tokens, positions linear by 4`: from which context to which, and by what. */
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

/** `S2-Attn in 4 groups of 256`, or `full attention`; with windows, which layers have which. */
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

/** Attention of the layers that have no window. */
function describeRule(args: TrainArgs): string {
  if (args.attention === "full") return "full attention";
  const size = groupSize(args, args.max_seq_length);
  const groups = Math.ceil(args.max_seq_length / size);
  const shift = args.group_shift ? "" : ", not shifted";
  return `S2-Attn in ${groups} ${groups === 1 ? "group" : "groups"} of ${count(size)}${shift}`;
}

/** `2.0e-4, cosine after 20 steps of warm-up, AdamW in 8 bits`: learning rate, schedule, optimiser. */
export function describeSchedule({ learningRate, name, warmupSteps }: Schedule, optim: string): string {
  const warmUp = warmupSteps > 0 && name !== "constant" ? ` after ${warmupSteps} steps of warm-up` : "";
  return `${learningRate.toExponential(1)}, ${name.replace("_with_warmup", "")}${warmUp}, ${optim}`;
}

/** A number as people write it: `1,024`. */
export function count(value: number): string {
  return value.toLocaleString("en-US");
}
