/** The files of a LLaMA model: its `config.json`, and the names of its tensors. */
import { z } from "zod";
import { UserError } from "../errors.ts";
import { parseRopeScaling } from "./rope_scaling.ts";
import { checked, count, positive, problemOfShape, type SharedConfig } from "./shared_config.ts";
import type { Layout, LinearSpec } from "./tensors.ts";

/** The architectures that are LLaMA's layers with a difference each: see {@linkcode LlamaConfig}. */
export const LLAMA_LIKE = ["llama", "mistral", "qwen2"] as const;

/**
 * A LLaMA model's shape: the keys of its `config.json`, checked, with Hugging Face's defaults filled in. Mistral may see
 * only a window of the last tokens; Qwen2 has biases on q, k and v, and may have such a window too.
 */
export interface LlamaConfig extends SharedConfig {
  readonly model_type: typeof LLAMA_LIKE[number];
  readonly rms_norm_eps: number;
  /** Which of the attention's linears have a bias. */
  readonly attention_bias: "none" | "qkv" | "all";
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
  max_position_embeddings: z.int().min(1).default(2048),
  rms_norm_eps: positive.default(1e-6),
  rope_theta: positive.nullish(),
  rope_scaling: z.record(z.string(), z.unknown()).nullish(),
  rope_parameters: z.looseObject({ rope_theta: positive.nullish() }).nullish(),
  hidden_act: z.string().default("silu"),
  tie_word_embeddings: z.boolean().default(false),
  attention_bias: z.boolean().default(false),
  mlp_bias: z.boolean().default(false),
  sliding_window: count.nullish(),
  use_sliding_window: z.boolean().nullish(),
  max_window_layers: z.int().min(0).nullish(),
});

/** Checks a `config.json` whose `model_type` is one of {@linkcode LLAMA_LIKE}; `path` is for messages. */
export function parseLlamaConfig(raw: Readonly<Record<string, unknown>>, path: string): LlamaConfig {
  const { hidden_act, rope_parameters, ...c } = checked(SCHEMA, raw, `"${path}"`);
  const heads = c.num_attention_heads;
  const head_dim = c.head_dim ?? c.hidden_size / heads;
  const config: LlamaConfig = {
    model_type: c.model_type,
    vocab_size: c.vocab_size,
    hidden_size: c.hidden_size,
    intermediate_size: c.intermediate_size,
    num_hidden_layers: c.num_hidden_layers,
    num_attention_heads: heads,
    num_key_value_heads: c.num_key_value_heads ?? heads,
    head_dim,
    rotary_dim: head_dim,
    max_position_embeddings: c.max_position_embeddings,
    rms_norm_eps: c.rms_norm_eps,
    rope_theta: rope_parameters?.rope_theta ?? c.rope_theta ?? 10000,
    rope_scaling: parseRopeScaling(
      c.rope_scaling ?? rope_parameters ?? null,
      c.max_position_embeddings,
      path,
    ),
    tie_word_embeddings: c.tie_word_embeddings,
    attention_bias: c.model_type === "qwen2" ? "qkv" : c.attention_bias ? "all" : "none",
    mlp_bias: c.mlp_bias,
    sliding_window: windowOf(c, path),
    raw,
  };
  const problem = hidden_act === "silu"
    ? problemOfShape(config)
    : `hidden_act is "${hidden_act}", LLaMA has "silu"`;
  if (problem) throw new UserError(`Cannot use "${path}": ${problem}`);
  return config;
}

/** LLaMA has no window. Qwen2's is in the layers from `max_window_layers` on, if it is switched on. */
function windowOf(
  c: Pick<
    z.infer<typeof SCHEMA>,
    "model_type" | "sliding_window" | "use_sliding_window" | "max_window_layers" | "num_hidden_layers"
  >,
  path: string,
): number | null {
  if (c.model_type === "mistral") return c.sliding_window ?? null;
  const first = c.max_window_layers ?? 0;
  if (c.model_type !== "qwen2" || !c.use_sliding_window || first >= c.num_hidden_layers) return null;
  if (first === 0) return c.sliding_window ?? null;
  throw new UserError(
    `Cannot use "${path}": its sliding window is in the layers from ${first} on only, and every layer must have the ` +
      `same here. Set use_sliding_window: false in it if your sequences are no longer than ${c.sliding_window}`,
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
