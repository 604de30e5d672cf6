/** Evaluation while training: when, the loss on held-out data, and which step was the best. */
import type { Sample } from "../data/sample.ts";
import { shared } from "../distributed/agreement.ts";
import { ALONE, type Communicator } from "../distributed/communicator.ts";
import { UserError } from "../errors.ts";
import { freeBatch, inParts, makeBatch } from "../model/batch.ts";
import type { LanguageModel } from "../model/language_model.ts";
import type { TrainArgs } from "../train_args/schema.ts";

/** State of the evaluations so far; it goes into checkpoints. */
export interface EvaluationState {
  /** Lowest loss so far, in nats per target, and the step after which it was measured. */
  readonly best: { readonly loss: number; readonly step: number } | null;
  /** Evaluations since then that brought no improvement. */
  readonly worse: number;
}

/** Options of {@linkcode Evaluation}. */
export interface EvaluationOptions {
  readonly samples: readonly Sample[];
  readonly args: TrainArgs;
  /** They share the samples, and learn the same loss; one unless given. */
  readonly ranks?: Communicator;
  /** Steps between two evaluations, where `eval_strategy` is `steps`. */
  readonly evalSteps: number;
  /** The state in a checkpoint that the run goes on from. */
  readonly saved: EvaluationState | undefined;
}

/** Result of an evaluation. */
export interface Evaluated {
  /** Mean over all targets, in nats. */
  readonly loss: number;
  readonly isBest: boolean;
  /** Whether too many evaluations in a row were no better. */
  readonly isHopeless: boolean;
}

/** Measures a model on held-out samples, with full attention whatever training uses. */
export class Evaluation {
  state: EvaluationState;
  readonly #samples: readonly Sample[];
  readonly #args: TrainArgs;
  readonly #ranks: Communicator;
  readonly #evalSteps: number;

  constructor({ samples, args, ranks = ALONE, evalSteps, saved }: EvaluationOptions) {
    this.#samples = samples;
    this.#ranks = ranks;
    this.#args = args;
    this.#evalSteps = evalSteps;
    this.state = saved ?? { best: null, worse: 0 };
  }

  /** Whether it is time, after a step of the run; step 0 is before the first. */
  isDue(
    step: number,
    { isLast, endsEpoch }: { readonly isLast: boolean; readonly endsEpoch: boolean },
  ): boolean {
    const { eval_strategy, eval_on_start } = this.#args;
    if (step === 0) return eval_on_start;
    return isLast || (eval_strategy === "epoch" ? endsEpoch : step % this.#evalSteps === 0);
  }

  /** @throws {UserError} if the loss is not finite */
  async run(
    model: LanguageModel,
    step: number,
  ): Promise<Evaluated & { readonly tokensPerSecond: number }> {
    const began = performance.now();
    const size = this.#args.per_device_eval_batch_size;
    const batches = await shared(this.#ranks, inParts(this.#samples, size), async (samples) => {
      const batch = makeBatch(samples);
      const device = model.upload(batch);
      const { losses } = await model.predict(device);
      freeBatch(device);
      return { sum: losses.reduce((total, loss) => total + loss, 0), targets: batch.targets };
    });
    const total = (key: "sum" | "targets") => batches.reduce((sum, batch) => sum + batch[key], 0);
    const loss = total("sum") / total("targets");
    if (!Number.isFinite(loss)) {
      throw new UserError(
        `Training diverged: after step ${step} the loss on eval_file is ${loss}. Lower learning_rate ` +
          `(now ${this.#args.learning_rate})`,
      );
    }
    const tokens = this.#samples.reduce((all, { inputIds }) => all + inputIds.length, 0);
    const tokensPerSecond = 1000 * tokens / (performance.now() - began);
    return { ...this.judge(loss, step), tokensPerSecond };
  }

  /** Judges a loss after a step: whether it is the best, and whether to go on for better ones. */
  judge(loss: number, step: number): Evaluated {
    const { early_stopping_threshold: threshold } = this.#args;
    const { best, worse } = this.state;
    // Any improvement makes the best, only one past the threshold counts as progress (transformers' rule).
    const isBest = best === null || loss < best.loss;
    const isProgress = best === null || loss < best.loss - threshold;
    this.state = { best: isBest ? { loss, step } : best, worse: isProgress ? 0 : worse + 1 };
    return { loss, isBest, isHopeless: this.isHopeless };
  }

  /** Whether too many evaluations in a row were no better. */
  get isHopeless(): boolean {
    const { early_stopping_patience: patience } = this.#args;
    return patience !== null && this.state.worse >= patience;
  }
}
