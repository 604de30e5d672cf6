import { formatMemory } from "../text.ts";
import { exists, isSystemError } from "../checkpoint/files.ts";
import { type Adapter, writeAdapter } from "../checkpoint/peft.ts";
import { copyTokenizer, writeModel } from "../checkpoint/save_model.ts";
import { roomNote } from "../checkpoint/free_room.ts";
import { lockFolder, rotate, saveAtomic, saveFinal, writeFileAtomic } from "../checkpoint/store.ts";
import type { Dataset } from "../data/dataset.ts";
import type { Sample } from "../data/sample.ts";
import { Sampler, stepsPerEpoch } from "../data/sampler.ts";
import { describePlaces, type TokenizerPlaces, tokenizerPlaces } from "../data/tokenizer_files.ts";
import { UserError } from "../errors.ts";
import { Gpu } from "../kernels/gpu.ts";
import { exportAdapter } from "../model/lora.ts";
import { makeBatch } from "../model/batch.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { configForPositions } from "../model/positions.ts";
import { configJson } from "../model/config_json.ts";
import {
  type Fingerprint,
  fingerprintMetadata,
  fingerprintModel,
  otherBaseNote,
} from "../model/load/fingerprint.ts";
import { hasForeignCard, writeCard } from "../export/local_card.ts";
import { tableNotes } from "../model/load/model_weights.ts";
import { torchDtype } from "../model/number_formats.ts";
import { tensorSources } from "../model/read_back.ts";
import { dumpTrainArgs } from "../train_args/describe.ts";
import { stepsBetween, type TrainArgs } from "../train_args/schema.ts";
import { Evaluation } from "./evaluation.ts";
import { count, describeAttention, describeContext, describeSchedule } from "./describe.ts";
import type { StepMetrics, TrainHooks, TrainInfo, TrainResult } from "./hooks.ts";
import { withAdapterSettings } from "./lora.ts";
import { type Plan, planTraining, requireFit } from "./plan/plan.ts";
import { reportHtml } from "./report.ts";
import { copyTrained, findResume, refuseOwnSources, removeOldRun, removeRunLeftovers } from "./run_folder.ts";
import { writingsOf } from "./room.ts";
import { RunLog, trainerStateJson } from "./run_log.ts";
import {
  checkSameBase,
  checkSameRun,
  hashSamples,
  restoreStates,
  type SavedState,
  writeSavedState,
} from "./saved_state.ts";
import { learningRate, type Schedule } from "./schedule.ts";
import {
  describeSources,
  findPlaces,
  formatOf,
  grownConfig,
  loadData,
  loadEvalData,
  loadTrainee,
  type Places,
  rowCache,
  sourcesOf,
  startAdapter,
  type Trainee,
  trainerOptions,
} from "./setup.ts";
import { planDevice } from "./plan/step_cost.ts";
import { type StepResult, Trainer } from "./trainer.ts";

/** Steps in a row without a finite gradient after which a run gives up. */
const MAX_SKIPPED = 3;
/** Steps over which the pace is measured. */
const PACE_STEPS = 8;

/**
 * Trains as the settings say: loads, resumes, steps, logs, saves.
 *
 * Writes into `output_dir`: checkpoints, `trainer_state.json`, `train_args.yaml`, `train.log`, `metrics.jsonl`,
 * TensorBoard's events in `runs`, `report.html`, and at the end the adapter or model. A run that is stopped or fails leaves its checkpoints whole.
 *
 * @throws {UserError} for anything the user can mend: settings, data, model, disk, divergence
 */
export async function runTraining(given: TrainArgs, hooks: TrainHooks = {}): Promise<TrainResult> {
  using _lock = await lockFolder(given.output_dir);
  await removeRunLeftovers(given, hooks);
  await refuseOwnSources(given, await findPlaces(given));
  const resumed = await findResume(given, hooks);
  const places = await findPlaces(given, hooks.locate);
  hooks.onLocated?.();
  const start = startAdapter(given, places, resumed);
  const { args, notes } = places.adapter !== undefined && start
    ? await withAdapterSettings(given, start)
    : { args: given, notes: [] };
  // Before what takes long: what is wrong with the model shows by its config.json.
  const config = await grownConfig(args, places, start);
  const tables = args.train_from_scratch ? [] : await tableNotes(places.model, config);
  [...notes, ...configForPositions(config, args).notes, ...tables].forEach((line) => hooks.note?.(line));
  const base = await fingerprintModel(places.model, { weights: args.low_rank_training });
  if (resumed) checkSameBase(resumed.state, base, args, resumed.path);
  else await noteOtherBase(places, hooks);
  const tokenizer = await tokenizerPlaces(places.model, places.adapter);
  const tokenizerNote = places.adapter && describePlaces(tokenizer, places.adapter);
  if (tokenizerNote) hooks.note?.(tokenizerNote);
  const cache = rowCache(args, hooks);
  const data = await loadData(args, places, config, cache);
  noteData(data, args, hooks);
  const evalData = await loadEvalData(args, places, config, cache);
  evalData?.notes.forEach((line) => hooks.note?.(line));
  const dataHash = hashSamples(data.samples);
  if (resumed) checkSameRun(resumed.state, args, dataHash, resumed.path);
  using gpu = await Gpu.open({
    ...hooks.gpuOptions,
    ...(args.max_memory === null ? {} : { memoryLimitBytes: args.max_memory }),
    onCompile: (kernels) => hooks.onCompile?.(kernels),
  });
  const plan = await makePlan(gpu, args, config, data, evalData);
  const trainee = await loadTrainee(gpu, args, places, config, resumed);
  trainee.notes.forEach((line) => hooks.note?.(line));
  const run = new Run(
    args,
    places.model,
    tokenizer,
    hooks,
    { data, dataHash, base },
    evalData,
    trainee,
    plan,
    resumed?.state,
  );
  if (resumed) await restoreStates(resumed.path, run.trainer, resumed);
  if (args.overwrite_output_dir) await removeOldRun(args, places.adapter);
  return await run.train();
}

/** A run that starts from an adapter starts from what it was trained on, too. */
async function noteOtherBase({ adapter, model }: Places, hooks: TrainHooks): Promise<void> {
  const note = adapter && await otherBaseNote(adapter, model);
  if (note) hooks.note?.(note);
}

/**
 * Finds out what the run takes on the device, and what has to wait in host memory.
 * @throws {UserError} if it takes more than it may
 */
async function makePlan(
  gpu: Gpu,
  args: TrainArgs,
  base: ModelConfig,
  data: Dataset,
  evalData: Dataset | undefined,
): Promise<Plan> {
  const longest = (samples: readonly Sample[], count: number) =>
    samples.map(({ inputIds }) => inputIds.length).sort((a, b) => b - a).slice(0, count);
  const plan = await planTraining(args, base, {
    device: planDevice(gpu),
    lengths: longest(data.samples, args.per_device_train_batch_size),
    evalLengths: longest(evalData?.samples ?? [], args.per_device_eval_batch_size),
  });
  requireFit(plan);
  gpu.memory.expectPeak(plan.peak.heldBytes);
  return plan;
}

/** What a run learns from, and how to know it again. */
interface RunInputs {
  readonly data: Dataset;
  readonly dataHash: string;
  readonly base: Fingerprint;
}

/** The learning rates of a run, and so its length, over data with `perEpoch` steps in an epoch. */
function scheduleOf(args: TrainArgs, perEpoch: number): Schedule {
  const totalSteps = args.max_steps > 0 ? args.max_steps : Math.ceil(args.num_train_epochs * perEpoch);
  return {
    name: args.lr_scheduler_type,
    learningRate: args.learning_rate,
    warmupSteps: args.warmup_steps || Math.ceil(args.warmup_ratio * totalSteps),
    totalSteps,
  };
}

/** Says what another length of the run does to the learning rates of the steps that are left. */
function noteSchedule(before: Schedule, now: Schedule, done: number, hooks: TrainHooks): void {
  if (before.totalSteps === now.totalSteps) return;
  const rate = (schedule: Schedule) => learningRate(schedule, done + 1).toPrecision(3);
  hooks.note?.(
    `The run now has ${now.totalSteps} steps instead of ${before.totalSteps}: ` +
      (rate(before) === rate(now)
        ? `with lr_scheduler_type ${now.name} step ${done + 1} keeps its learning rate ${rate(now)}`
        : `lr_scheduler_type ${now.name} gives step ${done + 1} the learning rate ${rate(now)} instead of ${
          rate(before)
        }`),
  );
}

/** One run over its loaded model and data. */
class Run {
  readonly trainer: Trainer;
  readonly data: Dataset;
  /** Steps between log lines, checkpoints and evaluations. */
  readonly #every: Readonly<Record<"logging_steps" | "save_steps" | "eval_steps", number>>;
  readonly #sampler: Sampler;
  readonly #log: RunLog;
  readonly #evaluation: Evaluation | undefined;
  readonly #totalSteps: number;
  readonly #totalEpochs: number;
  readonly #schedule: Schedule;
  readonly #started = performance.now();
  /** When recent steps ended, and how many tokens were trained by then in how many milliseconds of training alone. */
  readonly #pace: { time: number; training: number; tokens: number }[] = [];
  #step: number;
  readonly #startStep: number;
  #skippedSteps: number;
  #skippedInRow = 0;
  #tokens = 0;
  #training = 0;
  #lossSum = 0;
  #lastLoss: number | null = null;
  #evalLoss: number | null = null;
  #savedStep = -1;
  /** Saves that have failed since the last one that did not, and the step after which the next is tried. */
  #failedSaves = 0;
  #retryAt = 0;

  constructor(
    readonly args: TrainArgs,
    readonly modelFolder: string,
    readonly tokenizer: TokenizerPlaces,
    readonly hooks: TrainHooks,
    readonly inputs: RunInputs,
    evalData: Dataset | undefined,
    readonly trainee: Trainee,
    readonly plan: Plan,
    saved: SavedState | undefined,
  ) {
    this.data = inputs.data;
    const { samples } = this.data;
    const perStep = args.per_device_train_batch_size * args.gradient_accumulation_steps;
    const perEpoch = stepsPerEpoch(samples.length, perStep);
    this.#schedule = scheduleOf(args, perEpoch);
    this.#totalSteps = this.#schedule.totalSteps;
    this.#totalEpochs = args.max_steps > 0 ? args.max_steps / perEpoch : args.num_train_epochs;
    if (saved) noteSchedule(scheduleOf(saved.args, perEpoch), this.#schedule, saved.step, hooks);
    const every = (steps: number) => stepsBetween(steps, this.#totalSteps);
    this.#every = {
      logging_steps: every(args.logging_steps),
      save_steps: every(args.save_steps),
      eval_steps: every(args.eval_steps ?? args.logging_steps),
    };
    this.trainer = new Trainer(trainee.model, trainerOptions(args, plan.placement));
    const lengths = samples.map(({ inputIds }) => inputIds.length);
    const groups = args.group_by_length ? { lengths, batch: perStep } : undefined;
    this.#sampler = new Sampler(samples.length, args.data_seed, groups);
    this.#log = new RunLog(
      args.output_dir,
      this.#every.logging_steps,
      saved?.log,
      (problem) =>
        hooks.note?.(`step ${this.#step} is not logged: ${problem}; it is written once there is room`),
    );
    const evalArgs = { ...args, ...this.#every };
    this.#evaluation = evalData && new Evaluation(evalData.samples, evalArgs, saved?.evaluation ?? undefined);
    this.#step = this.#startStep = saved?.step ?? 0;
    this.#skippedSteps = saved?.skippedSteps ?? 0;
    if (saved) {
      this.trainer.state = { ...saved.trainer };
      this.#sampler.position = saved.samplerPosition;
      this.#savedStep = saved.step;
    }
  }

  async train(): Promise<TrainResult> {
    const { args, hooks } = this;
    await writeFileAtomic(`${args.output_dir}/train_args.yaml`, dumpTrainArgs(args));
    await this.#log.open(this.#startStep);
    hooks.onData?.(this.data.preview);
    hooks.onStart?.(this.#info);
    this.#noteRoom();
    let stopped = false;
    let isSaved = true;
    let isHopeless = this.#step === 0 ? await this.#evaluate() : this.#evaluation?.isHopeless ?? false;
    while (this.#step < this.#totalSteps && !stopped && !isHopeless) {
      await this.#trainStep();
      isHopeless = await this.#evaluate();
      stopped = (hooks.shouldStop?.() ?? false) && this.#step < this.#totalSteps;
      if (this.#shouldSave(stopped)) isSaved = await this.#trySave();
    }
    if (stopped && !isSaved) await this.#saveSurely(() => this.#saveCheckpoint());
    if (!stopped) await this.#saveSurely(() => this.#saveFinal());
    const steps = this.#step - this.#startStep;
    return {
      outputDir: args.output_dir,
      steps: this.#step,
      totalSteps: this.#totalSteps,
      stopped,
      bestEvaluation: this.#evaluation?.state.best ?? null,
      evalLoss: this.#evalLoss,
      loss: this.#lastLoss,
      trainLoss: steps > 0 ? this.#lossSum / steps : null,
      skippedSteps: this.#skippedSteps,
      tokens: this.#tokens,
      elapsedMs: performance.now() - this.#started,
      peakBytes: this.trainer.gpu.memory.peakBytes,
      plannedBytes: this.plan.peak.heldBytes,
    };
  }

  /** Says before the first step that the disk may be full before the last. */
  #noteRoom(): void {
    const { args, hooks, plan: { trainable } } = this;
    const steps = this.#totalSteps - this.#step;
    const saves =
      { no: 0, steps: steps / this.#every.save_steps, epoch: this.#totalEpochs }[args.save_strategy];
    const { checkpoints, bytes } = writingsOf(args, { trainable, saves: Math.ceil(saves) });
    const note = roomNote(args.output_dir, {
      what: checkpoints === 0 ? "The files of the result" : `The result and up to ${checkpoints} checkpoints`,
      bytes,
      remedy:
        "make room, or keep fewer with save_total_limit. A checkpoint that has no room is noted and tried again later",
    });
    if (note) hooks.note?.(note);
  }

  async #trainStep(): Promise<void> {
    const { args } = this;
    const rate = learningRate(this.#schedule, this.#step + 1);
    const batchSize = args.per_device_train_batch_size;
    const indices = this.#sampler.nextInEpoch(batchSize * args.gradient_accumulation_steps);
    const samples = indices.map((index) => this.data.samples[index]!);
    const batches = chunks(samples, batchSize).map((chunk) => makeBatch(chunk));
    const began = performance.now();
    const result = await this.trainer.step(batches, rate);
    this.#training += performance.now() - began;
    this.#step++;
    const tokens = samples.reduce((sum, { inputIds }) => sum + inputIds.length, 0);
    const metrics = this.#measure(result, rate, tokens);
    if (result.applied) {
      this.#skippedInRow = 0;
      this.#lossSum += result.loss;
      this.#lastLoss = result.loss;
      await this.#log.addStep(metrics);
    } else {
      await this.#skip(result);
    }
    this.hooks.onStep?.(metrics);
  }

  /** Evaluates if it is time. @returns whether the run should end */
  async #evaluate(): Promise<boolean> {
    const evaluation = this.#evaluation;
    const { epoch } = this.#sampler;
    const when = { isLast: this.#step === this.#totalSteps, endsEpoch: Number.isInteger(epoch) };
    if (!evaluation?.isDue(this.#step, when)) return false;
    const { loss, isBest, isHopeless, tokensPerSecond } = await evaluation.run(
      this.trainee.model,
      this.#step,
    );
    this.#evalLoss = loss;
    const { peakBytes } = this.trainer.gpu.memory;
    await this.#log.addEvaluation({ epoch, step: this.#step, eval_loss: loss }, {
      tokensPerSecond,
      peakBytes,
    });
    this.hooks.onEvaluate?.(this.#step, loss, isBest);
    const { load_best_model_at_end: keepsBest, early_stopping_patience: patience } = this.args;
    if (isBest && keepsBest && this.#step > 0 && !this.#shouldSave(false)) await this.#trySave();
    if (isHopeless) this.hooks.note?.(`The run ends: ${patience} evaluations brought no lower eval_loss`);
    return isHopeless;
  }

  #measure(result: StepResult, rate: number, tokens: number): StepMetrics {
    const { gpu } = this.trainer;
    this.#tokens += tokens;
    const now = performance.now();
    if (this.#pace.length === 0) this.#pace.push({ time: this.#started, training: 0, tokens: 0 });
    this.#pace.push({ time: now, training: this.#training, tokens: this.#tokens });
    if (this.#pace.length > PACE_STEPS + 1) this.#pace.shift();
    const first = this.#pace[0]!;
    const seconds = (now - first.time) / 1000;
    return {
      step: this.#step,
      totalSteps: this.#totalSteps,
      epoch: this.#sampler.epoch,
      loss: result.loss,
      learningRate: rate,
      gradNorm: result.gradNorm,
      tokensPerSecond: 1000 * (this.#tokens - first.tokens) / (this.#training - first.training),
      memoryBytes: gpu.memory.liveBytes,
      peakBytes: gpu.memory.peakBytes,
      etaSeconds: (this.#totalSteps - this.#step) * seconds / (this.#pace.length - 1),
      skippedSteps: this.#skippedSteps,
      elapsedMs: now - this.#started,
    };
  }

  /** A gradient that is not finite changed nothing. With loss scaling that is how the scale finds its level. */
  async #skip({ loss }: StepResult): Promise<void> {
    this.#skippedSteps++;
    const { lossScale } = this.trainer.state;
    const isScaling = this.args.fp16 && lossScale > 1;
    this.#skippedInRow = isScaling ? 0 : this.#skippedInRow + 1;
    const reason = isScaling ? `loss scale lowered to ${lossScale}` : `loss ${loss}`;
    const text = `Step ${this.#step} was skipped: its gradient is not finite (${reason})`;
    this.hooks.note?.(text);
    await this.#log.write(text);
    if (this.#skippedInRow < MAX_SKIPPED) return;
    throw new UserError(
      `Training diverged: the gradients of steps ${
        this.#step - MAX_SKIPPED + 1
      } to ${this.#step} are not finite ` +
        `(last finite loss ${
          this.#lastLoss ?? "none"
        }). ${this.#lastGood}. Lower learning_rate (now ${this.args.learning_rate})`,
    );
  }

  #shouldSave(stopped: boolean): boolean {
    const { save_strategy } = this.args;
    if (stopped || (this.#failedSaves > 0 && this.#step >= this.#retryAt)) return true;
    if (save_strategy === "no") return false;
    if (this.#step === this.#totalSteps) return true;
    const { epoch } = this.#sampler;
    return save_strategy === "steps" ? this.#step % this.#every.save_steps === 0 : Number.isInteger(epoch);
  }

  /** Saves, or says why not: training then goes on, and saving is tried again after a step, two, four and so on. */
  async #trySave(): Promise<boolean> {
    try {
      await this.#saveCheckpoint();
      this.#failedSaves = 0;
      return true;
    } catch (error) {
      if (!isSystemError(error)) throw error;
      this.#retryAt = this.#step + Math.min(64, 2 ** this.#failedSaves++);
      const next = this.#step < this.#totalSteps
        ? `; training goes on, saving again after step ${this.#retryAt}`
        : "";
      this.hooks.note?.(`step ${this.#step} is not saved: ${error.message}${next}`);
      return false;
    }
  }

  /**
   * Saves what would be lost otherwise, as often as {@linkcode TrainHooks.waitForRoom} says.
   * @throws {UserError} if it still cannot be saved, naming the last good step
   */
  async #saveSurely(save: () => Promise<void>): Promise<void> {
    for (let failures = 1;; failures++) {
      try {
        return await save();
      } catch (error) {
        if (!isSystemError(error)) throw error;
        if (await this.hooks.waitForRoom?.(failures)) continue;
        throw new UserError(`${error.message}. ${this.#lastGood}${this.#goOn}`, { cause: error });
      }
    }
  }

  /** Does what the run can do without. */
  async #attempt(act: () => Promise<unknown>): Promise<void> {
    try {
      await act();
    } catch (error) {
      if (!isSystemError(error)) throw error;
      this.hooks.note?.(`step ${this.#step}: ${error.message}`);
    }
  }

  get #lastGood(): string {
    return this.#savedStep > 0
      ? `The checkpoint of step ${this.#savedStep} is intact`
      : "No checkpoint was saved yet";
  }

  /** How a run whose last save has failed goes on. */
  get #goOn(): string {
    const { overwrite_output_dir, resume_from_checkpoint } = this.args;
    if (this.#savedStep <= 0) return "";
    return overwrite_output_dir || resume_from_checkpoint === false
      ? ": resume_from_checkpoint: true, without overwrite_output_dir, goes on from it"
      : ": the same command goes on from it";
  }

  async #saveCheckpoint(): Promise<void> {
    const { args, hooks, trainer } = this;
    const path = await saveAtomic(args.output_dir, `checkpoint-${this.#step}`, async (folder) => {
      await this.#writeTrained(folder);
      await writeSavedState(folder, trainer, {
        version: 1,
        step: this.#step,
        samplerPosition: this.#sampler.position,
        trainer: trainer.state,
        skippedSteps: this.#skippedSteps,
        log: this.#log.state,
        evaluation: this.#evaluation?.state ?? null,
        args,
        dataHash: this.inputs.dataHash,
        base: this.inputs.base,
      });
      await Deno.writeTextFile(`${folder}/trainer_state.json`, await this.#trainerState(this.#step));
    });
    this.#savedStep = this.#step;
    await this.#attempt(() => this.#writeReport());
    const except = args.load_best_model_at_end ? this.#evaluation?.state.best?.step : undefined;
    const { output_dir, save_total_limit: most } = args;
    if (most !== null) await this.#attempt(() => rotate(output_dir, most, { except }));
    hooks.onSave?.(path);
  }

  async #saveFinal(): Promise<void> {
    const { args, hooks } = this;
    const best = await this.#bestCheckpoint();
    await saveFinal(args.output_dir, async (folder) => {
      if (best === null) await this.#writeTrained(folder);
      else await copyTrained(best, folder);
      await Deno.writeTextFile(`${folder}/trainer_state.json`, await this.#trainerState());
      if (await hasForeignCard(args.output_dir)) return;
      const { config } = this.trainee.model;
      await writeCard(folder, { base: args.model_name_or_path, config, args: { ...args } });
    });
    await this.#attempt(() => this.#writeReport());
    hooks.onSave?.(args.output_dir);
  }

  /** The adapter, or in full fine-tuning the model. */
  async #writeTrained(folder: string): Promise<void> {
    const { model, adapter, replacements } = this.trainee;
    if (adapter) {
      const exported: Adapter = await exportAdapter(model, adapter, replacements);
      const metadata = fingerprintMetadata(this.args.model_name_or_path, this.inputs.base);
      await writeAdapter(folder, exported, { metadata });
      // What the adapter started from brought its own tokenizer: so does it.
      const { paths, ofAdapter } = this.tokenizer;
      await copyTokenizer(new Map(ofAdapter.map((name) => [name, paths.get(name)!])), folder);
      return;
    }
    const json = configJson(model.config);
    await writeModel(folder, {
      config: { ...json, ...torchDtype(json, ["F32"]) },
      tensors: tensorSources(model.gpu, model.parameters()),
      filesFrom: this.modelFolder,
    });
  }

  /** The checkpoint to end with, where it is not what was trained last. */
  async #bestCheckpoint(): Promise<string | null> {
    const best = this.#evaluation?.state.best;
    const isOlder = this.args.load_best_model_at_end && best && best.step > 0 && best.step < this.#step;
    if (!isOlder) return null;
    const path = `${this.args.output_dir}/checkpoint-${best.step}`;
    const isThere = await exists(path);
    this.hooks.note?.(
      `The best evaluation was after step ${best.step}: ` +
        (isThere ? `taking ${path}` : "it could not be saved, so the result is that of the last step"),
    );
    return isThere ? path : null;
  }

  /** @param saving the step whose checkpoint this is for: it is as good as on disk */
  async #trainerState(saving?: number): Promise<string> {
    const { args } = this;
    const best = this.#evaluation?.state.best ?? null;
    const path = `${args.output_dir}/checkpoint-${best?.step}`;
    const isSaved = best !== null && best.step > 0 && (best.step === saving || await exists(path));
    return trainerStateJson(this.#log.state.history, {
      best: best && { loss: best.loss, step: best.step, checkpoint: isSaved ? path : null },
      step: this.#step,
      epoch: this.#sampler.epoch,
      totalSteps: this.#totalSteps,
      totalEpochs: this.#totalEpochs,
      batchSize: args.per_device_train_batch_size,
      loggingSteps: this.#every.logging_steps,
      saveSteps: this.#every.save_steps,
      evalSteps: args.eval_strategy === "steps" ? this.#every.eval_steps : null,
    });
  }

  async #writeReport(): Promise<void> {
    const { args } = this;
    const report = reportHtml({
      args,
      info: this.#info,
      preview: this.data.preview,
      log: this.#log.state,
      step: this.#step,
      epoch: this.#sampler.epoch,
      skippedSteps: this.#skippedSteps,
      peakBytes: this.trainer.gpu.memory.peakBytes,
    });
    await writeFileAtomic(`${args.output_dir}/report.html`, report);
  }

  get #info(): TrainInfo {
    const { args, trainee, data, plan: { peak, hostBytes } } = this;
    const { samples, longest } = data.report;
    const sequencesPerStep = args.per_device_train_batch_size * args.gradient_accumulation_steps;
    const onHost = hostBytes > 0 ? ` and ${formatMemory(hostBytes)} of host memory` : "";
    return {
      model: args.model_name_or_path,
      context: describeContext(trainee.baseConfig, trainee.model.config, args),
      attention: describeAttention(args, trainee.model.config),
      schedule: describeSchedule(this.#schedule, args.optim),
      seed: args.seed,
      outputDir: args.output_dir,
      method: trainee.method,
      data:
        `${count(samples)} ${samples === 1 ? "sequence" : "sequences"} of up to ${
          count(longest)
        } tokens from ` +
        `${describeSources(args)} (${describeKinds(data.report)})`,
      device: this.trainer.gpu.info.description,
      memory: `${formatMemory(peak.heldBytes)} on the device at the peak (${peak.moment})${onHost}`,
      plannedBytes: peak.heldBytes,
      precision: { f32: "f32", bf16: "bf16", f16: "fp16" }[formatOf(args)],
      trainableParameters: trainee.trainableParameters,
      totalParameters: trainee.totalParameters,
      sequencesPerStep,
      tokensPerStep: sequencesPerStep * args.max_seq_length,
      totalSteps: this.#totalSteps,
      totalEpochs: this.#totalEpochs,
      startStep: this.#startStep,
    };
  }
}

function noteData({ report, preview, notes }: Dataset, args: TrainArgs, hooks: TrainHooks): void {
  const { rows, truncated, tooShort, tooLong, skippedWithoutTargets, kept, samples } = report;
  notes.forEach((line) => hooks.note?.(line));
  const note = (count: number, text: string) => {
    if (count > 0) hooks.note?.(`${count} of ${rows} rows ${text}`);
  };
  const share = (100 * report.tokensLost / report.tokensRead).toPrecision(2);
  const whole = report.texts > 0 && !args.packing ? "; packing: true learns all of a text" : "";
  note(
    truncated,
    `are longer than ${args.max_seq_length} tokens and were cut: ${count(report.tokensLost)} of ` +
      `${count(report.tokensRead)} tokens (${Number(share)} %) are not learnt${whole}`,
  );
  note(tooLong, `are longer than ${args.max_seq_length} tokens and were left out`);
  note(tooShort, `are shorter than min_length ${args.min_length} and were left out`);
  note(skippedWithoutTargets, "have nothing to train on and were left out");
  if (preview.neverEnds) {
    hooks.note?.(
      "No answer is learnt with its end, so the model may never stop writing: is the end cut off?",
    );
  }
  const drawn = report.drawn.reduce((sum, each) => sum + each, 0);
  if (drawn !== kept) hooks.note?.(`${drawn} rows were drawn from ${kept}, as train_data says`);
  if (report.drawn.length > 1) {
    const paths = sourcesOf(args).map(({ path }) => path);
    hooks.note?.(
      `Rows by file: ${report.drawn.map((each, i) => `${count(each)} of ${paths[i]}`).join(", ")}`,
    );
  }
  if (args.packing) hooks.note?.(`${drawn} rows were packed into ${samples} sequences`);
}

/** `text`, `answers`, or how many rows of each. */
function describeKinds({ drawn, texts }: Dataset["report"]): string {
  const answers = drawn.reduce((sum, each) => sum + each, 0) - texts;
  if (answers === 0) return "all of each text is learnt";
  if (texts === 0) return "the answers are learnt";
  return `${count(texts)} texts are learnt whole, of ${count(answers)} rows the answers`;
}

function chunks(samples: readonly Sample[], size: number): Sample[][] {
  return Array.from(
    { length: Math.ceil(samples.length / size) },
    (_, i) => samples.slice(i * size, (i + 1) * size),
  );
}
