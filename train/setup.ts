import { type Adapter, type AdapterConfig, adapterConfig, readAdapter } from "../checkpoint/peft.ts";
import type { WeightReader } from "../checkpoint/weights.ts";
import { type Dataset, loadDataset } from "../data/dataset.ts";
import type { RowCache } from "../data/row_cache.ts";
import { type DataSource, parseSources } from "../data/sources.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { Format } from "../kernels/wgsl.ts";
import { addLora, applyAdapter } from "../model/adapter.ts";
import { type ModelConfig, readConfig } from "../model/config.ts";
import { configForPositions } from "../model/context.ts";
import { freshWeights } from "../model/fresh.ts";
import { loadModel } from "../model/load.ts";
import type { LanguageModel } from "../model/language_model.ts";
import { openModelWeights } from "../model/model_weights.ts";
import { checkpointTensors, countParameters, layoutOf } from "../model/tensors.ts";
import { grownWeights, withVocabularyOf } from "../model/vocabulary.ts";
import { groupSize, stateBits, type TrainArgs } from "../train_args/schema.ts";
import type { TrainHooks } from "./hooks.ts";
import type { Resumed } from "./run_folder.ts";
import type { TrainerOptions } from "./trainer.ts";

/** A model ready to be trained. */
export interface Trainee {
  /** The base model's configuration, before its positions were extended. */
  readonly baseConfig: ModelConfig;
  readonly model: LanguageModel;
  /** What the adapter's folder says of it; undefined in full fine-tuning. */
  readonly adapter: AdapterConfig | undefined;
  /** What an adapter that the run starts from replaces in the base model. */
  readonly replacements: Adapter["extra"];
  readonly method: string;
  readonly trainableParameters: number;
  readonly totalParameters: number;
}

/** Where on this machine is what the settings name. */
export interface Places {
  readonly model: string;
  readonly adapter: string | undefined;
  readonly train: readonly DataSource[];
  readonly eval: readonly DataSource[];
}

/** Finds, or fetches, the model and the data. @throws {UserError} if that fails */
export async function findPlaces(args: TrainArgs, locate: TrainHooks["locate"]): Promise<Places> {
  const find = async (place: string, kind: "model" | "dataset") => await locate?.(place, kind) ?? place;
  const findAll = (sources: readonly DataSource[]) =>
    Array.fromAsync(sources, async (source) => ({ ...source, path: await find(source.path, "dataset") }));
  const { adapter_name_or_path: adapter, eval_file, eval_strategy, data_root } = args;
  return {
    model: await find(args.model_name_or_path, "model"),
    adapter: adapter === null ? undefined : await find(adapter, "model"),
    train: await findAll(sourcesOf(args)),
    eval: eval_strategy === "no" ? [] : await findAll(parseSources([eval_file!], { data_root })),
  };
}

/** How activations are stored under the settings. */
export function formatOf({ bf16, fp16 }: Pick<TrainArgs, "bf16" | "fp16">): Format {
  return bf16 ? "bf16" : fp16 ? "f16" : "f32";
}

/** Where a run keeps what the device may have no room for: `auto`, resolved. */
export interface Placement {
  /** Layers' inputs between forward and backward pass: on the host. */
  readonly offloadActivations: boolean;
  /** The optimiser's states: on the host, if its name says `paged`. */
  readonly pageStates: boolean;
}

/** Who sees whom in training, by the longest sequence of a batch. */
function attentionRule(args: TrainArgs): TrainerOptions["attention"] {
  if (args.attention === "full") return () => ({});
  const { group_shift: shift, sft_group_size } = args;
  if (sft_group_size === null) {
    const rule = { groupSize: groupSize(args, args.max_seq_length), shift };
    return () => rule;
  }
  return ({ starts, rows }) => {
    const longest = starts.reduce((most, start, i) => Math.max(most, (starts[i + 1] ?? rows) - start), 0);
    return { groupSize: longest % 4096 === 0 ? longest / 4 : sft_group_size, shift };
  };
}

/**
 * What the trainer needs of the settings.
 * @param placement on the device, as far as the settings leave it open, unless given
 */
export function trainerOptions(
  args: TrainArgs,
  placement: Placement = { offloadActivations: args.offload_activations === true, pageStates: false },
): TrainerOptions {
  return {
    maxGradNorm: args.max_grad_norm,
    attention: attentionRule(args),
    checkpointing: args.gradient_checkpointing,
    offloadActivations: placement.offloadActivations,
    states: { bits: stateBits(args.optim), paged: placement.pageStates && args.optim.startsWith("paged") },
    lossScaling: args.fp16,
    seed: args.seed,
    noiseAlpha: args.neftune_noise_alpha ?? undefined,
    beta1: args.adam_beta1,
    beta2: args.adam_beta2,
    epsilon: args.adam_epsilon,
    weightDecay: args.weight_decay,
  };
}

/** Where tokenized data is kept, if it is. */
export function rowCache(
  { dataset_cache_dir: choice }: TrainArgs,
  { cacheFolder, note }: Pick<TrainHooks, "cacheFolder" | "note">,
): RowCache | undefined {
  if (typeof choice === "string") return { folder: choice, note };
  return choice && cacheFolder !== undefined ? { folder: `${cacheFolder}/datasets`, note } : undefined;
}

/**
 * Reads the training data.
 * @throws {UserError} if it cannot be used, or has tokens that the model does not know
 */
export async function loadData(args: TrainArgs, places: Places, cache?: RowCache): Promise<Dataset> {
  // First, since it takes no time: what is wrong with the model shows before hours of tokenizing.
  const config = await loadConfig(args, places);
  const tokenizer = await Tokenizer.load(places.model, places.adapter);
  const data = await loadDataset(places.train, tokenizer, { ...args, cache, seed: args.data_seed });
  for (const { inputIds } of data.samples) {
    const unknown = inputIds.find((id) => id >= config.vocab_size);
    if (unknown === undefined) continue;
    throw new UserError(
      `Cannot train on ${
        describeSources(args)
      }: it has token id ${unknown}, but the model has ${config.vocab_size} tokens. ` +
        `The tokenizer in "${args.model_name_or_path}" is not this model's: copy the one it was trained with`,
    );
  }
  return data;
}

function sourcesOf({ train_file, train_data, train_data_weights, data_root }: TrainArgs): DataSource[] {
  return parseSources(train_data ?? [train_file!], { data_root, weights: train_data_weights });
}

/** The training files, in words. */
export function describeSources(args: TrainArgs): string {
  return sourcesOf(args).map(({ path }) => `"${path}"`).join(", ");
}

/** The model's configuration with its positions for the length to train for, and its vocabulary. */
async function loadConfig(args: TrainArgs, { model, adapter }: Places): Promise<ModelConfig> {
  const config = configForPositions(await readConfig(model), args);
  if (!args.resize_vocabulary) return config;
  const { vocabSize } = await Tokenizer.load(model, adapter);
  return { ...config, vocab_size: Math.max(config.vocab_size, vocabSize) };
}

/** Reads eval_file, if evaluation is on. @throws {UserError} as {@linkcode loadData} */
export async function loadEvalData(
  args: TrainArgs,
  places: Places,
  cache?: RowCache,
): Promise<Dataset | undefined> {
  if (places.eval.length === 0) return undefined;
  return await loadDataset(places.eval, await Tokenizer.load(places.model, places.adapter), {
    ...args,
    cache,
    packing: false,
  });
}

/**
 * Loads the base model and puts on it what is trained.
 * @param resumed a checkpoint, which replaces the adapter, or in full fine-tuning the model, to start from
 */
export async function loadTrainee(
  gpu: Gpu,
  args: TrainArgs,
  places: Places,
  resumed: Pick<Resumed, "path" | "files"> | undefined,
): Promise<Trainee> {
  const adapterFolder = args.low_rank_training ? resumed?.path ?? places.adapter : undefined;
  const start = adapterFolder === undefined
    ? undefined
    : await readAdapter(adapterFolder, resumed && { files: resumed.files });
  const config = withVocabularyOf(await loadConfig(args, places), start?.extra);
  const isTrained = trainedNames(config, args);
  const base = await openBase(config, args, places.model, args.low_rank_training ? undefined : resumed);
  const weights = grownWeights(base, config);
  let model: LanguageModel;
  try {
    model = await loadModel(gpu, weights, {
      config,
      format: formatOf(args),
      loadIn4bit: args.load_in_4bit,
      doubleQuant: args.double_quant,
      isTrained,
      ...(start ? { replacements: start.extra } : {}),
    });
  } finally {
    weights.close();
  }
  if (start) applyAdapter(model, start, { isTrained: true, dropout: args.lora_dropout });
  else if (args.low_rank_training) addFreshLora(model, args);
  const adapter = args.low_rank_training ? start?.config ?? freshConfig(model, args) : undefined;
  return {
    baseConfig: await readConfig(places.model),
    model,
    adapter,
    replacements: start?.extra ?? new Map(),
    method: describeMethod(model, adapter),
    ...countTrained(model, config),
  };
}

/**
 * Which tensors of the checkpoint are trained whole.
 * @throws {UserError} if `trainable_params` has a part that is in no name
 */
export function trainedNames(config: ModelConfig, args: TrainArgs): (name: string) => boolean {
  if (!args.low_rank_training) return () => true;
  const parts = [...args.trainable_params ?? []];
  const { embeddings, head } = layoutOf(config);
  if (args.train_embedding) parts.push(embeddings, head);
  if (args.train_norm) parts.push("norm");
  const names = [...checkpointTensors(config).keys()];
  for (const part of args.trainable_params ?? []) {
    if (names.some((name) => name.includes(part))) continue;
    throw new UserError(`trainable_params: no weight of the model has "${part}" in its name`, {
      exitCode: 2,
    });
  }
  return (name) => parts.some((part) => name.includes(part));
}

async function openBase(
  config: ModelConfig,
  args: TrainArgs,
  model: string,
  resumed: Pick<Resumed, "path" | "files"> | undefined,
): Promise<WeightReader> {
  if (resumed) return await openModelWeights(resumed.path, config, { files: resumed.files });
  if (args.train_from_scratch) return freshWeights(config, args.seed);
  return await openModelWeights(model, config);
}

/** Puts the LoRA factors that the settings ask for on a model. */
export function addFreshLora(model: LanguageModel, args: TrainArgs): void {
  addLora(model, {
    rank: args.lora_rank,
    alpha: args.lora_alpha,
    dropout: args.lora_dropout,
    rslora: args.use_rslora,
    targetModules: args.target_modules,
    seed: args.seed,
  });
}

function freshConfig(model: LanguageModel, args: TrainArgs): AdapterConfig {
  const targets = model.linears().filter(({ lora }) => lora).map(({ name }) => name.split(".").at(-1)!);
  return adapterConfig({
    base_model_name_or_path: args.model_name_or_path,
    task_type: "CAUSAL_LM",
    r: args.lora_rank,
    lora_alpha: args.lora_alpha,
    lora_dropout: args.lora_dropout,
    use_rslora: args.use_rslora,
    target_modules: [...new Set(targets)].sort(),
    inference_mode: true,
  });
}

function describeMethod(model: LanguageModel, adapter: AdapterConfig | undefined): string {
  if (!adapter) return "all weights";
  const linears = model.linears().filter(({ lora }) => lora).length;
  const { embeddings, head } = layoutOf(model.config);
  const groups: Record<string, string> = { [embeddings]: "embeddings", [head]: "head", norm: "norms" };
  const extras = Object.entries(groups).filter(([part]) =>
    model.parameters().some(({ name }) => !name.includes(".lora_") && name.includes(part))
  );
  return [`LoRA rank ${adapter.r} on ${linears} linears`, ...extras.map(([, word]) => word)].join(", ");
}

function countTrained(model: LanguageModel, config: ModelConfig) {
  const lora = model.linears().reduce((sum, { lora: pair }) => {
    return sum + (pair ? pair.rank * (pair.A.width + pair.B.rows) : 0);
  }, 0);
  const whole = model.parameters().filter(({ name }) => !name.includes(".lora_"));
  return {
    trainableParameters: lora + whole.reduce((sum, { value }) => sum + value.size, 0),
    totalParameters: lora + countParameters(config),
  };
}
