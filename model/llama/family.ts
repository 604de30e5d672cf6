/** LLaMA's layers, and how the architectures of its family differ from them. */
import { z } from "zod";
import { UserError } from "../../errors.ts";
import { quote } from "../../text.ts";
import { type Architecture, type GgufForm, POSITION_KEYS } from "../architecture.ts";
import { attentionShape, SelfAttention } from "../attention.ts";
import { checked, count, layerCount, positive } from "../checked.ts";
import { checkUnreadKeys } from "../config_keys.ts";
import { DecoderLayer } from "../decoder_layer.ts";
import {
  expertModules,
  type Experts,
  mlpOfExperts,
  problemOfExperts,
  widthOfExperts,
} from "../experts_config.ts";
import type { LayerModules } from "../layer_modules.ts";
import type { Layout, LinearSpec, ModuleSpec, NormSpec } from "../layout.ts";
import { swigluMlp } from "../mlp.ts";
import { type LayerAttention, type ModelConfig, problemOfShape } from "../model_config.ts";
import { separateProjections } from "../projections.ts";
import { parseRope, ROPE_KEYS } from "../rope_config.ts";

/** Numbers that some architectures of the family multiply or divide by. */
type Multipliers = Pick<ModelConfig, "attention_multiplier" | "embedding_multiplier" | "logits_scaling">;

/** Differences between architectures of the family. */
export interface LlamaDifferences extends Multipliers {
  /** Linears of attention that have a bias. */
  readonly attention_bias: "none" | "qkv" | "all";
  /** Whether the linears of the MLP have a bias. */
  readonly mlp_bias: boolean;
  /** Norm of q and k before they rotate: of each head, or of all heads together. */
  readonly qk_norm: "none" | "head" | "width";
  /** Norms of each block: of what it reads, or of what it gives before that is added; "before" unless given. */
  readonly block_norms?: "before" | "after";
  /** Factor of what each block gives; 1 unless given. */
  readonly residual_multiplier?: number | undefined;
  /** Experts in place of the MLP, where some layers have them. */
  readonly experts?: Experts | undefined;
  /** Attention of each layer. */
  readonly layers: readonly LayerAttention[];
}

/** A model's shape: the keys of its `config.json`, checked, with Hugging Face's defaults filled in. */
export interface LlamaConfig extends ModelConfig, LlamaDifferences {
  /** Epsilon of the norms. */
  readonly rms_norm_eps: number;
}

/** An architecture of the family. @template K what it reads from keys that not all have */
export interface LlamaLike<K> {
  readonly modelType: string;
  /** Values that Hugging Face's class takes for keys that are not there. `null` means something else: no grouping. */
  readonly defaults: {
    readonly max_position_embeddings: number;
    /** As many as query heads unless given. */
    readonly num_key_value_heads?: number;
    /** A share of `hidden_size` by head unless given. */
    readonly head_dim?: number;
    /** 1e-6 unless given. */
    readonly rms_norm_eps?: number;
    /** 10000 unless given. */
    readonly rope_theta?: number;
    /** False unless given. */
    readonly tie_word_embeddings?: boolean;
  };
  readonly keys: z.ZodObject & z.ZodType<K>;
  /** Whether a part of a head may rotate and the rest not; no unless given. */
  readonly rotatesPart?: boolean;
  readonly gguf: GgufForm<LlamaConfig>;
  readonly shapes: Architecture["shapes"];

  /**
   * @param shape sizes that other keys give
   * @throws {UserError} if the keys do not fit each other; `path` is for messages
   */
  differences(
    keys: K,
    layers: number,
    path: string,
    shape: Pick<ModelConfig, "intermediate_size">,
  ): LlamaDifferences;
}

/** Llama's own form in llama.cpp, which also serves models with biases. */
export const LLAMA_GGUF: GgufForm = {
  architecture: "llama",
  modules: {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
  },
  interleaved: ["self_attn.q_proj", "self_attn.k_proj"],
};

const SCHEMA = z.object({
  model_type: z.string(),
  vocab_size: count,
  hidden_size: count,
  intermediate_size: count,
  num_hidden_layers: layerCount,
  num_attention_heads: count,
  num_key_value_heads: count.nullish(),
  head_dim: count.nullish(),
  max_position_embeddings: z.int().min(1).nullish(),
  rms_norm_eps: positive.optional(),
  ...ROPE_KEYS,
  hidden_act: z.string().default("silu"),
  tie_word_embeddings: z.boolean().nullish(),
});

/** Makes the architecture from what is different in it. */
export function llamaLike<K>(one: LlamaLike<K>): Architecture<LlamaConfig> {
  return {
    modelTypes: [one.modelType],
    gguf: one.gguf,
    positionKeys: POSITION_KEYS,
    shapes: one.shapes,
    parseConfig: (raw, path) => parseLlamaConfig(one, raw, path),
    layout: llamaLayout,
    makeLayer: llamaLayer,
  };
}

function parseLlamaConfig<K>(
  { defaults, keys, rotatesPart = false, differences }: LlamaLike<K>,
  raw: Readonly<Record<string, unknown>>,
  path: string,
): LlamaConfig {
  const c = checked(SCHEMA, raw, `"${path}"`);
  const own = checked<K>(keys, raw, `"${path}"`);
  const notes = checkUnreadKeys(
    raw,
    new Set([...Object.keys(SCHEMA.shape), ...Object.keys(keys.shape)]),
    path,
  );
  const heads = c.num_attention_heads;
  const head_dim = c.head_dim ?? defaults.head_dim ?? c.hidden_size / heads;
  const max_position_embeddings = c.max_position_embeddings ?? defaults.max_position_embeddings;
  const theta = defaults.rope_theta;
  const rope = parseRope(c, { head_dim, max_position_embeddings, share: 1, theta }, path);
  const kvHeads = c.num_key_value_heads === undefined ? defaults.num_key_value_heads : c.num_key_value_heads;
  const different = differences(own, c.num_hidden_layers, path, c);
  const { experts } = different;
  const config: LlamaConfig = {
    model_type: c.model_type,
    vocab_size: c.vocab_size,
    hidden_size: c.hidden_size,
    intermediate_size: c.intermediate_size,
    num_hidden_layers: c.num_hidden_layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads ?? heads,
    head_dim,
    rotary_dim: rope.rotary_dim,
    max_position_embeddings,
    rms_norm_eps: c.rms_norm_eps ?? defaults.rms_norm_eps ?? 1e-6,
    rope_theta: rope.rope_theta,
    rope_scaling: rope.rope_scaling,
    tie_word_embeddings: c.tie_word_embeddings ?? defaults.tie_word_embeddings ?? false,
    ...different,
    ...(experts && {
      mlp_width: Math.max(
        widthOfExperts(experts, c.hidden_size),
        experts.layers.every(Boolean) ? 0 : c.intermediate_size,
      ),
    }),
    notes: [...notes, ...rope.notes],
    raw,
  };
  const problem = problemOfLlama(config, c.hidden_act, rotatesPart) ?? problemOfShape(config) ??
    (experts && problemOfExperts(experts, c.hidden_size));
  if (problem) throw new UserError(`Cannot use "${path}": ${problem}`);
  return config;
}

function problemOfLlama(
  { model_type, rotary_dim, head_dim }: LlamaConfig,
  hidden_act: string,
  rotatesPart: boolean,
): string | undefined {
  // PyTorch has one function under both names.
  if (hidden_act !== "silu" && hidden_act !== "swish") {
    return `hidden_act is ${quote(hidden_act)}; model_type "${model_type}" has "silu"`;
  }
  if (rotatesPart && (rotary_dim < 4 || rotary_dim % 4 !== 0)) {
    return `partial_rotary_factor rotates ${rotary_dim} of a head's ${head_dim} elements, which is not a multiple of 4`;
  }
  if (rotatesPart || rotary_dim === Math.floor(head_dim)) return undefined;
  return `partial_rotary_factor rotates ${rotary_dim} of a head's ${head_dim} elements; model_type "${model_type}" ` +
    `rotates all`;
}

/** A layer's norms by what they read; those that it does not have are not there. */
interface BlockNorms {
  readonly attention?: string;
  readonly attentionOutput?: string;
  readonly mlp?: string;
  readonly mlpOutput?: string;
}

const BLOCK_NORMS: Readonly<Record<NonNullable<LlamaDifferences["block_norms"]>, BlockNorms>> = {
  before: { attention: "input_layernorm", mlp: "post_attention_layernorm" },
  after: { attentionOutput: "post_attention_layernorm", mlpOutput: "post_feedforward_layernorm" },
};

/** Puts together h = x + attention(norm(x)); out = h + mlp(norm(h)). Touvron et al. 2023, arXiv:2302.13971. */
function llamaLayer(modules: LayerModules, config: LlamaConfig): DecoderLayer {
  const attention = (name: string) => modules.linear(`self_attn.${name}`);
  const mlp = (name: string) => modules.linear(`mlp.${name}`);
  const norms = BLOCK_NORMS[config.block_norms ?? "before"];
  const normOf = (moment: keyof BlockNorms) => {
    const name = norms[moment];
    return name === undefined ? undefined : modules.norm(name);
  };
  return new DecoderLayer(modules, {
    attention: new SelfAttention({
      norm: normOf("attention"),
      projections: separateProjections({
        linears: { q: attention("q_proj"), k: attention("k_proj"), v: attention("v_proj") },
        ...(config.qk_norm !== "none" && {
          norms: { q: modules.norm("self_attn.q_norm"), k: modules.norm("self_attn.k_norm") },
        }),
      }),
      output: attention("o_proj"),
      outputNorm: normOf("attentionOutput"),
      shape: attentionShape(config),
      scale: config.attention_multiplier,
    }),
    mlpNorm: normOf("mlp"),
    mlp: config.experts && modules.routers.length > 0
      ? mlpOfExperts(modules, config.experts)
      : swigluMlp({ gate: mlp("gate_proj"), up: mlp("up_proj"), down: mlp("down_proj") }),
    mlpOutputNorm: normOf("mlpOutput"),
    isParallel: false,
  });
}

function llamaLayout(config: LlamaConfig): Layout {
  const { hidden_size: hidden, intermediate_size: ffn, head_dim, attention_bias, rms_norm_eps: eps } = config;
  const queries = config.num_attention_heads * head_dim;
  const keys = config.num_key_value_heads * head_dim;
  const { attention: attentionNorm, attentionOutput, mlp: mlpNorm, mlpOutput } =
    BLOCK_NORMS[config.block_norms ?? "before"];
  const norm = (name: string, width = hidden): NormSpec => ({
    kind: "norm",
    name,
    width,
    eps,
    hasBias: false,
  });
  const attention = (name: string, shape: readonly [number, number]): LinearSpec => ({
    kind: "linear",
    name: `self_attn.${name}`,
    part: "attention",
    shape,
    group: name === "o_proj" ? undefined : "self_attn.qkv",
    hasBias: attention_bias === "all" || (attention_bias === "qkv" && name !== "o_proj"),
    isRecomputed: true,
    isNormed: (config.qk_norm !== "none" && (name === "q_proj" || name === "k_proj")) ||
      (attentionOutput !== undefined && name === "o_proj"),
    scale: name === "o_proj" ? config.residual_multiplier : undefined,
  });
  const mlp = (name: string, shape: readonly [number, number]): LinearSpec => ({
    kind: "linear",
    name: `mlp.${name}`,
    part: "mlp",
    shape,
    group: name === "down_proj" ? undefined : "mlp.gate_up",
    hasBias: config.mlp_bias,
    isRecomputed: name !== "down_proj",
    isNormed: mlpOutput !== undefined && name === "down_proj",
    scale: name === "down_proj" ? config.residual_multiplier : undefined,
  });
  const qkNorms = config.qk_norm === "none" ? [] : [
    norm("self_attn.q_norm", config.qk_norm === "head" ? head_dim : queries),
    norm("self_attn.k_norm", config.qk_norm === "head" ? head_dim : keys),
  ];
  const { experts } = config;
  const dense = [
    mlp("gate_proj", [ffn, hidden]),
    mlp("up_proj", [ffn, hidden]),
    mlp("down_proj", [hidden, ffn]),
  ];
  const modulesWith = (mlpModules: readonly ModuleSpec[]) => [
    ...(attentionNorm ? [norm(attentionNorm)] : []),
    attention("q_proj", [queries, hidden]),
    attention("k_proj", [keys, hidden]),
    attention("v_proj", [keys, hidden]),
    attention("o_proj", [hidden, queries]),
    ...qkNorms,
    ...(attentionOutput ? [norm(attentionOutput)] : []),
    ...mlpModules,
    ...(mlpNorm ? [norm(mlpNorm)] : []),
    ...(mlpOutput ? [norm(mlpOutput)] : []),
  ];
  // Of all layers with the same MLP one list.
  const lists = {
    experts: experts && modulesWith(expertModules(experts, hidden)),
    dense: modulesWith(dense),
  };
  return {
    embeddings: "model.embed_tokens",
    layers: "model.layers",
    modules: lists.experts ?? lists.dense,
    modulesOf: (layer) => lists.experts && experts?.layers[layer] ? lists.experts : lists.dense,
    norm: norm("model.norm"),
    head: "lm_head",
  };
}
