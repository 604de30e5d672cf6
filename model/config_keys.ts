/** Keys of `config.json` that no model here reads: those that change nothing, and those that would. */
import { printable } from "../text.ts";
import { UserError } from "../errors.ts";

/** Keys besides the model's shape; none of them changes a figure here. */
const SILENT = new Set([
  ...["architectures", "auto_map", "_name_or_path", "name_or_path", "transformers_version", "model_type"],
  ...[
    "torch_dtype",
    "dtype",
    "quantization_config",
    "longreach",
    "_commit_hash",
    "unsloth_version",
    "unsloth_fixed",
  ],
  ...[
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "unk_token_id",
    "sep_token_id",
    "decoder_start_token_id",
  ],
  ...["use_cache", "initializer_range", "pretraining_tp", "tokenizer_class", "model_max_length"],
  ...[
    "max_sequence_length",
    "seq_length",
    "attn_implementation",
    "_attn_implementation",
    "use_flash_attention",
  ],
  ...["_attn_implementation_autoset", "_flash_attn_2_enabled", "flash_attention", "attention_implementation"],
  ...[
    "bos_token",
    "eos_token",
    "pad_token",
    "unk_token",
    "vocab_file",
    "initializer_factor",
    "hidden_dropout",
  ],
  ...["attention_dropout", "hidden_dropout_prob", "classifier_dropout", "attention_probs_dropout_prob"],
  ...["resid_pdrop", "attn_pdrop", "embd_pdrop", "use_bfloat16", "torchscript", "return_dict"],
  ...["output_attentions", "output_hidden_states", "is_encoder_decoder", "is_decoder", "add_cross_attention"],
  ...[
    "cross_attention_hidden_size",
    "tie_encoder_decoder",
    "chunk_size_feed_forward",
    "id2label",
    "label2id",
  ],
  ...["num_labels", "problem_type", "task_specific_params", "finetuning_task", "prefix", "tf_legacy_loss"],
  ...[
    "max_length",
    "min_length",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "temperature",
  ],
  ...["diversity_penalty", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty"],
  ...["no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences"],
  ...["output_scores", "return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id"],
  ...[
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
  ],
  ...["generation_config", "ignore_keys_at_rope_validation", "model_name", "model_id", "adapters"],
]);

type IsNeutral = (value: unknown) => boolean;

const only = (...values: readonly unknown[]): IsNeutral => (value) => values.includes(value);
const isNever: IsNeutral = () => false;

/**
 * Keys by which other architectures, or changed copies of these, compute something else, and what they may say without
 * doing so. `null` is always that.
 */
const CHANGING: Readonly<Record<string, IsNeutral>> = {
  attn_logit_softcapping: isNever,
  final_logit_softcapping: isNever,
  router_logit_softcapping: isNever,
  logit_softcapping: isNever,
  query_pre_attn_scalar: isNever,
  attention_multiplier: isNever,
  scale_depth: isNever,
  dim_model_base: isNever,
  clip_qkv: isNever,
  attention_chunk_size: isNever,
  sliding_window_pattern: isNever,
  no_rope_layer_interval: isNever,
  mlp_only_layers: (value) => Array.isArray(value) && value.length === 0,
  no_rope_layers: (value) =>
    Array.isArray(value) && value.every((rotates) => rotates === 1 || rotates === true),
  pruned_heads: (value) => typeof value === "object" && Object.keys(value!).length === 0,
  embedding_multiplier: only(1),
  residual_multiplier: only(1),
  logits_scaling: only(1),
  logit_scale: only(1),
  lm_head_multiplier: only(1),
  key_multiplier: only(1),
  scale_emb: only(1),
  attn_scale: only(false),
  use_qk_norm: only(false),
  qk_norm: only(false),
  use_qk_layernorm: only(false),
  qk_layernorm: only(false),
  alibi: only(false),
  use_alibi: only(false),
  rope_interleaved: only(false),
  rope_interleave: only(false),
  is_causal: only(true),
  use_bidirectional_attention: only(false),
  attention_bias: only(false),
  attention_out_bias: only(false),
  use_bias: only(false),
  use_qkv_bias: only(false),
  qkv_bias: only(false),
  mlp_bias: only(false),
  lm_head_bias: only(false),
  parallel_attn: only(false),
  use_parallel_residual: only(false),
  full_attn_mod: only(1),
  interpolate_factor: only(1),
  hidden_activation: only("silu", "swish"),
  position_embedding_type: only("rope", "rotary"),
  num_experts: only(0, 1),
  num_local_experts: only(0, 1),
  n_routed_experts: only(0, 1),
  n_shared_experts: only(0),
  shared_expert_intermediate_size: only(0),
  num_experts_per_tok: only(0, 1),
  layer_types: (value) => Array.isArray(value) && value.every((type) => type === "full_attention"),
};

/** Dropout that the model's own code would use in training. */
const DROPOUTS = [
  "attention_dropout",
  "hidden_dropout",
  "hidden_dropout_prob",
  "attention_probs_dropout_prob",
  "resid_pdrop",
  "attn_pdrop",
  "embd_pdrop",
];

/**
 * Checks the keys of a `config.json` that its model does not read.
 * @param read the keys it reads
 * @returns what the user should know of the others, one line each
 * @throws {UserError} naming a key that would change what the model computes
 */
export function checkUnreadKeys(
  raw: Readonly<Record<string, unknown>>,
  read: ReadonlySet<string>,
  path: string,
): string[] {
  const unknown: string[] = [];
  for (const [key, value] of Object.entries(raw)) {
    if (read.has(key) || value === null || SILENT.has(key)) continue;
    const isNeutral = Object.hasOwn(CHANGING, key) ? CHANGING[key] : undefined;
    if (!isNeutral) unknown.push(printable(key));
    else if (!isNeutral(value)) {
      throw new UserError(
        `Cannot use "${path}": its ${key} is ${
          brief(value)
        }, which a model of model_type "${raw.model_type}" does not ` +
          `compute here. If the model was trained without it, remove the key`,
      );
    }
  }
  const notes = unknown.length === 0 ? [] : [
    `config.json: ${unknown.slice(0, 8).join(", ")}${unknown.length > 8 ? ", ..." : ""} ${
      unknown.length === 1 ? "is" : "are"
    } not known for model_type "${raw.model_type}" and without effect`,
  ];
  const dropouts = DROPOUTS.filter((key) => typeof raw[key] === "number" && raw[key] !== 0);
  if (dropouts.length > 0) {
    notes.push(
      `config.json: ${dropouts.join(" and ")} ${
        dropouts.length === 1 ? "is" : "are"
      } for training by other programs, ` +
        `and not applied here`,
    );
  }
  return notes;
}

function brief(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
