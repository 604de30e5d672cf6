/**
 * Keys of axolotl, LLaMA-Factory, torchtune, mlx-lm, unsloth and TRL that are not an option here but would change the
 * result if they were honoured: they are refused, with what takes their place. Where a key has the value that says what
 * is done here anyway, it is noted as without effect.
 */

/** The answer to a key. */
interface Hint {
  /** Completes "x: not an option; ...". */
  readonly hint: string;
  /** Values that ask for what is done here anyway. */
  readonly asHere: readonly unknown[];
}

/** Values by which a file says that it does not want something. */
const OFF = [false, 0, "none", "no", "false", ""] as const;

/** Answers for keys that ask for what there is not here, unless their value turns it off. */
function absent(hint: string, keys: readonly string[]): [string, Hint][] {
  return told(hint, keys, OFF);
}

function told(hint: string, keys: readonly string[], asHere: readonly unknown[] = []): [string, Hint][] {
  return keys.map((key) => [key, { hint, asHere }]);
}

const HINTS: ReadonlyMap<string, Hint> = new Map([
  // What is trained, and in how many bits.
  ...told(
    "LoRA is low_rank_training: true, and QLoRA with load_in_4bit: true, both unless set; low_rank_training: false " +
      "trains every weight",
    ["adapter", "finetuning_type", "fine_tune_type", "training_type", "peft_type"],
  ),
  ...told("load_in_4bit: true keeps the base in 4 bits (NF4), load_in_4bit: false in 16 or 32", [
    "bits",
    "quantization_bit",
    "quantization",
    "quantization_method",
    "quantize",
    "peft",
    "bnb_config_kwargs",
    "model_quantization_config",
  ]),
  ...told("4-bit weights are NF4 here", ["quantization_type", "quant_type"], ["nf4"]),
  ...absent("there is no training on 8 bits; load_in_4bit: true takes 4, false 16 or 32", [
    "load_in_8bit",
    "fp8",
    "gptq",
    "qat",
    "load_in_16bit",
  ]),
  ...told(
    "bf16: true or fp16: true chooses what activations are in, else they are in f32; weights are read as they are stored",
    [
      "torch_dtype",
      "dtype",
      "compute_dtype",
      "pure_bf16",
      "bfloat16",
      "float16",
      "float32",
      "precision",
      "mixed_precision",
    ],
  ),
  ...told("target_modules names the linears with LoRA: all-linear, which it is unless set, or a list", [
    "lora_target_linear",
    "lora_target_parameters",
    "lora_attn_modules",
    "apply_lora_to_mlp",
    "apply_lora_to_output",
    "finetune_attention_modules",
    "finetune_mlp_modules",
  ]),
  ...told(
    "lora_rank, lora_alpha (mlx-lm's scale times the rank), lora_dropout and target_modules are keys of their own",
    ["lora_parameters", "lora_config", "peft_config"],
  ),
  ...told("layers_to_transform lists the layers with LoRA, from 0 on; all have it unless set", [
    "num_layers",
    "lora_layers",
  ]),
  ...absent("plain LoRA and rsLoRA (use_rslora) are what there is", [
    "use_dora",
    "peft_use_dora",
    "loftq_config",
    "use_loftq",
    "pissa_init",
    "pissa_convert",
    "init_lora_weights",
    "peft_init_lora_weights",
    "peft_layer_replication",
    "peft_trainable_token_indices",
    "lora_bias",
    "bias",
    "relora",
    "relora_steps",
    "use_llama_pro",
    "lora_fan_in_fan_out",
    "create_new_adapter",
  ]),
  ...told("output_dir is where the adapter goes; adapter_name_or_path is one to start from", [
    "adapter_path",
  ]),
  ...told("trainable_params names weights to train beside LoRA, low_rank_training: false trains all", [
    "unfrozen_parameters",
    "freeze_trainable_layers",
    "freeze_trainable_modules",
    "freeze_extra_modules",
  ]),

  // Data.
  ...told(
    "train_file names a file, folder or hf://datasets/..., train_data several; a row's keys say what it is",
    [
      "datasets",
      "data",
      "pretraining_dataset",
      "hf_dataset",
      "local_dataset",
      "dataset_name",
      "dataset_mixture",
      "dataset_config",
      "dataset_train_split",
    ],
  ),
  ...told("train_file and eval_file are paths from the current folder", ["dataset_dir"]),
  ...told(
    "nothing is split off the training data: keep rows apart and name them as eval_file, with eval_strategy",
    [
      "val_set_size",
      "val_size",
      "validation_split_percentage",
      "test_size",
    ],
    OFF,
  ),
  ...told("train_data takes some rows of a file with their number at its end, as rows.jsonl[5000]", [
    "max_samples",
    "max_train_samples",
  ]),
  ...told("train_data_weights are the shares of the files of train_data", ["mix_strategy"], ["concat"]),
  ...told(
    "a row's own keys say what it is: text, instruction, input and output, conversations, messages, ...",
    [
      "format_type",
      "dataset_text_field",
      "dataset_format",
      "field_messages",
      "prompt_feature",
      "completion_feature",
    ],
    ["text", "auto"],
  ),
  ...absent("of rows with answers the answers are learnt; rows of plain text are learnt whole", [
    "train_on_inputs",
    "train_on_prompt",
    "train_on_input",
  ]),
  ...told("of rows with answers the answers alone are learnt", [
    "mask_prompt",
    "train_on_completions",
    "completion_only_loss",
    "assistant_only_loss",
    "train_on_responses_only",
  ], [true]),
  ...absent("every answer of a conversation is learnt, but for turns with weight 0", ["mask_history"]),
  ...absent("rows are read whole before the first step", [
    "streaming",
    "curriculum_sampling",
    "dataloader_drop_last",
    "dataset_exact_deduplication",
  ]),
  ...told("the order is drawn from data_seed, and always shuffled", [
    "shuffle",
    "shuffle_merged_datasets",
  ], [true]),
  ...told(
    "chat_template chooses how conversations become text: model is the model's own, as it is unless set",
    [
      "template",
      "chat_template_jinja",
      "conversation",
      "conversation_template",
      "prompt_template",
      "tool_format",
      "default_system_message",
    ],
  ),
  ...told(
    "the tokenizer is the model folder's: add tokens to its files, and set resize_vocabulary: true; nothing is padded",
    [
      "tokenizer",
      "tokenizer_config",
      "tokenizer_name",
      "tokenizer_name_or_path",
      "special_tokens",
      "tokens",
      "added_tokens_overrides",
      "add_tokens",
      "add_special_tokens",
      "new_special_tokens_config",
      "eot_tokens",
      "eos_token",
    ],
  ),
  ...told("model_name_or_path takes a revision, as org/name@revision", [
    "model_revision",
    "revision_of_model",
  ], [
    "main",
  ]),
  ...told("the model's folder has its config.json", ["base_model_config"]),
  ...told(
    "model_name_or_path and adapter_name_or_path name what to start from, output_dir where the result goes",
    [
      "checkpointer",
    ],
  ),

  // Attention and positions.
  ...told("S2-Attn is on unless use_full_attn: true", ["s2_attention", "shift_attn", "shift_short_attn"], [
    true,
  ]),
  ...absent("positions are set by model_max_length, rope_theta and rope_scaling", [
    "use_pose",
    "mixture_of_depths",
    "rope_freq_base",
  ]),
  ...told("gradient_checkpointing: false turns it off", ["disable_gradient_checkpointing"], [false]),

  // Optimiser and schedule.
  ...told(
    "optim, learning_rate, weight_decay and adam_beta1, adam_beta2, adam_epsilon are keys of their own",
    [
      "optimizer_config",
      "optim_args",
    ],
  ),
  ...told(
    "lr_scheduler_type is the schedule and warmup_steps its start; there are no settings of a schedule beyond",
    [
      "lr_schedule",
      "lr_scheduler_kwargs",
      "cosine_min_lr_ratio",
      "cosine_constant_lr_ratio",
      "lr_quadratic_warmup",
      "lr_div_factor",
      "min_lr",
      "min_learning_rate",
    ],
  ),
  ...absent("every trained weight has the same learning_rate", [
    "loraplus_lr_ratio",
    "loraplus_lr_embedding",
    "embedding_lr",
    "embedding_lr_scale",
    "lr_groups",
    "embedding_learning_rate",
  ]),
  ...absent("AdamW in 32 or 8 bits is what there is: see optim", [
    "use_galore",
    "use_apollo",
    "use_badam",
    "use_adam_mini",
    "use_muon",
    "optim_target_modules",
    "lisa_n_layers",
  ]),
  ...told("the loss is cross-entropy over the next token", ["loss", "loss_type"], ["nll"]),
  ...absent("the loss is the mean cross-entropy over the tokens of a step", [
    "label_smoothing_factor",
    "use_dft_loss",
    "use_eaft_loss",
    "kd_ratio",
    "moe_aux_loss_coef",
  ]),

  // Length of the run, evaluation, saving.
  ...told("the best checkpoint is the one with the lowest loss on eval_file", ["metric_for_best_model"], [
    "eval_loss",
    "loss",
  ]),
  ...told("max_steps counts all steps of the run", ["max_steps_per_epoch"]),
  ...told(
    "eval_steps and save_steps below 1 are a share of all steps; eval_strategy and save_strategy can be epoch",
    [
      "evals_per_epoch",
      "saves_per_epoch",
    ],
  ),
  ...told("all of eval_file is evaluated", [
    "val_batches",
    "test_batches",
    "max_eval_samples",
    "run_validation",
  ], [-1]),
  ...absent("evaluate measures a finished model", [
    "test",
    "do_bench_eval",
    "do_causal_lm_eval",
    "test_datasets",
  ]),
  ...absent("a run ends at a loss that is not finite, and by early_stopping_patience", [
    "loss_watchdog_threshold",
    "loss_watchdog_patience",
  ]),

  // Another kind of training.
  ...told(
    "the data says it: rows with answers are fine-tuning, rows of plain text pre-training (or set sft)",
    [
      "stage",
    ],
    ["sft", "pt"],
  ),
  ...absent("there is no training on preferences or rewards", [
    "rl",
    "trl",
    "rl_beta",
    "pref_beta",
    "pref_loss",
    "pref_ftx",
    "dpo_beta",
    "dpo_label_smoothing",
    "orpo_alpha",
    "simpo_gamma",
    "ref_model",
    "reward_model",
    "process_reward_model",
    "kto_chosen_weight",
    "kto_rejected_weight",
  ]),
  ...told("there is no training on preferences or rewards", ["training_mode"], ["normal"]),
  ...told("there are no plugins", ["plugins"]),
  ...told("the keys of this part stand on their own, without it", ["training", "logging", "vision"]),
]);

/** Hint at what takes a key's place, completing "x: not an option; ..."; undefined for keys that are not known. */
export function hintFor(key: string): string | undefined {
  return HINTS.get(key)?.hint;
}

/** Whether a key's value asks for what is done here anyway. */
export function isAsHere(key: string, value: unknown): boolean {
  const { asHere } = HINTS.get(key) ?? { asHere: [] };
  const plain = typeof value === "string" ? value.trim().toLowerCase() : value;
  return asHere.some((each) => each === plain || (typeof each !== "string" && String(each) === plain));
}

/** Keys that are answered. */
export const HINTED_KEYS: readonly string[] = [...HINTS.keys()];
