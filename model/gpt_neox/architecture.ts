/** GPT-NeoX (Pythia): Black et al. 2022, arXiv:2204.06745. */
import { z } from "zod";
import { UserError } from "../../errors.ts";
import type { GeluForm } from "../../kernels/activation/gelu.ts";
import { quote } from "../../text.ts";
import type { Architecture } from "../architecture.ts";
import { attentionShape, SelfAttention } from "../attention.ts";
import { checked, count, layerCount, positive } from "../checked.ts";
import { checkUnreadKeys } from "../config_keys.ts";
import { DecoderLayer } from "../decoder_layer.ts";
import type { LayerModules } from "../layer_modules.ts";
import type { Layout, LinearSpec, NormSpec } from "../layout.ts";
import { geluMlp } from "../mlp.ts";
import { type ModelConfig, problemOfShape, uniformLayers } from "../model_config.ts";
import { fusedProjections } from "../projections.ts";
import { parseRope, ROPE_KEYS } from "../rope_config.ts";

/**
 * A GPT-NeoX model's shape: the keys of its `config.json`, checked, with Hugging Face's defaults filled in.
 * @see Black et al. 2022, arXiv:2204.06745, section 2
 */
interface GptNeoxConfig extends ModelConfig {
  /** Epsilon of the norms. */
  readonly layer_norm_eps: number;
  /** Whether attention and MLP both read the layer's input, in place of one after the other. */
  readonly use_parallel_residual: boolean;
  /** Form of GELU that `hidden_act` names. */
  readonly gelu: GeluForm;
  /** Whether the attention's linears have biases; those of the MLP have. */
  readonly attention_bias: boolean;
}

const SCHEMA = z.object({
  vocab_size: count,
  hidden_size: count,
  intermediate_size: count,
  num_hidden_layers: layerCount,
  num_attention_heads: count,
  max_position_embeddings: z.int().min(1).nullish(),
  layer_norm_eps: positive.default(1e-5),
  rotary_pct: positive.max(1).nullish(),
  rotary_emb_base: positive.nullish(),
  ...ROPE_KEYS,
  head_dim: count.nullish(),
  hidden_act: z.string().default("gelu"),
  use_parallel_residual: z.boolean().default(true),
  attention_bias: z.boolean().default(true),
  tie_word_embeddings: z.boolean().nullish(),
});

/** Hugging Face's names of what is GELU. */
const GELUS: Readonly<Record<string, GeluForm>> = {
  gelu: "erf",
  gelu_python: "erf",
  gelu_fast: "tanh",
  gelu_new: "tanh",
  gelu_pytorch_tanh: "tanh",
};

function parseGptNeoxConfig(raw: Readonly<Record<string, unknown>>, path: string): GptNeoxConfig {
  const c = checked(SCHEMA, raw, `"${path}"`);
  const notes = checkUnreadKeys(raw, new Set(["model_type", ...Object.keys(SCHEMA.shape)]), path);
  const head_dim = c.hidden_size / c.num_attention_heads;
  const max_position_embeddings = c.max_position_embeddings ?? 2048;
  const rope = parseRope(
    {
      ...c,
      rope_theta: one("rotary_emb_base", c.rotary_emb_base, "rope_theta", c.rope_theta, path),
      partial_rotary_factor: one(
        "rotary_pct",
        c.rotary_pct,
        "partial_rotary_factor",
        c.partial_rotary_factor,
        path,
      ),
    },
    { head_dim, max_position_embeddings, share: 0.25 },
    path,
  );
  const form = GELUS[c.hidden_act];
  const config: GptNeoxConfig = {
    model_type: "gpt_neox",
    vocab_size: c.vocab_size,
    hidden_size: c.hidden_size,
    intermediate_size: c.intermediate_size,
    num_hidden_layers: c.num_hidden_layers,
    num_attention_heads: c.num_attention_heads,
    num_key_value_heads: c.num_attention_heads,
    head_dim,
    rotary_dim: rope.rotary_dim,
    max_position_embeddings,
    layer_norm_eps: c.layer_norm_eps,
    rope_theta: rope.rope_theta,
    rope_scaling: rope.rope_scaling,
    use_parallel_residual: c.use_parallel_residual,
    attention_bias: c.attention_bias,
    tie_word_embeddings: c.tie_word_embeddings ?? false,
    gelu: form ?? "erf",
    layers: uniformLayers(c.num_hidden_layers, null),
    notes: [...notes, ...rope.notes],
    raw,
  };
  const problem = form === undefined
    ? `hidden_act is ${quote(c.hidden_act)}; ${Object.keys(GELUS).join(", ")} are known`
    : problemOfHeads(config, c.head_dim) ?? problemOfShape(config) ?? problemOfRotation(config);
  if (problem) throw new UserError(`Cannot use "${path}": ${problem}`);
  return config;
}

/** Reads two keys that mean the same. @throws {UserError} if they say different things */
function one<T extends number>(
  name: string,
  value: T | null | undefined,
  otherName: string,
  other: T | null | undefined,
  path: string,
): T | null | undefined {
  const both = typeof value === "number" && typeof other === "number";
  if (!both || value === other) return value ?? other;
  throw new UserError(
    `Cannot use "${path}": its ${name} is ${value} and its ${otherName} is ${other}, which mean the same here. Keep one`,
  );
}

/** GPT-NeoX has one linear for q, k and v: its heads together are as wide as the hidden size. */
function problemOfHeads({ head_dim }: GptNeoxConfig, given: number | null | undefined): string | undefined {
  if ((given ?? head_dim) === head_dim) return undefined;
  return `head_dim is ${given}, GPT-NeoX has hidden_size / num_attention_heads, ${head_dim}`;
}

function problemOfRotation({ rotary_dim, head_dim }: GptNeoxConfig): string | undefined {
  if (rotary_dim >= 4 && rotary_dim % 4 === 0) return undefined;
  return `rotary_pct rotates ${rotary_dim} of a head's ${head_dim} elements, which is not a multiple of 4`;
}

function gptNeoxLayout(config: GptNeoxConfig): Layout {
  const { hidden_size: hidden, intermediate_size: ffn, attention_bias, use_parallel_residual } = config;
  const norm = (name: string): NormSpec => ({
    kind: "norm",
    name,
    width: hidden,
    eps: config.layer_norm_eps,
    hasBias: true,
  });
  const attention = (name: string, outputs: number, isRecomputed: boolean): LinearSpec => ({
    kind: "linear",
    name: `attention.${name}`,
    part: "attention",
    shape: [outputs, hidden],
    hasBias: attention_bias,
    isRecomputed,
  });
  const mlp = (name: string, shape: readonly [number, number], isRecomputed: boolean): LinearSpec => ({
    kind: "linear",
    name: `mlp.${name}`,
    part: "mlp",
    shape,
    hasBias: true,
    isRecomputed,
  });
  return {
    embeddings: "gpt_neox.embed_in",
    layers: "gpt_neox.layers",
    modules: [
      norm("input_layernorm"),
      attention("query_key_value", 3 * hidden, true),
      // Only an MLP that reads what attention gave needs it again.
      attention("dense", hidden, !use_parallel_residual),
      mlp("dense_h_to_4h", [ffn, hidden], true),
      mlp("dense_4h_to_h", [hidden, ffn], false),
      norm("post_attention_layernorm"),
    ],
    norm: norm("gpt_neox.final_layer_norm"),
    head: "embed_out",
  };
}

/**
 * Puts together h = x + attention(norm(x)); out = h + mlp(norm(x)), or with `use_parallel_residual` off out = h + mlp(norm(h)).
 * Section 2 of the paper.
 */
function gptNeoxLayer(modules: LayerModules, config: GptNeoxConfig): DecoderLayer {
  return new DecoderLayer(modules, {
    attention: new SelfAttention({
      norm: modules.norm("input_layernorm"),
      projections: fusedProjections(modules.linear("attention.query_key_value"), "by head", config.head_dim),
      output: modules.linear("attention.dense"),
      shape: attentionShape(config),
    }),
    mlpNorm: modules.norm("post_attention_layernorm"),
    mlp: geluMlp(
      { up: modules.linear("mlp.dense_h_to_4h"), down: modules.linear("mlp.dense_4h_to_h") },
      config.gelu,
    ),
    isParallel: config.use_parallel_residual,
  });
}

const PYTHIA = {
  model_type: "gpt_neox",
  max_position_embeddings: 2048,
  rotary_pct: 0.25,
  use_parallel_residual: true,
};

export const GPT_NEOX: Architecture<GptNeoxConfig> = {
  modelTypes: ["gpt_neox"],
  positionKeys: { theta: "rotary_emb_base", share: "rotary_pct" },
  shapes: {
    "pythia-1.4b": {
      ...PYTHIA,
      vocab_size: 50304,
      hidden_size: 2048,
      intermediate_size: 8192,
      num_hidden_layers: 24,
      num_attention_heads: 16,
    },
    "pythia-6.9b": {
      ...PYTHIA,
      vocab_size: 50432,
      hidden_size: 4096,
      intermediate_size: 16384,
      num_hidden_layers: 32,
      num_attention_heads: 32,
    },
  },
  parseConfig: parseGptNeoxConfig,
  layout: gptNeoxLayout,
  makeLayer: gptNeoxLayer,
};
