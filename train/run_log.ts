import { AppendFile } from "./append_file.ts";
import type { StepMetrics } from "./hooks.ts";
import { EventFile } from "./tensorboard.ts";

/** One entry of Hugging Face's `log_history`. */
export interface LogEntry {
  readonly epoch: number;
  readonly step: number;
  /** Mean over the steps since the entry before. */
  readonly loss: number;
  /** Of the entry's own step, before clipping. */
  readonly grad_norm: number;
  readonly learning_rate: number;
}

/** An evaluation in `log_history`. */
export interface EvalEntry {
  readonly epoch: number;
  readonly step: number;
  readonly eval_loss: number;
}

/** What is logged so far: all of it goes into a checkpoint, so that a resumed run writes the same log. */
export interface LogState {
  readonly history: (LogEntry | EvalEntry)[];
  /** Of the steps since the last entry. */
  lossSum: number;
  steps: number;
}

/**
 * Collects steps into log entries, one every `logging_steps`, and keeps `metrics.jsonl`, `train.log` and TensorBoard's
 * events. What cannot be written is told once, and written as soon as it can be.
 */
export class RunLog {
  readonly state: LogState;
  readonly #loggingSteps: number;
  readonly #metrics: AppendFile;
  readonly #text: AppendFile;
  readonly #events: EventFile;

  /**
   * @param kept the state in a checkpoint that the run goes on from
   * @param onProblem told, in words, when a file cannot be written for the time being
   */
  constructor(
    folder: string,
    loggingSteps: number,
    kept: LogState | undefined,
    onProblem: (problem: string) => void,
  ) {
    this.#metrics = new AppendFile(`${folder}/metrics.jsonl`, onProblem);
    this.#text = new AppendFile(`${folder}/train.log`, onProblem);
    this.#events = new EventFile(`${folder}/runs`, Date.now, onProblem);
    this.#loggingSteps = loggingSteps;
    this.state = kept ? { ...kept, history: [...kept.history] } : { history: [], lossSum: 0, steps: 0 };
  }

  /**
   * Makes the files those of this run: empty for a fresh one, cut back to the checkpoint for a resumed one.
   * @param done steps that the run goes on from
   * @throws {UserError} if they cannot be written
   */
  async open(done: number): Promise<void> {
    await this.#metrics.open(encode(this.state.history.map(line).join("")));
    await this.#text.open(done === 0 ? encode("") : undefined);
    await this.#events.open(done === 0 ? 0 : done + 1);
  }

  /** Adds a step; the last of the run always makes an entry. */
  async addStep(metrics: StepMetrics): Promise<void> {
    const { state } = this;
    const { step, totalSteps, epoch, loss, grad_norm, learning_rate } = metrics;
    state.lossSum += loss;
    state.steps++;
    if (step % this.#loggingSteps !== 0 && step !== totalSteps) return;
    const entry = { epoch, step, loss: state.lossSum / state.steps, grad_norm, learning_rate };
    state.history.push(entry);
    state.lossSum = 0;
    state.steps = 0;
    await this.#metrics.add(encode(line(entry)));
    await this.#events.add(step, {
      "train/loss": entry.loss,
      "train/learning_rate": learning_rate,
      "train/grad_norm": grad_norm,
      "train/epoch": epoch,
      "train/tokens_per_second": metrics.tokensPerSecond,
    });
    await this.write(
      `step ${step}/${totalSteps} epoch ${epoch.toFixed(2)} loss ${entry.loss.toFixed(4)} ` +
        `grad_norm ${grad_norm.toFixed(3)} learning_rate ${learning_rate.toExponential(2)} ` +
        `tokens/s ${Math.round(metrics.tokensPerSecond)}`,
    );
  }

  /** Adds an evaluation. */
  async addEvaluation(entry: EvalEntry): Promise<void> {
    const { step, epoch, eval_loss } = entry;
    this.state.history.push(entry);
    await this.#metrics.add(encode(line(entry)));
    await this.#events.add(step, { "eval/loss": eval_loss });
    await this.write(`step ${step} epoch ${epoch.toFixed(2)} eval_loss ${eval_loss.toFixed(4)}`);
  }

  /** Adds a line to `train.log`. */
  async write(text: string): Promise<void> {
    await this.#text.add(encode(`${new Date().toISOString()} ${text}\n`));
  }
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function line(entry: LogEntry | EvalEntry): string {
  return JSON.stringify(entry) + "\n";
}

/** The content of Hugging Face's `trainer_state.json`. */
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
    readonly totalSteps: number;
    readonly totalEpochs: number;
    readonly batchSize: number;
    readonly loggingSteps: number;
    readonly saveSteps: number;
    /** Null without evaluation every so many steps. */
    readonly evalSteps: number | null;
  },
): string {
  const state = {
    best_global_step: run.best?.step ?? null,
    best_metric: run.best?.loss ?? null,
    best_model_checkpoint: run.best?.checkpoint ?? null,
    epoch: run.epoch,
    eval_steps: run.evalSteps,
    global_step: run.step,
    is_hyper_param_search: false,
    is_local_process_zero: true,
    is_world_process_zero: true,
    log_history: history,
    logging_steps: run.loggingSteps,
    max_steps: run.totalSteps,
    num_train_epochs: Math.ceil(run.totalEpochs),
    save_steps: run.saveSteps,
    train_batch_size: run.batchSize,
    trial_name: null,
    trial_params: null,
  };
  return JSON.stringify(state, null, 2) + "\n";
}
