/** Merging against PyTorch's merged weights and figures (tests/golden/expected.json), and what it refuses. */
import { toF32 } from "../../checkpoint/dtype.ts";
import { adapterConfig, type LoraPair, readAdapter, writeAdapter } from "../../checkpoint/peft.ts";
import { openWeights } from "../../checkpoint/weights.ts";
import { evaluatePerplexity } from "../../eval/perplexity.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { readConfig } from "../../model/config.ts";
import { compareLogits, mergeAdapter, type MergeOptions } from "../../model/merge.ts";
import { mergedTensors, planMerge } from "../../model/merged_tensors.ts";
import { checkpointTensors, linearsOf } from "../../model/tensors.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { normal } from "../support/random.ts";
import { writeChangedModel } from "../support/changed_model.ts";
import { assertIncludes } from "../support/text.ts";

const expected = JSON.parse(await Deno.readTextFile(`${GOLDEN}/expected.json`));

async function merge(save_path: string, options: Partial<MergeOptions> = {}) {
  const notes: string[] = [];
  const result = await mergeAdapter({
    base_model: `${GOLDEN}/mha`,
    peft_model: `${GOLDEN}/adapter`,
    context_size: 128,
    save_path,
    dtype: "keep",
    max_shard_size: 5e9,
    ...options,
  }, { onProgress() {}, note: (line) => notes.push(line) });
  return { result, notes };
}

async function evaluate(base_model: string, options: { peft_model?: string; load_in_4bit?: boolean } = {}) {
  return await evaluatePerplexity({
    base_model,
    data_path: `${GOLDEN}/data.bin`,
    seq_len: 128,
    sliding_window: 64,
    batch_size: 8,
    drop_last_window: true,
    load_in_4bit: false,
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
    assertEquals([result.merged_linears, result.replaced_tensors, result.dtypes], [14, 0, ["F32"]]);
    const { verification } = result;
    assert(verification !== null && verification.max_relative_difference < 1e-4, "logits agree");
    assertEquals([verification.sample_tokens, verification.argmax_agreement], [128, 1]);
    assertEquals(notes, []);

    // Linear interpolation by 2 is in config.json, so nothing has to say 128 again.
    const { token_loss, model } = await evaluate(folder);
    assert(Math.abs(token_loss / expected.eval_adapter_128.val_loss - 1) < 1e-6, `token_loss ${token_loss}`);
    assertEquals([model.context_size, model.rope_scaling], [128, { type: "linear", factor: 2 }]);
  });
});

Deno.test("a merged model has the tokenizer that its adapter was trained with", async () => {
  await withFolder(async (root) => {
    const adapter = `${root}/adapter`;
    await writeRandomAdapter(adapter, `${GOLDEN}/mha`, ["v_proj"]);
    const settings = { bos_token: "<s>", eos_token: "<unk>", chat_template: "{{ messages }}" };
    await Deno.writeTextFile(`${adapter}/tokenizer_config.json`, JSON.stringify(settings));
    const { notes } = await merge(`${root}/merged`, { peft_model: adapter });
    assertEquals(json(`${root}/merged/tokenizer_config.json`), { ...settings, model_max_length: 128 });
    assertEquals(json(`${root}/merged/tokenizer.json`), json(`${GOLDEN}/mha/tokenizer.json`));
    assertEquals(notes.filter((note) => note.includes("tokenizer")).length, 1);
    assertIncludes(notes.join(), "tokenizer is the adapter's: tokenizer_config.json");
    // Parts that do not fit each other are refused before the work.
    await Deno.writeTextFile(`${adapter}/tokenizer_config.json`, '{ "eos_token": "<|im_end|>" }');
    await assertThrows(
      () => merge(`${root}/none`, { peft_model: adapter }),
      '"<|im_end|>" is not in the vocabulary',
    );
    assertEquals(namesIn(root), ["adapter", "merged"]);
  });
});

Deno.test("config.json and tokenizer carry the context, and where the model is from", async () => {
  await withFolder(async (root) => {
    const folder = `${root}/merged`;
    await merge(folder, { base_model: `${GOLDEN}/mha-bnb4`, context_size: 200 });
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
      "config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
  });
});

Deno.test("trained embeddings and norms replace the base's, in the base's formats", async () => {
  await withFolder(async (root) => {
    const folder = `${root}/merged`;
    const options = { base_model: `${GOLDEN}/mha-bin`, peft_model: `${GOLDEN}/adapter-bin` };
    const { result } = await merge(folder, options);
    assertEquals([result.replaced_tensors, result.dtypes], [6, ["F32", "F16"]]);
    const { extra } = await readAdapter(options.peft_model);
    for (const [name, { data }] of extra) assertEquals([...await readTensor(folder, name)], [...data], name);
    const [base, merged] = [await openWeights(options.base_model), await openWeights(folder)];
    const names = [...merged.names()];
    assertEquals(names.toSorted(), [...checkpointTensors(await readConfig(folder)).keys()].toSorted());
    for (const name of names) assertEquals(merged.info(name).dtype, base.info(name).dtype, name);
    base.close();
    merged.close();
    const loss = (await evaluate(folder)).val_loss;
    assert(
      Math.abs(loss / (await evaluate(options.base_model, options)).val_loss - 1) < 1e-4,
      `loss ${loss}`,
    );
  });
});

Deno.test("a grouped-query model in shards, with a rank that is no multiple of 4", async () => {
  await withFolder(async (root) => {
    const base_model = `${GOLDEN}/gqa`;
    const [peft_model, folder] = [`${root}/adapter`, `${root}/merged`];
    await writeRandomAdapter(peft_model, base_model);
    const { result } = await merge(folder, {
      base_model,
      peft_model,
      context_size: null,
      max_shard_size: 200_000,
    });
    assertEquals(result.shards.length, 3);
    assertEquals(namesIn(folder).filter((name) => name.includes("model-")), [...result.shards]);
    const index = json(`${folder}/model.safetensors.index.json`);
    assertEquals(index.metadata.total_size, result.total_bytes);
    assertEquals(
      Object.keys(index.weight_map).toSorted(),
      Object.keys(json(`${base_model}/model.safetensors.index.json`).weight_map).toSorted(),
    );
    for (const shard of result.shards) {
      assert(Deno.statSync(`${folder}/${shard}`).size < 203_000, `${shard} is larger than asked for`);
    }
    // The scaling is the model's own.
    assertEquals(json(`${folder}/config.json`).rope_scaling, json(`${base_model}/config.json`).rope_scaling);
    assert(result.verification!.max_relative_difference < 1e-4, "logits agree");

    const name = "model.layers.1.mlp.down_proj";
    const { A, B } = (await readAdapter(peft_model)).lora.get(name)!;
    const sum = Float64Array.from(await readTensor(base_model, `${name}.weight`));
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
    const peft_model = `${GOLDEN}/adapter`;
    const packed = await merge(`${root}/packed`, { base_model: `${GOLDEN}/mha-bnb4` });
    assertEquals(packed.result.dtypes, ["F32"], "torch_dtype of the config");
    assertIncludes(packed.notes.join(), "dequantised and written as F32");
    assert(packed.result.verification!.max_relative_difference < 1e-4, "logits agree with the 4-bit model's");
    const wanted = (await evaluate(`${GOLDEN}/mha-bnb4`, { peft_model })).val_loss;
    const fromPacked = await evaluate(`${root}/packed`);
    assertEquals(fromPacked.model.quantized, "no");
    assert(Math.abs(fromPacked.val_loss / wanted - 1) < 1e-6, `val_loss ${fromPacked.val_loss}`);

    const full = await merge(`${root}/full`, { load_in_4bit: true });
    assert(full.result.verification!.max_relative_difference < 1e-4, "logits agree");
    const fromFull = await evaluate(`${root}/full`);
    assert(Math.abs(fromFull.val_loss / wanted - 1) < 1e-5, `val_loss ${fromFull.val_loss}`);

    // Linears without LoRA go to NF4 and back too.
    await writeRandomAdapter(`${root}/adapter`, `${GOLDEN}/mha`, ["q_proj"]);
    const some = await merge(`${root}/some`, { peft_model: `${root}/adapter`, load_in_4bit: true });
    assert(some.result.verification!.max_relative_difference < 1e-4, "logits agree");
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
      const difference = result.verification!.max_relative_difference;
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
    const peft_model = `${root}/adapter`;
    await Deno.mkdir(peft_model);
    for (const name of ["adapter_config.json", "adapter_model.safetensors"]) {
      await Deno.copyFile(`${GOLDEN}/adapter/${name}`, `${peft_model}/${name}`);
    }
    await Deno.writeTextFile(`${peft_model}/train_args.yaml`, "model_max_length: 192\nload_in_4bit: true\n");
    const { result, notes } = await merge(`${root}/merged`, { peft_model, context_size: null });
    assertEquals([result.context_size, result.rope_scaling], [192, { type: "linear", factor: 3 }]);
    assertIncludes(notes.join(), "--load_in_4bit merges onto what training saw");
    const { verification, verification_as_trained: asTrained } = result;
    assert(verification!.max_relative_difference < 1e-4, "the merge is exact");
    assert(asTrained!.max_relative_difference > 1e-2, "and as far from what was trained as NF4 from f32");

    const dequantised = await merge(`${root}/nf4`, { peft_model, context_size: null, load_in_4bit: true });
    assertEquals(dequantised.result.verification_as_trained, null);
    assert(dequantised.result.verification!.max_relative_difference < 1e-4, "what was trained");

    // A raised base takes the place of interpolation; the length then stands in max_position_embeddings.
    await Deno.writeTextFile(`${peft_model}/train_args.yaml`, "model_max_length: 192\nrope_theta: 40000.0\n");
    await merge(`${root}/raised`, { peft_model, context_size: null });
    const { rope_theta, rope_scaling, max_position_embeddings } = json(`${root}/raised/config.json`);
    assertEquals([rope_theta, rope_scaling, max_position_embeddings], [40000, null, 192]);

    // An adapter from elsewhere: the base's own context.
    assertEquals((await merge(`${root}/own`, { context_size: null })).result.context_size, 64);
  });
});

Deno.test("bad input ends with one clear line, and leaves nothing", async () => {
  await withFolder(async (root) => {
    const folder = `${root}/merged`;
    await assertThrows(() => merge(folder, { base_model: `${GOLDEN}/none` }), "no config.json");
    await assertThrows(() => merge(folder, { peft_model: `${GOLDEN}/none` }), "no such folder");
    await assertThrows(
      () => merge(folder, { base_model: `${GOLDEN}/gqa`, context_size: null }),
      "Cannot use the adapter on this model",
      "k_proj",
    );
    await assertThrows(() => merge(folder, { base_model: `${GOLDEN}/gqa`, context_size: 1000 }), "llama3");
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
      () => merge(`${root}/merged`, { base_model: `${root}/nan` }),
      name,
      "element 77",
      "NaN",
    );
    await write(`${root}/large`, 70_000);
    const large = { base_model: `${root}/large`, dtype: "fp16" } as const;
    await assertThrows(() => merge(`${root}/merged`, large), name, "element 77", "too large", "bf16");
    assertEquals(namesIn(root), ["large", "nan"]);
  });
});

Deno.test("an update too large for f32 is named", async () => {
  await withFolder(async (root) => {
    const peft_model = `${root}/adapter`;
    await writeRandomAdapter(peft_model, `${GOLDEN}/mha`, ["v_proj"], 1e25);
    await assertThrows(
      () => merge(`${root}/merged`, { peft_model }),
      "layers.0.self_attn.v_proj.weight",
      "element",
    );
    assertEquals(namesIn(root), ["adapter"]);

    // Found when it is made, not only when the comparison loads it.
    using gpu = await Gpu.open();
    const weights = await openWeights(`${GOLDEN}/mha`);
    const plan = planMerge(weights, await readConfig(`${GOLDEN}/mha`), await readAdapter(peft_model), "keep");
    const sources = mergedTensors(gpu, plan, { loadIn4bit: false, onProgress() {} });
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
    const options = { base_model: `${GOLDEN}/mha-bnb4`, peft_model: `${root}/adapter` };
    const { result } = await merge(`${root}/merged`, options);
    assertEquals([...await readTensor(`${root}/merged`, name)], [...data]);
    // Base and adapter, which the comparison loads, have it too.
    assert(result.verification!.max_relative_difference < 1e-4, "logits agree");
  });
});

Deno.test("compareLogits() gives the largest difference and the share of rows with the same likeliest token", () => {
  const expected = Float32Array.of(1, 2, -8, 5, 4, 3, 0, 1, 2, 0, 0, 1);
  const actual = Float32Array.of(1, 2, -8, 4, 4.5, 3, 0, 1, 2, 0, 0, 3);
  assertEquals(compareLogits(actual, expected, 4), {
    sample_tokens: 4,
    max_absolute_difference: 2,
    max_relative_difference: 0.25,
    argmax_agreement: 0.75,
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
      () => merge(`${root}/merged`, { peft_model: unknown }),
      "model.layers.2.input_layernorm.weight",
    );
    const shape = await write("shape", "model.norm.weight", [63]);
    await assertThrows(
      () => merge(`${root}/merged`, { peft_model: shape }),
      "model.norm.weight",
      "[63]",
      "[64]",
    );
    const both = await write("both", "model.layers.0.self_attn.q_proj.weight", [64, 64]);
    await assertThrows(
      () => merge(`${root}/merged`, { peft_model: both }),
      "leaves out",
      "modules_to_save: model.layers.0.self_attn.q_proj",
    );
    // As savers of a whole state have it: under LoRA, but in no list.
    const settings = `${both}/adapter_config.json`;
    const { modules_to_save: _, ...rest } = JSON.parse(await Deno.readTextFile(settings));
    await Deno.writeTextFile(settings, JSON.stringify(rest));
    await assertThrows(
      () => merge(`${root}/merged`, { peft_model: both }),
      "both LoRA and a whole weight",
      "q_proj",
    );
    const lora = new Map(adapter.lora);
    lora.delete("model.layers.1.self_attn.v_proj");
    await Deno.mkdir(`${root}/cut`);
    await writeAdapter(`${root}/cut`, { ...adapter, lora });
    await assertThrows(
      () => merge(`${root}/merged`, { peft_model: `${root}/cut` }),
      "1 of the 14 linears",
      "model.layers.1.self_attn.v_proj",
    );
    assertEquals(namesIn(root), ["both", "cut", "shape", "unknown"]);
  });
});
