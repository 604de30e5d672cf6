/** What sets Mistral and Qwen2 apart from LLaMA. */
import { Gpu } from "../../kernels/gpu.ts";
import { makeBatch } from "../../model/batch.ts";
import { type ModelConfig, parseConfig } from "../../model/config.ts";
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

async function fresh(gpu: Gpu, config: ModelConfig): Promise<LanguageModel> {
  return await loadModel(gpu, freshWeights(config, 5), {
    config,
    format: "f32",
    loadIn4bit: false,
    doubleQuant: false,
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
  const windowOf = (changes: Record<string, unknown>) =>
    parse({ model_type: "qwen2", sliding_window: 16, ...changes }).sliding_window;
  assertEquals(windowOf({}), null);
  assertEquals(windowOf({ use_sliding_window: true, max_window_layers: 0 }), 16);
  assertEquals(windowOf({ use_sliding_window: true, max_window_layers: 28 }), null);
  await assertThrows(
    () => windowOf({ use_sliding_window: true, max_window_layers: 2, num_hidden_layers: 4 }),
    "in the layers from 2 on only",
  );
  assertEquals(parse({ model_type: "llama", sliding_window: 16 }).sliding_window, null);
  await assertThrows(() => parse({ model_type: "gpt2" }), '"gpt2"', "llama, mistral, qwen2");
});
