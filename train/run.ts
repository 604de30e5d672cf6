/** A training run from its settings to its result: what is read and checked, in which order. */
import { UserError } from "../errors.ts";
import { lockFolder } from "../checkpoint/store.ts";
import type { Dataset } from "../data/dataset.ts";
import type { Sample } from "../data/sample.ts";
import { describePlaces, tokenizerPlaces } from "../data/tokenizer_files.ts";
import config from "../deno.json" with { type: "json" };
import { firstThenOthers, fromFirst, gather, requireSame } from "../distributed/agreement.ts";
import { ALONE, type Communicator } from "../distributed/communicator.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { openGpu } from "../kernels/open.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { configForPositions } from "../model/positions.ts";
import { fingerprintModel, otherBaseNote } from "../model/load/fingerprint.ts";
import { tableNotes } from "../model/load/model_weights.ts";
import type { TrainArgs } from "../train_args/schema.ts";
import { dataNotes, describeRun } from "./describe.ts";
import type { TrainHooks, TrainResult } from "./hooks.ts";
import { findPlaces, loadData, loadEvalData, readBaseModel, rowCache, startOf } from "./inputs.ts";
import { TrainingLoop } from "./loop.ts";
import { withAdapterSettings } from "./lora.ts";
import { trainerOptions } from "./options.ts";
import { type Plan, planTraining, requireFit } from "./plan/plan.ts";
import { planDevice } from "./plan/step_cost.ts";
import {
  findResume,
  openCheckpoint,
  refuseOwnSources,
  removeOldRun,
  removeRunLeftovers,
  type Resumed,
} from "./run_folder.ts";
import { SequenceParallel } from "./sequence_parallel.ts";
import { checkSameBase, checkSameRun, hashSamples, restoreStates } from "./saved_state.ts";
import { lengthNote, runLength } from "./schedule.ts";
import { loadTrainee } from "./trainee.ts";
import { Trainer } from "./trainer.ts";

/**
 * Trains as the settings say: loads, resumes, steps, logs, saves.
 *
 * Writes into `output_dir`: checkpoints, `trainer_state.json`, `train_args.yaml`, `train.log`, `metrics.jsonl`,
 * TensorBoard's events in `runs`, `report.html`, and at the end the adapter or model. A run that is stopped or fails leaves
 * its checkpoints whole.
 *
 * @throws {UserError} for anything the user can mend: settings, data, model, disk, divergence
 */
export async function runTraining(given: TrainArgs, givenHooks: TrainHooks = {}): Promise<TrainResult> {
  const { ranks = ALONE } = givenHooks;
  // Told before anything is loaded.
  new SequenceParallel(ranks, given.sequence_parallel_size);
  const isFirst = ranks.rank === 0;
  if (given.zero_stage === 3 && ranks.size > 1) {
    throw new UserError(
      "zero_stage 3 splits the model itself over ranks, which is not done here: each rank holds all of it. Use 1, and " +
        "load_in_4bit or a lower model_max_length where that does not fit",
      { kind: "usage" },
    );
  }
  const hooks = isFirst ? givenHooks : silent(givenHooks);
  using _lock = isFirst
    ? await lockFolder(given.output_dir, { patienceMs: ranks.size > 1 ? LAST_RANK_MS : 0 })
    : undefined;
  if (isFirst) await removeRunLeftovers(given, hooks);
  await refuseOwnSources(given, await findPlaces(given));
  const resumed = await findSameResume(given, hooks, ranks);
  const places = await findPlaces(given, hooks.locate);
  hooks.onLocated?.();
  const tell = (lines: readonly (string | undefined)[]) =>
    lines.forEach((line) => line && hooks.note?.(line));

  const start = startOf(given, places, resumed);
  const { args, notes } = places.adapter !== undefined && start.adapter
    ? await withAdapterSettings(given, start.adapter)
    : { args: given, notes: [] };
  // Before what takes long: what is wrong with the model shows by its config.json.
  const model = await readBaseModel(args, places, start.adapter);
  const tables = args.train_from_scratch ? [] : await tableNotes(places.model, model.config);
  tell([...notes, ...configForPositions(model.config, args).notes, ...tables]);
  const base = {
    name: args.model_name_or_path,
    folder: places.model,
    fingerprint: await fingerprintModel(places.model, {
      config: model.ownConfig.raw,
      weights: args.low_rank_training,
    }),
    tokenizer: await tokenizerPlaces(places.model, places.adapter),
  };
  if (resumed) checkSameBase(resumed, base.name, base.fingerprint);
  else if (places.adapter) tell([await otherBaseNote(places.adapter, places.model)]);
  if (places.adapter) tell([describePlaces(base.tokenizer, places.adapter)]);

  const reading = { places, base: model, cache: rowCache(args, hooks) };
  const data = await firstThenOthers(ranks, () => loadData(args, reading));
  tell(dataNotes(data, args));
  const evalData = await loadEvalData(args, reading);
  tell(evalData?.notes ?? []);
  const dataHash = hashSamples(data.samples);
  if (resumed) checkSameRun(resumed, args, dataHash, ranks.size);
  const length = runLength(args, data.samples.length, ranks.size);

  using gpu = await openGpu({
    ...hooks.gpuOptions,
    ...(args.max_memory === null ? {} : { memoryLimitBytes: args.max_memory }),
    onCompile: (kernels) => hooks.onCompile?.(kernels),
  });
  const plan = await planRun(gpu, args, model.config, { data, evalData, worldSize: ranks.size });
  // While the weights are read.
  const compiled = gpu.compile(plan.kernels);
  const trainee = await loadTrainee(gpu, args, model.config, start);
  await compiled;
  tell(trainee.notes);
  const trainer = new Trainer(trainee.model, { ...trainerOptions(args, plan.placement), ranks });
  if (resumed) {
    const { state } = resumed;
    const before = runLength(state.args, data.samples.length, state.worldSize);
    tell([lengthNote(before.schedule, length.schedule, state.step)]);
    trainer.state = { ...state.trainer };
    await restoreStates(resumed.path, trainer, resumed);
  }
  await requireSame(ranks, {
    ...settingsInWords(args),
    version: `${config.version} on Deno ${Deno.version.deno}`,
    "the training data": dataHash,
    "the data of eval_file": evalData ? hashSamples(evalData.samples) : "none",
    "the base model's config.json": base.fingerprint.config,
    "the tokenizer": base.fingerprint.tokenizer,
    "the base model's weights": base.fingerprint.weights ?? "none",
    "the norm of what is trained": ranks.size === 1 ? 0 : await trainer.parameterNorm(),
    "the step to go on from": resumed?.state.step ?? 0,
  });
  if (args.overwrite_output_dir && isFirst) await removeOldRun(args, places.adapter);
  const info = describeRun({
    args,
    baseConfig: model.ownConfig,
    trainee,
    report: data.report,
    plan,
    length,
    device: devicesInWords(await gather(ranks, gpu.info.description)),
    startStep: resumed?.state.step ?? 0,
  });
  const saved = resumed?.state;
  const parts = { args, hooks, ranks, info, length, data, dataHash, evalData, base, trainee, trainer, saved };
  return await new TrainingLoop(parts).train();
}

/** Milliseconds in which the last process of a job that was killed is gone: the next one may be started at once. */
const LAST_RANK_MS = 30_000;

/** Leaves of a rank's hooks what does not tell or ask the user; from its start on it may be stopped. */
function silent({ ranks, locate, cacheFolder, gpuOptions, onStart, shouldStop }: TrainHooks): TrainHooks {
  return {
    ...(ranks && { ranks }),
    ...(locate && { locate }),
    ...(gpuOptions && { gpuOptions }),
    ...(onStart && { onStart }),
    ...(shouldStop && { shouldStop }),
    cacheFolder,
  };
}

/** Finds on rank 0 the checkpoint to go on from, and opens it on all. */
async function findSameResume(
  args: TrainArgs,
  hooks: TrainHooks,
  ranks: Communicator,
): Promise<Resumed | undefined> {
  const found = ranks.rank === 0 ? await findResume(args, hooks) : undefined;
  const path = await fromFirst(ranks, found?.path ?? null);
  return found ?? (path === null ? undefined : await openCheckpoint(path));
}

/** The devices of all ranks: `4 ranks on NVIDIA H100`. */
function devicesInWords(devices: readonly string[]): string {
  const names = [...new Set(devices)].join(" and ");
  return devices.length === 1 ? names : `${devices.length} ranks on ${names}`;
}

/** Settings by name, as ranks compare them: all but where each keeps what it can make again. */
function settingsInWords({ dataset_cache_dir: _, ...args }: TrainArgs): Record<string, string> {
  return Object.fromEntries(Object.entries(args).map(([name, value]) => [name, JSON.stringify(value)]));
}

/**
 * Finds out what the run takes on the device, and what has to wait in host memory.
 * @throws {UserError} if it takes more than it may
 */
async function planRun(
  gpu: Gpu,
  args: TrainArgs,
  base: ModelConfig,
  { data, evalData, worldSize }: {
    readonly data: Dataset;
    readonly evalData: Dataset | undefined;
    readonly worldSize: number;
  },
): Promise<Plan> {
  const longest = (samples: readonly Sample[], count: number) =>
    samples.map(({ inputIds }) => inputIds.length).sort((a, b) => b - a).slice(0, count);
  const plan = await planTraining(args, base, {
    device: planDevice(gpu),
    listsKernels: true,
    worldSize,
    lengths: longest(data.samples, args.per_device_train_batch_size),
    evalLengths: longest(evalData?.samples ?? [], args.per_device_eval_batch_size),
  });
  requireFit(plan);
  gpu.memory.expectPeak(plan.peak.heldBytes);
  return plan;
}
