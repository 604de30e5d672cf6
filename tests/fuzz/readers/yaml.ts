/** Settings of a training run. */
import { loadTrainArgs } from "../../../train_args/load.ts";
import { mutateText, utf8 } from "../mutate.ts";
import type { Reader } from "../reader.ts";

const SOURCES = [
  `# a run
output_dir: output/x
model_name_or_path: models/a
train_file: data/train.jsonl
max_seq_length: 1024
lora_rank: 8
target_modules: [q_proj, v_proj]
learning_rate: 1e-4
bf16: true
rope_scaling: { type: linear, factor: 4 }
`,
  `output_dir: o
model_name_or_path: m
train_data:
  - a.json[100]
  - long-llm:b.json
train_data_weights: [0.5, 0.5]
data_root: d
max_steps: 10
max_seq_length: 256
`,
];
const TOKENS = [
  ":",
  "- ",
  "[",
  "]",
  "{",
  "}",
  "&a ",
  "*a",
  "!!js/function ",
  "!!binary ",
  "<<: *a\n",
  "|\n",
  ">-\n",
  "%YAML 1.1\n",
  "---\n",
  "...\n",
  "\t",
  "  ",
  "\u0000",
  "\ufeff",
  "'",
  '"',
  "__proto__: 1\n",
  "constructor: {}\n",
  "1e999",
  ".nan",
  ".inf",
  "-1",
  "0x10",
  "null",
  "lora_rnk: 1\n",
  "? ",
  "a: &a [*a]\n",
  "[[[[",
  "{a: {a: ",
  "bf16: yes\n",
  "\u001b[2J",
];

export const reader: Reader = {
  everyday: 400,
  accepted: [0.02, 0.9],
  lines: 80,
  make: (dice) => utf8(mutateText(dice, dice.pick(SOURCES), TOKENS)),
  async read(input, folder) {
    Deno.writeFileSync(`${folder}/x.yaml`, input);
    await loadTrainArgs(`${folder}/x.yaml`);
  },
};
