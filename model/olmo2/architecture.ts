/** OLMo-2: LLaMA with norms behind the blocks in place of before them, and over all heads of q and k. arXiv:2501.00656. */
import { z } from "zod";
import { LLAMA_GGUF, llamaLike } from "../llama/family.ts";
import { uniformLayers } from "../model_config.ts";

const { input_layernorm: _, ...MODULES } = LLAMA_GGUF.modules;

export const OLMO2 = llamaLike({
  modelType: "olmo2",
  defaults: { max_position_embeddings: 2048, rms_norm_eps: 1e-5 },
  keys: z.object({ attention_bias: z.boolean().default(false) }),
  gguf: {
    architecture: "olmo2",
    modules: {
      ...MODULES,
      "self_attn.q_norm": "attn_q_norm",
      "self_attn.k_norm": "attn_k_norm",
      "post_attention_layernorm": "post_attention_norm",
      "post_feedforward_layernorm": "post_ffw_norm",
    },
    interleaved: [],
  },
  shapes: {
    "olmo2-7b": {
      model_type: "olmo2",
      vocab_size: 100352,
      max_position_embeddings: 4096,
      rms_norm_eps: 1e-6,
      rope_theta: 500000,
      hidden_size: 4096,
      intermediate_size: 11008,
      num_hidden_layers: 32,
      num_attention_heads: 32,
    },
  },
  differences: ({ attention_bias }, layers) => ({
    attention_bias: attention_bias ? "all" : "none",
    mlp_bias: false,
    qk_norm: "width",
    block_norms: "after",
    layers: uniformLayers(layers, null),
  }),
});
