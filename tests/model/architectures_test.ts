/** What sets Mistral and Qwen2 apart from LLaMA, and layers from each other. */
import { firstKeys } from "../../kernels/attention/map.ts";
import { embed } from "../../kernels/embedding/embedding.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { matmul } from "../../kernels/matmul/matmul.ts";
import { freeBatch, makeBatch, uploadBatch } from "../../model/batch.ts";
import { parseConfig } from "../../model/config.ts";
import { architectureOf, ARCHITECTURES } from "../../model/architectures.ts";
import { shapeConfig } from "../../model/shapes.ts";
import { LayerRopes } from "../../model/layer_ropes.ts";
import type { LayerAttention, ModelConfig } from "../../model/model_config.ts";
import { norm } from "../../model/norm.ts";
import { freshWeights } from "../../model/load/fresh.ts";
import { generate } from "../../model/generate.ts";
import type { LanguageModel } from "../../model/language_model.ts";
import { loadModel } from "../../model/load/load.ts";
import { checkpointTensors } from "../../model/tensors.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { integers } from "../support/random.ts";

const SHAPE = {
  vocab_size: 50,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 1,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
};
const parse = (changes: Record<string, unknown>) => parseConfig({ ...SHAPE, ...changes }, "config.json");

async function fresh(
  gpu: Gpu,
  config: ModelConfig,
  isTrained = (_name: string) => false,
): Promise<LanguageModel> {
  return await loadModel(gpu, freshWeights(config, 5), {
    config,
    format: "f32",
    quantisation: "none",
    isTrained,
  });
}

/** Logits of the last token. */
async function lastLogits(model: LanguageModel, ids: Uint32Array): Promise<Float32Array> {
  const logits = await model.logits(model.upload(makeBatch([{ inputIds: ids }])));
  return logits.slice(-SHAPE.vocab_size);
}

Deno.test("Mistral sees the tokens of its window and none before", async () => {
  using gpu = await Gpu.open({ poison: true });
  const model = await fresh(gpu, parse({ model_type: "mistral", sliding_window: 9 }));
  const ids = integers(3, 40, SHAPE.vocab_size);
  // Rotary positions are relative: in a model of one layer the window alone says the same.
  const tolerance = { rtol: 1e-4, atol: 2e-5 };
  assertClose("window", await lastLogits(model, ids), await lastLogits(model, ids.slice(-9)), tolerance);
  const wider = await lastLogits(model, ids.slice(-8));
  const worst = (await lastLogits(model, ids)).reduce(
    (most, value, i) => Math.max(most, Math.abs(value - wider[i]!)),
    0,
  );
  assert(worst > 1e-2, `the last token of the window does not matter: ${worst}`);
});

Deno.test("Mistral writes with its window what it reads with it", async () => {
  using gpu = await Gpu.open({ poison: true });
  const model = await fresh(gpu, parse({ model_type: "mistral", sliding_window: 7, num_hidden_layers: 2 }));
  const ids = [...integers(4, 20, SHAPE.vocab_size)];
  const written = await generate(model, ids, { maxNewTokens: 12, temperature: 0 });
  for (const id of written) {
    const logits = await lastLogits(model, Uint32Array.from(ids));
    assertEquals(id, logits.indexOf(Math.max(...logits)));
    ids.push(id);
  }
});

Deno.test("Qwen2 has biases on q, k and v, and a window where config.json switches it on", async () => {
  const names = (config: ModelConfig) =>
    [...checkpointTensors(config).keys()].filter((name) => name.endsWith(".bias"));
  const qwen2 = parse({ model_type: "qwen2", sliding_window: 16 });
  assertEquals(names(qwen2), ["q", "k", "v"].map((name) => `model.layers.0.self_attn.${name}_proj.bias`));
  assertEquals(names(parse({ model_type: "llama", attention_bias: true })).length, 4);
  assertEquals(names(parse({ model_type: "mistral" })).length, 0);
  const windowsOf = (changes: Record<string, unknown>) =>
    parse({ model_type: "qwen2", sliding_window: 16, ...changes }).layers.map((layer) =>
      layer.sliding_window
    );
  assertEquals(windowsOf({}), [null]);
  assertEquals(windowsOf({ use_sliding_window: true, max_window_layers: 0 }), [16]);
  assertEquals(windowsOf({ use_sliding_window: true, max_window_layers: 28 }), [null]);
  const four = { use_sliding_window: true, num_hidden_layers: 4 };
  assertEquals(windowsOf({ ...four, max_window_layers: 2 }), [null, null, 16, 16]);
  const [full, sliding] = ["full_attention", "sliding_attention"];
  assertEquals(windowsOf({ ...four, layer_types: [sliding, full, full, sliding] }), [16, null, null, 16]);
  await assertThrows(
    () => windowsOf({ ...four, layer_types: [sliding] }),
    "layer_types are of 1 layers, its num_hidden_layers is 4",
  );
  assertEquals(parse({ model_type: "llama", sliding_window: 16 }).layers[0]!.sliding_window, null);
  await assertThrows(() => parse({ model_type: "gpt2" }), '"gpt2"', "llama, mistral, qwen2");
});

/** A rotation of a layer's own. */
const OWN = { rope_theta: 50, rope_scaling: { type: "linear", factor: 3 }, rotary_dim: 8 } as const;
/** Layers each of which differs from the one before. */
const MIXED: readonly LayerAttention[] = [
  { sliding_window: 5, rope: OWN },
  { sliding_window: null, rope: "model" },
  { sliding_window: 5, rope: null },
  { sliding_window: 9, rope: "model" },
];

/** Logits (rows, V) of a model run layer by layer, each layer as the config of the same number has it. */
async function logitsBy(gpu: Gpu, layers: readonly ModelConfig[], ids: Uint32Array): Promise<Float32Array> {
  const [base] = layers;
  const batch = makeBatch([{ inputIds: ids }]);
  const { parts } = await fresh(gpu, base!);
  let x = embed(gpu, gpu.tensor([ids.length], ids), parts.embeddings.weight, "f32");
  for (const [i, config] of layers.entries()) {
    const { sliding_window } = config.layers[i]!;
    const device = uploadBatch(gpu, batch, {}, [sliding_window]);
    x = await parts.layers[i]!.forward(gpu, x, {
      map: device.maps.get(sliding_window)!,
      positions: device.positions,
      rope: new LayerRopes(gpu, config).forLength(ids.length)[i]!,
      dropout: undefined,
      chunkRows: Infinity,
      decodesLayers: false,
    });
  }
  const { y } = norm(gpu, x, parts.norm);
  return await gpu.read(matmul(gpu, y, parts.head.weight, { format: "f32" }));
}

Deno.test("Every layer has its own window and rotation, in reading and in writing", async () => {
  using gpu = await Gpu.open({ poison: true });
  const base = parse({ model_type: "qwen2", num_hidden_layers: 4 });
  const mixed = { ...base, layers: MIXED };
  const ids = integers(6, 30, SHAPE.vocab_size);
  const model = await fresh(gpu, mixed);
  const logits = await model.logits(model.upload(makeBatch([{ inputIds: ids }])));
  // Models whose layers are all alike: what they compute, the tests above say.
  const alike = MIXED.map((kind) => ({ ...base, layers: new Array(4).fill(kind) }));
  const expected = await logitsBy(gpu, alike, ids);
  const width = expected.length / ids.length;
  const at = (row: number) => [...expected.subarray(row * width, row * width + SHAPE.vocab_size)];
  for (let row = 0; row < ids.length; row++) {
    assertEquals([...logits.subarray(row * SHAPE.vocab_size, (row + 1) * SHAPE.vocab_size)], at(row));
  }
  for (const [i, kind] of MIXED.entries()) {
    const layers = MIXED.map((own, layer) => layer === i ? MIXED[(i + 1) % 4]! : own);
    const changed = await fresh(gpu, { ...base, layers });
    assert(
      (await lastLogits(changed, ids)).some((value, j) => Math.abs(value - at(29)[j]!) > 1e-3),
      `layer ${i} of ${JSON.stringify(kind)} does not matter`,
    );
  }
  const prompt = [...ids];
  for (const id of await generate(model, prompt, { maxNewTokens: 12, temperature: 0 })) {
    const next = await lastLogits(model, Uint32Array.from(prompt));
    assertEquals(id, next.indexOf(Math.max(...next)));
    prompt.push(id);
  }
});

Deno.test("S2-Attn is for layers that see everything; a window that is not shorter than the sequence is none", async () => {
  using gpu = await Gpu.open({ poison: true });
  const batch = makeBatch([{ inputIds: integers(1, 40, 9) }, { inputIds: integers(2, 24, 9) }]);
  const { rows, starts } = batch;
  const device = uploadBatch(gpu, batch, { groupSize: 16 }, [null, 8, null, 40, 64]);
  const tables = (window: number | null) => device.maps.get(window)!.tables;
  const s2 = firstKeys({ rows, starts, groupSize: 16 });
  for (const window of [null, 40, 64]) assertEquals([...tables(window).first], [...s2.first], `${window}`);
  assertEquals([...tables(8).first], [...firstKeys({ rows, starts, window: 8 }).first]);
  assertEquals(new Set(device.maps.values()).size, 2, "maps on the device");
  const before = gpu.memory.liveBytes;
  freeBatch(device);
  assert(gpu.memory.liveBytes < before, "freed");
});

/** What sets architectures apart, in models whose gradients have to go back through it. */
const GRADIENTS: Readonly<Record<string, () => ModelConfig>> = {
  "every layer's own window and rotation": () => ({
    ...parse({ model_type: "qwen2", num_hidden_layers: 4 }),
    layers: MIXED,
  }),
  "norms behind the blocks and over all heads": () => ({
    ...parse({ model_type: "llama", num_hidden_layers: 2 }),
    qk_norm: "width",
    block_norms: "after",
  }),
  "experts, behind a layer without": () =>
    parse({
      model_type: "qwen3_moe",
      num_hidden_layers: 2,
      num_key_value_heads: 2,
      num_experts: 4,
      num_experts_per_tok: 2,
      moe_intermediate_size: 16,
      mlp_only_layers: [0],
    }),
  "norms around the blocks by 1 + w, a window, soft caps": () =>
    parse({
      model_type: "gemma2",
      num_hidden_layers: 2,
      head_dim: 8,
      sliding_window: 12,
      attn_logit_softcapping: 1,
      final_logit_softcapping: 4,
    }),
  "factors of embeddings, scores, blocks and logits": () => ({
    ...parse({
      model_type: "llama",
      num_hidden_layers: 2,
      attention_bias: true,
      mlp_bias: true,
      tie_word_embeddings: true,
    }),
    embedding_multiplier: 7,
    attention_multiplier: 0.8,
    residual_multiplier: 0.4,
    logits_scaling: 1.5,
  }),
};

for (const [what, config] of Object.entries(GRADIENTS)) {
  Deno.test(`Gradients go back through ${what}`, async () => {
    using gpu = await Gpu.open({ poison: true });
    const model = await fresh(gpu, config(), () => true);
    const batch = makeBatch([{ inputIds: integers(6, 30, SHAPE.vocab_size) }]);
    for (const checkpointing of [true, false]) {
      const device = model.upload(batch);
      const lossSum = gpu.zeros([1]);
      for (const { grad } of model.parameters()) gpu.clear(grad);
      await model.lossAndGradients(device, { gradScale: 1 / batch.targets, checkpointing, lossSum });
      const values: (readonly [Float32Array, Float32Array])[] = [];
      for (const { value, grad } of model.parameters()) {
        values.push([await gpu.read(value), await gpu.read(grad)]);
      }
      const square = values.reduce((sum, [, grad]) => sum + grad.reduce((all, g) => all + g * g, 0), 0);
      const lossAt = async (step: number) => {
        model.parameters().forEach(({ value }, i) => {
          const [v, g] = values[i]!;
          gpu.write(value, v.map((each, j) => each + step * g[j]!));
        });
        const { losses } = await model.predict(device);
        return losses.reduce((sum, loss) => sum + loss, 0) / batch.targets;
      };
      // A step along the gradient changes the loss by its square, times the step.
      // Small enough that no token gets another expert.
      const step = 0.003 / square;
      const slope = (await lossAt(step) - await lossAt(-step)) / (2 * step);
      await lossAt(0);
      assert(Math.abs(slope / square - 1) < 2e-3, `slope ${slope}, gradient squared ${square}`);
      freeBatch(device);
    }
  });
}

Deno.test("Every architecture is whole: names of its own, shapes that parse, llama.cpp's name for each module", () => {
  const modelTypes = ARCHITECTURES.flatMap((each) => each.modelTypes);
  assertEquals(modelTypes.length, new Set(modelTypes).size);
  for (const architecture of ARCHITECTURES) {
    for (const model_type of architecture.modelTypes) {
      const shape = { model_type, hidden_size: 64, mlp_only_layers: model_type === "qwen3_moe" ? [0] : [] };
      const config = parse({ ...shape, text_config: { ...SHAPE, ...shape } });
      assert(architectureOf(config) === architecture, model_type);
      assertEquals(config.layers.length, config.num_hidden_layers);
      const layout = architecture.layout(config);
      const all = [...layout.modules, ...layout.modulesOf?.(0) ?? []];
      const modules = [
        ...new Set(all.map((each) => each.kind === "linear" && each.expert?.stack || each.name)),
      ];
      const { gguf } = architecture;
      if (!gguf) continue;
      assertEquals(Object.keys(gguf.modules).sort(), modules.toSorted(), model_type);
      for (const module of gguf.interleaved) assert(modules.includes(module), module);
    }
    for (const [name, { model_type }] of Object.entries(architecture.shapes)) {
      assertEquals(shapeConfig(name).model_type, model_type);
      assert(architecture.modelTypes.includes(String(model_type)), name);
    }
  }
});
