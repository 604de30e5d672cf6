/** Models with experts through training, going on, evaluation and merging, and what of them is refused. */
import { adapterConfig, readAdapter, writeAdapter } from "../../checkpoint/peft.ts";
import { writeModel } from "../../checkpoint/save_model.ts";
import { openWeights } from "../../checkpoint/weights.ts";
import { evaluatePerplexity } from "../../eval/perplexity.ts";
import { mergeAdapter } from "../../export/merge.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { quantiseNf4 } from "../../kernels/nf4/nf4.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { makeBatch } from "../../model/batch.ts";
import { parseConfig } from "../../model/config.ts";
import { freshWeights } from "../../model/load/fresh.ts";
import { loadModel } from "../../model/load/load.ts";
import { addLora } from "../../model/lora.ts";
import { shapeConfig } from "../../model/shapes.ts";
import { countParameters } from "../../model/tensors.ts";
import { runTraining } from "../../train/run.ts";
import { loadTrainArgs } from "../../train_args/load.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { integers } from "../support/random.ts";

const MODEL = `${GOLDEN}/qwen3_moe`;
const raw = JSON.parse(Deno.readTextFileSync(`${MODEL}/config.json`));
const parse = (changes: Record<string, unknown>) => parseConfig({ ...raw, ...changes }, "config.json");

const SETTINGS: Record<string, string> = {
  model_name_or_path: MODEL,
  train_file: `${GOLDEN}/mistral/train.jsonl`,
  dataset_cache_dir: "false",
  model_max_length: "64",
  load_in_4bit: "false",
  learning_rate: "0.01",
  lora_rank: "3",
  lora_alpha: "6",
  lora_dropout: "0.1",
  save_steps: "1",
};

async function train(overrides: Record<string, string>): Promise<number[]> {
  const losses: number[] = [];
  const { args } = await loadTrainArgs(null, { ...SETTINGS, ...overrides });
  await runTraining(args, {
    onStart() {},
    onStep: ({ loss }) => losses.push(loss),
    onSave() {},
    note() {},
    shouldStop: () => false,
  });
  return losses;
}

async function lossOf(baseModel: string, peftModel?: string): Promise<number> {
  const { tokenLoss } = await evaluatePerplexity({
    baseModel,
    ...(peftModel === undefined ? {} : { peftModel }),
    dataPath: `${GOLDEN}/mistral/data.bin`,
    seqLen: 128,
    contextSize: 128,
    slidingWindow: 64,
    batchSize: 1,
    dropLastWindow: true,
    dtype: "fp32",
  });
  return tokenLoss;
}

Deno.test("LoRA on experts: trained, resumed to the bit, gone on from, evaluated and merged", async () => {
  await withFolder(async (folder) => {
    const [once, twice, other] = [`${folder}/once`, `${folder}/twice`, `${folder}/other`];
    const whole = await train({ output_dir: once, max_steps: "2" });
    await train({ output_dir: twice, max_steps: "1" });
    const rest = await train({ output_dir: twice, max_steps: "2", resume_from_checkpoint: "true" });
    assertEquals(rest, whole.slice(1), "loss of the second step");
    const adapter = await readAdapter(twice);
    assertEquals(adapter, await readAdapter(once));
    assertEquals(adapter.lora.size, 2 * (4 + 8 * 3));
    const { A, B } = adapter.lora.get("model.layers.1.mlp.experts.7.down_proj")!;
    assertEquals([A.shape, B.shape], [[3, 32], [64, 3]]);
    assert(B.data.some((value) => value !== 0), "an expert's factors are trained");
    await train({ output_dir: other, adapter_name_or_path: twice, max_steps: "1" });
    const merged = `${folder}/merged`;
    await mergeAdapter({ baseModel: MODEL, peftModel: other, savePath: merged, dtype: "keep" });
    const [one, same] = [await lossOf(MODEL, other), await lossOf(merged)];
    assert(Math.abs(one / same - 1) < 1e-6, `${one} with the adapter, ${same} merged`);
  });
});

for (const name of ["mixtral", "qwen3_moe"]) {
  Deno.test(`A model merged with an adapter on its experts evaluates to PyTorch's figure, ${name}`, async () => {
    const { eval_adapter_experts_128: { val_loss } } = JSON.parse(
      await Deno.readTextFile(`${GOLDEN}/${name}/expected.json`),
    );
    await withFolder(async (folder) => {
      const [baseModel, savePath] = [`${GOLDEN}/${name}`, `${folder}/merged`];
      await mergeAdapter({ baseModel, peftModel: `${baseModel}/adapter-experts`, savePath, dtype: "keep" });
      const loss = await lossOf(savePath);
      assert(Math.abs(loss / val_loss - 1) < 1e-6, `${loss} for ${val_loss}`);
    });
  });
}

Deno.test("Whole models with experts are trained and saved under the names of the checkpoint, QLoRA in 16 bits learns", async () => {
  await withFolder(async (folder) => {
    const output_dir = `${folder}/whole`;
    const losses = await train({ output_dir, max_steps: "2", low_rank_training: "false" });
    assert(losses.at(-1)! < losses[0]!, losses.join());
    const [saved, base] = [await openWeights(output_dir), await openWeights(MODEL)];
    assertEquals([...saved.names()].sort(), [...base.names()].sort());
    const expert = "model.layers.0.mlp.experts.5.up_proj.weight";
    assertEquals(saved.info(expert), base.info(expert));
    saved.close();
    base.close();
    assert(await lossOf(output_dir) < await lossOf(MODEL), "the saved model has learnt");
    const qlora = await train({
      output_dir: `${folder}/qlora`,
      max_steps: "2",
      load_in_4bit: "true",
      bf16: "true",
    });
    assert(qlora[1]! < qlora[0]!, qlora.join());
  });
});

Deno.test("Experts are in 4 bits each as if it were alone, and compute what their dequantised weights compute", async () => {
  using gpu = await Gpu.open({ poison: true });
  const config = parse({});
  const weights = await openWeights(MODEL);
  const options = { config, format: "f32" } as const;
  const packed = await loadModel(gpu, weights, { ...options, quantisation: "nf4-double" });
  const dense = await loadModel(gpu, weights, { ...options, quantisation: "none" });
  weights.close();
  for (const [i, { weight, modules: { length: experts } }] of dense.experts().entries()) {
    const all = packed.experts()[i]!.weight;
    assert(weight instanceof Tensor && !(all instanceof Tensor), "forms of weights");
    const rows = weight.rows / experts;
    const values = await gpu.read(all.dequantise(gpu));
    for (const expert of [0, experts - 1]) {
      const alone = quantiseNf4(gpu, weight.slice(expert * rows, (expert + 1) * rows)).dequantise(gpu);
      const from = expert * alone.size;
      assertEquals(values.slice(from, from + alone.size), await gpu.read(alone), `expert ${expert}`);
    }
  }
  const pairs = [
    ...dense.linears().map((linear, i) => [linear.weight, packed.linears()[i]!.weight] as const),
    ...dense.experts().map((stack, i) => [stack.weight, packed.experts()[i]!.weight] as const),
  ];
  for (const [to, from] of pairs) {
    assert(to instanceof Tensor && !(from instanceof Tensor), "forms of weights");
    const values = from.dequantise(gpu);
    gpu.copy(values, to);
    values.free();
  }
  const device = dense.upload(makeBatch([{ inputIds: integers(1, 50, 256) }]));
  const [one, other] = [await packed.predict(device), await dense.predict(device)];
  const sums = [one, other].map(({ losses }) => losses.reduce((sum, loss) => sum + loss, 0)) as [
    number,
    number,
  ];
  assert(Math.abs(sums[0] / sums[1] - 1) < 1e-6, sums.join());
});

Deno.test("The same tokens give the same values whatever the rows of a chunk, and dropout its mask again", async () => {
  using gpu = await Gpu.open({ poison: true });
  const config = parse({});
  const model = await loadModel(gpu, freshWeights(config, 1), {
    config,
    format: "f32",
    quantisation: "none",
    isTrained: (name) => name.includes("norm"),
  });
  const lora = { r: 4, lora_alpha: 8, lora_dropout: 0.3, target_modules: ["up_proj", "down_proj"] };
  addLora(model, adapterConfig(lora), 1);
  for (const { lora } of model.experts()) {
    if (lora) gpu.write(lora.B, new Float32Array(lora.B.size).fill(0.02));
  }
  const batch = makeBatch([{ inputIds: integers(2, 200, 256) }]);
  const gradients = async (chunkBytes: number, checkpointing: boolean) => {
    model.chunkBytes = chunkBytes;
    const device = model.upload(batch);
    const lossSum = gpu.zeros([1]);
    for (const { grad } of model.parameters()) gpu.clear(grad);
    const dropout = { seed: 1, pass: 0 };
    await model.lossAndGradients(device, { gradScale: 1, checkpointing, lossSum, dropout });
    const norms: number[] = [];
    for (const { grad } of model.parameters()) {
      norms.push(Math.hypot(...await gpu.read(grad)));
    }
    return [...await gpu.read(lossSum), ...norms];
  };
  const whole = await gradients(2 ** 30, true);
  for (const [chunkBytes, checkpointing] of [[2 ** 30, false], [1, true]] as const) {
    const others = await gradients(chunkBytes, checkpointing);
    const worst = Math.max(...whole.map((value, i) => Math.abs(others[i]! / value - 1)));
    assert(worst < 1e-4, `chunks of ${chunkBytes} bytes differ by ${worst}`);
  }
});

Deno.test("What a key of experts means that is not there, and which values are refused by name", async () => {
  const { num_experts: _, num_experts_per_tok: __, norm_topk_prob: ___, ...rest } = raw;
  const { experts } = parseConfig(rest, "config.json") as unknown as {
    experts: { experts: number; perToken: number; isNormalised: boolean };
  };
  assertEquals([experts.experts, experts.perToken, experts.isNormalised], [128, 8, false]);
  assertEquals(parse({ output_router_logits: true, router_aux_loss_coef: 0 }).notes, []);
  const refused: readonly [Record<string, unknown>, string][] = [
    [{ num_experts_per_tok: 9 }, "its num_experts_per_tok is 9, but there are 8 experts"],
    [{ num_local_experts: 4 }, "its num_experts is 8, but its num_local_experts is 4"],
    [{ num_experts: 4096 }, "at most 64 of 2048"],
    [{ output_router_logits: true }, "its output_router_logits is true"],
    [{ router_jitter_noise: 0.1 }, "its router_jitter_noise is 0.1"],
    [{ moe_intermediate_size: 6 }, "experts of 6 x 64"],
    [{ hidden_act: "gelu" }, 'hidden_act is "gelu"'],
    [{ n_shared_experts: 2 }, "its n_shared_experts is 2"],
  ];
  for (const [changes, message] of refused) await assertThrows(() => void parse(changes), message);
  const windows = (changes: Record<string, unknown>) =>
    parse({ sliding_window: 16, ...changes }).layers.map((layer) => layer.sliding_window);
  assertEquals([windows({}), windows({ use_sliding_window: true })], [[null, null], [16, 16]]);
});

Deno.test("Adapters and checkpoints that do not fit a model's experts are refused, each in one line", async () => {
  await withFolder(async (folder) => {
    const adapter = await readAdapter(`${MODEL}/adapter-experts`);
    const write = async (name: string, change: (lora: Map<string, typeof pair>) => void) => {
      const lora = new Map(adapter.lora);
      change(lora);
      await Deno.mkdir(`${folder}/${name}`);
      await writeAdapter(`${folder}/${name}`, { ...adapter, lora });
      return `${folder}/${name}`;
    };
    const module = "model.layers.0.mlp.experts.7.up_proj";
    const pair = adapter.lora.get(module)!;
    const more = await write("more", (lora) => void lora.set(module.replace("7", "8"), pair));
    await assertThrows(
      () => lossOf(MODEL, more),
      'its "model.layers.0.mlp.experts.8.up_proj"',
      "no such linear",
    );
    const fewer = await write("fewer", (lora) => void lora.delete(module));
    await assertThrows(() => lossOf(MODEL, fewer), "1 of the 56 linears", module);

    const model = `${folder}/model`;
    await Deno.mkdir(model);
    const weights = await openWeights(MODEL);
    const missing = "model.layers.0.mlp.experts.3.gate_proj.weight";
    await writeModel(model, {
      config: raw,
      tensors: [...weights.names()].filter((name) => name !== missing).map((name) => ({
        ...weights.info(name),
        dtype: "F32" as const,
        read: () => weights.read(name),
      })),
    });
    weights.close();
    await assertThrows(() => lossOf(model), missing);
    const settings = { output_dir: `${folder}/run`, max_steps: "1" };
    await assertThrows(
      () => train({ ...settings, target_modules: "experts.3.up_proj" }),
      "Cannot put LoRA on some experts of a layer alone",
    );
    await assertThrows(
      () => train({ ...settings, rank_pattern: "{experts.3.up_proj: 2}" }),
      "Cannot put LoRA of different ranks",
    );
    await assertThrows(
      () => train({ ...settings, target_modules: "q_proj", trainable_params: "experts.3.up_proj" }),
      '"model.layers.0.mlp.experts.3.up_proj.weight" is trained, but',
    );
    await assertThrows(
      () => train({ ...settings, target_modules: "gate" }),
      '"gate"',
      "the model's linears are",
    );
  });
});

Deno.test("Published models with experts have as many parameters as their cards say", () => {
  const counts = {
    "mixtral-8x7b": 46_702_792_704,
    "mixtral-8x22b": 140_620_634_112,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
  };
  for (const [name, count] of Object.entries(counts)) {
    assertEquals(countParameters(shapeConfig(name)), count, name);
  }
});
