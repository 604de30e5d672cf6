/** Learning rates over a run, as Hugging Face's schedulers of the same names give them. */
export type ScheduleName = "constant" | "constant_with_warmup" | "linear" | "cosine";

export interface Schedule {
  readonly name: ScheduleName;
  /** Highest learning rate. */
  readonly learningRate: number;
  /** Steps over which the rate rises from 0; `constant` has none. */
  readonly warmupSteps: number;
  readonly totalSteps: number;
}

/**
 * The learning rate of one optimiser step.
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
