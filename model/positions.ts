/** Positions of a model: its own, or those of the context that it is extended to. */
import { UserError } from "../errors.ts";
import type { ModelConfig } from "./model_config.ts";
import { parseRopeScaling, type RopeScaling, scaledLength } from "./rope_scaling.ts";

/**
 * Counts the tokens a model was made to see, position scaling included. YaRN's cards say the factor and leave
 * `max_position_embeddings` at the length before the extension; other files have the length after it.
 */
export function contextLength({ max_position_embeddings, rope_scaling }: ModelConfig): number {
  return Math.max(max_position_embeddings, scaledLength(rope_scaling, { max_position_embeddings }) ?? 0);
}

/**
 * Gives the configuration for sequences of `length` tokens: linear position interpolation by
 * ceil(length / max_position_embeddings), as LongLoRA does, where the model's own context is shorter.
 * A scaling that is already there is replaced by one for the whole extension, never stacked on.
 *
 * @param remedy what the user can do where that is not possible; that of training unless given
 * @throws {UserError} if the model has a scaling of another kind, which linear interpolation cannot extend
 * @see Chen et al. 2023, arXiv:2306.15595 (position interpolation)
 */
export function extendContext(
  config: ModelConfig,
  length: number,
  remedy = "Set rope_scaling or rope_theta",
): ModelConfig {
  const own = contextLength(config);
  if (length <= own) return config;
  const { rope_scaling, max_position_embeddings } = config;
  if (rope_scaling && rope_scaling.type !== "linear") {
    if (rope_scaling.type === "dynamic") return config;
    throw new UserError(
      `Cannot extend the context to ${length} tokens: the model has ${own} with rope_scaling of type ` +
        `"${rope_scaling.type}", which linear interpolation cannot extend. ${remedy}`,
      { kind: "usage" },
    );
  }
  return { ...config, rope_scaling: { type: "linear", factor: Math.ceil(length / max_position_embeddings) } };
}

/** Settings of a model's positions, as train_args.yaml has them. */
export interface PositionSettings {
  /** Tokens the model is extended to. */
  readonly model_max_length: number;
  readonly rope_theta?: number | null;
  readonly rope_scaling?: Readonly<Record<string, unknown>> | null;
}

/**
 * Gives the configuration for `model_max_length` tokens. Without `rope_theta` and `rope_scaling` positions are interpolated
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

/** Reads the tokens that a model was trained on before its own scaling, where that says it. */
function originalOf(
  { rope_scaling }: ModelConfig,
): { readonly original_max_position_embeddings?: number } {
  if (!rope_scaling || !("original_max_position_embeddings" in rope_scaling)) return {};
  return { original_max_position_embeddings: rope_scaling.original_max_position_embeddings };
}

/** `rope_scaling linear by 4`, for messages. */
export function describePositions({ rope_scaling }: { readonly rope_scaling: RopeScaling | null }): string {
  return rope_scaling ? `rope_scaling ${describe(rope_scaling)}` : "no rope_scaling";
}

function describe(scaling: RopeScaling | null): string {
  return `${scaling?.type} by ${scaling?.factor}`;
}
