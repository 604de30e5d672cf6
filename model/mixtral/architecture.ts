/** Mixtral: Mistral with experts in place of the MLP. Jiang et al. 2024, arXiv:2401.04088. */
import { z } from "zod";
import { count } from "../checked.ts";
import { EXPERT_KEYS, expertCounts, type ExpertNames, parseExperts } from "../experts_config.ts";
import { LLAMA_GGUF, llamaLike } from "../llama/family.ts";
import { uniformLayers } from "../model_config.ts";

const NAMES: ExpertNames = {
  router: "block_sparse_moe.gate",
  experts: "block_sparse_moe.experts",
  gate: "w1",
  up: "w3",
  down: "w2",
};

const SHARED = {
  model_type: "mixtral",
  vocab_size: 32000,
  num_key_value_heads: 8,
  num_local_experts: 8,
  num_experts_per_tok: 2,
  rms_norm_eps: 1e-5,
  rope_theta: 1000000,
};

const { "mlp.gate_proj": _, "mlp.up_proj": __, "mlp.down_proj": ___, ...MODULES } = LLAMA_GGUF.modules;

export const MIXTRAL = llamaLike({
  modelType: "mixtral",
  defaults: {
    max_position_embeddings: 131072,
    num_key_value_heads: 8,
    rms_norm_eps: 1e-5,
    rope_theta: 1000000,
  },
  keys: z.object({ ...EXPERT_KEYS, sliding_window: count.nullish() }),
  // llama.cpp has it as a LLaMA with experts.
  gguf: {
    ...LLAMA_GGUF,
    counts: ({ experts }) => expertCounts(experts!),
    modules: {
      ...MODULES,
      "block_sparse_moe.gate": "ffn_gate_inp",
      "block_sparse_moe.experts.w1": "ffn_gate_exps",
      "block_sparse_moe.experts.w3": "ffn_up_exps",
      "block_sparse_moe.experts.w2": "ffn_down_exps",
    },
  },
  shapes: {
    "mixtral-8x7b": {
      ...SHARED,
      hidden_size: 4096,
      intermediate_size: 14336,
      num_hidden_layers: 32,
      num_attention_heads: 32,
      max_position_embeddings: 32768,
    },
    "mixtral-8x22b": {
      ...SHARED,
      hidden_size: 6144,
      intermediate_size: 16384,
      num_hidden_layers: 56,
      num_attention_heads: 48,
      max_position_embeddings: 65536,
    },
  },
  differences: (keys, layers, path, { intermediate_size }) => ({
    attention_bias: "none",
    mlp_bias: false,
    qk_norm: "none",
    layers: uniformLayers(layers, keys.sliding_window ?? null),
    experts: {
      ...parseExperts(keys, { experts: 8, perToken: 2 }, path),
      isNormalised: true,
      intermediate_size,
      layers: Array.from({ length: layers }, () => true),
      names: NAMES,
    },
  }),
});
