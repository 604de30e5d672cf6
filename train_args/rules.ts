/** Rules between options, and the defaults that depend on other options. */
import { groupSize, type OptionName, OPTIONS, type OptionValues, type TrainArgs } from "./schema.ts";

/** A broken rule: the options it is about, the one to point at first. */
export interface BrokenRule {
  readonly options: readonly [OptionName, ...OptionName[]];
  readonly message: string;
}

/** Settings after all rules, with what they found. */
export interface RulesResult {
  readonly args: TrainArgs;
  readonly broken: readonly BrokenRule[];
  readonly notes: readonly string[];
}

/**
 * Applies every rule between options and fills in the defaults that depend on others.
 *
 * @param given the options that file or flags set; rules are stricter with what somebody wrote
 */
export function applyRules(values: OptionValues, given: ReadonlySet<OptionName>): RulesResult {
  const broken: BrokenRule[] = [];
  const notes: string[] = [];
  const refuse: Refuse = (options, message) => broken.push({ options, message });

  const length = values.max_seq_length ?? values.model_max_length ?? 0;
  const args: TrainArgs = {
    ...values,
    max_seq_length: length,
    model_max_length: values.model_max_length ?? length,
    data_seed: values.data_seed ?? values.seed,
    load_in_4bit: values.load_in_4bit && (values.low_rank_training || given.has("load_in_4bit")),
    attention: values.use_full_attn ? "full" : "s2",
  };

  if (length === 0) refuse(["max_seq_length", "model_max_length"], "is required, or model_max_length");
  if (args.max_seq_length > args.model_max_length) {
    refuse(
      ["max_seq_length", "model_max_length"],
      `${args.max_seq_length} is more than model_max_length ${args.model_max_length}: raise model_max_length or lower this`,
    );
  }
  checkData(args, given, refuse);
  checkEvaluation(args, given, refuse);
  if (length > 0 && args.attention === "s2") checkGroups(args, given, refuse, notes);
  checkMethod(args, given, refuse, notes);
  if (length > 0 && args.sequence_parallel_size > 1) checkSharing(args, refuse);
  if (args.fp16 && args.bf16) {
    refuse(["fp16", "bf16"], "is true and so is bf16: choose one, or neither for 32 bits");
  }
  if (args.max_steps <= 0 && args.num_train_epochs === 0) {
    refuse(
      ["num_train_epochs", "max_steps"],
      "is 0 and max_steps is not set, so there is nothing to do: set one above 0",
    );
  }
  if (args.resume_from_checkpoint === true && args.overwrite_output_dir) {
    refuse(
      ["overwrite_output_dir", "resume_from_checkpoint"],
      "would remove the checkpoint that resume_from_checkpoint asks for: set one of them",
    );
  }
  if (args.offload_activations === true && !args.gradient_checkpointing) {
    refuse(
      ["offload_activations", "gradient_checkpointing"],
      "is true, but without gradient_checkpointing a layer keeps more than its input: set that to true",
    );
  }
  addNotes(args, given, notes);
  return { args, broken, notes };
}

type Refuse = (options: BrokenRule["options"], message: string) => void;

function checkGroups(args: TrainArgs, given: ReadonlySet<OptionName>, refuse: Refuse, notes: string[]): void {
  const { group_size, group_size_ratio, max_seq_length } = args;
  if (group_size !== null) {
    if (group_size > max_seq_length) {
      refuse(
        ["group_size", "max_seq_length", "model_max_length", "use_full_attn"],
        `${group_size} is more than max_seq_length ${max_seq_length}: lower it to at most that`,
      );
    }
    if (given.has("group_size_ratio")) {
      notes.push(`group_size_ratio ${group_size_ratio} has no effect: group_size ${group_size} replaces it`);
    }
  } else if (groupSize(args, max_seq_length) < 2) {
    refuse(
      ["group_size_ratio", "max_seq_length", "model_max_length", "use_full_attn"],
      `${group_size_ratio} of max_seq_length ${max_seq_length} leaves groups of ` +
        `${groupSize(args, max_seq_length)}, and S2-Attn needs at least 2 tokens in each: raise one of them`,
    );
  }
}

/** Checks that ranks which share a batch have something each: their tokens are cut where groups end. */
function checkSharing(args: TrainArgs, refuse: Refuse): void {
  const { sequence_parallel_size: ranks, max_seq_length, per_device_train_batch_size: sequences } = args;
  if (args.attention === "full") {
    refuse(
      ["sequence_parallel_size", "use_full_attn"],
      `${ranks} needs S2-Attn: with full attention every token sees all before it, so each rank would need the keys and ` +
        "values of all ranks before. Set use_full_attn to false, or this to 1",
    );
    return;
  }
  const group = groupSize(args, max_seq_length);
  const groups = sequences * Math.ceil(max_seq_length / group);
  if (args.sft_group_size !== null || group < 1 || groups >= ranks) return;
  refuse(
    ["sequence_parallel_size", "group_size", "group_size_ratio", "max_seq_length", "model_max_length"],
    `${ranks} is more than the ${groups} groups of ${group} tokens in a batch, between which it is cut: lower it, or ` +
      "group_size",
  );
}

function checkData(args: TrainArgs, given: ReadonlySet<OptionName>, refuse: Refuse): void {
  const { train_file, train_data, train_data_weights, packing } = args;
  if (train_file === null && train_data === null) {
    refuse(["train_file", "train_data"], "is required (the training data), or train_data");
  }
  if (train_file !== null && train_data !== null) {
    refuse(["train_data", "train_file"], "is set and so is train_file: name all files in train_data");
  }
  if (train_data_weights !== null && train_data_weights.length !== train_data?.length) {
    refuse(
      ["train_data_weights", "train_data"],
      `has ${train_data_weights.length} weights for ${
        train_data?.length ?? 0
      } files of train_data: give each one`,
    );
  }
  if (args.cross_document_attention && !packing) {
    refuse(
      ["cross_document_attention", "packing"],
      "needs packing: true, since nothing else joins documents",
    );
  }
  if (args.min_length > args.max_seq_length && given.has("min_length")) {
    refuse(
      ["min_length", "max_seq_length"],
      `${args.min_length} is more than max_seq_length: no row would be left`,
    );
  }
}

function checkEvaluation(args: TrainArgs, given: ReadonlySet<OptionName>, refuse: Refuse): void {
  const { eval_strategy, eval_file, load_best_model_at_end, early_stopping_patience } = args;
  if (eval_strategy !== "no") {
    if (eval_file === null) {
      refuse(["eval_strategy", "eval_file"], `is ${eval_strategy}, so eval_file must be set`);
    }
    return;
  }
  if (load_best_model_at_end) {
    refuse(["load_best_model_at_end", "eval_strategy"], "needs eval_strategy: steps or epoch");
  }
  if (early_stopping_patience !== null && given.has("early_stopping_patience")) {
    refuse(["early_stopping_patience", "eval_strategy"], "needs eval_strategy: steps or epoch");
  }
}

function checkMethod(args: TrainArgs, given: ReadonlySet<OptionName>, refuse: Refuse, notes: string[]): void {
  if (args.low_rank_training) {
    const isExpression = typeof args.target_modules === "string" && args.target_modules !== "all-linear";
    if (isExpression && args.layers_to_transform !== null) {
      refuse(
        ["layers_to_transform", "target_modules"],
        "cannot go with an expression in target_modules, as in PEFT: say the layers in the expression",
      );
    }
    if (args.layers_pattern !== null && args.layers_to_transform === null) {
      refuse(["layers_pattern", "layers_to_transform"], "means nothing without layers_to_transform");
    }
    if (args.train_from_scratch) {
      refuse(
        ["train_from_scratch", "low_rank_training"],
        "needs low_rank_training: false, since LoRA cannot teach random weights",
      );
    }
    return;
  }
  if (args.load_in_4bit) {
    refuse(
      ["load_in_4bit", "low_rank_training"],
      "4-bit weights cannot be trained themselves: set it to false, or low_rank_training to true",
    );
  } else if (!given.has("load_in_4bit")) {
    notes.push("load_in_4bit is off: low_rank_training is false, and 4-bit weights cannot be trained");
  }
  if (args.adapter_name_or_path !== null) {
    refuse(
      ["adapter_name_or_path", "low_rank_training"],
      "needs low_rank_training: true; merge the adapter first to train every weight",
    );
  }
}

/** Options of LoRA alone: an adapter that a run starts from brings its own, and training every weight needs none. */
export const LORA_OPTIONS = [
  "lora_rank",
  "lora_alpha",
  "lora_dropout",
  "use_rslora",
  "target_modules",
  "exclude_modules",
  "layers_to_transform",
  "layers_pattern",
  "rank_pattern",
  "alpha_pattern",
] as const satisfies readonly OptionName[];

/** Says which given options have no effect. */
function addNotes(args: TrainArgs, given: ReadonlySet<OptionName>, notes: string[]): void {
  if (!args.low_rank_training) {
    const unused = ([...LORA_OPTIONS, "modules_to_save", "trainable_params"] as const)
      .filter((name) => given.has(name) && args[name] !== OPTIONS[name].default);
    if (unused.length > 0) {
      notes.push(`no effect: ${unused.join(", ")} (low_rank_training is false: every weight is trained)`);
    }
  }
  if (args.lr_scheduler_type === "constant" && (args.warmup_steps > 0 || args.warmup_ratio > 0)) {
    notes.push("the warm-up has no effect: lr_scheduler_type is constant; constant_with_warmup has one");
  }
  if (args.eval_file !== null && args.eval_strategy === "no") {
    notes.push("eval_file is not read: set eval_strategy to steps or epoch to evaluate while training");
  }
}
