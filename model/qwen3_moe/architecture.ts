/** Qwen3-MoE: Qwen3 with experts in place of the MLP of some layers or all. Yang et al. 2025, arXiv:2505.09388. */
import { z } from "zod";
import { count } from "../checked.ts";
import { EXPERT_KEYS, expertCounts, type ExpertNames, parseExperts } from "../experts_config.ts";
import { llamaLike } from "../llama/family.ts";
import { uniformLayers } from "../model_config.ts";
import { QWEN3_GGUF } from "../qwen3/architecture.ts";

const NAMES: ExpertNames = {
  router: "mlp.gate",
  experts: "mlp.experts",
  gate: "gate_proj",
  up: "up_proj",
  down: "down_proj",
};

const SHARED = {
  model_type: "qwen3_moe",
  vocab_size: 151936,
  max_position_embeddings: 40960,
  rope_theta: 1000000,
  head_dim: 128,
  num_key_value_heads: 4,
  num_experts: 128,
  num_experts_per_tok: 8,
  norm_topk_prob: true,
};

export const QWEN3_MOE = llamaLike({
  modelType: "qwen3_moe",
  defaults: { max_position_embeddings: 32768, num_key_value_heads: 4 },
  keys: z.object({
    ...EXPERT_KEYS,
    attention_bias: z.boolean().default(false),
    moe_intermediate_size: count.default(768),
    norm_topk_prob: z.boolean().default(false),
    decoder_sparse_step: count.default(1),
    mlp_only_layers: z.array(z.int().min(0)).nullish(),
    // max_window_layers has no effect: all layers have the window, or none.
    sliding_window: count.nullable().default(4096),
    use_sliding_window: z.boolean().nullish(),
    max_window_layers: z.int().min(0).nullish(),
  }),
  gguf: {
    ...QWEN3_GGUF,
    architecture: "qwen3moe",
    counts: ({ experts }) => ({
      ...expertCounts(experts!),
      expert_feed_forward_length: experts!.intermediate_size,
    }),
    modules: {
      ...QWEN3_GGUF.modules,
      "mlp.gate": "ffn_gate_inp",
      "mlp.experts.gate_proj": "ffn_gate_exps",
      "mlp.experts.up_proj": "ffn_up_exps",
      "mlp.experts.down_proj": "ffn_down_exps",
    },
    problem: ({ experts }) => {
      if (!experts!.isNormalised) {
        return "llama.cpp divides the weights of a token's experts by their sum, which this model does not (norm_topk_prob)";
      }
      if (experts!.layers.every(Boolean)) return undefined;
      return "llama.cpp has experts in every layer of this architecture, this model has layers without (mlp_only_layers, " +
        "decoder_sparse_step)";
    },
  },
  shapes: {
    "qwen3-30b-a3b": {
      ...SHARED,
      hidden_size: 2048,
      intermediate_size: 6144,
      moe_intermediate_size: 768,
      num_hidden_layers: 48,
      num_attention_heads: 32,
    },
    "qwen3-235b-a22b": {
      ...SHARED,
      hidden_size: 4096,
      intermediate_size: 12288,
      moe_intermediate_size: 1536,
      num_hidden_layers: 94,
      num_attention_heads: 64,
    },
  },
  differences: (keys, layers, path) => ({
    attention_bias: keys.attention_bias ? "all" : "none",
    mlp_bias: false,
    qk_norm: "head",
    layers: uniformLayers(layers, keys.use_sliding_window ? keys.sliding_window : null),
    experts: {
      ...parseExperts(keys, { experts: 128, perToken: 8 }, path),
      isNormalised: keys.norm_topk_prob,
      intermediate_size: keys.moe_intermediate_size,
      layers: Array.from(
        { length: layers },
        (_, layer) => (layer + 1) % keys.decoder_sparse_step === 0 && !keys.mlp_only_layers?.includes(layer),
      ),
      names: NAMES,
    },
  }),
});
