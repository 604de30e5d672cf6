/** Granite 3: LLaMA with a factor of the embeddings, the scores and each block, and a divisor of the logits. IBM 2024. */
import { z } from "zod";
import { positive } from "../checked.ts";
import { LLAMA_GGUF, type LlamaConfig, llamaLike } from "../llama/family.ts";
import { uniformLayers } from "../model_config.ts";

const SHARED = {
  model_type: "granite",
  vocab_size: 49155,
  max_position_embeddings: 131072,
  rms_norm_eps: 1e-5,
  num_hidden_layers: 40,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  embedding_multiplier: 12,
  residual_multiplier: 0.22,
  tie_word_embeddings: true,
};

export const GRANITE = llamaLike({
  modelType: "granite",
  defaults: { max_position_embeddings: 2048 },
  keys: z.object({
    attention_bias: z.boolean().default(false),
    mlp_bias: z.boolean().default(false),
    // Its own default is 1 as well, not 1 / sqrt(D).
    attention_multiplier: positive.default(1),
    embedding_multiplier: positive.default(1),
    residual_multiplier: positive.default(1),
    logits_scaling: positive.default(1),
  }),
  gguf: {
    ...LLAMA_GGUF,
    architecture: "granite",
    numbers: (config: LlamaConfig) => ({
      "attention.scale": config.attention_multiplier!,
      embedding_scale: config.embedding_multiplier!,
      residual_scale: config.residual_multiplier!,
      logit_scale: config.logits_scaling!,
    }),
  },
  shapes: {
    "granite-3.1-2b": {
      ...SHARED,
      hidden_size: 2048,
      intermediate_size: 8192,
      rope_theta: 5000000,
      attention_multiplier: 0.015625,
      logits_scaling: 8,
    },
    "granite-3.1-8b": {
      ...SHARED,
      hidden_size: 4096,
      intermediate_size: 12800,
      rope_theta: 10000000,
      attention_multiplier: 0.0078125,
      logits_scaling: 16,
    },
  },
  differences: ({ attention_bias, mlp_bias, ...multipliers }, layers) => ({
    attention_bias: attention_bias ? "all" : "none",
    mlp_bias,
    qk_norm: "none",
    ...multipliers,
    layers: uniformLayers(layers, null),
  }),
});
