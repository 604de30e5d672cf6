/** Gemma 3, the text models: some layers with a window and a rotation of their own, then one of full attention. arXiv:2503.19786. */
import { z } from "zod";
import { UserError } from "../../errors.ts";
import { type Architecture, POSITION_KEYS } from "../architecture.ts";
import { count, positive } from "../checked.ts";
import {
  GEMMA_GGUF_MODULES,
  GEMMA_KEYS,
  type GemmaConfig,
  gemmaConfig,
  gemmaGgufProblem,
  gemmaKeys,
  gemmaLayer,
  gemmaLayers,
  gemmaLayout,
} from "../gemma/family.ts";
import type { Rope } from "../model_config.ts";
import { parseRope, ROPE_KEYS } from "../rope_config.ts";

/** Layers from one with full attention to the next. */
const PATTERN = 6;
/** Base of the frequencies in layers with a window. */
const LOCAL_THETA = 10000;

const SCHEMA = z.object({
  ...GEMMA_KEYS.shape,
  vocab_size: count.default(262208),
  max_position_embeddings: count.default(131072),
  rope_local_base_freq: positive.nullish(),
  sliding_window_pattern: count.nullish(),
  _sliding_window_pattern: count.nullish(),
  rope_parameters: z.looseObject({
    full_attention: ROPE_KEYS.rope_parameters,
    sliding_attention: ROPE_KEYS.rope_parameters,
  }).nullish(),
});

/** Keys of models that also read pictures, which no text model has. */
const OF_PICTURES = [
  "vision_config",
  "boi_token_index",
  "eoi_token_index",
  "image_token_index",
  "boi_token_id",
  "eoi_token_id",
  "image_token_id",
  "mm_tokens_per_image",
];

/** Reads either: of a model that also reads pictures, its text model. */
function parseGemma3(raw: Readonly<Record<string, unknown>>, path: string): GemmaConfig {
  if (raw.model_type !== "gemma3") return parseTextModel(raw, path);
  const { text_config: text, ...rest } = raw;
  if (typeof text !== "object" || text === null || Array.isArray(text)) {
    throw new UserError(`Cannot use "${path}": its model_type is "gemma3", but it has no text_config`);
  }
  const common = Object.entries(rest).filter(([key]) => !OF_PICTURES.includes(key));
  const names = { model_type: "gemma3_text", architectures: ["Gemma3ForCausalLM"] };
  const config = parseTextModel({ ...text, ...Object.fromEntries(common), ...names }, path);
  const note = "The model reads pictures too, which is not done here: its text model is used";
  return { ...config, notes: [note, ...config.notes], wrapper: raw };
}

function parseTextModel(raw: Readonly<Record<string, unknown>>, path: string): GemmaConfig {
  const { keys, notes } = gemmaKeys<z.infer<typeof SCHEMA>>(SCHEMA, raw, path);
  const { head_dim, rope_parameters: maps } = keys;
  const max = keys.max_position_embeddings;
  const model = { head_dim, max_position_embeddings: max, share: 1 };
  const rope = parseRope({ ...keys, rope_parameters: maps?.full_attention }, { ...model, theta: 1e6 }, path);
  const { notes: _, ...local } = parseRope(
    { rope_theta: keys.rope_local_base_freq, rope_parameters: maps?.sliding_attention },
    { ...model, theta: LOCAL_THETA },
    path,
  );
  // The file has the length after the scaling.
  const scaling = rope.rope_scaling?.type === "linear" ? rope.rope_scaling.factor : 1;
  const pattern = keys.sliding_window_pattern ?? keys._sliding_window_pattern ?? PATTERN;
  return gemmaConfig({
    keys,
    vocab_size: keys.vocab_size,
    max_position_embeddings: Math.ceil(max / scaling),
    rope,
    qk_norm: true,
    layers: gemmaLayers({ ...keys, pattern, rope: local }, keys.num_hidden_layers, path),
    notes,
    raw,
  }, path);
}

/** Says what llama.cpp computes otherwise than this model. */
function ggufProblem(config: GemmaConfig): string | undefined {
  const locals = config.layers.map(({ rope }) => rope).filter((rope): rope is Rope =>
    typeof rope === "object"
  );
  const other = locals.find((rope) => rope.rope_theta !== LOCAL_THETA || rope.rope_scaling !== null);
  if (other) {
    const scaled = other.rope_scaling ? " and a scaling" : "";
    return `layers with a window rotate by rope_theta ${other.rope_theta}${scaled}, there by ${LOCAL_THETA}`;
  }
  return gemmaGgufProblem(config, PATTERN);
}

/** The 1B model. */
const SMALL = {
  model_type: "gemma3_text",
  vocab_size: 262144,
  hidden_size: 1152,
  intermediate_size: 6912,
  num_hidden_layers: 26,
  num_attention_heads: 4,
  num_key_value_heads: 1,
  head_dim: 256,
  max_position_embeddings: 32768,
  query_pre_attn_scalar: 256,
  rope_theta: 1000000,
  rope_local_base_freq: 10000,
  sliding_window: 512,
  sliding_window_pattern: 6,
};

export const GEMMA3: Architecture<GemmaConfig> = {
  modelTypes: ["gemma3_text", "gemma3"],
  positionKeys: { ...POSITION_KEYS, map: "full_attention", countsScaled: true },
  gguf: {
    architecture: "gemma3",
    modules: {
      ...GEMMA_GGUF_MODULES,
      "self_attn.q_norm": "attn_q_norm",
      "self_attn.k_norm": "attn_k_norm",
    },
    interleaved: [],
    hasWindows: true,
    problem: ggufProblem,
  },
  shapes: {
    "gemma3-1b": SMALL,
    "gemma3-4b": {
      ...SMALL,
      vocab_size: 262208,
      hidden_size: 2560,
      intermediate_size: 10240,
      num_hidden_layers: 34,
      num_attention_heads: 8,
      num_key_value_heads: 4,
      max_position_embeddings: 131072,
      rope_scaling: { rope_type: "linear", factor: 8 },
      sliding_window: 1024,
    },
  },
  parseConfig: parseGemma3,
  layout: gemmaLayout,
  makeLayer: gemmaLayer,
};
