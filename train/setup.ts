import { type Adapter, type AdapterConfig, readAdapter, readExtraShapes } from "../checkpoint/peft.ts";
import { diskFiles } from "../checkpoint/files.ts";
import type { WeightReader } from "../checkpoint/weights.ts";
import { type Dataset, type DatasetOptions, loadDataset } from "../data/dataset.ts";
import type { RowCache } from "../data/row_cache.ts";
import { type DataSource, parseSources } from "../data/sources.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import { EXIT, UserError } from "../errors.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { Format } from "../kernels/wgsl.ts";
import { applyAdapter } from "../model/lora.ts";
import { readConfig } from "../model/config.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { configForPositions } from "../model/positions.ts";
import { freshWeights } from "../model/load/fresh.ts";
import { loadModel } from "../model/load/load.ts";
import type { LanguageModel } from "../model/language_model.ts";
import { openModelWeights } from "../model/load/model_weights.ts";
import { countParameters, layoutOf, tablesOf } from "../model/tensors.ts";
import { adaptBase, grownWeights, withVocabularyOf } from "../model/load/vocabulary.ts";
import { groupSize, stateBits, type TrainArgs } from "../train_args/schema.ts";
import type { TrainHooks } from "./hooks.ts";
import { addFreshLora, trainedNames } from "./lora.ts";
import type { Resumed } from "./run_folder.ts";
import type { SettledOptions } from "./trainer.ts";

/** A model ready to be trained. */
export interface Trainee {
  /** The base model's configuration, before its positions were extended. */
  readonly baseConfig: ModelConfig;
  readonly model: LanguageModel;
  /** What the adapter's folder says of it; undefined in full fine-tuning. */
  readonly adapter: AdapterConfig | undefined;
  /** What an adapter that the run starts from replaces in the base model. */
  readonly replacements: Adapter["extra"];
  /** What the user should know about the adapter that the run starts from. */
  readonly notes: readonly string[];
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

/** Finds, or fetches, the model and the data; without `locate` names are paths. @throws {UserError} if that fails */
export async function findPlaces(args: TrainArgs, locate?: TrainHooks["locate"]): Promise<Places> {
  const find = async (place: string, kind: "model" | "dataset") => await locate?.(place, kind) ?? place;
  const findAll = (sources: readonly DataSource[]) =>
    Array.fromAsync(sources, async (source) => ({ ...source, path: await find(source.path, "dataset") }));
  const { adapter_name_or_path: adapter, eval_file, eval_strategy, data_root } = args;
  return {
    model: await find(args.model_name_or_path, "model"),
    adapter: adapter === null ? undefined : await find(adapter, "model"),
    train: await findAll(sourcesOf(args)),
    eval: eval_strategy === "no" ? [] : await findAll(parseSources([eval_file!], { dataRoot: data_root })),
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
function attentionRule(args: TrainArgs): SettledOptions["attention"] {
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
): SettledOptions {
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
 * @param config the model's, as {@linkcode grownConfig} has it
 * @throws {UserError} if it cannot be used, or has tokens that the model does not know
 */
export async function loadData(
  args: TrainArgs,
  places: Places,
  config: ModelConfig,
  cache?: RowCache,
): Promise<Dataset> {
  const tokenizer = await Tokenizer.load(places.model, places.adapter);
  const data = await loadDataset(places.train, tokenizer, {
    ...datasetOptions(args),
    cache,
    seed: args.data_seed,
  });
  requireKnownTokens(data, config, `Cannot train on ${describeSources(args)}`, args);
  return data;
}

function datasetOptions(args: TrainArgs): DatasetOptions {
  return {
    maxSeqLength: args.max_seq_length,
    minLength: args.min_length,
    overlong: args.overlong,
    packing: args.packing,
    crossDocumentAttention: args.cross_document_attention,
    sft: args.sft,
    chatTemplate: args.chat_template,
    seed: args.seed,
  };
}

function requireKnownTokens(
  { samples }: Dataset,
  { vocab_size }: ModelConfig,
  action: string,
  { model_name_or_path }: TrainArgs,
): void {
  for (const { inputIds } of samples) {
    const unknown = inputIds.find((id) => id >= vocab_size);
    if (unknown === undefined) continue;
    throw new UserError(
      `${action}: it has token id ${unknown}, but the model has ${vocab_size} tokens. ` +
        `Either the tokenizer in "${model_name_or_path}" is not this model's: copy the one it was trained with. ` +
        `Or it has new tokens: set resize_vocabulary: true`,
    );
  }
}

/** The training files as the settings name them. */
export function sourcesOf(
  { train_file, train_data, train_data_weights, data_root }: TrainArgs,
): DataSource[] {
  return parseSources(train_data ?? [train_file!], { dataRoot: data_root, weights: train_data_weights });
}

/** The training files, in words. */
export function describeSources(args: TrainArgs): string {
  return sourcesOf(args).map(({ path }) => `"${path}"`).join(", ");
}

/** Where an adapter is. */
export type AdapterPlace = Pick<Resumed, "path" | "files">;

/** The adapter that a run starts from: a checkpoint's when resuming. */
export function startAdapter(
  args: TrainArgs,
  { adapter }: Places,
  resumed: AdapterPlace | undefined,
): AdapterPlace | undefined {
  if (!args.low_rank_training) return undefined;
  return resumed ?? (adapter === undefined ? undefined : { path: adapter, files: diskFiles });
}

/**
 * The model's configuration, its positions not yet settled, with the vocabulary that it is trained with.
 * @param start the adapter that the run starts from, which may bring more tokens
 * @throws {UserError} if the model, its tokenizer or the adapter cannot be read, or do not fit each other
 */
export async function grownConfig(
  args: TrainArgs,
  { model, adapter }: Pick<Places, "model" | "adapter">,
  start: AdapterPlace | undefined,
): Promise<ModelConfig> {
  const base = await readConfig(model);
  const tables = start && await readExtraShapes(start.path, { files: start.files });
  const config = withVocabularyOf(base, tables);
  if (!args.resize_vocabulary) return config;
  const { vocabSize } = await Tokenizer.load(model, adapter);
  if (vocabSize <= config.vocab_size) return config;
  if (tablesOf(base).some((name) => tables?.has(name))) {
    throw new UserError(
      `resize_vocabulary: the tokenizer has ${vocabSize} tokens, but the adapter's embeddings ${config.vocab_size} rows. ` +
        `Merge the adapter, and resize the merged model`,
      { exitCode: EXIT.usage },
    );
  }
  return { ...config, vocab_size: vocabSize };
}

/** Reads eval_file, if evaluation is on. @throws {UserError} as {@linkcode loadData} */
export async function loadEvalData(
  args: TrainArgs,
  places: Places,
  config: ModelConfig,
  cache?: RowCache,
): Promise<Dataset | undefined> {
  if (places.eval.length === 0) return undefined;
  const data = await loadDataset(places.eval, await Tokenizer.load(places.model, places.adapter), {
    ...datasetOptions(args),
    cache,
    packing: false,
  });
  requireKnownTokens(data, config, `Cannot evaluate on "${args.eval_file}"`, args);
  return data;
}

/**
 * Loads the base model and puts on it what is trained.
 * @param base as {@linkcode grownConfig} has it
 * @param resumed a checkpoint, which replaces the adapter, or in full fine-tuning the model, to start from
 */
export async function loadTrainee(
  gpu: Gpu,
  args: TrainArgs,
  places: Places,
  base: ModelConfig,
  resumed: Pick<Resumed, "path" | "files"> | undefined,
): Promise<Trainee> {
  const place = startAdapter(args, places, resumed);
  const start = adaptBase(
    configForPositions(base, args),
    place && await readAdapter(place.path, { files: place.files }),
  );
  const { config } = start;
  const isTrained = trainedNames(config, args);
  const stored = await openBase(base, args, places.model, args.low_rank_training ? undefined : resumed);
  const weights = grownWeights(stored, config, base);
  let model: LanguageModel;
  try {
    model = await loadModel(gpu, weights, {
      config,
      format: formatOf(args),
      loadIn4bit: args.load_in_4bit,
      doubleQuant: args.double_quant,
      isTrained,
      ...(start.adapter ? { replacements: start.adapter.extra } : {}),
    });
  } finally {
    weights.close();
  }
  if (start.adapter) applyAdapter(model, start.adapter, { isTrained: true });
  const adapter = start.adapter?.config ?? (args.low_rank_training ? addFreshLora(model, args) : undefined);
  const replacements: Adapter["extra"] = start.adapter?.extra ?? new Map();
  return {
    baseConfig: await readConfig(places.model),
    model,
    adapter,
    replacements,
    notes: [...start.notes, ...keptNotes([...replacements.keys()].filter((name) => !isTrained(name)))],
    method: describeMethod(model, adapter),
    ...countTrained(model, config),
  };
}

/** What is said where weights that an adapter trained whole are not trained on. */
function keptNotes(names: readonly string[]): string[] {
  if (names.length === 0) return [];
  const some = names.slice(0, 3).join(", ") + (names.length > 3 ? ", ..." : "");
  return [
    `The adapter's own ${some} stay as they are: name them in modules_to_save to train them on`,
  ];
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
