/** Which positions a model gets: its own, those of the context it is extended to, or those an adapter was trained with. */
import { parse } from "yaml";
import { exists } from "../checkpoint/files.ts";
import { FILE_LIMITS, readWholeText } from "../data/file_bytes.ts";
import { UserError } from "../errors.ts";
import { architectureOf } from "./architectures.ts";
import { contextLength, extendContext, parseConfig } from "./config.ts";
import type { ModelConfig } from "./model_config.ts";
import { samePositions } from "./rope_config.ts";
import { parseRopeScaling, type RopeScaling, scaledLength } from "./rope_scaling.ts";

/** What decides a model's positions, as train_args.yaml has it. */
export interface PositionSettings {
  /** Tokens the model is extended to. */
  readonly model_max_length: number;
  readonly rope_theta?: number | null;
  readonly rope_scaling?: Readonly<Record<string, unknown>> | null;
}

/** What training says of an adapter, as far as running or merging it depends on it. */
export interface TrainedSettings extends PositionSettings {
  /** Whether the base was in 4 bits. */
  readonly load_in_4bit: boolean;
}

/**
 * The configuration for `model_max_length` tokens. Without `rope_theta` and `rope_scaling` positions are interpolated
 * ({@linkcode extendContext}); either of them takes the place of interpolation.
 *
 * @param remedy what the user can do where interpolation cannot extend the model; that of training unless given
 * @throws {UserError} if `rope_scaling` is not one that is known, or interpolation cannot extend the model
 */
export function configForPositions(
  config: ModelConfig,
  settings: PositionSettings,
  remedy?: string,
): ModelConfig {
  const { model_max_length, rope_theta, rope_scaling } = settings;
  if (!rope_theta && !rope_scaling) return extendContext(config, model_max_length, remedy);
  const { max_position_embeddings } = config;
  const given = rope_scaling
    ? parseRopeScaling(rope_scaling, { ...config, ...originalOf(config) }, "rope_scaling")
    : { rope_scaling: config.rope_scaling, notes: [] };
  const own = scaledLength(given.rope_scaling, config);
  const notes = rope_scaling && own !== undefined && own < model_max_length
    ? [
      `rope_scaling ${
        describe(given.rope_scaling)
      } is for ${own} tokens, fewer than the ${model_max_length} wanted`,
    ]
    : [];
  const inMap = typeof rope_scaling?.rope_theta === "number" ? rope_scaling.rope_theta : undefined;
  if (rope_theta && inMap && rope_theta !== inMap) {
    notes.push(`rope_theta is ${rope_theta}, and ${inMap} within rope_scaling: ${rope_theta} counts`);
  }
  const changed = {
    ...config,
    rope_theta: rope_theta ?? inMap ?? config.rope_theta,
    rope_scaling: given.rope_scaling,
    notes: [...config.notes, ...given.notes, ...notes],
  };
  // Linear and dynamic scaling count from the length before the extension, the others already name it.
  const countsFromBase = changed.rope_scaling?.type === "linear" || changed.rope_scaling?.type === "dynamic";
  return countsFromBase
    ? changed
    : { ...changed, max_position_embeddings: Math.max(max_position_embeddings, model_max_length) };
}

/** The tokens that a model was trained on before its own scaling, where that says it. */
function originalOf(
  { rope_scaling }: ModelConfig,
): { readonly original_max_position_embeddings?: number } {
  if (!rope_scaling || !("original_max_position_embeddings" in rope_scaling)) return {};
  return { original_max_position_embeddings: rope_scaling.original_max_position_embeddings };
}

/**
 * The settings an adapter was trained with, from the `train_args.yaml` that training writes beside it, or beside the
 * checkpoint's folder; undefined where there is none, as with adapters from elsewhere.
 *
 * @throws {UserError} if the file is there but cannot be read
 */
export async function readTrainedSettings(adapter: string): Promise<TrainedSettings | undefined> {
  const path = await settingsFileOf(adapter);
  return path === undefined
    ? undefined
    : parseSettings(await readWholeText(path, FILE_LIMITS.settings), path);
}

/** The `train_args.yaml` that a folder belongs to: its own, or of a run's checkpoint the run's; undefined without one. */
export async function settingsFileOf(folder: string): Promise<string | undefined> {
  const isCheckpoint = /(^|[/\\])checkpoint-\d+[/\\]*$/.test(folder);
  for (const place of isCheckpoint ? [folder, `${folder}/..`] : [folder]) {
    if (await exists(`${place}/train_args.yaml`)) return `${place}/train_args.yaml`;
  }
  return undefined;
}

function parseSettings(text: string, path: string): TrainedSettings | undefined {
  let args: Partial<Record<keyof TrainedSettings | "max_seq_length", unknown>> | null;
  try {
    args = parse(text, { maxAliasCount: 0 });
  } catch (cause) {
    throw new UserError(`Cannot read "${path}": ${(cause as Error).message.split("\n")[0]}`, { cause });
  }
  const length = args?.model_max_length ?? args?.max_seq_length;
  if (length === undefined || length === null) return undefined;
  if (!(typeof length === "number" && Number.isInteger(length) && length > 0)) {
    throw new UserError(
      `Cannot use "${path}": model_max_length must be a whole number above 0, got ${length}`,
    );
  }
  const { rope_theta, rope_scaling } = args ?? {};
  return {
    model_max_length: length,
    rope_theta: typeof rope_theta === "number" ? rope_theta : null,
    rope_scaling: typeof rope_scaling === "object"
      ? rope_scaling as PositionSettings["rope_scaling"] & object | null
      : null,
    load_in_4bit: args?.load_in_4bit === true,
  };
}

/** A model's configuration with its positions settled, and what the user should know about them. */
export interface SettledContext {
  readonly config: ModelConfig;
  /** What the adapter's own training says; undefined where it says nothing. */
  readonly trained: TrainedSettings | undefined;
  /** One line each. */
  readonly notes: readonly string[];
}

/**
 * Settles the positions of a base model, with or without an adapter.
 *
 * @param options.contextSize tokens asked for; the adapter's own unless given
 * @param options.otherwise tokens where neither says anything; the model's own context if undefined
 * @throws {UserError} if the context cannot be extended so far
 */
export async function settleContext(
  base: ModelConfig,
  { peftModel, contextSize, otherwise }: {
    readonly peftModel?: string | null | undefined;
    readonly contextSize?: number | null | undefined;
    readonly otherwise?: number | undefined;
  },
): Promise<SettledContext> {
  const trained = peftModel ? await readTrainedSettings(peftModel) : undefined;
  const own = contextLength(base);
  const wanted = contextSize ?? trained?.model_max_length ?? otherwise ?? own;
  const remedy = `Pass --context_size ${own} to keep the positions as they are, also for longer texts`;
  const config = configForPositions(base, { ...trained, model_max_length: wanted }, remedy);
  const notes: string[] = [...config.notes];
  if (trained) {
    const asTrained = configForPositions(base, trained, remedy);
    if (!samePositions(asTrained, config)) {
      notes.push(
        `The adapter was trained for ${trained.model_max_length} tokens (${
          describePositions(asTrained)
        }), but a context ` +
          `of ${wanted} gives it ${
            describePositions(config)
          }: pass --context_size ${trained.model_max_length}`,
      );
    }
  }
  if (base.rope_scaling?.type === "linear" && wanted !== own && !trained) {
    notes.push(
      wanted < own
        ? `The model is scaled for ${own} tokens by its own config.json (${
          describePositions(base)
        }): this stays so ` +
          `with a context of ${wanted}`
        : `The model's own ${describePositions(base)} (${own} tokens) is replaced by ${
          describePositions(config)
        } for a context of ${wanted}`,
    );
  }
  return { config, trained, notes };
}

/**
 * The content of config.json with the positions and the vocabulary in force, positions in the form that all versions of
 * `transformers` and llama.cpp read (`rope_theta` and `rope_scaling`), and in the form of transformers 5 where the file
 * has that. Linear and dynamic scaling have the two keys of the older form.
 */
export function configJson(config: ModelConfig): Record<string, unknown> {
  const { rope_theta, rope_scaling, max_position_embeddings, vocab_size } = config;
  const { tie_word_embeddings } = config;
  const isTied = parseConfig({ ...config.raw, vocab_size }, "config.json").tie_word_embeddings;
  const raw: Record<string, unknown> = {
    ...config.raw,
    vocab_size,
    ...(tie_word_embeddings === isTied ? {} : { tie_word_embeddings }),
  };
  const own = parseConfig(raw, "config.json");
  if (samePositions(own, config) && own.max_position_embeddings === max_position_embeddings) {
    return raw;
  }
  // What it says is in rope_scaling now.
  delete raw.original_max_position_embeddings;
  const { theta, share: shareKey } = architectureOf(config).positionKeys;
  const changed = { ...raw, max_position_embeddings, rope_scaling: encodeScaling(rope_scaling) };
  if (!raw.rope_parameters) return { ...changed, [theta]: rope_theta };
  const { partial_rotary_factor: share } = raw.rope_parameters as Record<string, unknown>;
  const { type, ...rest } = rope_scaling ?? { type: "default" };
  const shares = share === undefined ? {} : { partial_rotary_factor: share };
  return {
    ...changed,
    [theta]: rope_theta,
    ...(share === undefined ? {} : { [shareKey]: share }),
    rope_parameters: { rope_type: type, ...rest, rope_theta, ...shares },
  };
}

function encodeScaling(scaling: RopeScaling | null): Record<string, unknown> | null {
  if (!scaling || scaling.type === "linear" || scaling.type === "dynamic") return scaling;
  const { type, ...rest } = scaling;
  return { rope_type: type, ...rest };
}

/** `rope_scaling linear by 4`, for messages. */
function describePositions({ rope_scaling }: { readonly rope_scaling: RopeScaling | null }): string {
  return rope_scaling ? `rope_scaling ${describe(rope_scaling)}` : "no rope_scaling";
}

function describe(scaling: RopeScaling | null): string {
  return `${scaling?.type} by ${scaling?.factor}`;
}
