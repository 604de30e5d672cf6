/** Qwen3 through every command, against the figures of tests/golden/qwen3/expected.json. */
import { gguf } from "@huggingface/gguf";
import { toF32 } from "../../checkpoint/dtype.ts";
import { adapterConfig } from "../../checkpoint/peft.ts";
import { openWeights } from "../../checkpoint/weights.ts";
import { evaluatePerplexity } from "../../eval/perplexity.ts";
import { convertToBnb4 } from "../../export/bnb4.ts";
import { convertToGguf } from "../../export/gguf.ts";
import { mergeAdapter } from "../../export/merge.ts";
import { embed } from "../../kernels/embedding/embedding.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { makeBatch } from "../../model/batch.ts";
import { parseConfig, readConfig } from "../../model/config.ts";
import { generate } from "../../model/generate.ts";
import { LayerRopes } from "../../model/layer_ropes.ts";
import { openModel } from "../../model/load/open.ts";
import { addLora } from "../../model/lora.ts";
import { shapeConfig } from "../../model/shapes.ts";
import { checkpointTensors, countParameters } from "../../model/tensors.ts";
import { readTokenBin } from "../../data/bin.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";

const QWEN3 = `${GOLDEN}/qwen3`;
const read = (file: string) => JSON.parse(Deno.readTextFileSync(`${QWEN3}/${file}`));
const expected = read("expected.json");
const parse = (changes: Record<string, unknown>) =>
  parseConfig({ ...read("config.json"), ...changes }, "config.json");

async function evaluate(baseModel: string) {
  return await evaluatePerplexity({
    baseModel,
    dataPath: `${GOLDEN}/mistral/data.bin`,
    seqLen: 128,
    contextSize: 128,
    slidingWindow: 64,
    batchSize: 1,
    dropLastWindow: true,
    dtype: "fp32",
  });
}

function assertLoss(name: string, actual: number, tolerance: number): void {
  const wanted = expected[name].val_loss;
  assert(Math.abs(actual / wanted - 1) < tolerance, `${name}: ${actual} for ${wanted}`);
}

Deno.test("Both forms of Qwen3's config.json say the same", () => {
  const { raw: _, ...older } = parseConfig(read("config.json"), "config.json");
  const { raw: __, ...newer } = parseConfig(read("config-v5.json"), "config.json");
  assertEquals(newer, older);
  assertEquals([older.head_dim, older.rope_theta, older.tie_word_embeddings, older.notes], [
    32,
    1000000,
    true,
    [],
  ]);
});

Deno.test("What a key of Qwen3 means that is not there, and which values are refused by name", async () => {
  const { head_dim: _, num_key_value_heads: __, max_position_embeddings: ___, ...rest } = read("config.json");
  const config = parseConfig({ ...rest, num_attention_heads: 32 }, "config.json");
  assertEquals([config.head_dim, config.num_key_value_heads, config.max_position_embeddings], [
    128,
    32,
    32768,
  ]);
  const windows = (changes: Record<string, unknown>) =>
    parse({ sliding_window: 16, layer_types: null, ...changes }).layers.map((layer) => layer.sliding_window);
  assertEquals(windows({ max_window_layers: 1 }), [null, null, null]);
  assertEquals(windows({ max_window_layers: 1, use_sliding_window: true }), [null, 16, 16]);
  const biased = [...checkpointTensors(parse({ attention_bias: true })).keys()];
  assertEquals(biased.filter((name) => name.endsWith(".bias")).length, 12);
  await assertThrows(() => parse({ hidden_act: "gelu" }), 'hidden_act is "gelu"', '"qwen3"');
  await assertThrows(
    () => parse({ partial_rotary_factor: 0.5 }),
    "partial_rotary_factor rotates 16",
    '"qwen3"',
  );
  await assertThrows(() => parse({ mlp_bias: true }), "its mlp_bias is true");
  await assertThrows(() => parse({ num_experts: 8 }), "its num_experts is 8");
});

Deno.test("Qwen3's published models have as many parameters as their cards say", () => {
  assertEquals(countParameters(shapeConfig("qwen3-4b")), 4_022_468_096);
  assertEquals(countParameters(shapeConfig("qwen3-8b")), 8_190_735_360);
});

Deno.test("Qwen3's checkpoints have the tensors that its config names; LoRA goes on the linears alone", async () => {
  const config = await readConfig(QWEN3);
  const weights = await openWeights(QWEN3);
  assertEquals([...checkpointTensors(config).keys()].sort(), [...weights.names()].sort());
  weights.close();
  using gpu = await Gpu.open();
  const { model } = await openModel(gpu, { baseModel: QWEN3 });
  const { target_modules } = addLora(model, adapterConfig({ r: 4, lora_alpha: 4, target_modules: null }), 1);
  assertEquals(
    [target_modules].flat().sort(),
    ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
  );
});

Deno.test("Qwen3's first window gives PyTorch's residual stream and logits", async () => {
  using gpu = await Gpu.open({ poison: true });
  const { model } = await openModel(gpu, { baseModel: QWEN3 });
  const tokens = await readTokenBin(`${GOLDEN}/mistral/data.bin`);
  const device = model.upload(makeBatch([{ inputIds: tokens.slice(0, 128) }]));
  const logits = await model.logits(device);
  for (const [position, values] of Object.entries(expected.first_window.logits as Record<string, number[]>)) {
    const row = logits.subarray(320 * Number(position), 320 * (Number(position) + 1));
    const atol = 1e-5 * Math.max(...values.map(Math.abs));
    assertClose(`position ${position}`, row.subarray(0, values.length), values, { rtol: 0, atol });
  }
  const [rope] = new LayerRopes(gpu, model.config).forLength(128);
  const { positions, maps } = device;
  const pass = { map: maps.get(null)!, positions, rope: rope!, dropout: undefined, chunkRows: Infinity };
  let x = embed(gpu, device.tokens, model.parts.embeddings.weight, "f32");
  for (const [i, layer] of model.parts.layers.entries()) {
    x = layer.forward(gpu, x, pass);
    const values: number[] = expected.first_window.layers[i];
    const row = (await gpu.read(x)).subarray(64 * 127, 64 * 128);
    const atol = 1e-5 * Math.max(...row.map(Math.abs));
    assertClose(`layer ${i}`, row.subarray(0, values.length), values, { rtol: 0, atol });
  }
});

Deno.test("Qwen3 writes token by token what it reads at once", async () => {
  using gpu = await Gpu.open({ poison: true });
  const { model } = await openModel(gpu, { baseModel: QWEN3 });
  const ids = [...(await readTokenBin(`${GOLDEN}/mistral/data.bin`)).slice(0, 40)];
  for (const id of await generate(model, ids, { maxNewTokens: 16, temperature: 0 })) {
    const logits = await model.logits(model.upload(makeBatch([{ inputIds: Uint32Array.from(ids) }])));
    const last = logits.slice(-320);
    assertEquals(id, last.indexOf(Math.max(...last)));
    ids.push(id);
  }
});

Deno.test("Qwen3 merged with its adapter is PyTorch's, and evaluates to its figure", async () => {
  await withFolder(async (root) => {
    const folder = `${root}/merged`;
    await mergeAdapter({
      baseModel: QWEN3,
      peftModel: `${QWEN3}/adapter`,
      contextSize: 128,
      savePath: folder,
      dtype: "keep",
      maxShardSize: 5e9,
    }, {});
    const weights = await openWeights(folder);
    for (const [name, values] of Object.entries(expected.merged_probe as Record<string, number[]>)) {
      const merged = toF32(await weights.read(name), weights.info(name).dtype);
      assertClose(name, merged.subarray(0, values.length), values, { rtol: 1e-6, atol: 1e-8 });
    }
    weights.close();
    assertLoss("eval_adapter_128", (await evaluate(folder)).tokenLoss, 1e-6);
  });
});

Deno.test("Qwen3 converted to bnb-4bit evaluates to its figure in NF4", async () => {
  await withFolder(async (root) => {
    const folder = `${root}/packed`;
    await convertToBnb4(QWEN3, folder, { quantisation: "nf4-double", dtype: "keep", maxShardSize: 5e9 });
    assertLoss("eval_128_nf4", (await evaluate(folder)).tokenLoss, 1e-6);
    const weights = await openWeights(folder);
    assertEquals(weights.info("model.layers.0.self_attn.q_proj.weight").dtype, "U8");
    assertEquals(weights.info("model.layers.0.self_attn.q_norm.weight").dtype, "F32");
    weights.close();
  });
});

Deno.test("GGUF of Qwen3 has llama.cpp's names of it, and its rows as they are", async () => {
  await withFolder(async (root) => {
    const path = `${root}/model.gguf`;
    await convertToGguf(QWEN3, path, { outtype: "f32" });
    const { metadata, tensorInfos, tensorDataOffset } = await gguf(path, { allowLocalFile: true });
    const keys = metadata as unknown as Readonly<Record<string, unknown>>;
    assertEquals(keys["general.architecture"], "qwen3");
    const numbers = {
      "block_count": 3,
      "embedding_length": 64,
      "feed_forward_length": 96,
      "attention.head_count": 4,
      "attention.head_count_kv": 2,
      "attention.key_length": 32,
      "attention.value_length": 32,
      "rope.freq_base": 1000000,
      "context_length": 40960,
    };
    for (const [key, value] of Object.entries(numbers)) assertEquals(keys[`qwen3.${key}`], value, key);
    const layer = tensorInfos.map(({ name }) => name).filter((name) => name.startsWith("blk.2.")).sort();
    const modules = ["attn_k", "attn_k_norm", "attn_norm", "attn_output", "attn_q", "attn_q_norm", "attn_v"];
    modules.push("ffn_down", "ffn_gate", "ffn_norm", "ffn_up");
    assertEquals(layer, modules.map((module) => `blk.2.${module}.weight`));
    assertEquals(
      tensorInfos.map(({ name }) => name).filter((name) => !name.startsWith("blk.")).sort(),
      ["output_norm.weight", "token_embd.weight"],
    );
    const bytes = await Deno.readFile(path);
    const weights = await openWeights(QWEN3);
    for (const [ours, theirs] of [["q_proj", "attn_q"], ["k_norm", "attn_k_norm"]]) {
      const { offset } = tensorInfos.find(({ name }) => name === `blk.1.${theirs}.weight`)!;
      const stored = toF32(await weights.read(`model.layers.1.self_attn.${ours}.weight`), "F32");
      const at = Number(tensorDataOffset) + Number(offset);
      assertEquals(
        [...new Float32Array(bytes.slice(at, at + 4 * stored.length).buffer)],
        [...stored],
        theirs,
      );
    }
    weights.close();
  });
});
