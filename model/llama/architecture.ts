/** LLaMA: Touvron et al. 2023, arXiv:2302.13971. */
import { z } from "zod";
import { uniformLayers } from "../model_config.ts";
import { LLAMA_GGUF, llamaLike } from "./family.ts";

const LLAMA2 = {
  model_type: "llama",
  vocab_size: 32000,
  max_position_embeddings: 4096,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
};
const LLAMA3 = {
  model_type: "llama",
  vocab_size: 128256,
  max_position_embeddings: 8192,
  rms_norm_eps: 1e-5,
  rope_theta: 500000,
  num_key_value_heads: 8,
};

export const LLAMA = llamaLike({
  modelType: "llama",
  defaults: { max_position_embeddings: 2048 },
  keys: z.object({ attention_bias: z.boolean().default(false), mlp_bias: z.boolean().default(false) }),
  gguf: LLAMA_GGUF,
  shapes: {
    "llama2-7b": {
      ...LLAMA2,
      hidden_size: 4096,
      intermediate_size: 11008,
      num_hidden_layers: 32,
      num_attention_heads: 32,
    },
    "llama2-13b": {
      ...LLAMA2,
      hidden_size: 5120,
      intermediate_size: 13824,
      num_hidden_layers: 40,
      num_attention_heads: 40,
    },
    "llama2-70b": {
      ...LLAMA2,
      hidden_size: 8192,
      intermediate_size: 28672,
      num_hidden_layers: 80,
      num_attention_heads: 64,
      num_key_value_heads: 8,
    },
    "llama3-8b": {
      ...LLAMA3,
      hidden_size: 4096,
      intermediate_size: 14336,
      num_hidden_layers: 32,
      num_attention_heads: 32,
    },
    "llama3-70b": {
      ...LLAMA3,
      hidden_size: 8192,
      intermediate_size: 28672,
      num_hidden_layers: 80,
      num_attention_heads: 64,
    },
  },
  differences: ({ attention_bias, mlp_bias }, layers) => ({
    attention_bias: attention_bias ? "all" : "none",
    mlp_bias,
    qk_norm: "none",
    layers: uniformLayers(layers, null),
  }),
});
