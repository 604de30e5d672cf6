/** Qwen3: Qwen2 with norms on the heads of q and k in place of biases. Yang et al. 2025, arXiv:2505.09388. */
import { z } from "zod";
import type { GgufForm } from "../architecture.ts";
import { LLAMA_GGUF, llamaLike } from "../llama/family.ts";
import { WINDOW_KEYS, windowedLayers } from "../qwen2/architecture.ts";

const SHARED = {
  model_type: "qwen3",
  vocab_size: 151936,
  max_position_embeddings: 40960,
  rope_theta: 1000000,
  head_dim: 128,
  num_key_value_heads: 8,
};

/** Qwen3's form in llama.cpp. */
export const QWEN3_GGUF: GgufForm = {
  architecture: "qwen3",
  modules: {
    ...LLAMA_GGUF.modules,
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
  },
  interleaved: [],
};

export const QWEN3 = llamaLike({
  modelType: "qwen3",
  defaults: { max_position_embeddings: 32768, num_key_value_heads: 32, head_dim: 128 },
  keys: z.object({ ...WINDOW_KEYS, attention_bias: z.boolean().default(false) }),
  gguf: QWEN3_GGUF,
  shapes: {
    "qwen3-4b": {
      ...SHARED,
      tie_word_embeddings: true,
      hidden_size: 2560,
      intermediate_size: 9728,
      num_hidden_layers: 36,
      num_attention_heads: 32,
    },
    "qwen3-8b": {
      ...SHARED,
      hidden_size: 4096,
      intermediate_size: 12288,
      num_hidden_layers: 36,
      num_attention_heads: 32,
    },
  },
  differences: (keys, layers, path) => ({
    attention_bias: keys.attention_bias ? "all" : "none",
    mlp_bias: false,
    qk_norm: "head",
    layers: windowedLayers(keys, layers, path),
  }),
});
