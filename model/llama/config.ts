/** The files of a LLaMA model: its `config.json`, and the names of its tensors. */
import { quote } from "../../text.ts";
import { z } from "zod";
import { UserError } from "../../errors.ts";
import { checkUnreadKeys } from "../config_keys.ts";
import { parseRope, ROPE_KEYS } from "../rope_config.ts";
import { checked, count, positive, problemOfShape, type SharedConfig } from "../shared_config.ts";
import type { Layout, LinearSpec } from "../tensors.ts";

/** The architectures that are LLaMA's layers with a difference each: see {@linkcode LlamaConfig}. */
export const LLAMA_LIKE = ["llama", "mistral", "qwen2"] as const;

/**
 * A LLaMA model's shape: the keys of its `config.json`, checked, with Hugging Face's defaults filled in. Mistral may see
 * only a window of the last tokens; Qwen2 has biases on q, k and v, and may have such a window too.
 */
export interface LlamaConfig extends SharedConfig {
  /** Which of them. */
  readonly model_type: "llama" | "mistral" | "qwen2";
  /** Epsilon of the norms. */
  readonly rms_norm_eps: number;
  /** Which of the attention's linears have a bias. */
  readonly attention_bias: "none" | "qkv" | "all";
  /** Whether the linears of the MLP have a bias. */
  readonly mlp_bias: boolean;
}

const SCHEMA = z.object({
  model_type: z.enum(LLAMA_LIKE),
  vocab_size: count,
  hidden_size: count,
  intermediate_size: count,
  num_hidden_layers: count,
  num_attention_heads: count,
  num_key_value_heads: count.nullish(),
  head_dim: count.nullish(),
  max_position_embeddings: z.int().min(1).nullish(),
  rms_norm_eps: positive.default(1e-6),
  ...ROPE_KEYS,
  hidden_act: z.string().default("silu"),
  tie_word_embeddings: z.boolean().nullish(),
});

/** The keys that only some of the architectures read, with their schemas. */
const OWN = {
  llama: z.object({ attention_bias: z.boolean().default(false), mlp_bias: z.boolean().default(false) }),
  mistral: z.object({ sliding_window: count.nullish() }),
  qwen2: z.object({
    // Not read: its biases are there whatever this says.
    attention_bias: z.boolean().nullish(),
    sliding_window: count.nullish(),
    use_sliding_window: z.boolean().nullish(),
    max_window_layers: z.int().min(0).nullish(),
    layer_types: z.array(z.enum(["full_attention", "sliding_attention"])).nullish(),
  }),
} as const;

/** What Hugging Face's classes take for a key that is not there. `null` means something else: no grouping, no window. */
const DEFAULTS = {
  llama: { max_position_embeddings: 2048, num_key_value_heads: undefined, sliding_window: undefined },
  mistral: { max_position_embeddings: 131072, num_key_value_heads: 8, sliding_window: 4096 },
  qwen2: { max_position_embeddings: 32768, num_key_value_heads: 32, sliding_window: 4096 },
} as const;

/** Checks a `config.json` whose `model_type` is one of {@linkcode LLAMA_LIKE}; `path` is for messages. */
export function parseLlamaConfig(raw: Readonly<Record<string, unknown>>, path: string): LlamaConfig {
  const c = checked(SCHEMA, raw, `"${path}"`);
  const { model_type } = c;
  const keys = new Set([...Object.keys(SCHEMA.shape), ...Object.keys(OWN[model_type].shape)]);
  const notes = checkUnreadKeys(raw, keys, path);
  const defaults = DEFAULTS[model_type];
  const heads = c.num_attention_heads;
  const head_dim = c.head_dim ?? c.hidden_size / heads;
  const max_position_embeddings = c.max_position_embeddings ?? defaults.max_position_embeddings;
  const rope = parseRope(c, { head_dim, max_position_embeddings, share: 1 }, path);
  const kvHeads = c.num_key_value_heads === undefined ? defaults.num_key_value_heads : c.num_key_value_heads;
  const biases = model_type === "llama" ? checked(OWN.llama, raw, `"${path}"`) : undefined;
  const config: LlamaConfig = {
    model_type,
    vocab_size: c.vocab_size,
    hidden_size: c.hidden_size,
    intermediate_size: c.intermediate_size,
    num_hidden_layers: c.num_hidden_layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads ?? heads,
    head_dim,
    rotary_dim: rope.rotary_dim,
    max_position_embeddings,
    rms_norm_eps: c.rms_norm_eps,
    rope_theta: rope.rope_theta,
    rope_scaling: rope.rope_scaling,
    tie_word_embeddings: c.tie_word_embeddings ?? false,
    attention_bias: model_type === "qwen2" ? "qkv" : biases?.attention_bias ? "all" : "none",
    mlp_bias: biases?.mlp_bias ?? false,
    sliding_window: windowOf(c, raw, path),
    notes: [...notes, ...rope.notes],
    raw,
  };
  const problem = problemOfLlama(config, c.hidden_act) ?? problemOfShape(config);
  if (problem) throw new UserError(`Cannot use "${path}": ${problem}`);
  return config;
}

function problemOfLlama({ rotary_dim, head_dim }: LlamaConfig, hidden_act: string): string | undefined {
  // PyTorch has one function under both names.
  if (hidden_act !== "silu" && hidden_act !== "swish") {
    return `hidden_act is ${quote(hidden_act)}, LLaMA has "silu"`;
  }
  if (rotary_dim === Math.floor(head_dim)) return undefined;
  return `partial_rotary_factor turns ${rotary_dim} of a head's ${head_dim} elements; LLaMA, Mistral and Qwen2 turn all`;
}

/** LLaMA has no window. Qwen2's is in the layers from `max_window_layers` on, if it is switched on. */
function windowOf(
  { model_type, num_hidden_layers }: Pick<z.infer<typeof SCHEMA>, "model_type" | "num_hidden_layers">,
  raw: Readonly<Record<string, unknown>>,
  path: string,
): number | null {
  if (model_type === "llama") return null;
  const windowFrom = (given: number | null | undefined) =>
    given === undefined ? DEFAULTS[model_type].sliding_window : given;
  if (model_type === "mistral") return windowFrom(checked(OWN.mistral, raw, `"${path}"`).sliding_window);
  const c = checked(OWN.qwen2, raw, `"${path}"`);
  const window = windowFrom(c.sliding_window);
  if (!c.use_sliding_window || window === null) return null;
  const types = c.layer_types ?? Array.from(
    { length: num_hidden_layers },
    (_, layer) => layer >= (c.max_window_layers ?? 28) ? "sliding_attention" : "full_attention",
  );
  const sliding = types.filter((type) => type === "sliding_attention").length;
  if (sliding === 0) return null;
  if (sliding === types.length && sliding === num_hidden_layers) return window;
  const first = types.indexOf("sliding_attention");
  const where = types.length !== num_hidden_layers
    ? `is told for ${types.length} of ${num_hidden_layers} layers`
    : types.includes("full_attention", first)
    ? `is in ${sliding} of ${num_hidden_layers} layers`
    : `is in the layers from ${first} on only`;
  throw new UserError(
    `Cannot use "${path}": its sliding window ${where}, and every layer must have the same here. Set ` +
      `use_sliding_window: false in it if your sequences are no longer than ${window}`,
  );
}

/** The linears of a layer, in the order of the checkpoint. */
export const LLAMA_LINEARS = [
  "q_proj",
  "k_proj",
  "v_proj",
  "o_proj",
  "gate_proj",
  "up_proj",
  "down_proj",
] as const;

/** Where a LLaMA checkpoint has what. */
export function llamaLayout(config: LlamaConfig): Layout {
  const { hidden_size: hidden, intermediate_size: ffn, head_dim, attention_bias } = config;
  const queries = config.num_attention_heads * head_dim;
  const keys = config.num_key_value_heads * head_dim;
  const attention = (name: string, shape: readonly [number, number]): LinearSpec => ({
    name: `self_attn.${name}`,
    part: "attention",
    shape,
    hasBias: attention_bias === "all" || (attention_bias === "qkv" && name !== "o_proj"),
    isRecomputed: true,
  });
  const mlp = (name: string, shape: readonly [number, number]): LinearSpec => ({
    name: `mlp.${name}`,
    part: "mlp",
    shape,
    hasBias: config.mlp_bias,
    isRecomputed: name !== "down_proj",
  });
  const linears: Record<typeof LLAMA_LINEARS[number], LinearSpec> = {
    q_proj: attention("q_proj", [queries, hidden]),
    k_proj: attention("k_proj", [keys, hidden]),
    v_proj: attention("v_proj", [keys, hidden]),
    o_proj: attention("o_proj", [hidden, queries]),
    gate_proj: mlp("gate_proj", [ffn, hidden]),
    up_proj: mlp("up_proj", [ffn, hidden]),
    down_proj: mlp("down_proj", [hidden, ffn]),
  };
  return {
    embeddings: "model.embed_tokens",
    layers: "model.layers",
    linears: Object.values(linears),
    norm: "model.norm",
    normHasBias: false,
    head: "lm_head",
  };
}
