/** Writing of a model's configuration. */
import { architectureOf } from "./architectures.ts";
import { parseConfig } from "./config.ts";
import type { ModelConfig } from "./model_config.ts";
import { contextLength } from "./positions.ts";
import { samePositions } from "./rope_config.ts";
import { longropeMagnitude, type RopeScaling } from "./rope_scaling.ts";

/**
 * Gives the content of config.json with the positions and the vocabulary in force, positions in the form that all versions of
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
  const { theta, share: shareKey, map, countsScaled, isOriginalBeside } = architectureOf(config).positionKeys;
  const changed = {
    ...raw,
    max_position_embeddings: countsScaled ? contextLength(config) : max_position_embeddings,
    ...(isOriginalBeside && rope_scaling?.type === "longrope"
      ? encodeLongrope(rope_scaling, max_position_embeddings)
      : { rope_scaling: encodeScaling(rope_scaling) }),
  };
  if (!raw.rope_parameters) return { ...changed, [theta]: rope_theta };
  const maps = raw.rope_parameters as Record<string, unknown>;
  const { partial_rotary_factor: share } = (map === undefined ? maps : maps[map] ?? {}) as Record<
    string,
    unknown
  >;
  const { type, ...rest } = rope_scaling ?? { type: "default" };
  const shares = share === undefined ? {} : { partial_rotary_factor: share };
  const written = { rope_type: type, ...rest, rope_theta, ...shares };
  return {
    ...changed,
    [theta]: rope_theta,
    ...(share === undefined ? {} : { [shareKey]: share }),
    rope_parameters: map === undefined ? written : { ...maps, [map]: written },
  };
}

function encodeScaling(scaling: RopeScaling | null): Record<string, unknown> | null {
  if (!scaling || scaling.type === "linear" || scaling.type === "dynamic") return scaling;
  const { type, ...rest } = scaling;
  return { rope_type: type, ...rest };
}

/** In the form of transformers' Phi-3, which takes no further keys, and the factor from the two lengths. */
function encodeLongrope(
  scaling: Extract<RopeScaling, { type: "longrope" }>,
  longest: number,
): Record<string, unknown> {
  const { type, factor, original_max_position_embeddings: original, short_factor, long_factor } = scaling;
  const { attention_factor } = scaling;
  const max_position_embeddings = Math.max(longest, Math.round(factor * original));
  const isUsual = attention_factor === longropeMagnitude(max_position_embeddings / original, original);
  return {
    max_position_embeddings,
    original_max_position_embeddings: original,
    rope_scaling: { type, short_factor, long_factor, ...(isUsual ? {} : { attention_factor }) },
  };
}
