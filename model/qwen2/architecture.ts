/** Qwen2: LLaMA with biases on q, k and v, some of whose layers may see only a window. arXiv:2407.10671. */
import { z } from "zod";
import { UserError } from "../../errors.ts";
import { count } from "../checked.ts";
import { LLAMA_GGUF, llamaLike } from "../llama/family.ts";
import type { LayerAttention } from "../model_config.ts";

/** The keys that say which layers have a window. */
export const WINDOW_KEYS = {
  sliding_window: count.nullable().default(4096),
  use_sliding_window: z.boolean().nullish(),
  max_window_layers: z.int().min(0).nullish(),
  layer_types: z.array(z.enum(["full_attention", "sliding_attention"])).nullish(),
} as const;

const WINDOWS = z.object(WINDOW_KEYS);

/**
 * Reads which layers have a window: where it is switched on, those that `layer_types` names, or those from
 * `max_window_layers` on.
 * @throws {UserError} if `layer_types` is not of as many layers as the model has; `path` is for messages
 */
export function windowedLayers(
  { sliding_window, use_sliding_window, max_window_layers, layer_types }: z.infer<typeof WINDOWS>,
  layers: number,
  path: string,
): LayerAttention[] {
  const isOn = use_sliding_window === true && sliding_window !== null;
  if (isOn && layer_types && layer_types.length !== layers) {
    throw new UserError(
      `Cannot use "${path}": its layer_types are of ${layer_types.length} layers, its num_hidden_layers is ${layers}`,
    );
  }
  return Array.from({ length: layers }, (_, layer) => {
    const slides = layer_types
      ? layer_types[layer] === "sliding_attention"
      : layer >= (max_window_layers ?? 28);
    return { sliding_window: isOn && slides ? sliding_window : null, rope: "model" };
  });
}

export const QWEN2 = llamaLike({
  modelType: "qwen2",
  defaults: { max_position_embeddings: 32768, num_key_value_heads: 32 },
  // attention_bias has no effect: q, k and v have biases, whatever it says.
  keys: z.object({ ...WINDOW_KEYS, attention_bias: z.boolean().nullish() }),
  gguf: { ...LLAMA_GGUF, architecture: "qwen2", interleaved: [] },
  shapes: {},
  differences: (keys, layers, path) => ({
    attention_bias: "qkv",
    mlp_bias: false,
    qk_norm: "none",
    layers: windowedLayers(keys, layers, path),
  }),
});
