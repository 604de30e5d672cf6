/** Gemma's layers, and how Gemma 2 and Gemma 3 differ in them. Gemma Team 2024, arXiv:2408.00118; 2025, arXiv:2503.19786. */
import { z } from "zod";
import { UserError } from "../../errors.ts";
import { quote } from "../../text.ts";
import { attentionShape, SelfAttention } from "../attention.ts";
import { checked, count, layerCount, positive } from "../checked.ts";
import { checkUnreadKeys } from "../config_keys.ts";
import { DecoderLayer } from "../decoder_layer.ts";
import type { LayerModules } from "../layer_modules.ts";
import type { Layout, LinearSpec, NormSpec } from "../layout.ts";
import { gegluMlp } from "../mlp.ts";
import { type LayerAttention, type ModelConfig, problemOfShape } from "../model_config.ts";
import { separateProjections } from "../projections.ts";
import { type ParsedRope, ROPE_KEYS } from "../rope_config.ts";

/** A model's shape: the keys of its `config.json`, checked, with Hugging Face's defaults filled in. */
export interface GemmaConfig extends ModelConfig {
  /** Epsilon of the norms. */
  readonly rms_norm_eps: number;
  /** Scores are divided by its square root. */
  readonly query_pre_attn_scalar: number;
  /** Whether q, k, v and o have a bias. */
  readonly attention_bias: boolean;
  /** Whether each head of q and k is normed before it rotates. */
  readonly qk_norm: boolean;
}

const LAYER_TYPE = z.enum(["full_attention", "sliding_attention"]);

/** The keys that both have. Hugging Face's classes have the same values for those that are not there. */
export const GEMMA_KEYS = z.object({
  model_type: z.string(),
  hidden_size: count.default(2304),
  intermediate_size: count.default(9216),
  num_hidden_layers: layerCount.default(26),
  num_attention_heads: count.default(8),
  num_key_value_heads: count.default(4),
  head_dim: count.default(256),
  rms_norm_eps: positive.default(1e-6),
  query_pre_attn_scalar: positive.default(256),
  attention_bias: z.boolean().default(false),
  sliding_window: count.default(4096),
  layer_types: z.array(LAYER_TYPE).nullish(),
  hidden_activation: z.string().nullish(),
  // Without effect: hidden_activation takes its place.
  hidden_act: z.string().nullish(),
  tie_word_embeddings: z.boolean().default(true),
  ...ROPE_KEYS,
});

/** What {@linkcode parseGemma} gets of one of the two. */
export interface GemmaParts {
  readonly keys: z.infer<typeof GEMMA_KEYS>;
  readonly vocab_size: number;
  /** Tokens that the positions are made for, before any scaling. */
  readonly max_position_embeddings: number;
  readonly rope: ParsedRope;
  readonly qk_norm: boolean;
  readonly layers: readonly LayerAttention[];
  readonly notes: readonly string[];
  readonly raw: Readonly<Record<string, unknown>>;
}

/** Puts the configuration together. @throws {UserError} naming a value that is not supported; `path` is for messages */
export function gemmaConfig(parts: GemmaParts, path: string): GemmaConfig {
  const { keys, rope } = parts;
  const config: GemmaConfig = {
    model_type: keys.model_type,
    vocab_size: parts.vocab_size,
    hidden_size: keys.hidden_size,
    intermediate_size: keys.intermediate_size,
    num_hidden_layers: keys.num_hidden_layers,
    num_attention_heads: keys.num_attention_heads,
    num_key_value_heads: keys.num_key_value_heads,
    head_dim: keys.head_dim,
    rotary_dim: rope.rotary_dim,
    max_position_embeddings: parts.max_position_embeddings,
    rms_norm_eps: keys.rms_norm_eps,
    rope_theta: rope.rope_theta,
    rope_scaling: rope.rope_scaling,
    query_pre_attn_scalar: keys.query_pre_attn_scalar,
    attention_multiplier: keys.query_pre_attn_scalar ** -0.5,
    embedding_multiplier: Math.sqrt(keys.hidden_size),
    is_embedding_multiplier_rounded: true,
    attention_bias: keys.attention_bias,
    qk_norm: parts.qk_norm,
    tie_word_embeddings: keys.tie_word_embeddings,
    layers: parts.layers,
    notes: [...parts.notes, ...rope.notes],
    raw: parts.raw,
  };
  const problem = problemOfGemma(config, keys.hidden_activation) ?? problemOfShape(config);
  if (problem) throw new UserError(`Cannot use "${path}": ${problem}`);
  return config;
}

function problemOfGemma(
  { model_type, rotary_dim, head_dim }: GemmaConfig,
  activation: string | null | undefined,
): string | undefined {
  if (activation !== "gelu_pytorch_tanh" && activation !== null && activation !== undefined) {
    return `hidden_activation is ${
      quote(activation)
    }; model_type "${model_type}" has "gelu_pytorch_tanh" here`;
  }
  if (rotary_dim === head_dim) return undefined;
  return `partial_rotary_factor rotates ${rotary_dim} of a head's ${head_dim} elements; model_type "${model_type}" ` +
    `rotates all`;
}

/** What the kinds of layers are told apart by. */
export interface GemmaKinds {
  readonly layer_types?: readonly z.infer<typeof LAYER_TYPE>[] | null | undefined;
  readonly sliding_window: number;
  /** Without `layer_types` layer i has full attention where this divides i + 1. */
  readonly pattern: number;
  /** Rotation of layers with a window. */
  readonly rope: LayerAttention["rope"];
}

/** Reads which layers have a window. @throws {UserError} if `layer_types` are not of as many layers as the model has */
export function gemmaLayers(kinds: GemmaKinds, layers: number, path: string): LayerAttention[] {
  const { layer_types: types, sliding_window, pattern, rope } = kinds;
  if (types && types.length !== layers) {
    throw new UserError(
      `Cannot use "${path}": its layer_types are of ${types.length} layers, its num_hidden_layers is ${layers}`,
    );
  }
  return Array.from({ length: layers }, (_, i): LayerAttention => {
    const slides = types ? types[i] === "sliding_attention" : (i + 1) % pattern !== 0;
    return slides ? { sliding_window, rope } : { sliding_window: null, rope: "model" };
  });
}

/** Parses `raw` by the schema of one of the two. @returns the keys, and notes on those that none reads */
export function gemmaKeys<T>(
  schema: z.ZodObject & z.ZodType<T>,
  raw: Readonly<Record<string, unknown>>,
  path: string,
): { keys: T; notes: string[] } {
  const keys = checked<T>(schema, raw, `"${path}"`);
  return { keys, notes: checkUnreadKeys(raw, new Set(Object.keys(schema.shape)), path) };
}

/** Puts together h = x + norm(attention(norm(x))); out = h + norm(mlp(norm(h))). */
export function gemmaLayer(modules: LayerModules, config: GemmaConfig): DecoderLayer {
  const attention = (name: string) => modules.linear(`self_attn.${name}`);
  const mlp = (name: string) => modules.linear(`mlp.${name}`);
  return new DecoderLayer(modules, {
    attention: new SelfAttention({
      norm: modules.norm("input_layernorm"),
      projections: separateProjections({
        linears: { q: attention("q_proj"), k: attention("k_proj"), v: attention("v_proj") },
        ...(config.qk_norm && {
          norms: { q: modules.norm("self_attn.q_norm"), k: modules.norm("self_attn.k_norm") },
        }),
      }),
      output: attention("o_proj"),
      outputNorm: modules.norm("post_attention_layernorm"),
      shape: attentionShape(config),
      scale: config.attention_multiplier,
      cap: config.attn_logit_softcapping,
    }),
    mlpNorm: modules.norm("pre_feedforward_layernorm"),
    mlp: gegluMlp({ gate: mlp("gate_proj"), up: mlp("up_proj"), down: mlp("down_proj") }),
    mlpOutputNorm: modules.norm("post_feedforward_layernorm"),
    isParallel: false,
  });
}

/** Names and shapes of its tensors. Norms multiply by 1 + w. */
export function gemmaLayout(config: GemmaConfig): Layout {
  const { hidden_size: hidden, intermediate_size: ffn, head_dim, attention_bias, rms_norm_eps: eps } = config;
  const queries = config.num_attention_heads * head_dim;
  const keys = config.num_key_value_heads * head_dim;
  const norm = (name: string, width = hidden): NormSpec => ({
    kind: "norm",
    name,
    width,
    eps,
    hasBias: false,
    offset: 1,
  });
  const attention = (name: string, shape: readonly [number, number], isNormed = false): LinearSpec => ({
    kind: "linear",
    name: `self_attn.${name}`,
    part: "attention",
    shape,
    group: name === "o_proj" ? undefined : "self_attn.qkv",
    hasBias: attention_bias,
    isRecomputed: true,
    isNormed,
  });
  const mlp = (name: string, shape: readonly [number, number], isNormed = false): LinearSpec => ({
    kind: "linear",
    name: `mlp.${name}`,
    part: "mlp",
    shape,
    group: name === "down_proj" ? undefined : "mlp.gate_up",
    hasBias: false,
    isRecomputed: name !== "down_proj",
    isNormed,
  });
  return {
    embeddings: "model.embed_tokens",
    layers: "model.layers",
    modules: [
      norm("input_layernorm"),
      attention("q_proj", [queries, hidden], config.qk_norm),
      attention("k_proj", [keys, hidden], config.qk_norm),
      attention("v_proj", [keys, hidden]),
      attention("o_proj", [hidden, queries], true),
      ...(config.qk_norm ? [norm("self_attn.q_norm", head_dim), norm("self_attn.k_norm", head_dim)] : []),
      norm("post_attention_layernorm"),
      norm("pre_feedforward_layernorm"),
      mlp("gate_proj", [ffn, hidden]),
      mlp("up_proj", [ffn, hidden]),
      mlp("down_proj", [hidden, ffn], true),
      norm("post_feedforward_layernorm"),
    ],
    norm: norm("model.norm"),
    head: "lm_head",
  };
}

/** llama.cpp's names of the modules that both have. */
export const GEMMA_GGUF_MODULES: Readonly<Record<string, string>> = {
  "input_layernorm": "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "post_attention_layernorm": "post_attention_norm",
  "pre_feedforward_layernorm": "ffn_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
  "post_feedforward_layernorm": "post_ffw_norm",
};

/**
 * Says what llama.cpp computes otherwise than this model.
 * @param pattern every which layer has full attention there
 */
export function gemmaGgufProblem(config: GemmaConfig, pattern: number): string | undefined {
  const { layers, head_dim, num_attention_heads, hidden_size, query_pre_attn_scalar } = config;
  // llama.cpp tells the 27B models by their number of layers.
  const scalar = [46, 62].includes(layers.length) ? hidden_size / num_attention_heads : head_dim;
  if (query_pre_attn_scalar !== scalar) {
    return `query_pre_attn_scalar is ${query_pre_attn_scalar}, there ${scalar}`;
  }
  const wrong = layers.findIndex(({ sliding_window }, i) =>
    (sliding_window === null) !== ((i + 1) % pattern === 0)
  );
  if (wrong < 0) return undefined;
  const own = layers[wrong]!.sliding_window === null ? "full attention" : "a window";
  return `layer ${wrong} has ${own}, there every layer but each ${pattern}th has a window`;
}
