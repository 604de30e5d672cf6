import { UserError } from "../../errors.ts";
import { dumpTrainArgs } from "../../train_args/describe.ts";
import { FOREIGN_KEYS } from "../../train_args/foreign_keys.ts";
import { loadTrainArgs } from "../../train_args/load.ts";
import { OPTION_NAMES, OPTIONS, stepsBetween } from "../../train_args/schema.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";

const REQUIRED = "model_name_or_path: m\ntrain_file: t.jsonl\noutput_dir: o\nmodel_max_length: 128\n";

/** Loads `yaml` from a temporary file called settings.yaml. */
async function load(yaml: string | Uint8Array<ArrayBuffer>, overrides: Record<string, string> = {}) {
  return await withFolder(async (folder) => {
    const file = `${folder}/settings.yaml`;
    await Deno.writeFile(file, typeof yaml === "string" ? new TextEncoder().encode(yaml) : yaml);
    return await loadTrainArgs(file, overrides);
  });
}

/** The message of the UserError that `yaml` causes, without its first line, which holds a temporary path. */
async function problemsOf(yaml: string | Uint8Array<ArrayBuffer>, overrides: Record<string, string> = {}) {
  try {
    await load(yaml, overrides);
  } catch (error) {
    assert(error instanceof UserError, `a UserError, got ${error}`);
    assertEquals(error.kind, "usage");
    const [first, ...rest] = error.message.split("\n");
    return rest.length > 0 ? rest.join("\n") : first!;
  }
  throw new Error(`no error for ${yaml}`);
}

// The keys and values that LongQLoRA's two files carry (facts of commit ade0d97), in the forms its YAML uses.
const LONGQLORA = `
output_dir: output/longqlora
model_name_or_path: NousResearch/Llama-2-7b-hf
train_file: ./data/train.jsonl
deepspeed: ./train_args/deepspeed/deepspeed_config_s2.json
sft: false
use_flash_attn: false
num_train_epochs: 1
max_steps: 1000
per_device_train_batch_size: 1
gradient_accumulation_steps: 16
max_seq_length: 8192
model_max_length: 8192
learning_rate: "2e-4"
logging_steps: 50
save_steps: 100
save_total_limit: 3
lr_scheduler_type: constant_with_warmup
warmup_steps: 20
lora_rank: 64
lora_alpha: 16
lora_dropout: 0.05
gradient_checkpointing: true
disable_tqdm: false
optim: paged_adamw_32bit
seed: 42
fp16: True
report_to: tensorboard
dataloader_num_workers: 5
save_strategy: steps
weight_decay: 0
max_grad_norm: 0.3
remove_unused_columns: false
`;

Deno.test("a file as LongQLoRA ships them loads unmodified, with the foreign keys noted", async () => {
  const { args, notes } = await load(LONGQLORA);
  assertEquals(
    [args.learning_rate, args.fp16, args.max_steps, args.optim],
    [2e-4, true, 1000, "paged_adamw_32bit"],
  );
  assertEquals([args.load_in_4bit, args.attention, args.low_rank_training], [true, "s2", true]);
  const text = notes.join("\n");
  const foreign = ["deepspeed", "disable_tqdm", "dataloader_num_workers", "remove_unused_columns"];
  for (const key of [...foreign, "use_flash_attn", "report_to"]) {
    assertEquals(text.split(key).length, 2, `${key} is noted once`);
  }
});

Deno.test("of DeepSpeed's settings the stage of ZeRO counts, from a file or a map, unless zero_stage is given", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/ds.json`;
    await Deno.writeTextFile(file, '{"zero_optimization": {"stage": 2}, "bf16": {"enabled": "auto"}}');
    const { args, notes } = await load(`${LONGQLORA.replace(/^deepspeed:.*$/m, `deepspeed: ${file}`)}`);
    assertEquals(args.zero_stage, 2);
    assertEquals(notes.filter((line) => line.includes("deepspeed")), [
      "stage 2 of deepspeed is read as zero_stage",
    ]);
    const given = await load(`${LONGQLORA}zero_stage: 1\n`.replace(/^deepspeed:.*$/m, `deepspeed: ${file}`));
    assertEquals(given.args.zero_stage, 1);
    const inline = await load(
      LONGQLORA.replace(/^deepspeed:.*$/m, "deepspeed: {zero_optimization: {stage: 1}}"),
    );
    assertEquals(inline.args.zero_stage, 1);
  });
});

for (const recipe of ["llama2-7b-pretrain", "vicuna-13b-sft"]) {
  Deno.test(`train_args/${recipe}.yaml is ready to run`, async () => {
    const file = new URL(`../../train_args/${recipe}.yaml`, import.meta.url).pathname;
    const { args, notes } = await loadTrainArgs(file, {});
    assertEquals(notes, []);
    assertEquals([args.lora_rank, args.lora_alpha, args.gradient_accumulation_steps], [64, 16, 16]);
    assertEquals([args.max_seq_length, args.warmup_steps, args.max_grad_norm], [8192, 20, 0.3]);
    assertEquals(args.sft, recipe === "vicuna-13b-sft");
    assertEquals(args.learning_rate, args.sft ? 1e-4 : 2e-4);
  });
}

Deno.test("every problem is reported at once, in the order of the file, with line, column and caret", async () => {
  const message = await problemsOf(
    "lora_rnk: 64\nlearning_rate: fast\nmodel_name_or_path: m\ntrain_file: t\noutput_dir: o\n" +
      "max_seq_length: 256\nmodel_max_length: 128\nfp16: yes\nbf16: True\n",
  );
  assertEquals(
    message,
    [
      "settings.yaml:1:1: lora_rnk: not an option; did you mean lora_rank?",
      "    lora_rnk: 64",
      "    ^",
      'settings.yaml:2:16: learning_rate: must be a number above 0, got "fast"',
      "    learning_rate: fast",
      "                   ^",
      "settings.yaml:6:17: max_seq_length: 256 is more than model_max_length 128: raise model_max_length or lower this",
      "    max_seq_length: 256",
      "                    ^",
      "settings.yaml:8:7: fp16: is true and so is bf16: choose one, or neither for 32 bits",
      "    fp16: yes",
      "          ^",
    ].join("\n"),
  );
});

Deno.test("what is required and missing is named, all of it", async () => {
  const message = await problemsOf("sft: true\n");
  for (const key of ["model_name_or_path", "train_file", "output_dir", "max_seq_length"]) {
    assertIncludes(message, `settings.yaml: ${key}: is required`);
  }
});

Deno.test("names from other tools are answered with the name here", async () => {
  const message = await problemsOf(`${REQUIRED}lora_r: 8\ndataset: x\nbatch_size: 4\nfrobnicate: 1\n`);
  assertIncludes(message, "did you mean lora_rank?");
  assertIncludes(message, "did you mean train_file?");
  assertIncludes(message, "did you mean per_device_train_batch_size?");
  assertIncludes(message, "frobnicate: not an option; all options are in");
});

Deno.test("every ready recipe loads without a note, and says its data, memory and time", async () => {
  const folder = new URL("../../train_args/", import.meta.url).pathname;
  const recipes = [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) =>
    name.endsWith(".yaml")
  );
  assert(recipes.length >= 14, recipes.join());
  for (const name of recipes) {
    const { args, notes } = await loadTrainArgs(folder + name);
    assertEquals(notes.filter((note) => !note.startsWith("load_in_4bit is off")), [], name);
    assertIncludes(args.output_dir, "output/");
    const text = await Deno.readTextFile(folder + name);
    for (
      const part of [
        `--train_args_file train_args/${name}`,
        `./longreach plan train_args/${name}`,
        "GiB",
        "Time:",
      ]
    ) {
      assertIncludes(text.slice(0, text.indexOf("\nmodel_name_or_path")), part);
    }
  }
});

Deno.test("names of LongLoRA and Long-LLM are read as the options they are", async () => {
  const yaml = REQUIRED.replace("train_file", "data_path").replace("model_max_length", "max_length");
  const { args, notes } = await load(`${yaml}lora_targets: [q_proj]\nlora_extra_params: embed_tokens\n`);
  assertEquals([args.target_modules, args.trainable_params], [["q_proj"], ["embed_tokens"]]);
  assertEquals([args.train_file, args.max_seq_length], ["t.jsonl", 128]);
  assertIncludes(notes.join("\n"), "data_path is read as train_file");
  assertIncludes(notes.join("\n"), "max_length is read as max_seq_length");
  assertIncludes(
    await problemsOf(`${REQUIRED}data_path: x\n`),
    "data_path: train_file means the same and is set too",
  );
});

Deno.test("training data is named once, with a weight for each file or none", async () => {
  const without = REQUIRED.replace(/train_file: .*\n/, "");
  const { args } = await load(`${without}train_data: [a.json, "b.json[5]"]\ntrain_data_weights: 0.7, 0.3\n`);
  assertEquals([args.train_data, args.train_data_weights], [["a.json", "b.json[5]"], [0.7, 0.3]]);
  assertIncludes(await problemsOf(without), "train_file: is required");
  assertIncludes(await problemsOf(`${REQUIRED}train_data: a\n`), "train_data: is set and so is train_file");
  assertIncludes(
    await problemsOf(`${without}train_data: a,b\ntrain_data_weights: 1\n`),
    "has 1 weights for 2 files",
  );
  assertIncludes(await problemsOf(`${REQUIRED}cross_document_attention: true\n`), "needs packing: true");
});

Deno.test("a wrong value in a file written for Python reads as its author meant it", async () => {
  const { args } = await load(
    `${REQUIRED}learning_rate: '1e-3'\nadam_epsilon: 1e-6\nlora_rank: "8"\nsft: "True"\nbf16: on\n` +
      "max_steps: '1_000'\ntarget_modules: q_proj, v_proj\ntrainable_params: embed,norm\n" +
      "eval_file: None\nsave_strategy: no\nsave_total_limit:\n",
  );
  assertEquals([args.learning_rate, args.adam_epsilon, args.lora_rank, args.max_steps], [
    1e-3,
    1e-6,
    8,
    1000,
  ]);
  assertEquals([args.sft, args.bf16, args.eval_file, args.save_strategy], [true, true, null, "no"]);
  assertEquals(args.target_modules, ["q_proj", "v_proj"]);
  assertEquals(args.trainable_params, ["embed", "norm"]);
  assertEquals(args.save_total_limit, null);
});

Deno.test("lists and maps come as YAML too, and the result is frozen all the way down", async () => {
  const { args } = await load(
    `${REQUIRED}target_modules: [q_proj, k_proj]\nrope_scaling: {rope_type: linear, factor: 4.0}\n`,
  );
  assertEquals(args.target_modules, ["q_proj", "k_proj"]);
  assertEquals(args.rope_scaling, { rope_type: "linear", factor: 4 });
  assert(
    Object.isFrozen(args) && Object.isFrozen(args.target_modules) && Object.isFrozen(args.rope_scaling),
    "frozen",
  );
});

Deno.test("what gets LoRA is said as PEFT takes it, in YAML and by flags", async () => {
  const cases: [string, unknown][] = [
    ["q_proj,v_proj", ["q_proj", "v_proj"]],
    ["q_proj", ["q_proj"]],
    ["model.layers.0.self_attn.q_proj, down_proj", ["model.layers.0.self_attn.q_proj", "down_proj"]],
    ["all-linear", "all-linear"],
    ["All", "all-linear"],
    [".*(q|v)_proj", ".*(q|v)_proj"],
    [String.raw`model\.layers\.(1|2)\.[a-z_]{1,9}\..*`, String.raw`model\.layers\.(1|2)\.[a-z_]{1,9}\..*`],
  ];
  for (const [text, wanted] of cases) {
    const { args } = await load(REQUIRED, { target_modules: text, exclude_modules: "lm_head" });
    assertEquals(args.target_modules, wanted, text);
    const { args: fromFile } = await load(`${REQUIRED}target_modules: ${JSON.stringify(text)}\n`);
    assertEquals(fromFile.target_modules, wanted, text);
    const { args: again } = await load(dumpTrainArgs({ ...args, exclude_modules: wanted as string }));
    assertEquals([again.target_modules, again.exclude_modules], [wanted, wanted], "written and read again");
  }
  const yaml = `${REQUIRED}target_modules: [all]\nlayers_to_transform: 3\nlayers_pattern: layers\n` +
    'rank_pattern: {down_proj: 8, ".*q_proj": "4"}\nmodules_to_save: embed_tokens,lm_head\n';
  const { args } = await load(yaml, { alpha_pattern: '{"(q|v)_proj": 16.5}', layers_to_transform: "1,3" });
  assertEquals([args.target_modules, args.layers_to_transform, args.layers_pattern], ["all-linear", [1, 3], [
    "layers",
  ]]);
  assertEquals([args.rank_pattern, args.alpha_pattern], [{ down_proj: 8, ".*q_proj": 4 }, {
    "(q|v)_proj": 16.5,
  }]);
  assertEquals(args.modules_to_save, ["embed_tokens", "lm_head"]);

  const wrong: [string, string][] = [
    ["rank_pattern: {q_proj: 2.5}", "rank_pattern: must be a map"],
    ["alpha_pattern: {q_proj: 0}", "each value a number above 0"],
    ["layers_to_transform: -1", "layers_to_transform"],
    ["target_modules: [1]", "target_modules"],
    ['target_modules: ".*q_proj"\nlayers_to_transform: 1', "say the layers in the expression"],
    ["layers_pattern: h", "means nothing without layers_to_transform"],
    ["lora_target_modules: q_proj", "did you mean target_modules?"],
    ["additional_target: lm_head", "did you mean modules_to_save?"],
  ];
  for (const [line, says] of wrong) assertIncludes(await problemsOf(`${REQUIRED}${line}\n`), says);
});

Deno.test("training every weight says which options of LoRA have no effect", async () => {
  const full = `${REQUIRED}low_rank_training: false\n`;
  const { notes } = await load(
    `${full}lora_rank: 8\nlora_alpha: 16\nrank_pattern: {q_proj: 4}\nmodules_to_save: lm_head\n`,
  );
  assertIncludes(
    notes.join("\n"),
    "no effect: lora_rank, rank_pattern, modules_to_save (low_rank_training is false",
  );
  assert(!(await load(full)).notes.some((note) => note.includes("no effect")), "nothing was given");
});

Deno.test("flags replace YAML keys, in snake_case and kebab-case, and say so", async () => {
  const { args, notes } = await load(`${REQUIRED}lora_rank: 64\n`, {
    "lora-rank": "8",
    learning_rate: "1e-4",
    rope_scaling: '{"rope_type": "linear", "factor": 2}',
    tf32: "True",
  });
  assertEquals([args.lora_rank, args.learning_rate], [8, 1e-4]);
  assertEquals(args.rope_scaling, { rope_type: "linear", factor: 2 });
  assertIncludes(notes.join("\n"), 'lora_rank: "8" from the flag replaces 64');
  assertIncludes(notes.join("\n"), "tf32");
});

Deno.test("problems of flags point at the flag", async () => {
  const message = await problemsOf(REQUIRED, { lora_rank: "-1", "lern-rate": "1" });
  assertIncludes(message, '--lora_rank: must be a whole number from 1 to 4096, got "-1"');
  assertIncludes(message, "--lern_rate: not an option; did you mean --learning_rate?");
});

Deno.test("without a file, flags alone are enough", async () => {
  const { args } = await loadTrainArgs(null, {
    model_name_or_path: "m",
    train_file: "t",
    output_dir: "o",
    max_seq_length: "64",
    resume_from_checkpoint: "True",
  });
  assertEquals([args.max_seq_length, args.model_max_length, args.data_seed], [64, 64, 42]);
  assertEquals(args.resume_from_checkpoint, true);
});

Deno.test("a script's settings are typed values, text, or not given, and checked as the others", async () => {
  const required = { model_name_or_path: "m", train_file: "t", output_dir: "o", max_seq_length: 64 };
  const { args, notes } = await loadTrainArgs(null, {
    ...required,
    bf16: true,
    learning_rate: 1e-3,
    lora_rank: "4",
    target_modules: ["q_proj", "v_proj"],
    rope_scaling: { type: "linear", factor: 2 },
    eval_file: null,
    save_total_limit: undefined,
    max_memory: "8GiB",
  });
  const { bf16, learning_rate, lora_rank, target_modules, rope_scaling, max_seq_length, max_memory } = args;
  assertEquals(
    [bf16, learning_rate, lora_rank, target_modules, rope_scaling, max_seq_length, max_memory, notes],
    [true, 1e-3, 4, ["q_proj", "v_proj"], { type: "linear", factor: 2 }, 64, 8 * 2 ** 30, []],
  );
  await assertThrows(
    () => loadTrainArgs(null, { ...required, lora_rank: -1, bf16: "perhaps" }),
    "--lora_rank: must be a whole number from 1 to 4096, got -1",
    '--bf16: must be true or false, got "perhaps"',
  );
});

const RULES: [name: string, yaml: string, wanted: string][] = [
  [
    "offloading of what is not kept",
    "offload_activations: true\ngradient_checkpointing: false",
    "offload_activations: is true, but without gradient_checkpointing",
  ],
  [
    "half an offload",
    "offload_activations: some",
    "offload_activations: must be one of auto, or true or false",
  ],
  ["other optimisers", "optim: adafactor", "optim: must be one of adamw_torch, "],
  ["nothing to do", "num_train_epochs: 0", "there is nothing to do"],
  ["group above length", "group_size: 256", "group_size: 256 is more than max_seq_length 128"],
  [
    "ranks that share full attention",
    "sequence_parallel_size: 2\nuse_full_attn: true",
    "2 needs S2-Attn: with full attention every token sees all before it",
  ],
  ["more ranks than groups", "sequence_parallel_size: 5", "5 is more than the 4 groups of 32 tokens"],
  ["group of one", "group_size_ratio: 0.01", "leaves groups of 1"],
  [
    "full training of 4 bits",
    "low_rank_training: false\nload_in_4bit: true",
    "4-bit weights cannot be trained",
  ],
  ["LoRA from scratch", "train_from_scratch: true", "needs low_rank_training: false"],
  ["resume and overwrite", "resume_from_checkpoint: true\noverwrite_output_dir: true", "set one of them"],
  ["no number", "learning_rate: .nan", "must be a number above 0, got NaN"],
  ["a list for a number", "lora_rank: [1, 2]", "must be a whole number from 1 to 4096, got [1,2]"],
  ["a number for a path", "eval_file: 3", "must be path (in quotes where YAML"],
  ["a second document", "---\nseed: 3", "a second document begins here"],
  ["a zero in front", "seed: 010", "seed: a number with a zero in front is octal to some readers"],
  ["a share of no steps", "save_steps: 0", "or a share of all steps above 0 and below 1, got 0"],
  ["more than all steps", "save_steps: 1.5", "or a share of all steps above 0 and below 1, got 1.5"],
  ["a word for a boolean", "sft: maybe", 'must be true or false, got "maybe"'],
];
for (const [name, yaml, wanted] of RULES) {
  Deno.test(`refused: ${name}`, async () => assertIncludes(await problemsOf(`${REQUIRED}${yaml}\n`), wanted));
}

Deno.test("full fine-tuning turns the 4-bit base off and says so", async () => {
  const { args, notes } = await load(`${REQUIRED}low_rank_training: False\n`);
  assertEquals(args.load_in_4bit, false);
  assertIncludes(notes.join("\n"), "load_in_4bit is off");
  const said = await load(`${REQUIRED}low_rank_training: False\nload_in_4bit: false\n`);
  assertEquals(said.notes, []);
});

const HOSTILE: [name: string, yaml: string | Uint8Array<ArrayBuffer>, wanted: string][] = [
  ["an alias", "a: &x 1\nlora_rank: *x\n", "settings.yaml:2:12: lora_rank: aliases"],
  ["a tag", "lora_rank: !!int '3'\n", "lora_rank: tags"],
  [
    "a repeated key",
    `${REQUIRED}seed: 1\nseed: 2\n`,
    "settings.yaml:6:1: not valid YAML: map keys must be unique",
  ],
  ["a broken line", "lora_rank: [1, 2\nseed: 3\n", "not valid YAML"],
  ["a list of options", "- lora_rank\n", "must hold one map of options"],
  ["plain text", "lora_rank\n", "must hold one map of options"],
  ["an empty file", "", "model_name_or_path: is required"],
  ["a prototype key", "__proto__: {sft: true}\n", "__proto__: not an option"],
  ["a method's name", "constructor: 1\ntoString: 2\n", "toString: not an option"],
  ["an escape sequence", '"lora\\e[2J": 1\n', "lora [2J: not an option"],
  ["deep brackets", `seed: ${"[".repeat(20_000)}\n`, "nested too deeply"],
  ["deep dashes", `seed:\n ${"- ".repeat(20_000)}\n`, "nested too deeply"],
  ["nine levels of laughs", laughs(9), "aliases"],
  ["bytes that are not text", new Uint8Array([0x61, 0x3a, 0x20, 0xff, 0xfe]), "byte 4 of the line, 0xff"],
  ["a file over 1 MiB", `seed: ${"1".repeat(1 << 20)}\n`, "at most 1048576 are allowed"],
  ["a very long line", `seed: ${"x".repeat(1_000_000)}\n`, "must be a whole number"],
];
for (const [name, yaml, wanted] of HOSTILE) {
  Deno.test(`hostile file: ${name}`, async () => {
    const started = performance.now();
    const message = await problemsOf(yaml);
    assertIncludes(message, wanted);
    // deno-lint-ignore no-control-regex
    assert(!/[\u0000-\u0009\u000b-\u001f]/.test(message), "no control characters");
    assert(message.length < 8000, `a short message, got ${message.length} characters`);
    assert(performance.now() - started < 2000, "fast");
  });
}

function laughs(levels: number): string {
  const lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"];
  for (let i = 1; i <= levels; i++) lines.push(`a${i}: &a${i} [${Array(9).fill(`*a${i - 1}`).join(", ")}]`);
  return lines.join("\n");
}

Deno.test("a missing file and a folder are named", async () => {
  for (const [path, wanted] of [["/no/such/file.yaml", "no such file"], ["/", "it is a folder"]] as const) {
    const error = await loadTrainArgs(path, {}).catch((e: unknown) => e);
    assert(error instanceof UserError, "a UserError");
    assertIncludes(error.message, wanted);
  }
});

Deno.test("dumpTrainArgs() writes a file that loads back to the same settings", async () => {
  const { args } = await load(
    `${REQUIRED}learning_rate: 1.5e-5\ntarget_modules: q_proj,v_proj\nuse_full_attn: true\nsave_strategy: "no"\n` +
      "rope_scaling: {rope_type: linear, factor: 4}\nresume_from_checkpoint: 'true'\nadapter_name_or_path: 'a: #b'\n",
  );
  const again = await load(dumpTrainArgs(args));
  assertEquals(again.args, args);
});

Deno.test("no name is both an option and a foreign key", () => {
  assertEquals(OPTION_NAMES.filter((name) => FOREIGN_KEYS.has(name)), []);
});

Deno.test("every default passes its own check", () => {
  for (const name of OPTION_NAMES) {
    const { default: initial, kind } = OPTIONS[name];
    if (initial !== null) assert(kind.type.safeParse(initial).success, name);
  }
});

Deno.test("Sizes are read with their unit", async () => {
  const required = { model_name_or_path: "m", train_file: "t", output_dir: "o", max_seq_length: "64" };
  for (
    const [text, bytes, written] of [
      ["24GiB", 24 * 2 ** 30, "24GiB"],
      ["1.5 gb", 1.5e9, "1500MB"],
      ["500MB", 5e8, "500MB"],
      ["24G", 24e9, "24GB"],
      ["4096B", 4096, "4KiB"],
      ["12345B", 12345, "12345B"],
    ] as const
  ) {
    const { args } = await loadTrainArgs(null, { ...required, max_memory: text });
    assertEquals(args.max_memory, bytes, text);
    assertIncludes(dumpTrainArgs(args), `max_memory: ${written}\n`);
  }
  for (const wrong of ["24 apples", "-1GB", "0GiB", "GiB", "10", "4096"]) {
    await assertThrows(
      () => loadTrainArgs(null, { ...required, max_memory: wrong }),
      "must be a size with its unit, such as 24GiB",
    );
  }
});

Deno.test("a list of a flag may stand in brackets, as in YAML", async () => {
  const settings = { model_name_or_path: "m", output_dir: "o", max_seq_length: "64" };
  for (const train_data of ["a.jsonl,b.json[20]", "[a.jsonl, b.json[20]]"]) {
    const { args } = await loadTrainArgs(null, { ...settings, train_data });
    assertEquals(args.train_data, ["a.jsonl", "b.json[20]"]);
  }
});

Deno.test("data_seed is seed unless set; shares of all steps are rounded up", async () => {
  const seeds = async (yaml: string) => {
    const { args } = await load(REQUIRED + yaml);
    return [args.seed, args.data_seed];
  };
  assertEquals(await seeds("seed: 7\n"), [7, 7]);
  assertEquals(await seeds("seed: 7\ndata_seed: 9\n"), [7, 9]);
  assertEquals([stepsBetween(0.1, 15), stepsBetween(0.5, 4), stepsBetween(3, 15)], [2, 2, 3]);
});

Deno.test("fallbacks take the place of defaults, and of nothing that is given", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/settings.yaml`;
    await Deno.writeTextFile(file, "model_name_or_path: m\ntrain_data: [a.jsonl]\nmax_length: 64\n");
    const { args } = await loadTrainArgs(file, { seed: 7 }, (isGiven) => ({
      ...(isGiven("train_file", "train_data") ? {} : { train_file: "-" }),
      ...(isGiven("max_seq_length") ? {} : { max_seq_length: "8192" }),
      ...(isGiven("seed") ? {} : { seed: 1 }),
      ...(isGiven("output_dir") ? {} : { output_dir: "-" }),
    }));
    assertEquals([args.train_file, args.max_seq_length, args.seed, args.output_dir], [null, 64, 7, "-"]);
  });
});
