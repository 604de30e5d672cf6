import { parse, stringify } from "yaml";
import { FOREIGN_KEYS, OTHER_NAMES, SAME_OPTIONS } from "../../train_args/foreign_keys.ts";
import { loadTrainArgs } from "../../train_args/load.ts";
import { HINTED_KEYS, hintFor } from "../../train_args/other_tools.ts";
import { isOption, OPTION_NAMES } from "../../train_args/schema.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";

const SETTINGS = "model_name_or_path: m\ntrain_file: t.jsonl\noutput_dir: o\nmodel_max_length: 128\n";

/** Loads `yaml`: the notes, or the lines of the error. */
async function answersOf(yaml: string): Promise<string> {
  return await withFolder(async (folder) => {
    const file = `${folder}/settings.yaml`;
    await Deno.writeTextFile(file, yaml);
    return await loadTrainArgs(file).then(
      ({ notes }) => notes.join("\n"),
      (error) => (error as Error).message,
    );
  });
}

/** Files as these tools' own examples have them. */
const FILES: Readonly<Record<string, string>> = {
  axolotl: `
base_model: NousResearch/Llama-2-7b-hf
model_type: LlamaForCausalLM
tokenizer_type: LlamaTokenizer
load_in_8bit: false
load_in_4bit: true
strict: false
datasets:
  - path: mhenrichsen/alpaca_2k_test
    type: alpaca
dataset_prepared_path:
val_set_size: 0.05
output_dir: ./outputs/qlora-out
adapter: qlora
lora_model_dir:
sequence_len: 4096
sample_packing: true
pad_to_sequence_len: true
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_modules:
lora_target_linear: true
wandb_project:
wandb_entity:
wandb_watch:
wandb_name:
wandb_log_model:
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 4
optimizer: paged_adamw_32bit
lr_scheduler: cosine
learning_rate: 0.0002
bf16: auto
tf32: false
gradient_checkpointing: true
resume_from_checkpoint:
logging_steps: 1
flash_attention: true
s2_attention: true
warmup_steps: 10
evals_per_epoch: 4
saves_per_epoch: 1
weight_decay: 0.0
special_tokens:
  pad_token: "</s>"
`,
  "LLaMA-Factory": `
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
quantization_bit: 4
quantization_method: bnb
double_quantization: false
trust_remote_code: true
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
dataset: identity,alpaca_en_demo
template: llama3
cutoff_len: 2048
max_samples: 1000
overwrite_cache: true
preprocessing_num_workers: 16
dataloader_num_workers: 4
output_dir: saves/llama3-8b/lora/sft
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true
save_only_model: false
report_to: none
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
shift_attn: true
flash_attn: auto
val_size: 0.1
per_device_eval_batch_size: 1
eval_strategy: steps
eval_steps: 500
`,
  torchtune: `
model:
  _component_: torchtune.models.llama2.qlora_llama2_7b
  lora_rank: 8
tokenizer:
  _component_: torchtune.models.llama2.llama2_tokenizer
checkpointer:
  checkpoint_dir: /tmp/Llama-2-7b-hf
resume_from_checkpoint: False
save_adapter_weights_only: False
dataset:
  _component_: torchtune.datasets.alpaca_cleaned_dataset
seed: null
shuffle: True
batch_size: 2
optimizer:
  _component_: torch.optim.AdamW
lr_scheduler:
  num_warmup_steps: 100
loss:
  _component_: torchtune.modules.loss.CEWithChunkedOutputLoss
epochs: 1
max_steps_per_epoch: null
gradient_accumulation_steps: 16
clip_grad_norm: null
compile: False
output_dir: /tmp/qlora_finetune_output/
metric_logger:
  log_dir: logs
log_every_n_steps: 1
log_peak_memory_stats: False
device: cuda
dtype: bf16
enable_activation_checkpointing: True
enable_activation_offloading: False
profiler:
  enabled: False
low_cpu_ram: False
`,
  "mlx-lm": `
model: mlx_model
train: true
fine_tune_type: lora
training_mode: normal
optimizer: adamw
data: /path/to/training/data
seed: 0
num_layers: 16
batch_size: 4
iters: 1000
val_batches: 25
learning_rate: 1e-5
steps_per_report: 10
steps_per_eval: 200
resume_adapter_file: null
adapter_path: adapters
save_every: 100
test: false
test_batches: 100
max_seq_length: 2048
grad_checkpoint: false
mask_prompt: false
lora_parameters:
  rank: 8
  scale: 20.0
lr_schedule:
  name: cosine_decay
hf_dataset:
  name: billsum
`,
  unsloth: `
model: unsloth/llama-2-7b
load_in_16bit: false
dtype: null
random_state: 3407
use_gradient_checkpointing: unsloth
use_loftq: false
bias: none
dataset_text_field: text
dataset_num_proc: 2
train_on_completions: true
enable_wandb: false
wandb_token: null
loftq_config: null
format_type: auto
training_type: lora
`,
};

for (const [tool, yaml] of Object.entries(FILES)) {
  Deno.test(`every key of a file of ${tool} is an option, noted, or answered with what takes its place`, async () => {
    for (const [key, value] of Object.entries(parse(yaml))) {
      if (isOption(key)) continue;
      const answer = await answersOf(SETTINGS + stringify({ [key]: value }));
      assertIncludes(answer, key);
      assert(!answer.includes("all options are in"), answer);
    }
  });
}

Deno.test("a key that asks for what is done here is noted, with another value it is refused", async () => {
  const noted = await answersOf(
    `${SETTINGS}load_in_8bit: false\nuse_dora: False\nshuffle: true\nstage: sft\nlora_model_dir:\nval_set_size: 0.0\n`,
  );
  assertIncludes(
    noted,
    "no effect here: load_in_8bit, use_dora, shuffle, stage, val_set_size (it is so here)",
  );
  assertIncludes(noted, "no effect here: lora_model_dir (not set)");
  const refused = await answersOf(
    `${SETTINGS}load_in_8bit: true\nuse_dora: true\nshuffle: false\nstage: dpo\n`,
  );
  for (const key of ["load_in_8bit", "use_dora", "shuffle", "stage"]) {
    assertIncludes(refused, `${key}: not an option; ${hintFor(key)}`);
  }
  assertIncludes(await answersOf(`${SETTINGS}lora_modle_dir:\n`), "not an option");
  assertIncludes(await answersOf(`${SETTINGS}metric_for_best_model: eval_loss\n`), "it is so here");
  assertIncludes(await answersOf(`${SETTINGS}metric_for_best_model: eval_accuracy\n`), "lowest loss");
});

Deno.test("flags of other tools are answered as their keys are", async () => {
  const flags: Record<string, string> = { load_in_8bit: "true" };
  const message = await loadTrainArgs(null, flags).then(String, String);
  assertIncludes(message, "--load_in_8bit: not an option; there is no training on 8 bits");
});

Deno.test("a key has one answer, and every option that an answer names exists", () => {
  for (const key of HINTED_KEYS) {
    const others = [isOption(key), FOREIGN_KEYS.has(key), SAME_OPTIONS.has(key), OTHER_NAMES.has(key)];
    assertEquals([key, ...others], [key, false, false, false, false]);
    const words = hintFor(key)!.match(/\b[a-z]\w*_\w+\b/g) ?? [];
    assertEquals(words.filter((word) => !isOption(word)), [], key);
  }
  for (const [name, option] of [...OTHER_NAMES, ...SAME_OPTIONS]) {
    assert(OPTION_NAMES.includes(option as never) && !FOREIGN_KEYS.has(name), `${name} -> ${option}`);
  }
});
