/** Inputs of a run besides its weights: the places of all files, the model's configuration and tokenizer, the data. */
import type { ModelConfig } from "../model/model_config.ts";
import { diskFiles, type Files } from "../checkpoint/files.ts";
import { readExtraShapes } from "../checkpoint/peft.ts";
import { type Dataset, type DatasetOptions, loadDataset } from "../data/dataset.ts";
import type { RowCache } from "../data/row_cache.ts";
import { type DataSource, parseSources } from "../data/sources.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import { readConfig } from "../model/config.ts";
import { withVocabularyOf } from "../model/load/vocabulary.ts";
import { tablesOf } from "../model/tensors.ts";
import type { TrainArgs } from "../train_args/schema.ts";
import type { TrainHooks } from "./hooks.ts";

/** Paths on this machine of the files that the settings name. */
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

/** Lists the training files as the settings name them. */
export function sourcesOf(
  { train_file, train_data, train_data_weights, data_root }: TrainArgs,
): DataSource[] {
  return parseSources(train_data ?? [train_file!], { dataRoot: data_root, weights: train_data_weights });
}

/** Names the training files: `"a.jsonl", "b.jsonl"`. */
export function describeSources(args: TrainArgs): string {
  return sourcesOf(args).map(({ path }) => `"${path}"`).join(", ");
}

/** A folder of weights, and what of it is read: of a checkpoint what its manifest lists. */
export interface WeightsFolder {
  readonly path: string;
  readonly files: Files;
}

/** Sources of a run's first weights. */
export interface Start {
  /** The base model's; undefined where it is made from scratch. */
  readonly weights: WeightsFolder | undefined;
  /** The adapter's; undefined for a fresh one, and in full fine-tuning. */
  readonly adapter: WeightsFolder | undefined;
}

/**
 * Finds where a run starts from.
 * @param resumed a checkpoint, which replaces the adapter, or in full fine-tuning the model, to start from
 */
export function startOf(
  { low_rank_training, train_from_scratch }: TrainArgs,
  { model, adapter }: Places,
  resumed: WeightsFolder | undefined,
): Start {
  const onDisk = (path: string): WeightsFolder => ({ path, files: diskFiles });
  const base = train_from_scratch ? undefined : onDisk(model);
  if (!low_rank_training) return { weights: resumed ?? base, adapter: undefined };
  return { weights: base, adapter: resumed ?? (adapter === undefined ? undefined : onDisk(adapter)) };
}

/** A base model as its small files describe it. */
export interface BaseModel {
  /** Its own configuration. */
  readonly ownConfig: ModelConfig;
  /** The same with the vocabulary that it is trained with, its positions not yet settled. */
  readonly config: ModelConfig;
  /** Its tokenizer, or the adapter's: read by the first call. @throws {UserError} if it cannot be used */
  tokenizer(): Promise<Tokenizer>;
}

/**
 * Reads a base model's configuration, and its tokenizer where the vocabulary depends on it.
 *
 * @param start the adapter that the run starts from, which may bring more tokens
 * @throws {UserError} if the model, its tokenizer or the adapter cannot be read, or do not fit each other
 */
export async function readBaseModel(
  { resize_vocabulary }: TrainArgs,
  { model, adapter }: Pick<Places, "model" | "adapter">,
  start: WeightsFolder | undefined,
): Promise<BaseModel> {
  let reading: Promise<Tokenizer> | undefined;
  const tokenizer = () => reading ??= Tokenizer.load(model, adapter);
  const ownConfig = await readConfig(model);
  const tables = start && await readExtraShapes(start.path, { files: start.files });
  const config = withVocabularyOf(ownConfig, tables);
  if (!resize_vocabulary) return { ownConfig, config, tokenizer };
  const { vocabSize } = await tokenizer();
  if (vocabSize <= config.vocab_size) return { ownConfig, config, tokenizer };
  if (tablesOf(ownConfig).some((name) => tables?.has(name))) {
    throw new UserError(
      `resize_vocabulary: the tokenizer has ${vocabSize} tokens, but the adapter's embeddings ${config.vocab_size} rows. ` +
        `Merge the adapter, and resize the merged model`,
      { kind: "usage" },
    );
  }
  return { ownConfig, config: { ...config, vocab_size: vocabSize }, tokenizer };
}

/** Finds where tokenized data is kept, if it is. */
export function rowCache(
  { dataset_cache_dir: choice }: TrainArgs,
  { cacheFolder, note }: Pick<TrainHooks, "cacheFolder" | "note">,
): RowCache | undefined {
  if (typeof choice === "string") return { folder: choice, note };
  return choice && cacheFolder !== undefined ? { folder: `${cacheFolder}/datasets`, note } : undefined;
}

/** Inputs that training and held-out data are read with. */
export interface DataInputs {
  readonly places: Places;
  readonly base: BaseModel;
  readonly cache: RowCache | undefined;
}

/**
 * Reads the training data.
 * @throws {UserError} if it cannot be used, or has tokens that the model does not know
 */
export async function loadData(args: TrainArgs, { places, base, cache }: DataInputs): Promise<Dataset> {
  const options = { ...datasetOptions(args), cache, seed: args.data_seed };
  const data = await loadDataset(places.train, await base.tokenizer(), options);
  requireKnownTokens(data, base.config, `Cannot train on ${describeSources(args)}`, args);
  return data;
}

/** Reads eval_file, if evaluation is on. @throws {UserError} as {@linkcode loadData} */
export async function loadEvalData(
  args: TrainArgs,
  { places, base, cache }: DataInputs,
): Promise<Dataset | undefined> {
  if (places.eval.length === 0) return undefined;
  const options = { ...datasetOptions(args), cache, packing: false };
  const data = await loadDataset(places.eval, await base.tokenizer(), options);
  requireKnownTokens(data, base.config, `Cannot evaluate on "${args.eval_file}"`, args);
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
