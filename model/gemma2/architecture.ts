/** Gemma 2: soft caps on scores and logits, and a window in every other layer. arXiv:2408.00118. */
import { z } from "zod";
import { type Architecture, POSITION_KEYS } from "../architecture.ts";
import { count, positive } from "../checked.ts";
import {
  GEMMA_GGUF_MODULES,
  GEMMA_KEYS,
  type GemmaConfig,
  gemmaConfig,
  gemmaGgufProblem,
  gemmaKeys,
  gemmaLayer,
  gemmaLayers,
  gemmaLayout,
} from "../gemma/family.ts";
import { parseRope } from "../rope_config.ts";

/** Layers from one with full attention to the next. */
const PATTERN = 2;

const SCHEMA = z.object({
  ...GEMMA_KEYS.shape,
  vocab_size: count.default(256000),
  max_position_embeddings: count.default(8192),
  attn_logit_softcapping: positive.nullable().default(50),
  final_logit_softcapping: positive.nullable().default(30),
});

function parseGemma2(raw: Readonly<Record<string, unknown>>, path: string): GemmaConfig {
  const { keys, notes } = gemmaKeys<z.infer<typeof SCHEMA>>(SCHEMA, raw, path);
  const { head_dim, max_position_embeddings } = keys;
  const config = gemmaConfig({
    keys,
    vocab_size: keys.vocab_size,
    max_position_embeddings,
    rope: parseRope(keys, { head_dim, max_position_embeddings, share: 1 }, path),
    qk_norm: false,
    layers: gemmaLayers({ ...keys, pattern: PATTERN, rope: "model" }, keys.num_hidden_layers, path),
    notes,
    raw,
  }, path);
  return {
    ...config,
    attn_logit_softcapping: keys.attn_logit_softcapping ?? undefined,
    final_logit_softcapping: keys.final_logit_softcapping ?? undefined,
  };
}

export const GEMMA2: Architecture<GemmaConfig> = {
  modelTypes: ["gemma2"],
  positionKeys: POSITION_KEYS,
  gguf: {
    architecture: "gemma2",
    modules: GEMMA_GGUF_MODULES,
    interleaved: [],
    hasWindows: true,
    numbers: ({ attn_logit_softcapping, final_logit_softcapping }) => ({
      attn_logit_softcapping: attn_logit_softcapping!,
      final_logit_softcapping: final_logit_softcapping!,
    }),
    problem: (config) =>
      config.attn_logit_softcapping && config.final_logit_softcapping
        ? gemmaGgufProblem(config, PATTERN)
        : "the model has no soft cap on its scores or logits, there it has both",
  },
  shapes: {
    "gemma2-2b": {
      model_type: "gemma2",
      vocab_size: 256000,
      hidden_size: 2304,
      intermediate_size: 9216,
      num_hidden_layers: 26,
      num_attention_heads: 8,
      num_key_value_heads: 4,
      head_dim: 256,
      max_position_embeddings: 8192,
      query_pre_attn_scalar: 256,
      sliding_window: 4096,
    },
  },
  parseConfig: parseGemma2,
  layout: gemmaLayout,
  makeLayer: gemmaLayer,
};
