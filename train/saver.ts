/** Saving of a run: checkpoints, the result, the report; on a disk that may be full. */
import { exists, isSystemError } from "../checkpoint/files.ts";
import { roomNote } from "../checkpoint/free_room.ts";
import { rotate, saveAtomic, saveFinal, writeFileAtomic } from "../checkpoint/store.ts";
import { fromFirst, requireSame } from "../distributed/agreement.ts";
import type { Communicator } from "../distributed/communicator.ts";
import { UserError } from "../errors.ts";
import { hasForeignCard, writeCard } from "../export/local_card.ts";
import type { TrainArgs } from "../train_args/schema.ts";
import type { TrainHooks } from "./hooks.ts";
import { writingsOf } from "./room.ts";
import { copyTrained } from "./run_folder.ts";
import { trainerStateJson } from "./run_log.ts";
import { endSending, type Progress, sendStates, writeSavedState } from "./saved_state.ts";
import type { RunLength } from "./schedule.ts";
import { type TrainedBase, type Trainee, writeTrainee } from "./trainee.ts";
import type { Trainer } from "./trainer.ts";

/** Options of {@linkcode Saver}. */
export interface SaverOptions {
  readonly args: TrainArgs;
  readonly hooks: TrainHooks;
  /** Rank 0 writes; the others wait for it, and know as it does what is saved. */
  readonly ranks: Communicator;
  readonly length: RunLength;
  readonly trainee: Trainee;
  readonly trainer: Trainer;
  readonly base: TrainedBase;
  /** See `hashSamples`. */
  readonly dataHash: string;
  /** Step of the checkpoint that the run goes on from; undefined for a fresh run. */
  readonly resumedStep: number | undefined;
  /** Tells how far the run has come, now. */
  readonly progress: () => Progress;
  /** Makes the text of `report.html`, now. */
  readonly report: () => string;
}

/** Steps after which a failed save is tried again at the latest. */
const MAX_RETRY_STEPS = 64;

/** Saves a run. Calls {@linkcode TrainHooks.onSave} after each save. */
export class Saver {
  readonly #run: SaverOptions;
  /** The last step that is in a checkpoint; -1 before there is one. */
  #savedStep: number;
  /** Saves that have failed since the last one that did not, and the step after which the next is tried. */
  #failedSaves = 0;
  #retryAt = 0;

  constructor(options: SaverOptions) {
    this.#run = options;
    this.#savedStep = options.resumedStep ?? -1;
  }

  /** Says before the first step that the disk may be full before the last. */
  noteRoom(): void {
    const { args, hooks, ranks, length, trainer, progress } = this.#run;
    if (ranks.rank > 0) return;
    const steps = length.totalSteps - progress().step;
    const saves = { no: 0, steps: steps / length.saveSteps, epoch: length.totalEpochs }[args.save_strategy];
    const trainable = trainer.optimised.reduce((sum, { value }) => sum + value.size, 0);
    const { checkpoints, bytes } = writingsOf(args, { trainable, saves: Math.ceil(saves) });
    const note = roomNote(args.output_dir, {
      what: checkpoints === 0 ? "The files of the result" : `The result and up to ${checkpoints} checkpoints`,
      bytes,
      remedy:
        "make room, or keep fewer with save_total_limit. A checkpoint that has no room is noted and tried again later",
    });
    if (note) hooks.note?.(note);
  }

  /** Whether it is time for a checkpoint, after a step of the run. */
  isDue({ step, epoch }: Pick<Progress, "step" | "epoch">): boolean {
    const { args: { save_strategy }, length } = this.#run;
    if (this.#failedSaves > 0 && step >= this.#retryAt) return true;
    if (save_strategy === "no") return false;
    if (step === length.totalSteps) return true;
    return save_strategy === "steps" ? step % length.saveSteps === 0 : Number.isInteger(epoch);
  }

  /** Saves, or says why not: training then goes on, and saving is tried again after a step, two, four and so on. */
  async trySave(): Promise<boolean> {
    const { hooks, length, progress } = this.#run;
    const { step } = progress();
    const problem = await this.#onFirst(() => this.#saveCheckpoint());
    if (problem === null) {
      this.#savedStep = step;
      this.#failedSaves = 0;
      return true;
    }
    this.#retryAt = step + Math.min(MAX_RETRY_STEPS, 2 ** this.#failedSaves++);
    const next = step < length.totalSteps
      ? `; training goes on, saving again after step ${this.#retryAt}`
      : "";
    hooks.note?.(`step ${step} is not saved: ${problem.message}${next}`);
    return false;
  }

  /** Saves a checkpoint before a run ends early. @throws {UserError} as {@linkcode Saver.saveResult} */
  async saveCheckpoint(): Promise<void> {
    await this.#insist(() => this.#saveCheckpoint());
    this.#savedStep = this.#run.progress().step;
  }

  /**
   * Saves the final adapter or model: that of the best evaluation, if the settings say so.
   * @throws {UserError} if it cannot be saved however often it is tried, naming the last good step
   */
  async saveResult(): Promise<void> {
    await this.#insist(() => this.#saveResult());
  }

  /** The last checkpoint that is whole, in words. */
  get lastGood(): string {
    return this.#savedStep > 0
      ? `The checkpoint of step ${this.#savedStep} is intact`
      : "No checkpoint was saved yet";
  }

  /** Saves what would be lost otherwise, as often as {@linkcode TrainHooks.waitForRoom} says. */
  async #insist(save: () => Promise<void>): Promise<void> {
    const { ranks, hooks } = this.#run;
    for (let failures = 1;; failures++) {
      const problem = await this.#onFirst(save);
      if (problem === null) return;
      if (await fromFirst(ranks, await hooks.waitForRoom?.(failures) ?? false)) continue;
      throw new UserError(`${problem.message}. ${this.lastGood}${this.#goOn}`, { cause: problem });
    }
  }

  /**
   * Lets rank 0 write, and tells all of a disk that did not let it; null if it did.
   * @throws {UserError} if the ranks do not hold the same parameters any more
   */
  async #onFirst(write: () => Promise<void>): Promise<Error | null> {
    const { ranks, trainer } = this.#run;
    if (ranks.size > 1) {
      await requireSame(ranks, { "the norm of what is trained": await trainer.parameterNorm() });
    }
    let problem: Error | null = null;
    try {
      if (ranks.rank === 0) await write();
      else if (trainer.isSharded) await sendStates(trainer);
    } catch (error) {
      if (!isSystemError(error)) throw error;
      problem = error;
    }
    if (ranks.rank === 0 && trainer.isSharded) await endSending(trainer);
    if (ranks.size === 1) return problem;
    await ranks.barrier();
    const message = await fromFirst(ranks, problem?.message ?? null);
    return problem ?? (message === null ? null : new Error(message));
  }

  /** Does what the run can do without. */
  async #attempt(act: () => Promise<unknown>): Promise<void> {
    try {
      await act();
    } catch (error) {
      if (!isSystemError(error)) throw error;
      this.#run.hooks.note?.(`step ${this.#run.progress().step}: ${error.message}`);
    }
  }

  /** Tells how a run whose last save has failed goes on. */
  get #goOn(): string {
    const { overwrite_output_dir, resume_from_checkpoint } = this.#run.args;
    if (this.#savedStep <= 0) return "";
    return overwrite_output_dir || resume_from_checkpoint === false
      ? ": resume_from_checkpoint: true, without overwrite_output_dir, goes on from it"
      : ": the same command goes on from it";
  }

  async #saveCheckpoint(): Promise<void> {
    const { args, hooks, ranks, trainer, trainee, base, dataHash, progress } = this.#run;
    const { step } = progress();
    const path = await saveAtomic(args.output_dir, `checkpoint-${step}`, async (folder) => {
      await writeTrainee(folder, trainee, base);
      const run = { ...progress(), args, worldSize: ranks.size, dataHash, base: base.fingerprint };
      await writeSavedState(folder, trainer, run);
      await Deno.writeTextFile(`${folder}/trainer_state.json`, await this.#trainerState(step));
    });
    await this.#attempt(() => this.#writeReport());
    const except = args.load_best_model_at_end ? progress().evaluation?.best?.step : undefined;
    const { output_dir, save_total_limit: limit } = args;
    if (limit !== null) await this.#attempt(() => rotate(output_dir, limit, { except }));
    hooks.onSave?.(path);
  }

  async #saveResult(): Promise<void> {
    const { args, hooks, trainee, base } = this.#run;
    const best = await this.#bestCheckpoint();
    await saveFinal(args.output_dir, async (folder) => {
      if (best === null) await writeTrainee(folder, trainee, base);
      else await copyTrained(best, folder);
      await Deno.writeTextFile(`${folder}/trainer_state.json`, await this.#trainerState());
      if (await hasForeignCard(args.output_dir)) return;
      const { config } = trainee.model;
      await writeCard(folder, { base: args.model_name_or_path, config, args: { ...args } });
    });
    await this.#attempt(() => this.#writeReport());
    hooks.onSave?.(args.output_dir);
  }

  /** The checkpoint to end with, where it is not what was trained last. */
  async #bestCheckpoint(): Promise<string | null> {
    const { args, hooks, progress } = this.#run;
    const { evaluation, step } = progress();
    const best = evaluation?.best;
    const isOlder = args.load_best_model_at_end && best && best.step > 0 && best.step < step;
    if (!isOlder) return null;
    const path = `${args.output_dir}/checkpoint-${best.step}`;
    const isThere = await exists(path);
    hooks.note?.(
      `The best evaluation was after step ${best.step}: ` +
        (isThere ? `taking ${path}` : "it could not be saved, so the result is that of the last step"),
    );
    return isThere ? path : null;
  }

  /** @param saving the step whose checkpoint this is for: it is as good as on disk */
  async #trainerState(saving?: number): Promise<string> {
    const { args, length, progress } = this.#run;
    const { log, evaluation, step, epoch } = progress();
    const best = evaluation?.best ?? null;
    const path = `${args.output_dir}/checkpoint-${best?.step}`;
    const isSaved = best !== null && best.step > 0 && (best.step === saving || await exists(path));
    return trainerStateJson(log.history, {
      best: best && { loss: best.loss, step: best.step, checkpoint: isSaved ? path : null },
      step,
      epoch,
      length,
      batchSize: args.per_device_train_batch_size,
      evaluatesBySteps: args.eval_strategy === "steps",
    });
  }

  async #writeReport(): Promise<void> {
    const { args, report } = this.#run;
    await writeFileAtomic(`${args.output_dir}/report.html`, report());
  }
}
