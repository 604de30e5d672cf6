/** Phi-3 and Phi-4-mini: LLaMA with one linear for q, k and v and one for gate and up. arXiv:2404.14219, arXiv:2503.01743. */
import { z } from "zod";
import type { Architecture } from "../architecture.ts";
import { attentionShape, SelfAttention } from "../attention.ts";
import { count } from "../checked.ts";
import { DecoderLayer } from "../decoder_layer.ts";
import type { LayerModules } from "../layer_modules.ts";
import type { Layout, LinearSpec, NormSpec } from "../layout.ts";
import { type LlamaConfig, llamaLike } from "../llama/family.ts";
import { fusedSwigluMlp } from "../mlp.ts";
import { uniformLayers } from "../model_config.ts";
import { fusedProjections } from "../projections.ts";

/** What Hugging Face's class takes where no key says it. */
const ORIGINAL_MAX_POSITION_EMBEDDINGS = 4096;

const SHARED = {
  model_type: "phi3",
  hidden_size: 3072,
  intermediate_size: 8192,
  num_hidden_layers: 32,
  original_max_position_embeddings: 4096,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
};

/** Phi-4-mini's, of its config.json; its short ones are all 1. */
const LONG_FACTOR = [
  ...[1, 1.118320672, 1.250641126, 1.398617824, 1.564103225, 1.74916897, 1.956131817, 2.187582649],
  ...[2.446418898, 2.735880826, 3.059592084, 3.421605075, 3.826451687, 4.279200023, 4.785517845],
  ...[5.351743533, 5.984965424, 6.693110555, 7.485043894, 8.370679318, 9.36110372, 10.4687158],
  ...[11.70738129, 13.09260651, 14.64173252, 16.37415215, 18.31155283, 20.47818807, 22.90118105],
  ...[25.61086418, 28.64115884, 32.03, 32.1, 32.13, 32.23, 32.6, 32.61, 32.64, 32.66, 32.7, 32.71],
  ...[32.93, 32.97, 33.28, 33.49, 33.5, 44.16, 47.77],
];

const SHAPES = {
  "phi3-mini-4k": {
    ...SHARED,
    vocab_size: 32064,
    num_attention_heads: 32,
    num_key_value_heads: 32,
    max_position_embeddings: 4096,
    sliding_window: 2047,
  },
  "phi4-mini": {
    ...SHARED,
    vocab_size: 200064,
    num_attention_heads: 24,
    num_key_value_heads: 8,
    max_position_embeddings: 131072,
    partial_rotary_factor: 0.75,
    rope_scaling: { type: "longrope", long_factor: LONG_FACTOR, short_factor: LONG_FACTOR.map(() => 1) },
    sliding_window: 262144,
    tie_word_embeddings: true,
  },
};

const LIKE_LLAMA = llamaLike({
  modelType: "phi3",
  defaults: { max_position_embeddings: 4096, rms_norm_eps: 1e-5 },
  keys: z.object({ sliding_window: count.nullish() }),
  rotatesPart: true,
  gguf: {
    architecture: "phi3",
    modules: {
      "input_layernorm": "attn_norm",
      "self_attn.qkv_proj": "attn_qkv",
      "self_attn.o_proj": "attn_output",
      "post_attention_layernorm": "ffn_norm",
      // Gate first, then up.
      "mlp.gate_up_proj": "ffn_up",
      "mlp.down_proj": "ffn_down",
    },
    interleaved: [],
    factors: "longrope",
    hasWindowKey: true,
  },
  shapes: SHAPES,
  differences: ({ sliding_window }, layers) => ({
    attention_bias: "none",
    mlp_bias: false,
    qk_norm: "none",
    layers: uniformLayers(layers, sliding_window ?? null),
  }),
});

/** Fills in what LLaMA's parser would take otherwise, and reads the older names of longrope. */
function parsePhi3Config(raw: Readonly<Record<string, unknown>>, path: string): LlamaConfig {
  const longest = raw.max_position_embeddings ?? 4096;
  const maps = (["rope_scaling", "rope_parameters"] as const).map((key) => [key, raw[key]] as const).filter(
    isMap,
  );
  const original = raw.original_max_position_embeddings ??
    maps.map(([, map]) => map.original_max_position_embeddings).find((value) => value) ??
    ORIGINAL_MAX_POSITION_EMBEDDINGS;
  const notes: string[] = [];
  const settled = maps.map(([key, map]) => {
    const type = map.rope_type ?? map.type;
    const isLongrope = ["longrope", "su"].includes(String(type)) || (type === "yarn" && "long_factor" in map);
    if (!isLongrope) {
      if (type && type !== "default") {
        notes.push(
          `${key} is of type "${type}": transformers' class of Phi-3 knows "longrope" alone, and may refuse the model`,
        );
      }
      return [key, map];
    }
    const { factor, ...rest } = map;
    if (typeof factor === "number" && factor !== Number(longest) / Number(original)) {
      notes.push(
        `${key} has a factor ${factor}, which has no effect: max_position_embeddings ${longest} / ` +
          `original_max_position_embeddings ${original} counts`,
      );
    }
    return [key, { ...rest, type: "longrope", rope_type: "longrope" }];
  });
  const given = {
    ...raw,
    original_max_position_embeddings: original,
    ...Object.fromEntries(settled),
  };
  const config = LIKE_LLAMA.parseConfig(given, path);
  return { ...config, notes: [...config.notes, ...notes], raw };
}

function isMap<K>(entry: readonly [K, unknown]): entry is readonly [K, Record<string, unknown>] {
  const [, value] = entry;
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function phi3Layout(config: LlamaConfig): Layout {
  const { hidden_size: hidden, intermediate_size: ffn, head_dim, rms_norm_eps: eps } = config;
  const queries = config.num_attention_heads * head_dim;
  const keys = config.num_key_value_heads * head_dim;
  const norm = (name: string): NormSpec => ({ kind: "norm", name, width: hidden, eps, hasBias: false });
  const linear = (part: LinearSpec["part"], name: string, shape: readonly [number, number]): LinearSpec => ({
    kind: "linear",
    name: `${part === "mlp" ? "mlp" : "self_attn"}.${name}`,
    part,
    shape,
    hasBias: false,
    isRecomputed: name !== "down_proj",
  });
  return {
    embeddings: "model.embed_tokens",
    layers: "model.layers",
    modules: [
      norm("input_layernorm"),
      linear("attention", "qkv_proj", [queries + 2 * keys, hidden]),
      linear("attention", "o_proj", [hidden, queries]),
      linear("mlp", "gate_up_proj", [2 * ffn, hidden]),
      linear("mlp", "down_proj", [hidden, ffn]),
      norm("post_attention_layernorm"),
    ],
    norm: norm("model.norm"),
    head: "lm_head",
  };
}

/** Puts together h = x + attention(norm(x)); out = h + mlp(norm(h)), as LLaMA, of fused linears. */
function phi3Layer(modules: LayerModules, config: LlamaConfig): DecoderLayer {
  return new DecoderLayer(modules, {
    attention: new SelfAttention({
      norm: modules.norm("input_layernorm"),
      projections: fusedProjections(modules.linear("self_attn.qkv_proj"), "by part", config.head_dim),
      output: modules.linear("self_attn.o_proj"),
      shape: attentionShape(config),
    }),
    mlpNorm: modules.norm("post_attention_layernorm"),
    mlp: fusedSwigluMlp({
      gateUp: modules.linear("mlp.gate_up_proj"),
      down: modules.linear("mlp.down_proj"),
    }),
    isParallel: false,
  });
}

export const PHI3: Architecture<LlamaConfig> = {
  ...LIKE_LLAMA,
  positionKeys: { ...LIKE_LLAMA.positionKeys, isOriginalBeside: true },
  parseConfig: parsePhi3Config,
  layout: phi3Layout,
  makeLayer: phi3Layer,
};
