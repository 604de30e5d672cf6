import { AppendFile } from "./append_file.ts";
import type { StepMetrics } from "./hooks.ts";
import type { RunLength } from "./schedule.ts";
import { EventFile } from "./tensorboard.ts";

/** Keys of measurements, which are other in every run: `trainer_state.json` has all keys but these. */
export const MEASURED = ["tokens_per_second", "seconds", "peak_memory_bytes"] as const;

/** Measurements of an entry; those of checkpoints of older versions have none. */
export interface Measured {
  /** Speed of training over the last few steps, or of the evaluation. */
  readonly tokens_per_second?: number;
  /** Seconds of the run so far, over all its starts. */
  readonly seconds?: number;
  /** The most device memory held so far since the last start. */
  readonly peak_memory_bytes?: number;
}

/** One entry of Hugging Face's `log_history`, with measurements. */
export interface LogEntry extends Measured {
  readonly epoch: number;
  readonly step: number;
  /** Mean over the steps since the entry before. */
  readonly loss: number;
  /** Gradient norm of the entry's own step, before clipping. */
  readonly grad_norm: number;
  readonly learning_rate: number;
}

/** An evaluation in `log_history`, with measurements. */
export interface EvalEntry extends Measured {
  readonly epoch: number;
  readonly step: number;
  readonly eval_loss: number;
}

/** The log so far: all of it goes into a checkpoint, so that a resumed run writes the same log. */
export interface LogState {
  readonly history: readonly (LogEntry | EvalEntry)[];
  /** Sum over the steps since the last entry. */
  readonly lossSum: number;
  readonly steps: number;
  /** Checkpoints of older versions have none. */
  readonly time?: RunTime | undefined;
}

/** Time of a run so far. Work that was lost with a killed process does not count. */
export interface RunTime {
  /** The time at which the run first began, as `2026-11-26T14:30:00.000Z`. */
  readonly startedAt: string;
  /** Times that it was started. */
  readonly starts: number;
  /** Seconds of training and saving, over all starts. */
  readonly seconds: number;
}

/** Options of {@linkcode RunLog}. */
export interface RunLogOptions {
  readonly folder: string;
  /** Whether anything is written: else the log is only kept, as checkpoints have it. */
  readonly isWritten: boolean;
  readonly loggingSteps: number;
  /** The state in a checkpoint that the run goes on from. */
  readonly saved: LogState | undefined;
  /** Is told, in words, when a file cannot be written for the time being. */
  readonly onProblem: (problem: string) => void;
}

/**
 * Collects steps into log entries, one every `logging_steps`, and keeps `metrics.jsonl`, `train.log` and TensorBoard's
 * events. What cannot be written is told once, and written as soon as it can be.
 */
export class RunLog {
  readonly #history: LogState["history"][number][];
  #lossSum: number;
  #steps: number;
  readonly #time: RunTime;
  readonly #started = performance.now();
  readonly #loggingSteps: number;
  readonly #isWritten: boolean;
  readonly #metrics: AppendFile;
  readonly #text: AppendFile;
  readonly #events: EventFile;

  constructor({ folder, isWritten, loggingSteps, saved, onProblem }: RunLogOptions) {
    this.#isWritten = isWritten;
    this.#metrics = new AppendFile(`${folder}/metrics.jsonl`, onProblem);
    this.#text = new AppendFile(`${folder}/train.log`, onProblem);
    this.#events = new EventFile(`${folder}/runs`, Date.now, onProblem);
    this.#loggingSteps = loggingSteps;
    this.#history = [...saved?.history ?? []];
    this.#lossSum = saved?.lossSum ?? 0;
    this.#steps = saved?.steps ?? 0;
    const time = saved?.time ?? { startedAt: new Date().toISOString(), starts: 0, seconds: 0 };
    this.#time = { ...time, starts: time.starts + 1 };
  }

  get state(): LogState & { readonly time: RunTime } {
    const seconds = this.#time.seconds + (performance.now() - this.#started) / 1000;
    return {
      history: this.#history,
      lossSum: this.#lossSum,
      steps: this.#steps,
      time: { ...this.#time, seconds },
    };
  }

  /**
   * Makes the files those of this run: empty for a fresh one, cut back to the checkpoint for a resumed one.
   * @param done steps that the run goes on from
   * @throws {UserError} if they cannot be written
   */
  async open(done: number): Promise<void> {
    if (!this.#isWritten) return;
    await this.#metrics.open(encode(this.#history.map(line).join("")));
    await this.#text.open(done === 0 ? encode("") : undefined);
    await this.#events.open(done === 0 ? 0 : done + 1);
  }

  /** Adds a step; the last of the run always makes an entry. */
  async addStep(metrics: StepMetrics): Promise<void> {
    const { step, totalSteps, epoch, loss, gradNorm: grad_norm, learningRate: learning_rate } = metrics;
    this.#lossSum += loss;
    this.#steps++;
    if (step % this.#loggingSteps !== 0 && step !== totalSteps) return;
    const measured = this.#measured(metrics);
    const mean = this.#lossSum / this.#steps;
    const entry = { epoch, step, loss: mean, grad_norm, learning_rate, ...measured };
    this.#history.push(entry);
    this.#lossSum = 0;
    this.#steps = 0;
    await this.#add(entry, {
      "train/loss": entry.loss,
      "train/learning_rate": learning_rate,
      "train/grad_norm": grad_norm,
      "train/epoch": epoch,
      ...tagged("train", measured),
    });
    await this.write(
      `step ${step}/${totalSteps} epoch ${epoch.toFixed(2)} loss ${entry.loss.toFixed(4)} ` +
        `grad_norm ${grad_norm.toFixed(3)} learning_rate ${learning_rate.toExponential(2)} ` +
        `tokens/s ${Math.round(metrics.tokensPerSecond)}`,
    );
  }

  /** Adds an evaluation. */
  async addEvaluation(
    { epoch, step, eval_loss }: Pick<EvalEntry, "epoch" | "step" | "eval_loss">,
    pace: Pick<StepMetrics, "tokensPerSecond" | "peakBytes">,
  ): Promise<void> {
    const measured = this.#measured(pace);
    const entry = { epoch, step, eval_loss, ...measured };
    this.#history.push(entry);
    await this.#add(entry, { "eval/loss": eval_loss, ...tagged("eval", measured) });
    await this.write(`step ${step} epoch ${epoch.toFixed(2)} eval_loss ${eval_loss.toFixed(4)}`);
  }

  async #add(entry: LogEntry | EvalEntry, scalars: Readonly<Record<string, number>>): Promise<void> {
    if (!this.#isWritten) return;
    await this.#metrics.add(encode(line(entry)));
    await this.#events.add(entry.step, scalars);
  }

  #measured({ tokensPerSecond, peakBytes }: Pick<StepMetrics, "tokensPerSecond" | "peakBytes">) {
    const thousandths = (value: number) => Number(value.toFixed(3));
    return {
      tokens_per_second: thousandths(tokensPerSecond),
      seconds: thousandths(this.state.time.seconds),
      peak_memory_bytes: peakBytes,
    } satisfies Measured;
  }

  /** Adds a line to `train.log`. */
  async write(text: string): Promise<void> {
    if (this.#isWritten) await this.#text.add(encode(`${new Date().toISOString()} ${text}\n`));
  }
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function line(entry: LogEntry | EvalEntry): string {
  return JSON.stringify(entry) + "\n";
}

/** Values by the tags of TensorBoard: `train/seconds`. */
function tagged(part: string, values: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [`${part}/${name}`, value]));
}

function withoutMeasured(entry: LogEntry | EvalEntry): object {
  const measured: readonly string[] = MEASURED;
  return Object.fromEntries(Object.entries(entry).filter(([key]) => !measured.includes(key)));
}

/** Makes the content of Hugging Face's `trainer_state.json`. */
export function trainerStateJson(
  history: LogState["history"],
  run: {
    readonly best: {
      readonly loss: number;
      readonly step: number;
      /** Null where that step was not saved. */
      readonly checkpoint: string | null;
    } | null;
    readonly step: number;
    readonly epoch: number;
    readonly length: RunLength;
    readonly batchSize: number;
    /** Whether it evaluates every so many steps. */
    readonly evaluatesBySteps: boolean;
  },
): string {
  const { length } = run;
  const state = {
    best_global_step: run.best?.step ?? null,
    best_metric: run.best?.loss ?? null,
    best_model_checkpoint: run.best?.checkpoint ?? null,
    epoch: run.epoch,
    eval_steps: run.evaluatesBySteps ? length.evalSteps : null,
    global_step: run.step,
    is_hyper_param_search: false,
    is_local_process_zero: true,
    is_world_process_zero: true,
    log_history: history.map(withoutMeasured),
    logging_steps: length.loggingSteps,
    max_steps: length.totalSteps,
    num_train_epochs: Math.ceil(length.totalEpochs),
    save_steps: length.saveSteps,
    train_batch_size: run.batchSize,
    trial_name: null,
    trial_params: null,
  };
  return JSON.stringify(state, null, 2) + "\n";
}
