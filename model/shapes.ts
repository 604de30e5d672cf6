import { UserError } from "../errors.ts";
import { type ModelConfig, parseConfig } from "./config.ts";

const LLAMA2 = {
  model_type: "llama",
  vocab_size: 32000,
  max_position_embeddings: 4096,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
};
const LLAMA3 = {
  model_type: "llama",
  vocab_size: 128256,
  max_position_embeddings: 8192,
  rms_norm_eps: 1e-5,
  rope_theta: 500000,
  num_key_value_heads: 8,
};

const PYTHIA = {
  model_type: "gpt_neox",
  max_position_embeddings: 2048,
  rotary_pct: 0.25,
  use_parallel_residual: true,
};

/** `config.json` of models people extend, for planning and measuring without their weights. */
const SHAPES = {
  "llama2-7b": {
    ...LLAMA2,
    hidden_size: 4096,
    intermediate_size: 11008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
  },
  "llama2-13b": {
    ...LLAMA2,
    hidden_size: 5120,
    intermediate_size: 13824,
    num_hidden_layers: 40,
    num_attention_heads: 40,
  },
  "llama2-70b": {
    ...LLAMA2,
    hidden_size: 8192,
    intermediate_size: 28672,
    num_hidden_layers: 80,
    num_attention_heads: 64,
    num_key_value_heads: 8,
  },
  "llama3-8b": {
    ...LLAMA3,
    hidden_size: 4096,
    intermediate_size: 14336,
    num_hidden_layers: 32,
    num_attention_heads: 32,
  },
  "llama3-70b": {
    ...LLAMA3,
    hidden_size: 8192,
    intermediate_size: 28672,
    num_hidden_layers: 80,
    num_attention_heads: 64,
  },
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
} as const;

/** The names that {@linkcode shapeConfig} knows. */
export const SHAPE_NAMES = Object.keys(SHAPES) as (keyof typeof SHAPES)[];

/**
 * The configuration of a well-known model by its name, such as `llama2-7b`.
 * @throws {UserError} if the name is not known
 */
export function shapeConfig(name: string): ModelConfig {
  if (!Object.hasOwn(SHAPES, name)) {
    throw new UserError(`Unknown shape "${name}": ${SHAPE_NAMES.join(", ")} are known`, { kind: "usage" });
  }
  return parseConfig(SHAPES[name as keyof typeof SHAPES], name);
}
