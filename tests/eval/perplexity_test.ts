/** The figures of `evaluate` against PyTorch in float64 (tests/golden/expected.json), and its refusals. */
import { writeTokenBin } from "../../data/bin.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { evaluatePerplexity, type PerplexityOptions } from "../../eval/perplexity.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { writeChangedModel } from "../support/changed_model.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { integers } from "../support/random.ts";
import { assertIncludes } from "../support/text.ts";

const expected = JSON.parse(await Deno.readTextFile(`${GOLDEN}/expected.json`));

const DEFAULTS: PerplexityOptions = {
  base_model: `${GOLDEN}/mha`,
  peft_model: null,
  data_path: `${GOLDEN}/data.bin`,
  seq_len: 128,
  context_size: null,
  sliding_window: 64,
  batch_size: 1,
  load_in_4bit: false,
  drop_last_window: true,
  dtype: "fp32",
};

async function evaluate(options: Partial<PerplexityOptions> = {}) {
  const notes: string[] = [];
  const progress: number[] = [];
  const context_size = options.peft_model ? null : options.seq_len ?? DEFAULTS.seq_len;
  const result = await evaluatePerplexity({ ...DEFAULTS, context_size, ...options }, {
    onProgress: (done, total) => progress.push(done / total),
    note: (line) => notes.push(line),
  });
  return { result, notes, progress };
}

function assertRelative(label: string, actual: number, wanted: number, tolerance: number): void {
  const error = Math.abs(actual / wanted - 1);
  assert(error <= tolerance, `${label}: got ${actual}, expected ${wanted}, off by ${error}`);
}

const CASES: readonly (readonly [string, Partial<PerplexityOptions>, tolerance: number])[] = [
  ["eval_mha_128", {}, 1e-6],
  ["eval_mha_64", { seq_len: 64, context_size: 64 }, 1e-6],
  ["eval_gqa_256", { base_model: `${GOLDEN}/gqa`, seq_len: 256, sliding_window: 200 }, 1e-6],
  ["eval_adapter_128", { peft_model: `${GOLDEN}/adapter` }, 1e-6],
  ["eval_adapter_bin_128", { peft_model: `${GOLDEN}/adapter-bin` }, 1e-6],
  ["eval_mha_bin_128", { base_model: `${GOLDEN}/mha-bin` }, 1e-6],
  ["eval_mha_128_nf4", { load_in_4bit: true }, 1e-6],
  ["eval_mha_128_nf4", { base_model: `${GOLDEN}/mha-bnb4` }, 1e-6],
];

for (const [name, options, tolerance] of CASES) {
  Deno.test(`${name} as PyTorch has it, with ${JSON.stringify(options)}`, async () => {
    const { result, notes } = await evaluate(options);
    const { windows, val_loss, val_perplexity, val_acc } = expected[name];
    assertEquals(result.num_windows, windows, "num_windows");
    assertEquals(result.num_tokens, windows * (result.protocol.seq_len - 1), "num_tokens");
    assertRelative("val_loss", result.val_loss, val_loss, tolerance);
    assertRelative("val_perplexity", result.val_perplexity, val_perplexity, 10 * tolerance);
    assertRelative("val_acc", result.val_acc, val_acc, 1e-12);
    assertRelative("token_loss", result.token_loss, val_loss, tolerance);
    assertEquals(notes.filter((note) => !note.startsWith("Positions are changed")), [], "notes");
  });
}

Deno.test("batches are averaged unweighted, tokens weighted, and progress counts windows", async () => {
  const alone = await evaluate();
  const batched = await evaluate({ batch_size: 4 });
  assertRelative("token_loss", batched.result.token_loss, alone.result.token_loss, 1e-7);
  assertEquals(batched.result.token_accuracy, alone.result.token_accuracy);
  // 21 windows make five batches of four and one of one, which counts like the others.
  const one = await evaluate({ batch_size: 4, seq_len: 128, sliding_window: 64, drop_last_window: false });
  assertEquals(one.result.num_windows, 22, "with the last window");
  assert(
    Math.abs(batched.result.val_loss / batched.result.token_loss - 1) > 1e-4,
    "the short batch weighs more",
  );
  assertEquals(batched.progress.map((share) => Math.round(share * 21)), [4, 8, 12, 16, 20, 21]);
  assertEquals(batched.result.val_perplexity_per_chunk, [batched.result.val_perplexity]);
});

Deno.test("bf16 and fp16 activations come near to fp32", async () => {
  for (const dtype of ["bf16", "fp16"] as const) {
    const { result } = await evaluate({ dtype });
    assertRelative(dtype, result.val_loss, expected.eval_mha_128.val_loss, 1e-3);
    assert(result.val_loss !== (await evaluate()).result.val_loss, `${dtype} is not fp32`);
    assertEquals(result.model.dtype, dtype);
  }
});

Deno.test("the result says what was loaded", async () => {
  const { model, protocol } = (await evaluate({ base_model: `${GOLDEN}/mha-bnb4`, batch_size: 8 })).result;
  assertEquals(model, {
    base_model: `${GOLDEN}/mha-bnb4`,
    peft_model: null,
    dtype: "fp32",
    quantized: "by the checkpoint",
    context_size: 128,
    rope_scaling: { type: "linear", factor: 2 },
    rope_theta: 10000,
  });
  assertEquals(protocol, {
    seq_len: 128,
    sliding_window: 64,
    batch_size: 8,
    drop_last_window: true,
    attention: "full",
    data_path: `${GOLDEN}/data.bin`,
    data_tokens: 1500,
    documents: null,
  });
  assertEquals(
    (await evaluate({ load_in_4bit: true, batch_size: 8 })).result.model.quantized,
    "while loading",
  );
});

Deno.test("a model without an adapter is measured as it is, unless a context is asked for", async () => {
  const { notes, result } = await evaluate({ context_size: null, batch_size: 8 });
  assertEquals([result.model.rope_scaling, result.model.context_size], [null, 64]);
  assertEquals(notes.length, 1);
  assertIncludes(notes[0]!, "seq_len 128 is longer than the 64 tokens that positions are made for");
  assertIncludes(notes[0]!, "pass context_size 128");
  const asked = await evaluate({ context_size: 128, batch_size: 8 });
  assertEquals(asked.result.model.rope_scaling, { type: "linear", factor: 2 });
  assertIncludes(asked.notes.join(), "Positions are changed for 128 tokens, as context_size asks");
});

Deno.test("text, rows and folders are measured as their tokens", async () => {
  await withFolder(async (folder) => {
    const words = [...integers(5, 700, 26)].map((letter) => String.fromCharCode(97 + letter)).join(" ");
    const [one, two] = [words.slice(0, 600), words.slice(600)];
    const tokenizer = await Tokenizer.load(`${GOLDEN}/mha`);
    const ids = [one, two].flatMap((text) => [...tokenizer.encode(text, { bos: true, eos: true })]);
    await writeTokenBin(`${folder}/t.bin`, ids);
    await Deno.mkdir(`${folder}/rows`);
    await Deno.writeTextFile(`${folder}/rows/a.txt`, one);
    await Deno.writeTextFile(`${folder}/rows/b.jsonl`, JSON.stringify({ text: two }) + "\n");
    const options = { seq_len: 64, batch_size: 8 };
    const wanted = (await evaluate({ ...options, data_path: `${folder}/t.bin` })).result;
    const { result } = await evaluate({ ...options, data_path: `${folder}/rows` });
    assertEquals(result.val_loss, wanted.val_loss);
    assertEquals([result.protocol.documents, wanted.protocol.documents], [2, null]);
    assertEquals(result.protocol.data_tokens, ids.length);
    await Deno.writeTextFile(`${folder}/e.txt`, "");
    await assertThrows(() => evaluate({ ...options, data_path: `${folder}/e.txt` }), "it has no text");
  });
});

Deno.test("text beside an adapter is measured in the tokens of the adapter's own tokenizer", async () => {
  await withFolder(async (folder) => {
    for (const file of ["adapter_config.json", "adapter_model.safetensors"]) {
      await Deno.copyFile(`${GOLDEN}/adapter/${file}`, `${folder}/${file}`);
    }
    await Deno.writeTextFile(
      `${folder}/tokenizer_config.json`,
      '{ "bos_token": "!", "add_bos_token": true, "eos_token": "?" }',
    );
    const text = [...integers(6, 300, 26)].map((letter) => String.fromCharCode(97 + letter)).join("");
    await Deno.writeTextFile(`${folder}/a.txt`, text);
    await writeTokenBin(`${folder}/t.bin`, [33, ...new TextEncoder().encode(text), 63]);
    const options = { peft_model: folder, seq_len: 64, batch_size: 8, context_size: 64 };
    const wanted = await evaluate({ ...options, data_path: `${folder}/t.bin` });
    const own = await evaluate({ ...options, data_path: `${folder}/a.txt` });
    assertEquals(own.result.val_loss, wanted.result.val_loss);
    const said = (notes: readonly string[]) =>
      notes.filter((note) => note.includes("tokenizer is the adapter's")).length;
    assertEquals([said(own.notes), said(wanted.notes)], [1, 0]);
  });
});

Deno.test("a window longer than the context is noted", async () => {
  const { notes, result } = await evaluate({ context_size: 64, batch_size: 8 });
  assertEquals(result.model.rope_scaling, null);
  assertEquals(notes.length, 1);
  assertIncludes(notes[0]!, "seq_len 128 is longer than the 64 tokens that positions are made for");
});

Deno.test("an adapter's train_args.yaml gives the context, and other contexts are noted", async () => {
  await withFolder(async (folder) => {
    for (const file of ["adapter_config.json", "adapter_model.safetensors"]) {
      await Deno.copyFile(`${GOLDEN}/adapter/${file}`, `${folder}/${file}`);
    }
    await Deno.writeTextFile(
      `${folder}/train_args.yaml`,
      "rope_theta: null\nmodel_max_length: 256 # tokens\n",
    );
    const options = { peft_model: folder, seq_len: 64, batch_size: 8 };
    const own = await evaluate(options);
    assertEquals([own.result.model.context_size, own.notes.length], [256, 0]);
    const other = await evaluate({ ...options, context_size: 128 });
    assertEquals(other.result.model.context_size, 128);
    assertIncludes(other.notes.join(), "was trained for 256 tokens (rope_scaling linear by 4)");
    assertIncludes(other.notes.join(), "pass --context_size 256");

    // A raised base takes the place of interpolation, also for a checkpoint of the run.
    await Deno.mkdir(`${folder}/checkpoint-2`);
    for (const file of ["adapter_config.json", "adapter_model.safetensors"]) {
      await Deno.rename(`${folder}/${file}`, `${folder}/checkpoint-2/${file}`);
    }
    await Deno.writeTextFile(`${folder}/train_args.yaml`, "rope_theta: 2.0e+5\nmodel_max_length: 256\n");
    const { model } = (await evaluate({ ...options, peft_model: `${folder}/checkpoint-2` })).result;
    assertEquals([model.rope_theta, model.rope_scaling, model.context_size], [200000, null, 256]);

    await Deno.writeTextFile(`${folder}/train_args.yaml`, "model_max_length: [\n");
    await assertThrows(
      () => evaluate({ ...options, peft_model: `${folder}/checkpoint-2` }),
      "train_args.yaml",
    );
  });
});

Deno.test("bad input ends with one clear line, before anything is loaded", async () => {
  await assertThrows(() => evaluate({ data_path: `${GOLDEN}/none.bin` }), "none.bin");
  await assertThrows(() => evaluate({ base_model: `${GOLDEN}/none` }), "no config.json");
  await assertThrows(() => evaluate({ peft_model: `${GOLDEN}/none` }), "no such folder");
  await assertThrows(() => evaluate({ seq_len: 1500 }), "at least 1565 are needed");
  await assertThrows(() => evaluate({ seq_len: 1 }), "seq_len must be a whole number of at least 2");
  await assertThrows(() => evaluate({ batch_size: 0 }), "batch_size must be a whole number");
  await assertThrows(() => evaluate({ sliding_window: 0 }), "sliding_window");
  // The adapter is of another model.
  const base_model = `${GOLDEN}/gqa`;
  await assertThrows(
    () => evaluate({ base_model, peft_model: `${GOLDEN}/adapter` }),
    "Cannot use the adapter",
    "k_proj",
  );
});

Deno.test("a loss that is not finite is an error that names the window, not a figure", async () => {
  await withFolder(async (folder) => {
    const base_model = `${folder}/model`;
    await writeChangedModel(
      `${GOLDEN}/mha`,
      base_model,
      "model.layers.0.post_attention_layernorm.weight",
      (values) => {
        values.fill(1e6);
      },
    );
    assert(Number.isFinite((await evaluate({ base_model, batch_size: 8 })).result.val_loss), "fp32 holds it");
    const dtype = "fp16" as const;
    await assertThrows(
      () => evaluate({ base_model, dtype }),
      "window at token 0 is not finite",
      "--dtype fp32 or bf16",
    );
  });
});

Deno.test("ids past the vocabulary and ids of 32 bits", async () => {
  await withFolder(async (folder) => {
    const data_path = `${folder}/data.bin`;
    const ids = integers(11, 1000, 260);
    await writeTokenBin(data_path, ids, { dtype: "uint32" });
    const wide = await evaluate({ data_path });
    await writeTokenBin(data_path, ids);
    assertEquals((await evaluate({ data_path })).result.val_loss, wide.result.val_loss, "32 and 16 bits");
    ids[777] = 260;
    await writeTokenBin(data_path, ids);
    await assertThrows(() => evaluate({ data_path }), "token 777", "id 260", "260 tokens");
  });
});
