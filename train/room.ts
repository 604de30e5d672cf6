/** Bytes that a run writes. */
import { stateBits, type TrainArgs } from "../train_args/schema.ts";

/** Estimate of what a run writes, by its settings. */
export interface Writings {
  /** Checkpoints that are on the disk at once. */
  readonly checkpoints: number;
  /** Bytes of those and of the result, without what is small: logs, tokenizer, settings. */
  readonly bytes: number;
}

/**
 * Counts what a run writes from here on.
 *
 * @param run.trainable numbers that are trained: 4 bytes each in the result, and in a checkpoint with their two moments
 * @param run.saves checkpoints that it saves
 */
export function writingsOf(
  { optim, save_total_limit }: Pick<TrainArgs, "optim" | "save_total_limit">,
  { trainable, saves }: { readonly trainable: number; readonly saves: number },
): Writings {
  // The newest is written before the oldest goes.
  const checkpoints = Math.min(saves, save_total_limit === null ? saves : save_total_limit + 1);
  const moments = 2 * stateBits(optim) / 8;
  return { checkpoints, bytes: trainable * (4 + checkpoints * (4 + moments)) };
}
