/** The figures of `evaluate` against PyTorch in float64 (tests/golden/expected.json), and its refusals. */
import { readTokenBin, writeTokenBin } from "../../data/bin.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { evaluatePerplexity, type PerplexityOptions, scoreWindows } from "../../eval/perplexity.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { generate } from "../../model/generate.ts";
import { openModel } from "../../model/load/open.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { writeChangedModel } from "../support/changed_model.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { integers } from "../support/random.ts";
import { assertIncludes } from "../support/text.ts";

const expected = JSON.parse(await Deno.readTextFile(`${GOLDEN}/expected.json`));

const DEFAULTS: PerplexityOptions = {
  baseModel: `${GOLDEN}/mha`,
  peftModel: null,
  dataPath: `${GOLDEN}/data.bin`,
  seqLen: 128,
  contextSize: null,
  slidingWindow: 64,
  batchSize: 1,
  quantisation: "none",
  dropLastWindow: true,
  dtype: "fp32",
};

async function evaluate(options: Partial<PerplexityOptions> = {}) {
  const notes: string[] = [];
  const progress: number[] = [];
  const contextSize = options.peftModel ? null : options.seqLen ?? DEFAULTS.seqLen;
  const result = await evaluatePerplexity({ ...DEFAULTS, contextSize, ...options }, {
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
  ["eval_mha_64", { seqLen: 64, contextSize: 64 }, 1e-6],
  ["eval_gqa_256", { baseModel: `${GOLDEN}/gqa`, seqLen: 256, slidingWindow: 200 }, 1e-6],
  ["eval_adapter_128", { peftModel: `${GOLDEN}/adapter` }, 1e-6],
  ["eval_adapter_bin_128", { peftModel: `${GOLDEN}/adapter-bin` }, 1e-6],
  ["eval_mha_bin_128", { baseModel: `${GOLDEN}/mha-bin` }, 1e-6],
  ["eval_mha_128_nf4", { quantisation: "nf4-double" }, 1e-6],
  ["eval_mha_128_nf4", { baseModel: `${GOLDEN}/mha-bnb4` }, 1e-6],
];

for (const [name, options, tolerance] of CASES) {
  Deno.test(`${name} as PyTorch has it, with ${JSON.stringify(options)}`, async () => {
    const { result, notes } = await evaluate(options);
    const { windows, val_loss, val_perplexity, val_acc } = expected[name];
    assertEquals(result.numWindows, windows, "num_windows");
    assertEquals(result.numTokens, windows * (result.protocol.seqLen - 1), "num_tokens");
    assertRelative("val_loss", result.valLoss, val_loss, tolerance);
    assertRelative("val_perplexity", result.valPerplexity, val_perplexity, 10 * tolerance);
    assertRelative("val_acc", result.valAcc, val_acc, 1e-12);
    assertRelative("token_loss", result.tokenLoss, val_loss, tolerance);
    assertEquals(notes.filter((note) => !note.startsWith("Positions are changed")), [], "notes");
  });
}

Deno.test("batches are averaged unweighted, tokens weighted, and progress counts windows", async () => {
  const alone = await evaluate();
  const batched = await evaluate({ batchSize: 4 });
  assertRelative("token_loss", batched.result.tokenLoss, alone.result.tokenLoss, 1e-7);
  assertEquals(batched.result.tokenAccuracy, alone.result.tokenAccuracy);
  // 21 windows make five batches of four and one of one, which counts like the others.
  const one = await evaluate({ batchSize: 4, seqLen: 128, slidingWindow: 64, dropLastWindow: false });
  assertEquals(one.result.numWindows, 22, "with the last window");
  await withFolder(async (folder) => {
    const tokens = await readTokenBin(`${GOLDEN}/data.bin`);
    await writeTokenBin(`${folder}/t.bin`, tokens.subarray(0, 20 * 64 + 129));
    const first = (await evaluate({ dataPath: `${folder}/t.bin`, batchSize: 4 })).result;
    assertEquals(first.numWindows, 20);
    const last = 21 * alone.result.tokenLoss - 20 * first.tokenLoss;
    const { valLoss, tokenLoss, valAcc } = batched.result;
    const lastAccuracy = 21 * alone.result.tokenAccuracy - 20 * first.tokenAccuracy;
    assertRelative("val_acc", valAcc, (5 * first.tokenAccuracy + lastAccuracy) / 6, 1e-9);
    assertRelative("val_loss", valLoss, (5 * first.tokenLoss + last) / 6, 1e-7);
    assert(Math.abs(valLoss / tokenLoss - 1) > 1e-4, "the short batch weighs more");
  });
  assertEquals(batched.progress.map((share) => Math.round(share * 21)), [4, 8, 12, 16, 20, 21]);
  assertEquals(batched.result.valPerplexityPerChunk, [batched.result.valPerplexity]);
});

Deno.test("perplexity by position weighs up to that over all targets, and is that of the positions alone", async () => {
  const { byPosition, tokenLoss, protocol } = (await evaluate({ batchSize: 8 })).result;
  assertEquals(byPosition.map(({ from, to }) => [from, to]), [[1, 32], [32, 64], [64, 96], [96, 128]]);
  const targets = protocol.seqLen - 1;
  const mean = byPosition.reduce(
    (sum, { from, to, perplexity }) => sum + (to - from) * Math.log(perplexity),
    0,
  );
  assertRelative("all of them", mean / targets, tokenLoss, 1e-9);
  // Windows of the first quarter alone, at the same starts, are that quarter.
  await withFolder(async (folder) => {
    const tokens = await readTokenBin(`${GOLDEN}/data.bin`);
    await writeTokenBin(`${folder}/t.bin`, tokens.subarray(0, 21 * 64 + 33));
    const quarter = { dataPath: `${folder}/t.bin`, batchSize: 8, seqLen: 32, contextSize: 128 };
    const { numWindows, tokenPerplexity } = (await evaluate(quarter)).result;
    assertEquals(numWindows, 21);
    assertRelative("the first quarter", byPosition[0]!.perplexity, tokenPerplexity, 1e-5);
  });
});

Deno.test("a window may be cut into any number of segments", async () => {
  const { result } = await evaluate({ batchSize: 8, segments: 128 });
  assertEquals(result.byPosition.length, 127);
  const mean = result.byPosition.reduce((sum, { perplexity }) => sum + Math.log(perplexity), 0) / 127;
  assertRelative("the mean of all", mean, result.tokenLoss, 1e-9);
});

Deno.test("the token behind a window's last counts for accuracy, and is no target", async () => {
  using gpu = await Gpu.open();
  const { model } = await openModel(gpu, { baseModel: `${GOLDEN}/mha` });
  const prompt = [257, 5, 6, 7];
  const tokens = Uint32Array.from([
    ...prompt,
    ...await generate(model, prompt, { temperature: 0, maxNewTokens: 37, stopIds: [] }),
  ]);
  const { tokenAccuracy, targetAccuracy } = await scoreWindows(model, tokens, {
    seqLen: 40,
    slidingWindow: 1,
    dropLastWindow: false,
  });
  const hits = 40 * tokenAccuracy;
  assert(hits >= 37, `${hits} of 40`);
  assertRelative("one hit less, one target less", targetAccuracy, (hits - 1) / 39, 1e-9);
});

Deno.test("bf16 and fp16 activations come near to fp32", async () => {
  for (const dtype of ["bf16", "fp16"] as const) {
    const { result } = await evaluate({ dtype });
    assertRelative(dtype, result.valLoss, expected.eval_mha_128.val_loss, 1e-3);
    assert(result.valLoss !== (await evaluate()).result.valLoss, `${dtype} is not fp32`);
    assertEquals(result.model.dtype, dtype);
  }
});

Deno.test("the result says what was loaded", async () => {
  const { model, protocol } = (await evaluate({ baseModel: `${GOLDEN}/mha-bnb4`, batchSize: 8 })).result;
  assertEquals(model, {
    baseModel: `${GOLDEN}/mha-bnb4`,
    peftModel: null,
    dtype: "fp32",
    quantized: "by the checkpoint",
    contextSize: 128,
    ropeScaling: { type: "linear", factor: 2 },
    ropeTheta: 10000,
  });
  assertEquals(protocol, {
    seqLen: 128,
    slidingWindow: 64,
    batchSize: 8,
    dropLastWindow: true,
    attention: "full",
    dataPath: `${GOLDEN}/data.bin`,
    dataTokens: 1500,
    documents: null,
  });
  assertEquals(
    (await evaluate({ quantisation: "nf4-double", batchSize: 8 })).result.model.quantized,
    "while loading",
  );
});

Deno.test("a model without an adapter is measured as it is, unless a context is asked for", async () => {
  const { notes, result } = await evaluate({ contextSize: null, batchSize: 8 });
  assertEquals([result.model.ropeScaling, result.model.contextSize], [null, 64]);
  assertEquals(notes.length, 1);
  assertIncludes(notes[0]!, "seq_len 128 is longer than the 64 tokens that positions are made for");
  assertIncludes(notes[0]!, "pass context_size 128");
  const asked = await evaluate({ contextSize: 128, batchSize: 8 });
  assertEquals(asked.result.model.ropeScaling, { type: "linear", factor: 2 });
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
    const options = { seqLen: 64, batchSize: 8 };
    const wanted = (await evaluate({ ...options, dataPath: `${folder}/t.bin` })).result;
    const { result } = await evaluate({ ...options, dataPath: `${folder}/rows` });
    assertEquals(result.valLoss, wanted.valLoss);
    assertEquals([result.protocol.documents, wanted.protocol.documents], [2, null]);
    assertEquals(result.protocol.dataTokens, ids.length);
    await Deno.writeTextFile(`${folder}/e.txt`, "");
    await assertThrows(() => evaluate({ ...options, dataPath: `${folder}/e.txt` }), "it has no text");
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
    const options = { peftModel: folder, seqLen: 64, batchSize: 8 };
    const wanted = await evaluate({ ...options, dataPath: `${folder}/t.bin` });
    const own = await evaluate({ ...options, dataPath: `${folder}/a.txt` });
    assertEquals(own.result.valLoss, wanted.result.valLoss);
    const said = (notes: readonly string[]) =>
      notes.filter((note) => note.includes("tokenizer is the adapter's")).length;
    assertEquals([said(own.notes), said(wanted.notes)], [1, 0]);
  });
});

Deno.test("a window longer than the context is noted", async () => {
  const { notes, result } = await evaluate({ contextSize: 64, batchSize: 8 });
  assertEquals(result.model.ropeScaling, null);
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
    const options = { peftModel: folder, seqLen: 64, batchSize: 8 };
    const own = await evaluate(options);
    assertEquals([own.result.model.contextSize, own.notes.length], [256, 0]);
    const other = await evaluate({ ...options, contextSize: 128 });
    assertEquals(other.result.model.contextSize, 128);
    assertIncludes(other.notes.join(), "was trained for 256 tokens (rope_scaling linear by 4)");
    assertIncludes(other.notes.join(), "pass --context_size 256");

    // A raised base takes the place of interpolation, also for a checkpoint of the run.
    await Deno.mkdir(`${folder}/checkpoint-2`);
    for (const file of ["adapter_config.json", "adapter_model.safetensors"]) {
      await Deno.rename(`${folder}/${file}`, `${folder}/checkpoint-2/${file}`);
    }
    await Deno.writeTextFile(`${folder}/train_args.yaml`, "rope_theta: 2.0e+5\nmodel_max_length: 256\n");
    const { model } = (await evaluate({ ...options, peftModel: `${folder}/checkpoint-2` })).result;
    assertEquals([model.ropeTheta, model.ropeScaling, model.contextSize], [200000, null, 256]);

    await Deno.writeTextFile(`${folder}/train_args.yaml`, "model_max_length: [\n");
    await assertThrows(
      () => evaluate({ ...options, peftModel: `${folder}/checkpoint-2` }),
      "train_args.yaml",
    );
  });
});

Deno.test("bad input ends with one clear line, before anything is loaded", async () => {
  await assertThrows(() => evaluate({ dataPath: `${GOLDEN}/none.bin` }), "none.bin");
  await assertThrows(() => evaluate({ baseModel: `${GOLDEN}/none` }), "no config.json");
  await assertThrows(() => evaluate({ peftModel: `${GOLDEN}/none` }), "no such folder");
  await assertThrows(() => evaluate({ seqLen: 1500 }), "at least 1565 are needed");
  await assertThrows(() => evaluate({ seqLen: 1 }), "seq_len must be a whole number of at least 2");
  await assertThrows(() => evaluate({ batchSize: 0 }), "batch_size must be a whole number");
  await assertThrows(() => evaluate({ slidingWindow: 0 }), "sliding_window");
  // The adapter is of another model.
  const baseModel = `${GOLDEN}/gqa`;
  await assertThrows(
    () => evaluate({ baseModel, peftModel: `${GOLDEN}/adapter` }),
    "Cannot use the adapter",
    "k_proj",
  );
});

Deno.test("a loss that is not finite is an error that names the window, not a figure", async () => {
  await withFolder(async (folder) => {
    const baseModel = `${folder}/model`;
    await writeChangedModel(
      `${GOLDEN}/mha`,
      baseModel,
      "model.layers.0.post_attention_layernorm.weight",
      (values) => {
        values.fill(1e6);
      },
    );
    assert(Number.isFinite((await evaluate({ baseModel, batchSize: 8 })).result.valLoss), "fp32 holds it");
    const dtype = "fp16" as const;
    await assertThrows(
      () => evaluate({ baseModel, dtype }),
      "window at token 0 is not finite",
      "--dtype fp32 or bf16",
    );
    const huge = `${folder}/huge`;
    await writeChangedModel(`${GOLDEN}/mha`, huge, "model.norm.weight", (values) => {
      values.fill(3e38);
    });
    // No other type holds more than fp32.
    await assertThrows(
      () => evaluate({ baseModel: huge }),
      "window at token 0 is not finite",
      "use another copy",
    );
  });
});

Deno.test("ids past the vocabulary and ids of 32 bits", async () => {
  await withFolder(async (folder) => {
    const dataPath = `${folder}/data.bin`;
    const ids = integers(11, 1000, 260);
    await writeTokenBin(dataPath, ids, { dtype: "uint32" });
    const wide = await evaluate({ dataPath });
    await writeTokenBin(dataPath, ids);
    assertEquals((await evaluate({ dataPath })).result.valLoss, wide.result.valLoss, "32 and 16 bits");
    ids[777] = 260;
    await writeTokenBin(dataPath, ids);
    await assertThrows(() => evaluate({ dataPath }), "token 777", "id 260", "260 tokens");
  });
});
