/** SmolLM3: LLaMA without rotation in every fourth layer, a tied head unless said otherwise. Hugging Face 2025. */
import { z } from "zod";
import { UserError } from "../../errors.ts";
import { count } from "../checked.ts";
import { LLAMA_GGUF, llamaLike } from "../llama/family.ts";
import type { LayerAttention, ModelConfig } from "../model_config.ts";

const KEYS = z.object({
  attention_bias: z.boolean().default(false),
  mlp_bias: z.boolean().default(false),
  /** By layer: 1 where it does rotate. */
  no_rope_layers: z.array(z.union([z.literal([0, 1]), z.boolean()])).nullish(),
  no_rope_layer_interval: count.default(4),
  sliding_window: count.nullish(),
  use_sliding_window: z.boolean().nullish(),
  /** Without effect where no layer has a window. */
  max_window_layers: z.int().nullish(),
});

/**
 * Reads which layers rotate: those that `no_rope_layers` has as 1, or all but every `no_rope_layer_interval`-th.
 * @throws {UserError} if the list is not of as many layers as the model has, or layers have windows; `path` is for messages
 */
function layersOf(
  { no_rope_layers: rotates, no_rope_layer_interval: interval, ...keys }: z.infer<typeof KEYS>,
  layers: number,
  path: string,
): LayerAttention[] {
  if (rotates && rotates.length !== layers) {
    throw new UserError(
      `Cannot use "${path}": its no_rope_layers are of ${rotates.length} layers, its num_hidden_layers is ${layers}`,
    );
  }
  if (keys.use_sliding_window && keys.sliding_window) {
    throw new UserError(
      `Cannot use "${path}": its use_sliding_window is true, with a sliding_window of ${keys.sliding_window}; a model ` +
        `of model_type "smollm3" sees everything here`,
    );
  }
  return Array.from({ length: layers }, (_, layer) => ({
    sliding_window: null,
    rope: (rotates ? rotates[layer] : (layer + 1) % interval !== 0) ? "model" : null,
  }));
}

/** llama.cpp leaves out the rotation of every fourth layer, whatever the file says. */
function problemOfGguf({ layers }: ModelConfig): string | undefined {
  const other = layers.findIndex(({ rope }, layer) => (rope === null) !== ((layer + 1) % 4 === 0));
  if (other < 0) return undefined;
  const does = layers[other]!.rope ? "rotates" : "does not rotate";
  return `layer ${other} of the model ${does}, and llama.cpp rotates all but every fourth layer`;
}

export const SMOLLM3 = llamaLike({
  modelType: "smollm3",
  defaults: {
    max_position_embeddings: 32768,
    num_key_value_heads: 4,
    rope_theta: 2000000,
    tie_word_embeddings: true,
  },
  keys: KEYS,
  gguf: { ...LLAMA_GGUF, architecture: "smollm3", problem: problemOfGguf },
  shapes: {
    "smollm3-3b": {
      model_type: "smollm3",
      vocab_size: 128256,
      max_position_embeddings: 65536,
      rms_norm_eps: 1e-6,
      rope_theta: 5000000,
      hidden_size: 2048,
      intermediate_size: 11008,
      num_hidden_layers: 36,
      num_attention_heads: 16,
      num_key_value_heads: 4,
    },
  },
  differences: (keys, layers, path) => ({
    attention_bias: keys.attention_bias ? "all" : "none",
    mlp_bias: keys.mlp_bias,
    qk_norm: "none",
    layers: layersOf(keys, layers, path),
  }),
});
