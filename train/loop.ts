/** The steps of a run, over its loaded model and data. */
import { TRAIN_ARGS } from "../checkpoint/train_args_file.ts";
import { writeFileAtomic } from "../checkpoint/store.ts";
import type { Dataset } from "../data/dataset.ts";
import { Sampler } from "../data/sampler.ts";
import { onAny } from "../distributed/agreement.ts";
import type { Communicator } from "../distributed/communicator.ts";
import { UserError } from "../errors.ts";
import { inParts, makeBatch } from "../model/batch.ts";
import { dumpTrainArgs } from "../train_args/describe.ts";
import type { TrainArgs } from "../train_args/schema.ts";
import { Evaluation } from "./evaluation.ts";
import type { StepMetrics, TrainHooks, TrainInfo, TrainResult } from "./hooks.ts";
import { Pace } from "./pace.ts";
import { reportHtml } from "./report.ts";
import { RunLog } from "./run_log.ts";
import type { Progress, SavedState } from "./saved_state.ts";
import { Saver } from "./saver.ts";
import { learningRate, type RunLength } from "./schedule.ts";
import type { TrainedBase, Trainee } from "./trainee.ts";
import type { StepResult, Trainer } from "./trainer.ts";

/** Steps in a row without a finite gradient after which a run gives up. */
const MAX_SKIPPED = 3;

/** Parts of a run, all loaded. */
export interface RunParts {
  readonly args: TrainArgs;
  readonly hooks: TrainHooks;
  readonly ranks: Communicator;
  readonly info: TrainInfo;
  readonly length: RunLength;
  readonly data: Dataset;
  /** See `hashSamples`. */
  readonly dataHash: string;
  readonly evalData: Dataset | undefined;
  readonly base: TrainedBase;
  readonly trainee: Trainee;
  /** Has the state of the checkpoint that the run goes on from. */
  readonly trainer: Trainer;
  /** The rest of that checkpoint; undefined for a fresh run. */
  readonly saved: SavedState | undefined;
}

/** One run. It steps, evaluates, logs, has itself saved, and ends: after its last step, early, or diverged. */
export class TrainingLoop {
  readonly #run: RunParts;
  readonly #sampler: Sampler;
  readonly #log: RunLog;
  readonly #evaluation: Evaluation | undefined;
  readonly #saver: Saver;
  readonly #pace = new Pace();
  #step: number;
  #skippedSteps: number;
  #skippedInRow = 0;
  #lossSum = 0;
  #lastLoss: number | null = null;
  #evalLoss: number | null = null;

  constructor(run: RunParts) {
    const { args, hooks, ranks, length, data, evalData, saved } = run;
    this.#run = run;
    this.#step = saved?.step ?? 0;
    this.#skippedSteps = saved?.skippedSteps ?? 0;
    const lengths = data.samples.map(({ inputIds }) => inputIds.length);
    const groups = args.group_by_length ? { lengths, batch: length.sequencesPerStep } : undefined;
    this.#sampler = new Sampler(lengths.length, args.data_seed, groups);
    this.#sampler.position = saved?.samplerPosition ?? 0;
    this.#log = new RunLog({
      isWritten: ranks.rank === 0,
      folder: args.output_dir,
      loggingSteps: length.loggingSteps,
      saved: saved?.log,
      onProblem: (problem) =>
        hooks.note?.(`step ${this.#step} is not logged: ${problem}; it is written once there is room`),
    });
    this.#evaluation = evalData && new Evaluation({
      samples: evalData.samples,
      args,
      ranks,
      evalSteps: length.evalSteps,
      saved: saved?.evaluation ?? undefined,
    });
    this.#saver = new Saver({
      ...run,
      resumedStep: saved?.step,
      progress: () => this.#progress,
      report: () => this.#report,
    });
  }

  /**
   * Trains to the end, or until {@linkcode TrainHooks.shouldStop}.
   * @throws {UserError} if it diverges, or cannot be saved. Of several ranks each says in which step it failed
   */
  async train(): Promise<TrainResult> {
    try {
      return await this.#train();
    } catch (error) {
      // Others wait for this rank, and cannot tell.
      if (this.#run.ranks.size > 1 && error instanceof Error) {
        error.message = `step ${this.#step + 1}: ${error.message}`;
      }
      throw error;
    }
  }

  async #train(): Promise<TrainResult> {
    const { args, hooks, ranks, info, data, length, trainer, saved } = this.#run;
    if (ranks.rank === 0) await writeFileAtomic(`${args.output_dir}/${TRAIN_ARGS}`, dumpTrainArgs(args));
    await this.#log.open(this.#step);
    hooks.onData?.(data.preview);
    hooks.onStart?.(info);
    this.#saver.noteRoom();
    let stopped = false;
    let isSaved = true;
    let isHopeless = this.#step === 0 ? await this.#evaluate() : this.#evaluation?.isHopeless ?? false;
    while (this.#step < length.totalSteps && !stopped && !isHopeless) {
      await this.#trainStep();
      isHopeless = await this.#evaluate();
      const isAsked = await onAny(ranks, hooks.shouldStop?.() ?? false);
      stopped = isAsked && this.#step < length.totalSteps;
      if (stopped || this.#saver.isDue(this.#progress)) isSaved = await this.#saver.trySave();
    }
    if (stopped && !isSaved) await this.#saver.saveCheckpoint();
    if (!stopped) await this.#saver.saveResult();
    const steps = this.#step - (saved?.step ?? 0);
    return {
      outputDir: args.output_dir,
      steps: this.#step,
      totalSteps: length.totalSteps,
      stopped,
      bestEvaluation: this.#evaluation?.state.best ?? null,
      evalLoss: this.#evalLoss,
      loss: this.#lastLoss,
      trainLoss: steps > 0 ? this.#lossSum / steps : null,
      skippedSteps: this.#skippedSteps,
      tokens: this.#pace.tokens,
      elapsedMs: this.#pace.elapsedMs,
      peakBytes: trainer.gpu.memory.peakBytes,
      plannedBytes: info.plannedBytes,
    };
  }

  async #trainStep(): Promise<void> {
    const { args, data, hooks, length, trainer } = this.#run;
    const { replica, replicas } = trainer.sharing;
    const rate = learningRate(length.schedule, this.#step + 1);
    const samples = this.#sampler.nextInEpoch(length.sequencesPerStep).map((index) => data.samples[index]!);
    const batches = inParts(samples, args.per_device_train_batch_size)
      .filter((_, i) => i % replicas === replica)
      .map((chunk) => makeBatch(chunk));
    const began = performance.now();
    const result = await trainer.step(batches, rate);
    const milliseconds = performance.now() - began;
    this.#pace.add(samples.reduce((sum, { inputIds }) => sum + inputIds.length, 0), milliseconds);
    this.#step++;
    const metrics = this.#measure(result, rate);
    if (result.applied) {
      this.#skippedInRow = 0;
      this.#lossSum += result.loss;
      this.#lastLoss = result.loss;
      await this.#log.addStep(metrics);
    } else {
      await this.#skip(result);
    }
    hooks.onStep?.(metrics);
  }

  /** Evaluates if it is time. @returns whether the run should end */
  async #evaluate(): Promise<boolean> {
    const { args, hooks, length, trainee, trainer } = this.#run;
    const evaluation = this.#evaluation;
    const { epoch } = this.#sampler;
    const when = { isLast: this.#step === length.totalSteps, endsEpoch: Number.isInteger(epoch) };
    if (!evaluation?.isDue(this.#step, when)) return false;
    const { loss, isBest, isHopeless, tokensPerSecond } = await evaluation.run(trainee.model, this.#step);
    this.#evalLoss = loss;
    const { peakBytes } = trainer.gpu.memory;
    await this.#log.addEvaluation({ epoch, step: this.#step, eval_loss: loss }, {
      tokensPerSecond,
      peakBytes,
    });
    hooks.onEvaluate?.(this.#step, loss, isBest);
    const { load_best_model_at_end: keepsBest, early_stopping_patience: patience } = args;
    // What is due is saved after this anyway.
    if (isBest && keepsBest && this.#step > 0 && !this.#saver.isDue(this.#progress)) {
      await this.#saver.trySave();
    }
    if (isHopeless) hooks.note?.(`The run ends: ${patience} evaluations brought no lower eval_loss`);
    return isHopeless;
  }

  #measure({ loss, gradNorm }: StepResult, learningRate: number): StepMetrics {
    const { length: { totalSteps }, trainer: { gpu } } = this.#run;
    return {
      step: this.#step,
      totalSteps,
      epoch: this.#sampler.epoch,
      loss,
      learningRate,
      gradNorm,
      tokensPerSecond: this.#pace.tokensPerSecond,
      memoryBytes: gpu.memory.liveBytes,
      peakBytes: gpu.memory.peakBytes,
      etaSeconds: (totalSteps - this.#step) * this.#pace.secondsPerStep,
      skippedSteps: this.#skippedSteps,
      elapsedMs: this.#pace.elapsedMs,
    };
  }

  /**
   * Counts a step whose gradient is not finite, which changed nothing: so a loss scale finds its level.
   * @throws {UserError} if there are many in a row without one
   */
  async #skip({ loss }: StepResult): Promise<void> {
    const { args, hooks, trainer } = this.#run;
    this.#skippedSteps++;
    const { lossScale } = trainer.state;
    const isScaling = args.fp16 && lossScale > 1;
    this.#skippedInRow = isScaling ? 0 : this.#skippedInRow + 1;
    const reason = isScaling ? `loss scale lowered to ${lossScale}` : `loss ${loss}`;
    const text = `Step ${this.#step} was skipped: its gradient is not finite (${reason})`;
    hooks.note?.(text);
    await this.#log.write(text);
    if (this.#skippedInRow < MAX_SKIPPED) return;
    const first = this.#step - MAX_SKIPPED + 1;
    throw new UserError(
      `Training diverged: the gradients of steps ${first} to ${this.#step} are not finite ` +
        `(last finite loss ${this.#lastLoss ?? "none"}). ${this.#saver.lastGood}. ` +
        `Lower learning_rate (now ${args.learning_rate})`,
    );
  }

  get #progress(): Progress {
    return {
      step: this.#step,
      epoch: this.#sampler.epoch,
      samplerPosition: this.#sampler.position,
      skippedSteps: this.#skippedSteps,
      log: this.#log.state,
      evaluation: this.#evaluation?.state ?? null,
    };
  }

  get #report(): string {
    const { args, info, data: { preview }, trainer: { gpu } } = this.#run;
    return reportHtml({ args, info, preview, ...this.#progress, peakBytes: gpu.memory.peakBytes });
  }
}
