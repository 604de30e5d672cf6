/** The length of a run, and the learning rates over it, as Hugging Face's schedulers of the same names give them. */
import { stepsPerEpoch } from "../data/sampler.ts";
import { type OptionName, stepsBetween, type TrainArgs } from "../train_args/schema.ts";

/** Names of `lr_scheduler_type`. */
export type ScheduleName = "constant" | "constant_with_warmup" | "linear" | "cosine";

/** The learning rates of a run. */
export interface Schedule {
  readonly name: ScheduleName;
  /** Highest learning rate. */
  readonly learningRate: number;
  /** Steps over which the rate rises from 0; `constant` has none. */
  readonly warmupSteps: number;
  readonly totalSteps: number;
}

/**
 * Works out the learning rate of one optimiser step.
 * @param step counts from 1; with warm-up the first step has rate 0, as in Hugging Face's trainer
 */
export function learningRate(
  { name, learningRate, warmupSteps, totalSteps }: Schedule,
  step: number,
): number {
  const done = step - 1;
  if (name !== "constant" && done < warmupSteps) return learningRate * done / warmupSteps;
  const progress = (done - warmupSteps) / Math.max(1, totalSteps - warmupSteps);
  switch (name) {
    case "constant":
    case "constant_with_warmup":
      return learningRate;
    case "linear":
      return learningRate * Math.max(0, 1 - progress);
    case "cosine":
      return learningRate * Math.max(0, 0.5 * (1 + Math.cos(Math.PI * progress)));
  }
}

/** Number of a run's steps, and of those between log lines, checkpoints, evaluations. */
export interface RunLength {
  readonly totalSteps: number;
  /** Passes over the data, as a fraction. */
  readonly totalEpochs: number;
  /** Sequences of one optimiser step; the last of an epoch may have fewer. */
  readonly sequencesPerStep: number;
  /** Steps between log lines. */
  readonly loggingSteps: number;
  /** Steps between checkpoints, where `save_strategy` is `steps`. */
  readonly saveSteps: number;
  /** Steps between evaluations, where `eval_strategy` is `steps`. */
  readonly evalSteps: number;
  readonly schedule: Schedule;
}

/** Options whose product with the number of ranks, by those that share a batch, is the global batch. */
export const BATCH_OPTIONS = [
  "per_device_train_batch_size",
  "gradient_accumulation_steps",
  "sequence_parallel_size",
] as const satisfies readonly OptionName[];

/** Sequences of one optimiser step on so many ranks: Hugging Face's total batch size. */
export function globalBatch(
  {
    per_device_train_batch_size: sequences,
    gradient_accumulation_steps: passes,
    // What older checkpoints do not say.
    sequence_parallel_size: shared = 1,
  }: Pick<TrainArgs, typeof BATCH_OPTIONS[number]>,
  worldSize: number,
): number {
  return sequences * passes * worldSize / shared;
}

/** Works out the length of a run over so many samples, on so many ranks. */
export function runLength(args: TrainArgs, samples: number, worldSize = 1): RunLength {
  const sequencesPerStep = globalBatch(args, worldSize);
  const perEpoch = stepsPerEpoch(samples, sequencesPerStep);
  const totalSteps = args.max_steps > 0 ? args.max_steps : Math.ceil(args.num_train_epochs * perEpoch);
  const every = (steps: number) => stepsBetween(steps, totalSteps);
  return {
    totalSteps,
    totalEpochs: args.max_steps > 0 ? args.max_steps / perEpoch : args.num_train_epochs,
    sequencesPerStep,
    loggingSteps: every(args.logging_steps),
    saveSteps: every(args.save_steps),
    evalSteps: every(args.eval_steps ?? args.logging_steps),
    schedule: {
      name: args.lr_scheduler_type,
      learningRate: args.learning_rate,
      warmupSteps: args.warmup_steps || Math.ceil(args.warmup_ratio * totalSteps),
      totalSteps,
    },
  };
}

/**
 * Tells what another length of a resumed run does to the learning rates of the steps that are left; undefined if the
 * length is as before.
 * @param done steps done
 */
export function lengthNote(before: Schedule, now: Schedule, done: number): string | undefined {
  if (before.totalSteps === now.totalSteps) return undefined;
  const [old, rate] = [before, now].map((schedule) => learningRate(schedule, done + 1).toPrecision(3));
  return `The run now has ${now.totalSteps} steps instead of ${before.totalSteps}: ` +
    (old === rate
      ? `with lr_scheduler_type ${now.name} step ${done + 1} keeps its learning rate ${rate}`
      : `lr_scheduler_type ${now.name} gives step ${done + 1} the learning rate ${rate} instead of ${old}`);
}
