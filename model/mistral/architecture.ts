/** Mistral: LLaMA whose tokens may see only a window of the last ones. Jiang et al. 2023, arXiv:2310.06825. */
import { z } from "zod";
import { count } from "../checked.ts";
import { LLAMA_GGUF, llamaLike } from "../llama/family.ts";
import { uniformLayers } from "../model_config.ts";

export const MISTRAL = llamaLike({
  modelType: "mistral",
  defaults: { max_position_embeddings: 131072, num_key_value_heads: 8 },
  keys: z.object({ sliding_window: count.nullable().default(4096) }),
  gguf: LLAMA_GGUF,
  shapes: {},
  differences: ({ sliding_window }, layers) => ({
    attention_bias: "none",
    mlp_bias: false,
    qk_norm: "none",
    layers: uniformLayers(layers, sliding_window),
  }),
});
