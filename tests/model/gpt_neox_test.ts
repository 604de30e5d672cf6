/** GPT-NeoX from `config.json` to a merged model. What its layers compute is in tests/parity and block_test.ts. */
import { toF32 } from "../../checkpoint/dtype.ts";
import { readAdapter } from "../../checkpoint/peft.ts";
import { openWeights, openWeightsFile } from "../../checkpoint/weights.ts";
import { evaluatePerplexity } from "../../eval/perplexity.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { Nf4Weight } from "../../kernels/nf4/nf4.ts";
import { makeBatch } from "../../model/batch.ts";
import { convertToBnb4 } from "../../export/bnb4.ts";
import { extendContext } from "../../model/positions.ts";
import { parseConfig } from "../../model/config.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import { configJson } from "../../model/config_json.ts";
import { generate } from "../../model/generate.ts";
import { convertToGguf } from "../../export/gguf.ts";
import { mergeAdapter } from "../../export/merge.ts";
import { openModel } from "../../model/load/open.ts";
import { shapeConfig } from "../../model/shapes.ts";
import { checkpointTensors, countParameters, isExpendable } from "../../model/tensors.ts";
import { runTraining } from "../../train/run.ts";
import { loadTrainArgs } from "../../train_args/load.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { changedWeights, load, sequence } from "./support.ts";

const NEOX = `${GOLDEN}/neox`;
const expected = JSON.parse(await Deno.readTextFile(`${NEOX}/expected.json`));

/** The keys without a default, as Pythia-1.4B has them. */
const LEAST = {
  model_type: "gpt_neox",
  vocab_size: 50304,
  hidden_size: 2048,
  intermediate_size: 8192,
  num_hidden_layers: 24,
  num_attention_heads: 16,
};
const parse = (changes: Record<string, unknown> = {}) => parseConfig({ ...LEAST, ...changes }, "config.json");
const SMALL = {
  vocab_size: 51,
  hidden_size: 48,
  intermediate_size: 104,
  num_hidden_layers: 2,
  num_attention_heads: 3,
  max_position_embeddings: 32,
};

Deno.test("Defaults are those of Hugging Face's GPTNeoXConfig", () => {
  const { raw: _, ...config } = parse();
  assertEquals(Object.fromEntries(Object.entries(config).sort()), {
    attention_bias: true,
    gelu: "erf",
    head_dim: 128,
    hidden_size: 2048,
    intermediate_size: 8192,
    layer_norm_eps: 1e-5,
    layers: new Array(24).fill({ sliding_window: null, rope: "model" }),
    max_position_embeddings: 2048,
    model_type: "gpt_neox",
    notes: [],
    num_attention_heads: 16,
    num_hidden_layers: 24,
    num_key_value_heads: 16,
    rope_scaling: null,
    rope_theta: 10000,
    rotary_dim: 32,
    tie_word_embeddings: false,
    use_parallel_residual: true,
    vocab_size: 50304,
  });
});

Deno.test("Pythia's models have as many parameters as their cards say", () => {
  assertEquals(countParameters(shapeConfig("pythia-1.4b")), 1_414_647_808);
  assertEquals(countParameters(shapeConfig("pythia-6.9b")), 6_857_302_016);
});

Deno.test("Rotation and activation are read in every form that Hugging Face has written them", async () => {
  const rotation = (changes: Record<string, unknown>) => {
    const { rotary_dim, rope_theta, rope_scaling } = parse(changes);
    return [rotary_dim, rope_theta, rope_scaling?.type ?? null];
  };
  assertEquals(rotation({ rotary_pct: 1, rotary_emb_base: 20000 }), [128, 20000, null]);
  assertEquals(rotation({ rotary_pct: 0.5, rope_scaling: { type: "linear", factor: 4 } }), [
    64,
    10000,
    "linear",
  ]);
  const newer = { rope_type: "default", rope_theta: 50000, partial_rotary_factor: 0.125 };
  assertEquals(rotation({ rope_parameters: newer, rotary_pct: 0.5 }), [16, 50000, null]);
  for (const hidden_act of ["gelu_fast", "gelu_new", "gelu_pytorch_tanh"]) {
    assertEquals((parse({ hidden_act }) as { gelu?: string }).gelu, "tanh");
  }
  await assertThrows(() => parse({ hidden_act: "relu" }), 'hidden_act is "relu"', "gelu_fast");
  await assertThrows(() => parse({ rotary_pct: 0.3 }), "rotary_pct rotates 38 of a head's 128");
  await assertThrows(() => parse({ rotary_pct: 1.5 }), "rotary_pct");
  await assertThrows(
    () => parse({ rotary_pct: 0.5, partial_rotary_factor: 0.25 }),
    "rotary_pct is 0.5",
    "partial_rotary_factor is 0.25",
  );
  await assertThrows(() => parse({ head_dim: 64 }), "head_dim is 64");
  assert(
    parse({ num_key_value_heads: 2 }).notes.join().includes("num_key_value_heads is not known"),
    "noted",
  );
  await assertThrows(() => parse({ mlp_bias: true }), "mlp_bias is true");
  await assertThrows(() => parse({ num_attention_heads: 24 }), "head size");
  await assertThrows(() => parse({ layer_norm_eps: 0 }), "layer_norm_eps");
});

Deno.test("An extended context is written under the keys that GPT-NeoX has", () => {
  const older = configJson(extendContext(parse({ rotary_emb_base: 10000 }), 8192));
  assertEquals([older.rotary_emb_base, older.rope_theta, older.rope_scaling], [10000, undefined, {
    type: "linear",
    factor: 4,
  }]);
  const rope_parameters = { rope_type: "default", rope_theta: 10000, partial_rotary_factor: 0.5 };
  const newer = configJson(extendContext(parse({ rope_parameters }), 8192));
  for (const [written, turned] of [[older, 32], [newer, 64]] as const) {
    const again = parseConfig(written, "config.json");
    assertEquals([again.rotary_dim, again.rope_theta, again.rope_scaling], [turned, 10000, {
      type: "linear",
      factor: 4,
    }]);
  }
});

Deno.test("A checkpoint has the tensors that Hugging Face's has; masks and angles of older versions are left", async () => {
  const weights = await openWeights(NEOX);
  const config = parseConfig(JSON.parse(await Deno.readTextFile(`${NEOX}/config.json`)), NEOX);
  assertEquals([...checkpointTensors(config).keys()].sort(), [...weights.names()].sort());
  for (const [name, shape] of checkpointTensors(config)) assertEquals(weights.info(name).shape, shape, name);
  weights.close();
  for (const old of ["bias", "masked_bias", "rotary_emb.inv_freq"]) {
    assert(isExpendable(`gpt_neox.layers.0.attention.${old}`, config), old);
  }
  assert(!isExpendable("gpt_neox.layers.0.attention.dense.bias", config), "a bias is no mask");
  const fewer = parseConfig({ ...config.raw, num_hidden_layers: 1 }, NEOX);
  using gpu = await Gpu.open();
  await assertThrows(
    () => openModel(gpu, { baseModel: NEOX, config: fewer, quantisation: "none" }),
    "gpt_neox.layers.1.",
  );
  const withoutBias = parseConfig({ ...config.raw, attention_bias: false }, NEOX);
  await assertThrows(
    () => openModel(gpu, { baseModel: NEOX, config: withoutBias, quantisation: "none" }),
    "attention.dense.bias",
  );
});

/** Logits of the last token. */
async function lastLogits(
  model: Awaited<ReturnType<typeof load>>,
  ids: readonly number[],
): Promise<Float32Array> {
  const logits = await model.logits(model.upload(makeBatch([{ inputIds: Uint32Array.from(ids) }])));
  return logits.slice(-model.config.vocab_size);
}

for (const isParallel of [true, false]) {
  Deno.test(`What is written token by token is what is read at once, use_parallel_residual ${isParallel}`, async () => {
    using gpu = await Gpu.open({ poison: true });
    const config = parse({ ...SMALL, use_parallel_residual: isParallel, rotary_pct: 0.5 });
    const model = await load(gpu, config, changedWeights(config, { changes: biases(config) }));
    const ids = [...sequence(config, 11).inputIds];
    const written = await generate(model, ids, { maxNewTokens: 8, temperature: 0 });
    assertEquals(written.length, 8);
    for (const id of written) {
      const logits = await lastLogits(model, ids);
      assertEquals(id, logits.indexOf(Math.max(...logits)));
      ids.push(id);
    }
  });
}

/** Fresh biases are zero, and norms one: here they are not. */
function biases(config: ModelConfig) {
  return [...checkpointTensors(config).keys()].filter((name) => /bias$|norm\.weight$/.test(name)).map((
    name,
  ) => ({
    name,
    values: (values: Float32Array) =>
      values.forEach((value, i) => values[i] = value + Math.sin(i + name.length) / 3),
  }));
}

async function train(output_dir: string, given: Record<string, string>): Promise<void> {
  const settings = {
    model_name_or_path: NEOX,
    train_file: `${GOLDEN}/train.jsonl`,
    sft: "false",
    model_max_length: "128",
    per_device_train_batch_size: "2",
    max_steps: "2",
    learning_rate: "0.002",
    output_dir,
    ...given,
  };
  const { args } = await loadTrainArgs(null, settings);
  await runTraining(args, { onStart() {}, onStep() {}, onSave() {}, note() {}, shouldStop: () => false });
}

async function lossOf(base_model: string, peft_model?: string): Promise<number> {
  const { tokenLoss: token_loss } = await evaluatePerplexity({
    baseModel: base_model,
    peftModel: peft_model,
    dataPath: `${GOLDEN}/data.bin`,
    seqLen: 128,
    contextSize: 128,
    slidingWindow: 64,
    batchSize: 8,
    dropLastWindow: true,
    quantisation: "none",
    dtype: "fp32",
  });
  return token_loss;
}

Deno.test("LongLoRA's recipe gives an adapter under PEFT's names, which merges into what it is on its base", async () => {
  await withFolder(async (root) => {
    const [adapter, merged] = [`${root}/adapter`, `${root}/merged`];
    await train(adapter, {
      target_modules: "query_key_value,dense",
      lora_rank: "6",
      trainable_params: "embed,norm",
      load_in_4bit: "false",
    });
    const stored = await openWeightsFile(`${adapter}/adapter_model.safetensors`);
    const names = [...stored.names()].sort();
    stored.close();
    const layers = [0, 1].flatMap((layer) => {
      const within = `base_model.model.gpt_neox.layers.${layer}`;
      const linears = ["dense", "query_key_value"].flatMap((name) =>
        ["A", "B"].map((factor) => `${within}.attention.${name}.lora_${factor}.weight`)
      );
      const norms = ["input_layernorm", "post_attention_layernorm"];
      return [...linears, ...norms.flatMap((name) => [`${within}.${name}.weight`, `${within}.${name}.bias`])];
    });
    const others = [
      "embed_out.weight",
      "gpt_neox.embed_in.weight",
      "gpt_neox.final_layer_norm.bias",
      "gpt_neox.final_layer_norm.weight",
    ];
    assertEquals(names, [...layers, ...others.map((name) => `base_model.model.${name}`)].sort());
    const { target_modules, modules_to_save } = JSON.parse(
      await Deno.readTextFile(`${adapter}/adapter_config.json`),
    );
    assertEquals(target_modules, ["dense", "query_key_value"]);
    assertEquals(modules_to_save, [
      "embed_in",
      "embed_out",
      "final_layer_norm",
      "input_layernorm",
      "post_attention_layernorm",
    ]);
    const { verification, replacedTensors } = await mergeAdapter({
      baseModel: NEOX,
      peftModel: adapter,
      savePath: merged,
      dtype: "fp32",
      maxShardSize: 2 ** 30,
    });
    assertEquals(replacedTensors, 12);
    assert(verification!.maxRelativeDifference < 1e-5, `${verification!.maxRelativeDifference}`);
    const [own, apart, whole] = [await lossOf(NEOX), await lossOf(NEOX, adapter), await lossOf(merged)];
    assertClose("loss of the base", [own], [expected.eval_neox_128.val_loss], { rtol: 1e-6, atol: 0 });
    assertClose("loss of the merged model", [whole], [apart], { rtol: 1e-6, atol: 0 });
    assert(Math.abs(apart - own) > 1e-2, "training changed nothing");
  });
});

Deno.test("LoRA without targets is on every linear, and merging is W + scaling B A", async () => {
  await withFolder(async (root) => {
    await train(`${root}/adapter`, { lora_rank: "4", lora_alpha: "12", load_in_4bit: "true" });
    const adapter = await readAdapter(`${root}/adapter`);
    assertEquals(adapter.lora.size, 8);
    await mergeAdapter({
      baseModel: NEOX,
      peftModel: `${root}/adapter`,
      savePath: `${root}/merged`,
      dtype: "fp32",
      maxShardSize: 2 ** 30,
    });
    const read = async (folder: string, name: string) => {
      const weights = await openWeights(folder);
      const values = toF32(await weights.read(name), weights.info(name).dtype);
      weights.close();
      return values;
    };
    const module = "gpt_neox.layers.1.attention.query_key_value";
    const { A, B } = adapter.lora.get(module)!;
    const sum = Float64Array.from(await read(NEOX, `${module}.weight`));
    for (let i = 0; i < sum.length; i++) {
      for (let r = 0; r < 4; r++) {
        sum[i]! += 3 * B.data[Math.floor(i / 64) * 4 + r]! * A.data[r * 64 + i % 64]!;
      }
    }
    const merged = await read(`${root}/merged`, `${module}.weight`);
    assertClose("merged", merged, sum, { rtol: 1e-6, atol: 1e-6 });
    await assertThrows(
      () => train(`${root}/other`, { target_modules: "q_proj" }),
      '"q_proj"',
      "query_key_value, dense, dense_h_to_4h, dense_4h_to_h",
    );
  });
});

Deno.test("Full fine-tuning saves a model under the checkpoint's names, with its positions", async () => {
  await withFolder(async (output_dir) => {
    await train(output_dir, { low_rank_training: "false", load_in_4bit: "false" });
    const weights = await openWeights(output_dir);
    const base = await openWeights(NEOX);
    assertEquals([...weights.names()].sort(), [...base.names()].sort());
    weights.close();
    base.close();
    const { rope_scaling, rotary_pct } = JSON.parse(await Deno.readTextFile(`${output_dir}/config.json`));
    assertEquals([rope_scaling, rotary_pct], [{ type: "linear", factor: 2 }, 0.25]);
    assert(await lossOf(output_dir) < expected.eval_neox_128.val_loss, "no better than before");
  });
});

Deno.test("In 4 bits on disk it computes what it does quantised while loading", async () => {
  await withFolder(async (root) => {
    const path = `${root}/nf4`;
    await convertToBnb4(NEOX, path, { quantisation: "nf4-double", dtype: "keep", maxShardSize: 2 ** 30 });
    using gpu = await Gpu.open({ poison: true });
    const logits = async (baseModel: string) => {
      const { model } = await openModel(gpu, { baseModel, quantisation: "nf4-double" });
      assert(model.linears().every(({ weight }) => (weight instanceof Nf4Weight)), "not in 4 bits");
      return await lastLogits(model, [1, 2, 3, 4, 5]);
    };
    assertEquals([...await logits(path)], [...await logits(NEOX)]);
  });
});

Deno.test("A model without a GGUF form is refused by name", async () => {
  await assertThrows(
    () => convertToGguf(NEOX, "/nowhere/model.gguf"),
    'model_type "gpt_neox"',
    "llama, mistral, qwen2",
  );
});
