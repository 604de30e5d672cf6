/** A model's shape, as every architecture's `config.json` gives it. */
import type { RopeScaling } from "./rope_scaling.ts";

/** A rotary position embedding: which elements of a head rotate, and how fast. */
export interface Rope {
  /** Base of the frequencies. */
  readonly rope_theta: number;
  /** Scaling of the positions; null: none. */
  readonly rope_scaling: RopeScaling | null;
  /** Elements of a head, from its first on, that rotate with the position. */
  readonly rotary_dim: number;
}

/** What the attention of one layer sees, and how it knows positions. */
export interface LayerAttention {
  /** Most tokens that a query sees, itself included; null: all. */
  readonly sliding_window: number | null;
  /** The model's rotation, which context extension changes; one of the layer's own, which stays; null: none. */
  readonly rope: "model" | Rope | null;
}

/** The keys of `config.json` that every architecture has, checked, with Hugging Face's defaults filled in. */
export interface ModelConfig extends Rope {
  /** Names the architecture. */
  readonly model_type: string;
  /** V: tokens of the vocabulary. */
  readonly vocab_size: number;
  /** C: elements of a token's state. */
  readonly hidden_size: number;
  /** F: width of the MLP. */
  readonly intermediate_size: number;
  /** Elements of the widest tensor that the MLP makes of a token; F unless given. */
  readonly mlp_width?: number | undefined;
  /** Layers. */
  readonly num_hidden_layers: number;
  /** H: heads of the queries. */
  readonly num_attention_heads: number;
  /** K: heads of keys and values. */
  readonly num_key_value_heads: number;
  /** D: elements of a head. */
  readonly head_dim: number;
  /** Tokens that the positions are made for. */
  readonly max_position_embeddings: number;
  /** Whether the head is the table of the embeddings. */
  readonly tie_word_embeddings: boolean;
  /** Factor of the attention scores; 1 / sqrt(D) unless given. */
  readonly attention_multiplier?: number | undefined;
  /** Soft cap of the attention scores, c * tanh(s / c); none unless given. */
  readonly attn_logit_softcapping?: number | undefined;
  /** Factor of the embeddings where the first layer reads them, not where a tied head does; 1 unless given. */
  readonly embedding_multiplier?: number | undefined;
  /** Whether that factor is first rounded to the format of activations; not unless given. */
  readonly is_embedding_multiplier_rounded?: boolean | undefined;
  /** Divisor of the logits; 1 unless given. */
  readonly logits_scaling?: number | undefined;
  /** Soft cap of the logits, c * tanh(y / c), after the divisor; none unless given. */
  readonly final_logit_softcapping?: number | undefined;
  /** Attention of each layer. */
  readonly layers: readonly LayerAttention[];
  /** What the user should know of the file: keys without effect, lengths that disagree; one line each. */
  readonly notes: readonly string[];
  /** The file as it is: `merge` writes it back with what changed. */
  readonly raw: Readonly<Record<string, unknown>>;
  /** The file as it is of a model that also reads pictures, where this is its text model; `raw` is then what it says of that. */
  readonly wrapper?: Readonly<Record<string, unknown>> | undefined;
}

/** Layers that are all alike and rotate as the model does. @param window most tokens that a query sees; null: all */
export function uniformLayers(layers: number, window: number | null): LayerAttention[] {
  return Array.from({ length: layers }, () => ({ sliding_window: window, rope: "model" }));
}

/** Says what of the shape the kernels cannot work with; undefined if nothing. */
export function problemOfShape(config: ModelConfig): string | undefined {
  const {
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim,
    hidden_size,
    intermediate_size,
  } = config;
  if (heads % kvHeads !== 0) {
    return `num_attention_heads ${heads} is no multiple of num_key_value_heads ${kvHeads}`;
  }
  if (!Number.isInteger(head_dim) || head_dim % 4 !== 0 || head_dim > 256) {
    return `the head size ${head_dim} is not a multiple of 4 up to 256`;
  }
  if (hidden_size % 4 !== 0 || intermediate_size % 4 !== 0) {
    return `hidden_size ${hidden_size} and intermediate_size ${intermediate_size} must be multiples of 4`;
  }
  return undefined;
}
