/** Everything that users get wrong, or that goes wrong under them: one clear line, the exit code, nothing half-written. */
import { runCli } from "../../cli/main.ts";
import { readAdapter } from "../../checkpoint/peft.ts";
import { verify } from "../../checkpoint/store.ts";
import { openWeights } from "../../checkpoint/weights.ts";
import { writeModel } from "../../checkpoint/save_model.ts";
import { parseConfig } from "../../model/config.ts";
import { freshWeights } from "../../model/load/fresh.ts";
import { safetensorsBytes } from "../checkpoint/support.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { writeChangedModel } from "../support/changed_model.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { withDisk } from "../support/full_disk.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "./memory_io.ts";

const MODEL = `${GOLDEN}/mha`;
const LINEAR = "model.layers.1.mlp.up_proj.weight";

/** Flags of the smallest run that works; {@linkcode trainWords} turns them into a command line. */
const TRAIN: Readonly<Record<string, string | number>> = {
  // What tests tokenize does not belong into the user's cache.
  dataset_cache_dir: "false",
  model_name_or_path: MODEL,
  train_file: `${GOLDEN}/train.jsonl`,
  model_max_length: 64,
  lora_rank: 4,
  max_steps: 1,
};

function trainWords(output_dir: string, changes: Record<string, string | number> = {}): string[] {
  return [
    "train",
    ...Object.entries({ ...TRAIN, output_dir, ...changes }).map(([key, value]) => `--${key}=${value}`),
  ];
}

function evaluateWords(changes: Record<string, string | number> = {}): string[] {
  const flags = {
    base_model: MODEL,
    data_path: `${GOLDEN}/data.bin`,
    seq_len: 64,
    sliding_window: 1024,
    ...changes,
  };
  return ["evaluate", ...Object.entries(flags).map(([key, value]) => `--${key}=${value}`)];
}

function mergeWords(save_path: string, changes: Record<string, string | number> = {}): string[] {
  const flags = { base_model: MODEL, peft_model: `${GOLDEN}/adapter`, save_path, ...changes };
  return ["merge", ...Object.entries(flags).map(([key, value]) => `--${key}=${value}`)];
}

function tokenizeWords(data_path: string, save_path: string, model = MODEL): string[] {
  return [
    "tokenize",
    `--model_name_or_path=${model}`,
    `--data_path=${data_path}`,
    `--save_path=${save_path}`,
  ];
}

/** Notes and progress, which come before the line that says what is wrong. */
const BEFORE =
  /^(\d+ of \d+ rows |The (first of|only) |<s>|Learnt first|[\d,]+ sequences? by length| {2}up to |(\S+Z )?(tensor|window|step|saved) |Step |\w+: .* from the flag replaces |The adapter's own settings count|(learning rate|\w+) {2,})/;

/** Fails unless the text ends with one line for the user that holds every part, and shows no stack. */
function assertOneLine(stderr: string, parts: readonly string[]): void {
  const lines = stderr.trimEnd().split("\n").filter((line) => !BEFORE.test(line));
  assertEquals(lines.length, 1, `lines of ${stderr}`);
  const line = lines[0]!;
  for (const part of parts) assertIncludes(line, part);
  assert(
    !/bug in Longreach|^ {4}at |\.ts:\d|undefined|\[object/m.test(stderr),
    `not a line for users: ${stderr}`,
  );
  assert(line.length > 30 && line.length < 500 && !line.endsWith("."), `not a line for users: ${line}`);
}

/** Runs a command line that must fail. */
async function assertFails(
  words: readonly string[],
  code: 1 | 2,
  parts: readonly string[],
): Promise<void> {
  const io = new MemoryIo();
  const actual = await runCli(words, io);
  assertEquals([actual, io.stdout], [code, ""], `${words.join(" ")}\n${io.stderr}`);
  assertOneLine(io.stderr, parts);
}

/** Names that a failed run may leave: none of them is taken for a result. */
function assertNothingFinal(outputDir: string): void {
  const left = namesIn(outputDir).filter((name) => name !== ".longreach.lock");
  assertEquals(left, [], `left in ${outputDir}`);
}

/** A folder with the model's small files, and its weights unless told otherwise. */
async function copyModel(to: string, from = MODEL, without: readonly string[] = []): Promise<void> {
  await Deno.mkdir(to);
  for (const name of namesIn(from)) {
    if (!without.includes(name)) await Deno.copyFile(`${from}/${name}`, `${to}/${name}`);
  }
}

async function changeJson(path: string, change: Record<string, unknown>): Promise<void> {
  await Deno.writeTextFile(path, JSON.stringify({ ...JSON.parse(await Deno.readTextFile(path)), ...change }));
}

/** Makes every kind of broken model below `root`; what each one's message must say. */
async function brokenModels(root: string): Promise<Record<string, { code: 1 | 2; parts: string[] }>> {
  const weights = "model.safetensors";
  const bytes = await Deno.readFile(`${MODEL}/${weights}`);
  const broken = async (name: string, content: Uint8Array) => {
    await copyModel(`${root}/${name}`, MODEL, [weights]);
    await Deno.writeFile(`${root}/${name}/${weights}`, content);
  };
  await broken("truncated", bytes.subarray(0, bytes.length - 1000));
  await broken("cut_header", bytes.subarray(0, 300));
  await broken("empty_file", new Uint8Array());
  const entry = (from: number, to: number) => ({ dtype: "F32", shape: [4], data_offsets: [from, to] });
  const overlapping = JSON.stringify({ "model.norm.weight": entry(0, 16), "lm_head.weight": entry(8, 24) });
  await broken("overlapping", safetensorsBytes(overlapping, new Uint8Array(24)));

  const configured = async (name: string, change: Record<string, unknown>) => {
    await copyModel(`${root}/${name}`);
    await changeJson(`${root}/${name}/config.json`, change);
  };
  await configured("other_shape", { intermediate_size: 160 });
  await configured("fewer_layers", { num_hidden_layers: 1 });
  await configured("more_layers", { num_hidden_layers: 3 });
  await configured("mamba", { model_type: "mamba", architectures: ["MambaForCausalLM"] });
  await configured("gelu", { hidden_act: "gelu" });
  await configured("no_heads", { num_attention_heads: "4" });
  await configured("unknown_rope", { rope_scaling: { type: "stretched", factor: 4 } });

  await copyModel(`${root}/no_config`, MODEL, ["config.json"]);
  await copyModel(`${root}/no_weights`, MODEL, [weights]);
  await copyModel(`${root}/bad_config`);
  await Deno.writeTextFile(`${root}/bad_config/config.json`, '{"model_type": "llama"');
  await copyModel(`${root}/missing_shard`, `${GOLDEN}/gqa`, ["model-00002-of-00003.safetensors"]);

  const values = (name: string, value: number) =>
    writeChangedModel(MODEL, `${root}/${name}`, LINEAR, (all) => all[77] = value);
  await values("nan", NaN);
  await values("infinite", -Infinity);
  for (const name of ["nan", "infinite"]) {
    for (const file of ["tokenizer.json", "tokenizer_config.json"]) {
      await Deno.copyFile(`${MODEL}/${file}`, `${root}/${name}/${file}`);
    }
  }
  const is = (...parts: string[]) => ({ code: 1 as const, parts });
  return {
    absent: is("absent", "no such file or folder"),
    no_config: is("no_config", "no config.json"),
    bad_config: is("bad_config/config.json", "not valid JSON"),
    no_weights: is("no_weights", "safetensors"),
    missing_shard: is("model-00002-of-00003.safetensors", "no such file", "download"),
    truncated: is("truncated/model.safetensors", "bytes"),
    cut_header: is("cut_header/model.safetensors"),
    empty_file: is("empty_file/model.safetensors"),
    overlapping: is("overlapping/model.safetensors", "overlap"),
    other_shape: is("model.layers.0.mlp.gate_proj.weight", "[176,64]", "[160,64]", "config.json"),
    fewer_layers: is("model.layers.1.", "config.json"),
    more_layers: is("model.layers.2.", "config.json"),
    mamba: is('"mamba"', "llama, mistral, qwen2"),
    gelu: is('"gelu"', "silu"),
    no_heads: is("no_heads/config.json", "num_attention_heads"),
    unknown_rope: is('"stretched"', "yarn"),
    nan: is(LINEAR, "element 77", "NaN"),
    infinite: is(LINEAR, "element 77", "-Infinity"),
  };
}

Deno.test("A model that is missing, damaged, of another kind or not finite ends every command with one line", async () => {
  await withFolder(async (root) => {
    for (const [name, { code, parts }] of Object.entries(await brokenModels(root))) {
      const model = `${root}/${name}`;
      const out = `${root}/out-${name}`;
      const data = name === "missing_shard" ? { lora_rank: 2 } : {};
      await assertFails(trainWords(out, { model_name_or_path: model, ...data }), code, parts);
      assertNothingFinal(out);
      await assertFails(evaluateWords({ base_model: model }), code, parts);
      if (name === "missing_shard") continue; // the adapter is for the other model
      await assertFails(mergeWords(`${root}/merged`, { base_model: model }), code, parts);
      assert(!namesIn(root).some((left) => left.startsWith("merged")), `merging ${name} left something`);
    }
  });
});

Deno.test("Settings: unknown keys, wrong types, lengths that contradict each other, all with file and line", async () => {
  await withFolder(async (root) => {
    const file = `${root}/args.yaml`;
    const yaml = [
      `model_name_or_path: ${MODEL}`,
      `train_file: ${GOLDEN}/train.jsonl`,
      `output_dir: ${root}/out`,
      "model_max_length: 64",
    ];
    const cases: [string, ...string[]][] = [
      ["lora_rnk: 8", "args.yaml:5:1", "lora_rnk", "did you mean lora_rank?"],
      ["lora_rank: eight", "args.yaml:5:12", "lora_rank", "whole number", '"eight"'],
      ["lora_rank: [8]", "args.yaml:5:12", "lora_rank", "whole number"],
      ["bf16: maybe", "args.yaml:5:7", "bf16", '"maybe"'],
      ["learning_rate: 0", "args.yaml:5:16", "learning_rate", "above 0"],
      ["max_seq_length: 128", "args.yaml:5:17", "128 is more than model_max_length 64"],
      ["lora_rank: 8\nlora_rank: 4", "args.yaml:6:1", "unique"],
      ["lora_rank: {", "args.yaml:"],
    ];
    for (const [line, ...parts] of cases) {
      await Deno.writeTextFile(file, [...yaml, line, ""].join("\n"));
      const io = new MemoryIo();
      assertEquals(await runCli(["train", "--train_args_file", file], io), 2, io.stderr);
      // A headline, then each problem in one line with the text it points at below.
      const problem = io.stderr.split("\n").filter((text) => parts.every((part) => text.includes(part)));
      assertEquals([problem.length, /^ {4}at /m.test(io.stderr)], [1, false], io.stderr);
    }
    await Deno.writeTextFile(file, "");
    const io = new MemoryIo();
    assertEquals(await runCli(["train", "--train_args_file", file], io), 2);
    for (const key of ["model_name_or_path", "train_file", "output_dir"]) {
      assertIncludes(io.stderr, `${key}: is required`);
    }
    await assertFails(["train", "--train_args_file", `${root}/none.yaml`], 2, ["none.yaml", "no such file"]);
    assertEquals(namesIn(root), ["args.yaml"], "nothing was made");
  });
});

Deno.test("Training data: missing, empty, not JSON, without its key, with nothing to learn", async () => {
  await withFolder(async (root) => {
    const file = `${root}/data.jsonl`;
    const good = '{"text": "a b c"}\n';
    const cases: [string | Uint8Array, Record<string, string>, ...string[]][] = [
      ["", {}, "data.jsonl", "no rows", '"text"'],
      ["\n\n  \n", {}, "data.jsonl", "no rows"],
      [`${good}hello\n`, {}, "data.jsonl:2:1", "not valid JSON"],
      [`${good}{"text": "a"\n`, {}, "data.jsonl:2:13", "not valid JSON"],
      [`${good}[1]\n`, {}, "data.jsonl:2", "JSON object"],
      [`${good}{"txt": "a"}\n`, {}, "data.jsonl:2", 'it has "txt"', 'Is "text" meant?'],
      [`${good}{"text": 5}\n`, {}, "data.jsonl:2", '"text" must be text', "number"],
      [good, { sft: "true" }, "data.jsonl:1", "sft is true", 'plain "text"'],
      ['{"input": "a", "output": "b"}\n', { sft: "false" }, "data.jsonl:1", "sft is false"],
      ['{"text": ""}\n', {}, "data.jsonl", "none of its 1 rows"],
      [Uint8Array.of(0x7b, 0xff, 0xfe, 0x0a), {}, "data.jsonl:1", "UTF-8"],
    ];
    for (const [content, changes, ...parts] of cases) {
      await Deno.writeFile(file, typeof content === "string" ? new TextEncoder().encode(content) : content);
      const out = `${root}/out`;
      await assertFails(trainWords(out, { train_file: file, ...changes }), 1, parts);
      assertNothingFinal(out);
    }
    const out = `${root}/out`;
    await assertFails(trainWords(out, { train_file: `${root}/none.jsonl` }), 1, [
      "none.jsonl",
      "no such file",
    ]);
    await Deno.mkdir(`${root}/empty`);
    await assertFails(trainWords(out, { train_file: `${root}/empty` }), 1, [
      "empty",
      "the folder has no .jsonl",
    ]);
    const prompt = "p ".repeat(100);
    await Deno.writeTextFile(file, JSON.stringify({ input: prompt, output: "x" }) + "\n");
    await assertFails(trainWords(out, { train_file: file, sft: "true" }), 1, [
      "none of its 1 rows",
      "Raise max_seq_length",
    ]);
    assertNothingFinal(out);
  });
});

Deno.test("Rows longer than max_seq_length are cut, counted and said", async () => {
  await withFolder(async (root) => {
    const rows = ["a", "b ".repeat(200), "c ".repeat(300)].map((text) => JSON.stringify({ text }) + "\n");
    await Deno.writeTextFile(`${root}/data.jsonl`, rows.join(""));
    const io = new MemoryIo();
    assertEquals(
      await runCli(trainWords(`${root}/out`, { train_file: `${root}/data.jsonl` }), io),
      0,
      io.stderr,
    );
    assertIncludes(io.stderr, "2 of 3 rows");
    assertIncludes(io.stderr, "longer than 64 tokens and were cut");
  });
});

Deno.test("A model's context that cannot be extended, and windows past it, are said", async () => {
  await withFolder(async (root) => {
    const out = `${root}/out`;
    const gqa = { model_name_or_path: `${GOLDEN}/gqa`, model_max_length: 1024 };
    await assertFails(trainWords(out, gqa), 2, ["1024 tokens", '"llama3"', "rope_theta"]);
    assertNothingFinal(out);
    const io = new MemoryIo();
    assertEquals(await runCli(evaluateWords({ seq_len: 128, context_size: 64 }), io), 0, io.stderr);
    assertIncludes(io.stderr, "seq_len 128 is longer than the 64 tokens");
  });
});

Deno.test("Tokenizers that are missing, damaged or have more tokens than the model", async () => {
  await withFolder(async (root) => {
    const out = `${root}/out`;
    const train = (name: string) => trainWords(out, { model_name_or_path: `${root}/${name}` });
    await copyModel(`${root}/none`, MODEL, ["tokenizer.json"]);
    await assertFails(train("none"), 1, [`"${root}/none"`, "no tokenizer.json", "Copy"]);
    await assertFails(tokenizeWords("README.md", `${root}/t.bin`, `${root}/none`), 1, ["no tokenizer.json"]);
    await copyModel(`${root}/damaged`);
    await Deno.writeTextFile(`${root}/damaged/tokenizer.json`, "{");
    await assertFails(train("damaged"), 1, ["damaged/tokenizer.json", "not valid JSON"]);
    await Deno.writeTextFile(`${root}/damaged/tokenizer.json`, '{"version": "1.0"}');
    await assertFails(train("damaged"), 1, ["damaged/tokenizer.json"]);
    await Deno.mkdir(`${root}/small`);
    const config = { ...JSON.parse(await Deno.readTextFile(`${MODEL}/config.json`)), vocab_size: 200 };
    const weights = freshWeights(parseConfig(config, "config.json"), 1);
    const tensors = [...weights.names()].map((name) => ({
      ...weights.info(name),
      read: () => weights.read(name),
    }));
    await writeModel(`${root}/small`, { config, tensors });
    for (const file of ["tokenizer.json", "tokenizer_config.json"]) {
      await Deno.copyFile(`${MODEL}/${file}`, `${root}/small/${file}`);
    }
    await assertFails(train("small"), 1, ["200", "tokenizer"]);
    assertNothingFinal(out);
    assert(!namesIn(root).includes("t.bin"), "a token file was made");
  });
});

Deno.test("Token files: missing, empty, cut in the middle of an id, of another vocabulary, too short", async () => {
  await withFolder(async (root) => {
    const file = `${root}/data.bin`;
    const cases: [number[], ...string[]][] = [
      [[], "data.bin"],
      [[1, 0, 2], "data.bin", "3 bytes", "multiple of 2"],
      [Array(4096).fill(255), "data.bin", "65535", "260"],
      [Array(100).fill(1), "50", "tokens"],
    ];
    for (const [bytes, ...parts] of cases) {
      await Deno.writeFile(file, Uint8Array.from(bytes));
      await assertFails(evaluateWords({ data_path: file }), 1, parts);
    }
    await assertFails(evaluateWords({ data_path: `${root}/none.bin` }), 1, ["none.bin", "no such file"]);
    await Deno.writeTextFile(`${file}.json`, '{"dtype": "int64"}');
    await assertFails(evaluateWords({ data_path: file }), 1, ["data.bin.json", "int64"]);
  });
});

Deno.test("Adapters: missing, without tensors, of another model, cut short", async () => {
  await withFolder(async (root) => {
    const adapter = `${root}/adapter`;
    const all = async (code: 1 | 2, parts: string[], base: string) => {
      await assertFails(evaluateWords({ base_model: base, peft_model: adapter }), code, parts);
      await assertFails(mergeWords(`${root}/merged`, { base_model: base, peft_model: adapter }), code, parts);
      const out = `${root}/out`;
      await assertFails(
        trainWords(out, { model_name_or_path: base, adapter_name_or_path: adapter }),
        code,
        parts,
      );
      assertNothingFinal(out);
    };
    await all(1, ["adapter", "no such file or folder"], MODEL);
    await copyModel(adapter, `${GOLDEN}/adapter`, ["adapter_model.safetensors"]);
    await all(1, ["adapter_model.safetensors"], MODEL);
    const bytes = await Deno.readFile(`${GOLDEN}/adapter/adapter_model.safetensors`);
    await Deno.writeFile(`${adapter}/adapter_model.safetensors`, bytes.subarray(0, bytes.length - 10));
    await all(1, ["adapter_model.safetensors", "bytes"], MODEL);
    await Deno.writeFile(`${adapter}/adapter_model.safetensors`, bytes);
    await all(1, ["Cannot use the adapter on this model", "k_proj"], `${GOLDEN}/gqa`);
    await Deno.remove(`${adapter}/adapter_config.json`);
    await all(1, ["adapter_config.json"], MODEL);
    assertEquals(namesIn(root), ["adapter", "out"]);
  });
});

Deno.test("Resuming where nothing was saved, or over an earlier run, is refused", async () => {
  await withFolder(async (root) => {
    const out = `${root}/out`;
    await assertFails(trainWords(out, { resume_from_checkpoint: `${root}/none` }), 1, [`${root}/none`]);
    assertNothingFinal(out);
    await Deno.writeTextFile(`${out}/trainer_state.json`, "{}");
    await assertFails(trainWords(out, { resume_from_checkpoint: "true" }), 2, [out, "no whole checkpoint"]);
    await assertFails(trainWords(out), 2, ["trainer_state.json", "overwrite_output_dir"]);
    await assertFails(mergeWords(out), 2, [out, "not empty"]);
  });
});

Deno.test("Output folders that cannot be written: below a file, read-only", async () => {
  await withFolder(async (root) => {
    await Deno.writeTextFile(`${root}/file`, "mine");
    await Deno.writeTextFile(`${root}/text.txt`, "a b c");
    const below = `${root}/file/out`;
    await assertFails(trainWords(below), 1, [below, "Choose another"]);
    await assertFails(trainWords(`${root}/file`), 1, [`${root}/file`, "Choose another"]);
    await assertFails(mergeWords(below), 1, [below, "hoose another"]);
    await assertFails(mergeWords(`${root}/file`), 1, [`${root}/file`, "hoose another"]);
    await assertFails(tokenizeWords(`${root}/text.txt`, `${below}.bin`), 1, [`${below}.bin`]);
    await withDisk(`${root}/`, -1, async () => {
      const out = `${root}/out`;
      await assertFails(trainWords(out), 1, [out, "read-only", "Choose another"]);
      await assertFails(mergeWords(out), 1, [out, "read-only", "hoose another"]);
      await assertFails(tokenizeWords(`${root}/text.txt`, `${out}.bin`), 1, [`${out}.bin`, "ead-only"]);
    });
    assertEquals(namesIn(root), ["file", "text.txt"]);
    assertEquals(await Deno.readTextFile(`${root}/file`), "mine");
  });
});

Deno.test("A disk that fills up while training: one line, and what is there under a final name is whole", async () => {
  await withFolder(async (root) => {
    const settings = { max_steps: 2, save_steps: 1, lora_rank: 4 };
    const whole = await bytesWritten(`${root}/measured`, settings);
    // In the lock, the settings, the first line of the log, the checkpoints, and the final adapter.
    const beforeLog = Deno.statSync(`${root}/measured/train_args.yaml`).size + 40;
    const room = [0, 100, beforeLog, ...[0.05, 0.3, 0.7, 0.95].map((share) => Math.floor(share * whole))];
    for (const [i, bytes] of room.entries()) {
      const out = `${root}/out-${i}`;
      await withDisk(out, bytes, async () => {
        await assertFails(trainWords(out, settings), 1, [out, "disk is full", "hoose another"]);
      });
      for (const name of namesIn(out)) {
        const path = `${out}/${name}`;
        if (name.startsWith("checkpoint-")) await verify(path);
        else if (name === "adapter_model.safetensors") await readAdapter(out);
        else if (name === "train_args.yaml") assertIncludes(await Deno.readTextFile(path), "weight_decay");
        else if (name === "report.html") assertIncludes(await Deno.readTextFile(path), "</html>");
        else assert(/^(\.longreach\.lock|metrics\.jsonl|train\.log|runs)$/.test(name), `${name} was left`);
      }
    }
    // The last one got as far as a checkpoint, from which the run goes on once there is room again.
    const out = `${root}/out-${room.length - 1}`;
    assert(namesIn(out).includes("checkpoint-1"), `no checkpoint in ${namesIn(out)}`);
    const io = new MemoryIo();
    const words = trainWords(out, { ...settings, resume_from_checkpoint: "true" });
    assertEquals(await runCli(words, io), 0, io.stderr);
    const [resumed, measured] = [out, `${root}/measured`].map((folder) =>
      Deno.readFileSync(`${folder}/adapter_model.safetensors`).toBase64()
    );
    assert(resumed === measured, "the resumed run ends elsewhere");
  });
});

/** Bytes of all files that a run leaves: about what a disk must have room for. */
async function bytesWritten(out: string, settings: Record<string, string | number>): Promise<number> {
  const io = new MemoryIo();
  assertEquals(await runCli(trainWords(out, settings), io), 0, io.stderr);
  const sizeOf = (folder: string): number =>
    [...Deno.readDirSync(folder)].reduce((sum, { name, isDirectory }) => {
      const path = `${folder}/${name}`;
      return sum + (isDirectory ? sizeOf(path) : Deno.statSync(path).size);
    }, 0);
  return sizeOf(out);
}

Deno.test("A disk that fills up while merging or tokenizing leaves nothing", async () => {
  await withFolder(async (root) => {
    for (const bytes of [0, 100, 10_000, 200_000]) {
      await withDisk(root, bytes, async () => {
        const parts = [`${root}/merged`, "disk is full", "Free some space"];
        await assertFails(mergeWords(`${root}/merged`), 1, parts);
      });
      assertEquals(namesIn(root), [], `with ${bytes} bytes`);
    }
    await withFolder(async (source) => {
      await Deno.writeTextFile(`${source}/text.txt`, "some words ".repeat(100));
      const size = 2 * new TextDecoder().decode(await Deno.readFile(`${source}/text.txt`)).length;
      for (const bytes of [0, 10, size / 2, size]) {
        await withDisk(root, bytes, async () => {
          const parts = [`${root}/t.bin`, "disk is full", "Free some space"];
          await assertFails(tokenizeWords(`${source}/text.txt`, `${root}/t.bin`), 1, parts);
        });
        assertEquals(namesIn(root), [], `with ${bytes} bytes`);
      }
    });
  });
});

Deno.test("Without an adapter, commands that need one say what to install and leave nothing", async () => {
  await withFolder(async (root) => {
    const main = new URL("../../cli/main.ts", import.meta.url).pathname;
    const flags = [
      "run",
      "--quiet",
      "--no-prompt",
      "--no-check",
      "--allow-read",
      "--allow-write",
      "--allow-env",
    ];
    const commands = [
      trainWords(`${root}/out`),
      evaluateWords(),
      mergeWords(`${root}/merged`),
      ["doctor"],
    ];
    await Promise.all(commands.map(async (words) => {
      const { code, stdout, stderr } = await new Deno.Command("deno", {
        args: [...flags, main, ...words],
        // A backend that this system does not have.
        env: {
          DENO_WEBGPU_BACKEND: Deno.build.os === "windows" ? "metal" : "dx12",
          NO_COLOR: "1",
          INIT_CWD: "",
        },
      }).output();
      const text = new TextDecoder().decode(stderr).replaceAll(/^error: XDG_RUNTIME_DIR.*\n/gm, "");
      assertEquals(code, 1, `${words[0]}: ${text}`);
      assertOneLine(text, ["adapter answers", "mesa-vulkan-drivers"]);
      if (words[0] !== "doctor") assertEquals(stdout.length, 0, `${words[0]} printed a result`);
    }));
    assertNothingFinal(`${root}/out`);
    assert(!namesIn(root).some((name) => name.startsWith("merged")), "merge left something");
  });
});

Deno.test("Good input still works: the settings above train, and the adapter and model load", async () => {
  await withFolder(async (root) => {
    const io = new MemoryIo();
    assertEquals(await runCli(trainWords(`${root}/out`), io), 0, io.stderr);
    assertEquals((await readAdapter(`${root}/out`)).lora.size, 14);
    assertEquals(await runCli(mergeWords(`${root}/merged`), io), 0, io.stderr);
    const weights = await openWeights(`${root}/merged`);
    assertEquals([...weights.names()].length, 21);
    weights.close();
  });
});
