/**
 * Every training option, once. The YAML check, the command-line flags, the TypeScript type, `--help` and
 * `docs/options.md` are all read from here. Names are those of LongQLoRA, LongLoRA and Hugging Face's
 * TrainingArguments, so that their files and habits carry over.
 */
import {
  bytes,
  either,
  flag,
  type Kind,
  list,
  map,
  moduleNames,
  numberMap,
  numbers,
  oneOf,
  real,
  steps,
  text,
  tokens,
  whole,
  wholes,
} from "./values.ts";

/** The headings of `--help` and of the option table, in order. */
export const GROUPS = {
  model: "Model",
  data: "Data and context length",
  attention: "Attention",
  lora: "What is trained",
  optimiser: "Optimiser and schedule",
  run: "Length of the run, precision, randomness",
  evaluation: "Evaluation while training",
  output: "Output, saving, resuming",
} as const;

/** The name of one of the {@linkcode GROUPS}. */
export type Group = keyof typeof GROUPS;

/** One option: where it is listed, what it means, what it may be, and what it is when nobody says. */
export interface TrainOption<T = unknown> {
  readonly group: Group;
  readonly kind: Kind<T>;
  /** One line for `--help`, with the unit. */
  readonly doc: string;
  /** `null` means "not set". */
  readonly default: T | null;
  /** The run cannot start without it. */
  readonly required: boolean;
  /** Text in place of the default in tables, where the default depends on other options. */
  readonly defaultDoc?: string;
}

/** An option with a default of its own kind. */
function option<T>(group: Group, doc: string, kind: Kind<T>, initial: NoInfer<T>) {
  return { group, kind, doc, default: initial, required: false } satisfies TrainOption<T>;
}

/** An option that may stay unset; `defaultDoc` says what then happens. */
function unset<T>(group: Group, doc: string, kind: Kind<T>, defaultDoc: string) {
  return { group, kind, doc, default: null, required: false, defaultDoc } satisfies TrainOption<T>;
}

/** An option that every run must give. */
function required<T>(group: Group, doc: string, kind: Kind<T>) {
  return { group, kind, doc, default: null, required: true } satisfies TrainOption<T>;
}

/** Names of the optimiser, all AdamW. Those with `8bit` keep its states in 8 bits. */
const OPTIMISERS = [
  "adamw_torch",
  "adamw_torch_fused",
  "adamw_torch_xla",
  "adamw_hf",
  "adamw_apex_fused",
  "adamw_anyprecision",
  "adamw",
  "paged_adamw",
  "paged_adamw_32bit",
  "adamw_8bit",
  "adamw_bnb_8bit",
  "paged_adamw_8bit",
] as const;

/** Bits in which an optimiser of this name keeps its states. */
export function stateBits(optim: TrainArgs["optim"]): 32 | 8 {
  return optim.endsWith("8bit") ? 8 : 32;
}

const SCHEDULES = ["constant", "constant_with_warmup", "linear", "cosine"] as const;

/** The options by name, in the order of `--help`. */
export const OPTIONS = {
  model_name_or_path: required(
    "model",
    "base model: its name on the hub, or a folder with config.json, weights, tokenizer",
    text("path"),
  ),
  adapter_name_or_path: unset(
    "model",
    "PEFT adapter to start from: a folder, or its name on the hub",
    text("path"),
    "a fresh adapter",
  ),
  load_in_4bit: option("model", "keep the base model's linears in 4-bit NF4", flag(), true),
  double_quant: option("model", "store the 4-bit scales in 8 bits", flag(), true),
  rope_theta: unset("model", "RoPE base; overrides config.json", real({ above: 1 }), "as in config.json"),
  rope_scaling: unset(
    "model",
    "RoPE scaling as config.json writes it; overrides position interpolation",
    map(),
    "linear by ceil(model_max_length / trained length)",
  ),
  resize_vocabulary: option(
    "model",
    "add rows to embeddings and head for tokens that the tokenizer has and the model has not; new rows are the mean",
    flag(),
    false,
  ),
  train_from_scratch: option(
    "model",
    "draw fresh weights from config.json when the model folder holds none; needs low_rank_training: false",
    flag(),
    false,
  ),

  train_file: unset(
    "data",
    "training data: .jsonl, .json or .txt (each also as .gz), .parquet, .pdf, a folder of them, or a token file (.bin)",
    text("path"),
    "train_data",
  ),
  train_data: unset(
    "data",
    "several files as one; `long-llm:` stands for data_root, `[n]` at the end takes n rows at random",
    list(),
    "train_file alone",
  ),
  train_data_weights: unset(
    "data",
    "share of each file of train_data in the mix",
    numbers({ min: 0 }),
    "as many rows as each has",
  ),
  data_root: unset("data", "folder that `long-llm:` in train_data stands for", text("path"), "none"),
  eval_file: unset(
    "data",
    "held-out data in any form of train_file; see eval_strategy",
    text("path"),
    "none",
  ),
  sft: unset(
    "data",
    "true: every row must have an answer; false: every row must be plain `text`",
    flag(),
    "by the keys of each row",
  ),
  chat_template: unset(
    "data",
    "how rows with answers become text; `model` is the model's own template",
    oneOf(["no", "llama-2", "llama-3", "mistral", "vicuna", "longqlora-vicuna", "model"]),
    "longqlora-vicuna for `input`/`output`, LongAlpaca's for `instruction`, model for conversations",
  ),
  packing: option("data", "lay several rows into each training sequence", flag(), false),
  cross_document_attention: option(
    "data",
    "let packed documents see those before them, as LongLoRA does",
    flag(),
    false,
  ),
  min_length: option("data", "leave out rows with fewer tokens", whole(0), 0),
  overlong: option(
    "data",
    "rows longer than max_seq_length are cut on the right, or left out",
    oneOf(["cut", "drop"]),
    "cut",
  ),
  dataset_cache_dir: option(
    "data",
    "folder that keeps tokenized data; true: the user's folder for caches; false: tokenize at every start",
    either(flag(), text("path")),
    true,
  ),
  group_by_length: option("data", "put sequences of like length into the same step", flag(), false),
  max_seq_length: unset("data", "tokens in one training sequence", tokens(2, 16_777_216), "model_max_length"),
  model_max_length: unset(
    "data",
    "context length the model is extended to, in tokens",
    tokens(2, 16_777_216),
    "max_seq_length",
  ),

  use_full_attn: option("attention", "train with full attention in place of S2-Attn", flag(), false),
  group_size_ratio: option(
    "attention",
    "S2-Attn group size as a share of max_seq_length",
    real({ above: 0, max: 1 }),
    0.25,
  ),
  group_size: unset(
    "attention",
    "S2-Attn group size in tokens; replaces group_size_ratio",
    whole(2, 16_777_216),
    "from group_size_ratio",
  ),

  group_shift: option(
    "attention",
    "shift the groups of half of the heads by half a group; false is for comparison",
    flag(),
    true,
  ),
  sequence_parallel_size: option(
    "attention",
    "ranks that share each batch of sequences under S2-Attn, each holding a part of their tokens; divides those of the job",
    whole(1, 65_536),
    1,
  ),
  sft_group_size: unset(
    "attention",
    "LongLoRA's rule for fine-tuning: a quarter of a batch's longest sequence if that is a multiple of 4096, else this",
    whole(2, 16_777_216),
    "groups are as above",
  ),

  low_rank_training: option("lora", "true: LoRA; false: train every weight", flag(), true),
  lora_rank: option("lora", "rank of each LoRA pair", whole(1, 4096), 64),
  lora_alpha: option("lora", "LoRA scale: alpha / rank multiplies each update", real({ above: 0 }), 16),
  lora_dropout: option(
    "lora",
    "share of LoRA inputs dropped while training",
    real({ min: 0, below: 1 }),
    0.05,
  ),
  use_rslora: option("lora", "scale by alpha / sqrt(rank) in place of alpha / rank", flag(), false),
  target_modules: unset(
    "lora",
    "linears that get LoRA: names or their ends after a dot, all-linear, or a Python regular expression for whole names",
    moduleNames(),
    "every linear but the head",
  ),
  exclude_modules: unset(
    "lora",
    "linears that get no LoRA, named as in target_modules",
    moduleNames(),
    "none",
  ),
  layers_to_transform: unset("lora", "numbers of the layers that get LoRA, from 0 on", wholes(0), "all"),
  layers_pattern: unset(
    "lora",
    "what comes before a layer's number in names, for layers_to_transform",
    list(),
    "anything",
  ),
  rank_pattern: unset(
    "lora",
    "ranks that differ from lora_rank, by expressions for the end of a linear's name, as `{down_proj: 8}`",
    numberMap({ min: 1 }, true),
    "none",
  ),
  alpha_pattern: unset(
    "lora",
    "alphas that differ from lora_alpha, by expressions for the end of a linear's name",
    numberMap({ above: 0 }),
    "none",
  ),
  modules_to_save: unset(
    "lora",
    "modules that are trained whole beside LoRA, by the ends of their names, as `embed_tokens,lm_head`",
    list(),
    "none",
  ),
  trainable_params: unset(
    "lora",
    "also train weights whose names contain one of these, as `embed,norm`",
    list(),
    "none",
  ),
  train_embedding: option("lora", "also train the embeddings and the head", flag(), false),
  train_norm: option("lora", "also train the norms", flag(), false),
  neftune_noise_alpha: unset(
    "lora",
    "NEFTune: noise of this strength on the embeddings while training, 5 to 15 in the paper",
    real({ above: 0 }),
    "no noise",
  ),

  learning_rate: option("optimiser", "highest learning rate", real({ above: 0 }), 5e-5),
  optim: option(
    "optimiser",
    "AdamW; 8bit: states in 8 bits; paged: states in host memory where the device has no room for them",
    oneOf(OPTIMISERS),
    "adamw_torch",
  ),
  weight_decay: option("optimiser", "AdamW weight decay", real({ min: 0 }), 0),
  adam_beta1: option("optimiser", "AdamW decay of the first moment", real({ min: 0, below: 1 }), 0.9),
  adam_beta2: option("optimiser", "AdamW decay of the second moment", real({ min: 0, below: 1 }), 0.999),
  adam_epsilon: option("optimiser", "AdamW epsilon", real({ above: 0 }), 1e-8),
  max_grad_norm: option(
    "optimiser",
    "clip the gradient to this norm; 0 turns clipping off",
    real({ min: 0 }),
    1,
  ),
  lr_scheduler_type: option(
    "optimiser",
    "shape of the learning rate over the run",
    oneOf(SCHEDULES),
    "linear",
  ),
  warmup_steps: option("optimiser", "steps of linear warm-up; above 0 it replaces warmup_ratio", whole(0), 0),
  warmup_ratio: option("optimiser", "warm-up as a share of all steps", real({ min: 0, max: 1 }), 0),
  zero_stage: option(
    "optimiser",
    "on several ranks, DeepSpeed's ZeRO: 1 and 2 split the optimiser's states over them; 3 is refused",
    whole(0, 3),
    0,
  ),
  ddp_comm_hook: option(
    "optimiser",
    "form in which gradients go from rank to rank: bf16 halves the bytes, and rounds each value twice",
    oneOf(["no", "bf16"]),
    "no",
  ),

  num_train_epochs: option("run", "passes over the data, unless max_steps is set", real({ min: 0 }), 3),
  max_steps: option("run", "optimiser steps; -1 goes by num_train_epochs", whole(-1), -1),
  per_device_train_batch_size: option("run", "sequences per forward pass of a rank", whole(1, 65_536), 1),
  gradient_accumulation_steps: option(
    "run",
    "forward passes of a rank per optimiser step",
    whole(1, 1_000_000),
    1,
  ),
  fp16: option("run", "activations in 16-bit floats with loss scaling", flag(), false),
  bf16: option("run", "activations in bfloat16", flag(), false),
  gradient_checkpointing: option(
    "run",
    "recompute activations in the backward pass to save memory",
    flag(),
    true,
  ),
  max_memory: unset(
    "run",
    "most memory to use on the device, as in 24GiB; a run that needs more is refused before anything is loaded",
    bytes(),
    "unknown, since WebGPU does not tell",
  ),
  offload_activations: option(
    "run",
    "keep each layer's input in host memory until the backward pass; auto: where it would not fit otherwise",
    either(oneOf(["auto"]), flag()),
    "auto",
  ),
  seed: option("run", "seed of adapter weights, dropout and data order", whole(0, 4_294_967_295), 42),
  data_seed: unset("run", "seed of the data order alone", whole(0, 4_294_967_295), "seed"),

  eval_strategy: option(
    "evaluation",
    "when to measure the loss on eval_file, besides the end",
    oneOf(["no", "steps", "epoch"]),
    "no",
  ),
  eval_steps: unset(
    "evaluation",
    "steps between evaluations; below 1: as a share of all steps",
    steps(),
    "logging_steps",
  ),
  eval_on_start: option("evaluation", "evaluate before the first step too", flag(), true),
  per_device_eval_batch_size: option("evaluation", "sequences per forward pass", whole(1, 65_536), 1),
  load_best_model_at_end: option(
    "evaluation",
    "keep the checkpoint of the lowest eval_loss, and make it the final one",
    flag(),
    false,
  ),
  early_stopping_patience: unset(
    "evaluation",
    "evaluations without improvement after which the run ends",
    whole(1),
    "never",
  ),
  early_stopping_threshold: option(
    "evaluation",
    "how much lower eval_loss must be to count as improvement, in nats",
    real({ min: 0 }),
    0,
  ),

  output_dir: required("output", "folder for checkpoints, logs and the final adapter", text("path")),
  overwrite_output_dir: option(
    "output",
    "start afresh in an output_dir that already holds a run",
    flag(),
    false,
  ),
  resume_from_checkpoint: unset(
    "output",
    "true: go on from the newest checkpoint in output_dir, and start afresh where there is none; false: do not go on; " +
      "or a checkpoint folder",
    either(flag(), text("path")),
    "go on with an unfinished run of the same settings",
  ),
  logging_steps: option("output", "steps between log lines; below 1: as a share of all steps", steps(), 1),
  save_strategy: option("output", "when to write checkpoints", oneOf(["steps", "epoch", "no"]), "steps"),
  save_steps: option("output", "steps between checkpoints; below 1: as a share of all steps", steps(), 500),
  save_total_limit: unset("output", "checkpoints to keep", whole(1), "all"),
} as const satisfies Record<string, TrainOption>;

/**
 * The table of options, to the compiler.
 * @internal
 */
type Options = typeof OPTIONS;

/** The name of an option. */
export type OptionName = keyof Options;

/**
 * The value of an option, before the rules between options have filled in what is not set.
 * @internal
 */
type OptionValue<K extends OptionName> = Options[K] extends
  { kind: Kind<infer T>; default: infer D; required: infer R }
  ? R extends true ? T : D extends null ? T | null : T
  : never;

/** The options as read from file and flags, each checked alone. */
export type OptionValues = { readonly [K in OptionName]: OptionValue<K> };

/** Settings of a training run: every option checked, every default filled in, frozen. */
export interface TrainArgs extends Omit<OptionValues, "max_seq_length" | "model_max_length" | "data_seed"> {
  /** Tokens in one training sequence; at most {@linkcode TrainArgs.model_max_length}. */
  readonly max_seq_length: number;
  /** Context length the model is extended to, in tokens. */
  readonly model_max_length: number;
  /** Seed of the data order. */
  readonly data_seed: number;
  /** Derived from `use_full_attn`. */
  readonly attention: "s2" | "full";
}

/** The names of all options, in the order of {@linkcode OPTIONS}. */
export const OPTION_NAMES = Object.keys(OPTIONS) as OptionName[];

/** Whether `name` is an option; safe for names such as `constructor`. */
export function isOption(name: string): name is OptionName {
  return Object.hasOwn(OPTIONS, name);
}

/** Steps of a run between two events: a number below 1 is a share of all its steps, rounded up as `transformers` does. */
export function stepsBetween(value: number, totalSteps: number): number {
  return value < 1 ? Math.ceil(totalSteps * value) : value;
}

/**
 * Length of an S2-Attn group in tokens for sequences of `length` tokens: `group_size` where set, else
 * floor(length * group_size_ratio), which is LongLoRA's rule.
 */
export function groupSize(args: Pick<TrainArgs, "group_size" | "group_size_ratio">, length: number): number {
  return Math.min(length, args.group_size ?? Math.floor(length * args.group_size_ratio));
}
