/** Merging against PyTorch's merged weights and figures (tests/golden/expected.json), and what it refuses. */
import { toF32 } from "../../checkpoint/dtype.ts";
import type { Quantisation } from "../../kernels/quantisation.ts";
import { adapterConfig, type LoraPair, readAdapter, writeAdapter } from "../../checkpoint/peft.ts";
import { openWeights } from "../../checkpoint/weights.ts";
import { evaluatePerplexity } from "../../eval/perplexity.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { readConfig } from "../../model/config.ts";
import { compareLogits, mergeAdapter, type MergeOptions } from "../../export/merge.ts";
import { mergedTensors, planMerge } from "../../export/merged_tensors.ts";
import { checkpointTensors, linearsOf } from "../../model/tensors.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { normal } from "../support/random.ts";
import { writeChangedModel } from "../support/changed_model.ts";
import { assertIncludes } from "../support/text.ts";

const expected = JSON.parse(await Deno.readTextFile(`${GOLDEN}/expected.json`));

async function merge(savePath: string, options: Partial<MergeOptions> = {}) {
  const notes: string[] = [];
  const result = await mergeAdapter({
    baseModel: `${GOLDEN}/mha`,
    peftModel: `${GOLDEN}/adapter`,
    contextSize: 128,
    savePath,
    dtype: "keep",
    maxShardSize: 5e9,
    ...options,
  }, { onProgress() {}, note: (line) => notes.push(line) });
  return { result, notes };
}

async function evaluate(
  baseModel: string,
  options: { peftModel?: string; quantisation?: Quantisation } = {},
) {
  return await evaluatePerplexity({
    baseModel,
    dataPath: `${GOLDEN}/data.bin`,
    seqLen: 128,
    slidingWindow: 64,
    batchSize: 8,
    dropLastWindow: true,
    quantisation: "none",
    dtype: "fp32",
    ...options,
  });
}

async function readTensor(folder: string, name: string): Promise<Float32Array> {
  const weights = await openWeights(folder);
  try {
    return toF32(await weights.read(name), weights.info(name).dtype);
  } finally {
    weights.close();
  }
}

function json(path: string) {
  return JSON.parse(Deno.readTextFileSync(path));
}

/** A random adapter of rank 6 on linears of a model, all unless named. */
async function writeRandomAdapter(
  folder: string,
  base: string,
  targets?: readonly string[],
  deviation = 0.1,
): Promise<void> {
  await Deno.mkdir(folder);
  const config = await readConfig(base);
  const lora = new Map<string, LoraPair>();
  for (const [seed, [module, { shape }]] of [...linearsOf(config)].entries()) {
    if (targets && !targets.some((target) => module.endsWith(`.${target}`))) continue;
    const [outputs, inputs] = shape;
    lora.set(module, {
      A: { shape: [6, inputs], data: normal(seed, 6 * inputs, deviation) },
      B: { shape: [outputs, 6], data: normal(seed + 100, 6 * outputs, deviation) },
    });
  }
  const names = [...lora.keys()].map((module) => module.split(".").at(-1)!);
  const settings = adapterConfig({ r: 6, lora_alpha: 9, target_modules: [...new Set(names)] });
  await writeAdapter(folder, { config: settings, lora, extra: new Map() });
}

Deno.test("merged weights are PyTorch's, and the merged folder evaluates as base and adapter do", async () => {
  await withFolder(async (root) => {
    const folder = `${root}/merged`;
    const { result, notes } = await merge(folder);
    for (const [name, values] of Object.entries(expected.merged_probe as Record<string, number[]>)) {
      const merged = await readTensor(folder, name);
      assertClose(name, merged.subarray(0, values.length), values, { rtol: 1e-6, atol: 1e-8 });
    }
    assertEquals([result.mergedLinears, result.replacedTensors, result.dtypes], [14, 0, ["F32"]]);
    const { verification } = result;
    assert(verification !== null && verification.maxRelativeDifference < 1e-4, "logits agree");
    assertEquals([verification.sampleTokens, verification.argmaxAgreement], [128, 1]);
    assertEquals(notes, []);

    // Linear interpolation by 2 is in config.json, so nothing has to say 128 again.
    const { tokenLoss, model } = await evaluate(folder);
    assert(Math.abs(tokenLoss / expected.eval_adapter_128.val_loss - 1) < 1e-6, `tokenLoss ${tokenLoss}`);
    assertEquals([model.contextSize, model.ropeScaling], [128, { type: "linear", factor: 2 }]);
  });
});

Deno.test("a merged model has the tokenizer that its adapter was trained with", async () => {
  await withFolder(async (root) => {
    const adapter = `${root}/adapter`;
    await writeRandomAdapter(adapter, `${GOLDEN}/mha`, ["v_proj"]);
    const settings = { bos_token: "<s>", eos_token: "<unk>", chat_template: "{{ messages }}" };
    await Deno.writeTextFile(`${adapter}/tokenizer_config.json`, JSON.stringify(settings));
    const { notes } = await merge(`${root}/merged`, { peftModel: adapter });
    assertEquals(json(`${root}/merged/tokenizer_config.json`), { ...settings, model_max_length: 128 });
    assertEquals(json(`${root}/merged/tokenizer.json`), json(`${GOLDEN}/mha/tokenizer.json`));
    assertEquals(notes.filter((note) => note.includes("tokenizer is the adapter's")).length, 1);
    // config.json stays the base's, and generation goes by it.
    assertIncludes(notes.join(), "ends texts with token 256, the base's config.json says eos_token_id 258");
    assertIncludes(notes.join(), "tokenizer is the adapter's: tokenizer_config.json");
    // Parts that do not fit each other are refused before the work.
    await Deno.writeTextFile(`${adapter}/tokenizer_config.json`, '{ "eos_token": "<|im_end|>" }');
    await assertThrows(
      () => merge(`${root}/none`, { peftModel: adapter }),
      '"<|im_end|>" is not in the vocabulary',
    );
    assertEquals(namesIn(root), ["adapter", "merged"]);
  });
});

Deno.test("config.json and tokenizer carry the context, and where the model is from", async () => {
  await withFolder(async (root) => {
    const folder = `${root}/merged`;
    await merge(folder, { baseModel: `${GOLDEN}/mha-bnb4`, contextSize: 200 });
    const { quantization_config: _, ...base } = json(`${GOLDEN}/mha-bnb4/config.json`);
    assertEquals(json(`${folder}/config.json`), {
      ...base,
      rope_scaling: { type: "linear", factor: 4 },
      longreach: {
        base_model: `${GOLDEN}/mha-bnb4`,
        peft_model: `${GOLDEN}/adapter`,
        context_length: 256,
        base_in_4bit: true,
      },
    });
    // Python readers refuse a whole number here.
    assertIncludes(await Deno.readTextFile(`${folder}/config.json`), '"factor": 4.0');
    assertEquals(json(`${folder}/tokenizer_config.json`).model_max_length, 256);
    assertEquals(namesIn(folder), [
      "README.md",
      "config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    const card = await Deno.readTextFile(`${folder}/README.md`);
    for (
      const part of ["# mha-bnb4, 256 tokens", "library_name: transformers", "| RoPE scaling | linear by 4 |"]
    ) {
      assertIncludes(card, part);
    }
    assert(!card.includes(GOLDEN), "a path of this machine");
  });
});

Deno.test("trained embeddings and norms replace the base's, in the base's formats", async () => {
  await withFolder(async (root) => {
    const folder = `${root}/merged`;
    const options = { baseModel: `${GOLDEN}/mha-bin`, peftModel: `${GOLDEN}/adapter-bin` };
    const { result } = await merge(folder, options);
    assertEquals([result.replacedTensors, result.dtypes], [6, ["F32", "F16"]]);
    const { extra } = await readAdapter(options.peftModel);
    for (const [name, { data }] of extra) assertEquals([...await readTensor(folder, name)], [...data], name);
    const [base, merged] = [await openWeights(options.baseModel), await openWeights(folder)];
    const names = [...merged.names()];
    assertEquals(names.toSorted(), [...checkpointTensors(await readConfig(folder)).keys()].toSorted());
    for (const name of names) assertEquals(merged.info(name).dtype, base.info(name).dtype, name);
    base.close();
    merged.close();
    const loss = (await evaluate(folder)).valLoss;
    assert(
      Math.abs(loss / (await evaluate(options.baseModel, options)).valLoss - 1) < 1e-4,
      `loss ${loss}`,
    );
  });
});

Deno.test("a grouped-query model in shards, with a rank that is no multiple of 4", async () => {
  await withFolder(async (root) => {
    const baseModel = `${GOLDEN}/gqa`;
    const [peftModel, folder] = [`${root}/adapter`, `${root}/merged`];
    await writeRandomAdapter(peftModel, baseModel);
    const { result } = await merge(folder, {
      baseModel,
      peftModel,
      contextSize: null,
      maxShardSize: 200_000,
    });
    assertEquals(result.shards.length, 3);
    assertEquals(namesIn(folder).filter((name) => name.includes("model-")), [...result.shards]);
    const index = json(`${folder}/model.safetensors.index.json`);
    assertEquals(index.metadata.total_size, result.totalBytes);
    assertEquals(
      Object.keys(index.weight_map).toSorted(),
      Object.keys(json(`${baseModel}/model.safetensors.index.json`).weight_map).toSorted(),
    );
    for (const shard of result.shards) {
      assert(Deno.statSync(`${folder}/${shard}`).size < 203_000, `${shard} is larger than asked for`);
    }
    // The scaling is the model's own.
    assertEquals(json(`${folder}/config.json`).rope_scaling, json(`${baseModel}/config.json`).rope_scaling);
    assert(result.verification!.maxRelativeDifference < 1e-4, "logits agree");

    const name = "model.layers.1.mlp.down_proj";
    const { A, B } = (await readAdapter(peftModel)).lora.get(name)!;
    const sum = Float64Array.from(await readTensor(baseModel, `${name}.weight`));
    const [outputs, inputs] = [B.shape[0]!, A.shape[1]!];
    for (let n = 0; n < outputs; n++) {
      for (let k = 0; k < inputs; k++) {
        for (let r = 0; r < 6; r++) {
          sum[n * inputs + k]! += 1.5 * B.data[n * 6 + r]! * A.data[r * inputs + k]!;
        }
      }
    }
    assertClose(name, await readTensor(folder, `${name}.weight`), sum, { rtol: 1e-6, atol: 1e-6 });
  });
});

Deno.test("a base in 4 bits is dequantised, and a full one merged as training in 4 bits saw it", async () => {
  await withFolder(async (root) => {
    const peftModel = `${GOLDEN}/adapter`;
    const packed = await merge(`${root}/packed`, { baseModel: `${GOLDEN}/mha-bnb4` });
    assertEquals(packed.result.dtypes, ["F32"], "torch_dtype of the config");
    assertIncludes(packed.notes.join(), "dequantised and written as F32");
    assert(packed.result.verification!.maxRelativeDifference < 1e-4, "logits agree with the 4-bit model's");
    const wanted = (await evaluate(`${GOLDEN}/mha-bnb4`, { peftModel })).valLoss;
    const fromPacked = await evaluate(`${root}/packed`);
    assertEquals(fromPacked.model.quantized, "no");
    assert(Math.abs(fromPacked.valLoss / wanted - 1) < 1e-6, `valLoss ${fromPacked.valLoss}`);

    const full = await merge(`${root}/full`, { quantisation: "nf4-double" });
    assert(full.result.verification!.maxRelativeDifference < 1e-4, "logits agree");
    const fromFull = await evaluate(`${root}/full`);
    assert(Math.abs(fromFull.valLoss / wanted - 1) < 1e-5, `valLoss ${fromFull.valLoss}`);

    // Linears without LoRA go to NF4 and back too.
    await writeRandomAdapter(`${root}/adapter`, `${GOLDEN}/mha`, ["q_proj"]);
    const some = await merge(`${root}/some`, { peftModel: `${root}/adapter`, quantisation: "nf4-double" });
    assert(some.result.verification!.maxRelativeDifference < 1e-4, "logits agree");
    const name = "model.layers.0.mlp.up_proj.weight";
    const [quantised, exact] = [
      await readTensor(`${root}/some`, name),
      await readTensor(`${GOLDEN}/mha`, name),
    ];
    assert(
      new Set(quantised.subarray(0, 64)).size <= 16 && new Set(exact.subarray(0, 64)).size > 16,
      "one block",
    );
  });
});

Deno.test("--dtype rounds every tensor once, and the comparison says what that costs", async () => {
  await withFolder(async (root) => {
    await merge(`${root}/fp32`);
    for (const [dtype, name, most] of [["bf16", "BF16", 0.1], ["fp16", "F16", 0.01]] as const) {
      const { result } = await merge(`${root}/${dtype}`, { dtype });
      assertEquals(result.dtypes, [name]);
      assertEquals(
        json(`${root}/${dtype}/config.json`).torch_dtype,
        { BF16: "bfloat16", F16: "float16" }[name],
      );
      const difference = result.verification!.maxRelativeDifference;
      assert(difference > 1e-5 && difference < most, `${dtype} differs by ${difference}`);
      const tensor = "model.layers.0.self_attn.q_proj.weight";
      const unit = dtype === "bf16" ? 2 ** -8 : 2 ** -11;
      const [rounded, exact] = [
        await readTensor(`${root}/${dtype}`, tensor),
        await readTensor(`${root}/fp32`, tensor),
      ];
      assertClose(tensor, rounded, exact, { rtol: 1.01 * unit, atol: 1e-7 });
    }
  });
});

Deno.test("without context_size the adapter's training decides, and 4-bit training is noted", async () => {
  await withFolder(async (root) => {
    const peftModel = `${root}/adapter`;
    await Deno.mkdir(peftModel);
    for (const name of ["adapter_config.json", "adapter_model.safetensors"]) {
      await Deno.copyFile(`${GOLDEN}/adapter/${name}`, `${peftModel}/${name}`);
    }
    await Deno.writeTextFile(`${peftModel}/train_args.yaml`, "model_max_length: 192\nload_in_4bit: true\n");
    const { result, notes } = await merge(`${root}/merged`, { peftModel, contextSize: null });
    assertEquals([result.contextSize, result.ropeScaling], [192, { type: "linear", factor: 3 }]);
    assertIncludes(notes.join(), "--load_in_4bit merges onto what training saw");
    const { verification, verificationAsTrained: asTrained } = result;
    assert(verification!.maxRelativeDifference < 1e-4, "the merge is exact");
    assert(asTrained!.maxRelativeDifference > 1e-2, "and as far from what was trained as NF4 from f32");

    const dequantised = await merge(`${root}/nf4`, {
      peftModel,
      contextSize: null,
      quantisation: "nf4-double",
    });
    assertEquals(dequantised.result.verificationAsTrained, null);
    assert(dequantised.result.verification!.maxRelativeDifference < 1e-4, "what was trained");

    // A raised base takes the place of interpolation; the length then stands in max_position_embeddings.
    await Deno.writeTextFile(`${peftModel}/train_args.yaml`, "model_max_length: 192\nrope_theta: 40000.0\n");
    await merge(`${root}/raised`, { peftModel, contextSize: null });
    const { rope_theta, rope_scaling, max_position_embeddings } = json(`${root}/raised/config.json`);
    assertEquals([rope_theta, rope_scaling, max_position_embeddings], [40000, null, 192]);

    // An adapter from elsewhere: the base's own context.
    assertEquals((await merge(`${root}/own`, { contextSize: null })).result.contextSize, 64);
  });
});

Deno.test("bad input ends with one clear line, and leaves nothing", async () => {
  await withFolder(async (root) => {
    const folder = `${root}/merged`;
    await assertThrows(() => merge(folder, { baseModel: `${GOLDEN}/none` }), "no config.json");
    await assertThrows(() => merge(folder, { peftModel: `${GOLDEN}/none` }), "no such folder");
    await assertThrows(
      () => merge(folder, { baseModel: `${GOLDEN}/gqa`, contextSize: null }),
      "Cannot use the adapter on this model",
      "k_proj",
    );
    await assertThrows(() => merge(folder, { baseModel: `${GOLDEN}/gqa`, contextSize: 1000 }), "llama3");
    assertEquals(namesIn(root), []);

    await Deno.mkdir(folder);
    await Deno.writeTextFile(`${folder}/notes.txt`, "mine");
    await assertThrows(() => merge(folder), "not empty");
    assertEquals(namesIn(root), ["merged"]);
    assertEquals(namesIn(folder), ["notes.txt"]);
  });
});

Deno.test("damaged weights are named, and leave nothing", async () => {
  const name = "model.layers.1.mlp.up_proj.weight";
  const write = (folder: string, value: number) =>
    writeChangedModel(`${GOLDEN}/mha`, folder, name, (values) => values[77] = value);
  await withFolder(async (root) => {
    await write(`${root}/nan`, NaN);
    await assertThrows(
      () => merge(`${root}/merged`, { baseModel: `${root}/nan` }),
      name,
      "element 77",
      "NaN",
    );
    await write(`${root}/large`, 70_000);
    const large = { baseModel: `${root}/large`, dtype: "fp16" } as const;
    await assertThrows(() => merge(`${root}/merged`, large), name, "element 77", "too large", "bf16");
    assertEquals(namesIn(root), ["large", "nan"]);
  });
});

Deno.test("an update too large for f32 is named", async () => {
  await withFolder(async (root) => {
    const peftModel = `${root}/adapter`;
    await writeRandomAdapter(peftModel, `${GOLDEN}/mha`, ["v_proj"], 1e25);
    await assertThrows(
      () => merge(`${root}/merged`, { peftModel }),
      "layers.0.self_attn.v_proj.weight",
      "element",
    );
    assertEquals(namesIn(root), ["adapter"]);

    // Found when it is made, not only when the comparison loads it.
    using gpu = await Gpu.open();
    const weights = await openWeights(`${GOLDEN}/mha`);
    const plan = planMerge(weights, await readConfig(`${GOLDEN}/mha`), await readAdapter(peftModel), "keep");
    const sources = mergedTensors(gpu, plan, { quantisation: "none", onProgress() {} });
    const source = sources.find(({ name }) => name === "model.layers.0.self_attn.v_proj.weight")!;
    await assertThrows(() => source.read(), source.name, "element 0 of 4096");
    weights.close();
  });
});

Deno.test("a linear that the adapter trained as a whole replaces one in 4 bits", async () => {
  await withFolder(async (root) => {
    const name = "model.layers.0.self_attn.q_proj.weight";
    const adapter = await readAdapter(`${GOLDEN}/adapter`);
    const lora = new Map([...adapter.lora].filter(([module]) => `${module}.weight` !== name));
    const data = normal(8, 64 * 64, 0.1);
    await Deno.mkdir(`${root}/adapter`);
    const extra = new Map([[name, { shape: [64, 64], data, dtype: "F32" as const }]]);
    await writeAdapter(`${root}/adapter`, { ...adapter, lora, extra });
    const options = { baseModel: `${GOLDEN}/mha-bnb4`, peftModel: `${root}/adapter` };
    const { result } = await merge(`${root}/merged`, options);
    assertEquals([...await readTensor(`${root}/merged`, name)], [...data]);
    // Base and adapter, which the comparison loads, have it too.
    assert(result.verification!.maxRelativeDifference < 1e-4, "logits agree");
  });
});

Deno.test("compareLogits() gives the largest difference and the share of rows with the same likeliest token", () => {
  const expected = Float32Array.of(1, 2, -8, 5, 4, 3, 0, 1, 2, 0, 0, 1);
  const actual = Float32Array.of(1, 2, -8, 4, 4.5, 3, 0, 1, 2, 0, 0, 3);
  assertEquals(compareLogits(actual, expected, 4), {
    sampleTokens: 4,
    maxAbsoluteDifference: 2,
    maxRelativeDifference: 0.25,
    argmaxAgreement: 0.75,
  });
});

Deno.test("an adapter that replaces what the base does not have, or a linear under LoRA, or lacks factors, is refused", async () => {
  await withFolder(async (root) => {
    const adapter = await readAdapter(`${GOLDEN}/adapter`);
    const write = async (name: string, tensor: string, shape: number[]) => {
      await Deno.mkdir(`${root}/${name}`);
      const data = normal(5, shape.reduce((a, b) => a * b));
      await writeAdapter(`${root}/${name}`, {
        ...adapter,
        extra: new Map([[tensor, { shape, data, dtype: "F32" }]]),
      });
      return `${root}/${name}`;
    };
    const unknown = await write("unknown", "model.layers.2.input_layernorm.weight", [64]);
    await assertThrows(
      () => merge(`${root}/merged`, { peftModel: unknown }),
      "model.layers.2.input_layernorm.weight",
    );
    const shape = await write("shape", "model.norm.weight", [63]);
    await assertThrows(
      () => merge(`${root}/merged`, { peftModel: shape }),
      "Cannot use the adapter",
      "model.norm.weight",
      "[63]",
      "[64]",
    );
    const both = await write("both", "model.layers.0.self_attn.q_proj.weight", [64, 64]);
    await assertThrows(
      () => merge(`${root}/merged`, { peftModel: both }),
      "leaves out",
      "modules_to_save: model.layers.0.self_attn.q_proj",
    );
    // As savers of a whole state have it: under LoRA, but in no list.
    const settings = `${both}/adapter_config.json`;
    const { modules_to_save: _, ...rest } = JSON.parse(await Deno.readTextFile(settings));
    await Deno.writeTextFile(settings, JSON.stringify(rest));
    await assertThrows(
      () => merge(`${root}/merged`, { peftModel: both }),
      "both LoRA and a whole weight",
      "q_proj",
    );
    const lora = new Map(adapter.lora);
    lora.delete("model.layers.1.self_attn.v_proj");
    await Deno.mkdir(`${root}/cut`);
    await writeAdapter(`${root}/cut`, { ...adapter, lora });
    await assertThrows(
      () => merge(`${root}/merged`, { peftModel: `${root}/cut` }),
      "1 of the 14 linears",
      "model.layers.1.self_attn.v_proj",
    );
    assertEquals(namesIn(root), ["both", "cut", "shape", "unknown"]);
  });
});
