/** LoRA on a model: fresh, from a PEFT adapter and back, and that base and adapter are the merged weights. */
import { toF32 } from "../../checkpoint/dtype.ts";
import {
  type Adapter,
  type AdapterConfig,
  adapterConfig,
  type AdapterOptions,
  isTarget,
  type LoraPair,
  loraRank,
  loraScaling,
  readAdapter,
  writeAdapter,
} from "../../checkpoint/peft.ts";
import { UserError } from "../../errors.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { addLora, applyAdapter, exportAdapter, requireAll } from "../../model/lora.ts";
import { makeBatch, uploadBatch } from "../../model/batch.ts";
import type { LanguageModel } from "../../model/language_model.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { normal } from "../support/random.ts";
import { changedWeights, load, logitsOf, sequence, smallConfig } from "./support.ts";

const config = smallConfig();

/** Puts LoRA of rank 4 and alpha 8 on a model unless the settings say otherwise. */
function putLora(model: LanguageModel, settings: Partial<AdapterOptions> = {}, seed = 1): AdapterConfig {
  return addLora(model, adapterConfig({ r: 4, lora_alpha: 8, target_modules: null, ...settings }), seed);
}

/** Random factors for linears of the model; ranks and scaling as the settings say. */
function randomAdapter(model: LanguageModel, settings: Partial<AdapterOptions>, deviation = 0.2): Adapter {
  const config = adapterConfig({ r: 4, lora_alpha: 8, target_modules: null, ...settings });
  const lora = new Map<string, LoraPair>();
  model.linears().forEach(({ name, weight }, i) => {
    const [outputs, inputs] = weight.shape as [number, number];
    const rank = loraRank(config, name);
    lora.set(name, {
      A: { shape: [rank, inputs], data: normal(2 * i, rank * inputs, deviation) },
      B: { shape: [outputs, rank], data: normal(2 * i + 1, outputs * rank, deviation) },
    });
  });
  return { config, lora, extra: new Map() };
}

function assertSameLora(actual: Adapter, expected: Adapter, label: string): void {
  assertEquals([...actual.lora.keys()].sort(), [...expected.lora.keys()].sort(), `${label}: modules`);
  for (const [module, { A, B }] of expected.lora) {
    const pair = actual.lora.get(module)!;
    assertEquals([pair.A.shape, pair.B.shape], [A.shape, B.shape], `${label}: shapes of ${module}`);
    assertEquals([...pair.A.data], [...A.data], `${label}: A of ${module}`);
    assertEquals([...pair.B.data], [...B.data], `${label}: B of ${module}`);
  }
}

Deno.test("Any rank goes through device and PEFT files without changing a bit, and its padding stays out", async () => {
  await withFolder(async (root) => {
    using gpu = await Gpu.open({ poison: true });
    for (const rank of [1, 2, 3, 4, 5, 6, 7, 8]) {
      const model = await load(gpu, config);
      const adapter = randomAdapter(model, { r: rank });
      applyAdapter(model, adapter, { isTrained: true });
      const exported = await exportAdapter(model, adapter.config);
      assertSameLora(exported, adapter, `rank ${rank}, exported`);
      await Deno.mkdir(`${root}/${rank}`);
      await writeAdapter(`${root}/${rank}`, exported);
      assertSameLora(await readAdapter(`${root}/${rank}`), adapter, `rank ${rank}, from files`);

      const lossSum = gpu.zeros([1]);
      const device = uploadBatch(gpu, makeBatch([sequence(config, 12)]));
      await model.lossAndGradients(device, { gradScale: 1, checkpointing: true, lossSum });
      const { lora, weight } = model.linears()[3]!;
      const [a, b] = [await gpu.read(lora!.gradA!), await gpu.read(lora!.gradB!)];
      const padded = Math.ceil(rank / 4) * 4;
      const inputs = weight.shape[1]!;
      assertEquals([lora!.gradA!.shape, lora!.gradB!.shape], [[padded, inputs], [weight.shape[0], padded]]);
      // A gradient of zero is what keeps the padding zero.
      assert(
        a.subarray(rank * inputs).every((value) => value === 0),
        `rank ${rank}: A's padding has a gradient`,
      );
      assert(
        b.every((value, i) => i % padded < rank || value === 0),
        `rank ${rank}: B's padding has a gradient`,
      );
      assert(a.subarray(0, rank * inputs).some((value) => value !== 0), `rank ${rank}: A has a gradient`);
    }
  });
});

Deno.test("Fresh LoRA changes nothing; A is uniform within 1 / sqrt(K), by the seed alone", async () => {
  using gpu = await Gpu.open({ poison: true });
  const tokens = [sequence(config, 30)];
  const model = await load(gpu, config);
  const before = await logitsOf(model, tokens);
  putLora(model, { r: 6 });
  assertEquals([...await logitsOf(model, tokens)], [...before], "logits");
  const settings = adapterConfig({ r: 6, lora_alpha: 8, target_modules: null });
  const exported = await exportAdapter(model, settings);
  assertEquals(exported.lora.size, 14);
  for (const [module, { A, B }] of exported.lora) {
    assert(B.data.every((value) => value === 0), `B of ${module} is not zero`);
    const bound = 1 / Math.sqrt(A.shape[1]!);
    const largest = A.data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    assert(largest <= bound && largest > 0.9 * bound, `A of ${module} reaches ${largest}, bound ${bound}`);
    const mean = A.data.reduce((sum, value) => sum + value, 0) / A.data.length;
    assert(Math.abs(mean) < 0.15 * bound, `A of ${module} has mean ${mean}`);
  }
  for (const { name, lora } of model.linears()) {
    const [padded, inputs] = lora!.A.shape as [number, number];
    const padding = (await gpu.read(lora!.A)).subarray(6 * inputs);
    assert(padded === 8 && padding.every((value) => value === 0), `the padding of ${name} is not zero`);
  }
  const again = await load(gpu, config);
  putLora(again, { r: 6 });
  assertSameLora(await exportAdapter(again, settings), exported, "the same seed");
  const other = await load(gpu, config);
  putLora(other, { r: 6 }, 2);
  const [a, b] = [exported, await exportAdapter(other, settings)].map(({ lora }) => [...lora.values()]);
  assert(a!.every(({ A }, i) => A.data.some((value, j) => value !== b![i]!.A.data[j])), "another seed");
  assert(a![0]!.A.data.some((value, j) => value !== a![7]!.A.data[j]), "layers draw different numbers");
});

Deno.test("LoRA goes where the settings say, and what is written names the same linears to PEFT", async () => {
  const all = ["q", "k", "v", "o", "gate", "up", "down"].flatMap((name) => [`0:${name}`, `1:${name}`]);
  const [whole0, whole1] = [0, 1].map((layer) => `model.layers.${layer}.self_attn.q_proj`) as [
    string,
    string,
  ];
  const cases: [Partial<AdapterOptions>, string[], readonly string[] | null][] = [
    [{ target_modules: null }, all, null],
    [{ target_modules: "all-linear" }, all, null],
    [{ target_modules: ["q_proj", "v_proj"] }, ["0:q", "0:v", "1:q", "1:v"], ["q_proj", "v_proj"]],
    [{ target_modules: ["mlp.up_proj"] }, ["0:up", "1:up"], ["up_proj"]],
    [{ target_modules: ["layers.0.self_attn.q_proj", "down_proj"] }, ["0:down", "0:q", "1:down"], [
      "down_proj",
      whole0,
    ]],
    [{ target_modules: ".*(q|v)_proj" }, ["0:q", "0:v", "1:q", "1:v"], ["q_proj", "v_proj"]],
    [{ target_modules: String.raw`.*\.1\.self_attn\.q.*` }, ["1:q"], [whole1]],
    [{ target_modules: ["q_proj"], layers_to_transform: [1] }, ["1:q"], [whole1]],
    [{ target_modules: null, layers_to_transform: [0] }, all.filter((name) => name.startsWith("0")), null],
    [{ target_modules: ["q_proj"], layers_to_transform: [0], layers_pattern: ["layers"] }, ["0:q"], [whole0]],
    [
      {
        target_modules: null,
        exclude_modules: ["k_proj", "lm_head", "o_proj", "gate_proj", "up_proj", "down_proj"],
      },
      ["0:q", "0:v", "1:q", "1:v"],
      ["q_proj", "v_proj"],
    ],
    [{ target_modules: ["q_proj"], exclude_modules: ".*[.]0[.].*" }, ["1:q"], [whole1]],
    [{ target_modules: ["q_proj", "up_proj"], modules_to_save: ["mlp"] }, ["0:q", "1:q"], ["q_proj"]],
  ];
  using gpu = await Gpu.open();
  for (const [settings, wanted, names] of cases) {
    const model = await load(gpu, config);
    const settled = putLora(model, settings);
    const short = (name: string) => name.replace(/^model\.layers\.(\d)\.\w+\.(\w+)_proj$/, "$1:$2");
    const found = model.linears().filter(({ lora }) => lora).map(({ name }) => name);
    const label = JSON.stringify(settings);
    assertEquals(found.map(short).sort(), wanted.toSorted(), label);
    assertEquals(model.parameters().length, 2 * wanted.length, "parameters");
    if (names) assertEquals(settled.target_modules, names, label);
    const bare = adapterConfig({ r: 4, lora_alpha: 8, target_modules: settled.target_modules });
    assertEquals(
      model.linears().filter(({ name }) => isTarget(bare, name)).map(({ name }) => name),
      found,
      label,
    );
    assertEquals([settled.exclude_modules, settled.layers_to_transform, settled.layers_pattern], [
      null,
      null,
      null,
    ]);
  }
});

Deno.test("A linear that is trained whole gets no LoRA", async () => {
  using gpu = await Gpu.open();
  const isTrained = (name: string) => name.includes("layers.1.self_attn.q_proj");
  const model = await load(gpu, config, changedWeights(config), { isTrained });
  assertEquals(putLora(model, { target_modules: ["q_proj"] }).target_modules, [
    "model.layers.0.self_attn.q_proj",
  ]);
  const other = await load(gpu, config, changedWeights(config), {
    isTrained: (name) => name.includes("q_proj"),
  });
  await assertThrows(() => putLora(other, { target_modules: ["q_proj"] }), "trained whole");
});

Deno.test("Settings of LoRA that mean nothing in the model are refused, with what there is", async () => {
  using gpu = await Gpu.open();
  const model = await load(gpu, config);
  const names = ["qproj", "proj", "lm_head", "embed_tokens", "layers.2.mlp.up_proj", ".*q_proj", ""];
  const cases: [Partial<AdapterOptions>, string[]][] = [
    ...names.map((wrong): [Partial<AdapterOptions>, string[]] => [
      { target_modules: ["v_proj", wrong] },
      [`"${wrong}"`, "q_proj, k_proj", "model.layers.0.self_attn.q_proj"],
    ]),
    [{ target_modules: ["lm_head"] }, ["modules_to_save"]],
    [{ target_modules: [".*q_proj"] }, ["an expression stands alone"]],
    [{ target_modules: "q_proj" }, ['"q_proj"', "whole names", "q_proj, k_proj"]],
    [{ target_modules: ".*(q_proj" }, ["target_modules", "lacks a )"]],
    [{ exclude_modules: ["vproj"] }, ['exclude_modules has "vproj"']],
    [{ exclude_modules: ".*vproj" }, ['exclude_modules has ".*vproj"']],
    [{ exclude_modules: ["mlp"] }, ['exclude_modules has "mlp"', ".*mlp.*"]],
    [{ exclude_modules: "(?>v)" }, ["exclude_modules", "atomic"]],
    [{ target_modules: ["q_proj"], exclude_modules: ["q_proj"] }, ["leaves no linear"]],
    [{ layers_to_transform: [1, 2] }, ["layers_to_transform has 2", "0 to 1"]],
    [{ layers_to_transform: [1], layers_pattern: ["h"] }, ["leaves no linear"]],
    [{ target_modules: ["q_proj"], rank_pattern: { q_proj: 2, v_proj: 8 } }, ['rank_pattern has "v_proj"']],
    [{ target_modules: ["q_proj"], alpha_pattern: { "(v": 8 } }, ["alpha_pattern", "lacks a )"]],
  ];
  for (const [settings, says] of cases) {
    let thrown: unknown;
    try {
      putLora(model, settings);
    } catch (error) {
      thrown = error;
    }
    assert(
      thrown instanceof UserError && thrown.kind === "usage",
      `${JSON.stringify(settings)} is accepted: ${thrown}`,
    );
    for (const part of says) assert(thrown.message.includes(part), `no ${part} in: ${thrown.message}`);
  }
  assert(model.linears().every(({ lora }) => !lora), "LoRA was put on before the check");
  // The settings of an adapter from elsewhere may name what only other models have, as PEFT takes them.
  const others = {
    target_modules: ["q_proj", "c_attn"],
    rank_pattern: { c_attn: 2 },
    exclude_modules: ["wte"],
  };
  const foreign = adapterConfig({ r: 4, lora_alpha: 8, ...others });
  assertEquals(addLora(model, foreign, 1, { isStrict: false }).target_modules, ["q_proj"]);
});

Deno.test("Fresh LoRA has the ranks and scales of the patterns, padded each to its own", async () => {
  using gpu = await Gpu.open();
  const model = await load(gpu, config);
  const settings = {
    r: 8,
    lora_alpha: 16,
    rank_pattern: { "layers.0.*q_proj": 3 },
    alpha_pattern: { "(q|v)_proj": 6 },
  };
  const settled = putLora(model, settings);
  const byName = new Map(model.linears().map(({ name, lora }) => [name, lora!]));
  const of = (name: string) => [byName.get(name)!.rank, byName.get(name)!.A.rows, byName.get(name)!.scaling];
  assertEquals(of("model.layers.0.self_attn.q_proj"), [3, 4, 2]);
  assertEquals(of("model.layers.1.self_attn.q_proj"), [8, 8, 0.75]);
  assertEquals(of("model.layers.1.self_attn.k_proj"), [8, 8, 2]);
  const { lora } = await exportAdapter(model, settled);
  for (const [module, { A }] of lora) assertEquals(A.shape[0], loraRank(settled, module), module);
});

Deno.test("The update counts alpha / rank, or alpha / sqrt(rank) with rslora, and patterns by module", async () => {
  using gpu = await Gpu.open();
  for (const [rslora, rank, scaling] of [[false, 6, 1.5], [true, 9, 3], [false, 64, 9 / 64]] as const) {
    const model = await load(gpu, config);
    putLora(model, { r: rank, lora_alpha: 9, use_rslora: rslora });
    assertEquals([...new Set(model.linears().map(({ lora }) => lora!.scaling))], [scaling]);
  }
  const model = await load(gpu, config);
  const adapter = randomAdapter(model, {
    use_rslora: true,
    rank_pattern: { up_proj: 9, "layers.1.self_attn.q_proj": 1 },
    alpha_pattern: { up_proj: 6, v_proj: 5 },
  });
  applyAdapter(model, adapter, { isTrained: false });
  const wanted: Record<string, number> = {
    "model.layers.0.mlp.up_proj": 2,
    "model.layers.1.self_attn.q_proj": 8,
    "model.layers.0.self_attn.q_proj": 4,
    "model.layers.0.self_attn.v_proj": 2.5,
  };
  for (const { name, lora } of model.linears()) {
    if (wanted[name] !== undefined) assertEquals(lora!.scaling, wanted[name], name);
    assertEquals(lora!.rank, loraRank(adapter.config, name), name);
  }
  assertEquals(model.parameters().length, 0, "an adapter that is only applied is not trained");
});

Deno.test("Base and adapter compute what the merged weights do", async () => {
  using gpu = await Gpu.open({ poison: true });
  const base = changedWeights(config);
  const model = await load(gpu, config, base);
  const tokens = [sequence(config, 25), sequence(config, 7, 8)];
  const plain = await logitsOf(model, tokens);
  const adapter = randomAdapter(model, { r: 5, lora_alpha: 3, alpha_pattern: { down_proj: 7 } });
  applyAdapter(model, adapter, { isTrained: false });
  const changes = await Promise.all([...adapter.lora].map(async ([module, { A, B }]) => {
    const name = `${module}.weight`;
    const merged = toF32(await base.read(name), "F32");
    const [outputs, inputs, rank] = [B.shape[0]!, A.shape[1]!, A.shape[0]!];
    for (let n = 0; n < outputs; n++) {
      for (let k = 0; k < inputs; k++) {
        let sum = 0;
        for (let r = 0; r < rank; r++) sum += B.data[n * rank + r]! * A.data[r * inputs + k]!;
        merged[n * inputs + k]! += loraScaling(adapter.config, module) * sum;
      }
    }
    return { name, values: (values: Float32Array) => values.set(merged) };
  }));
  const expected = await logitsOf(await load(gpu, config, changedWeights(config, { changes })), tokens);
  const actual = await logitsOf(model, tokens);
  assertClose("logits", actual, expected, { rtol: 1e-4, atol: 1e-5 });
  assert(plain.some((value, i) => Math.abs(value - expected[i]!) > 0.1), "the adapter has no effect");
});

Deno.test("An adapter of another model is refused, naming module and shapes", async () => {
  using gpu = await Gpu.open();
  const model = await load(gpu, config);
  const adapter = randomAdapter(model, {});
  const module = "model.layers.1.self_attn.k_proj";
  const pair = adapter.lora.get(module)!;
  const wide = { ...pair, A: { shape: [4, 40], data: new Float32Array(160) } };
  const tall = { ...pair, B: { shape: [32, 4], data: new Float32Array(128) } };
  const rank = {
    A: { shape: [3, 32], data: new Float32Array(96) },
    B: { shape: [16, 3], data: new Float32Array(48) },
  };
  const cases: [string, LoraPair, string[]][] = [
    [module, wide, ["A [4,40]", "[16,32]"]],
    [module, tall, ["B [32,4]", "[16,32]"]],
    [module, rank, ["A [3,32]"]],
    ["model.layers.2.self_attn.k_proj", pair, ["no such linear"]],
    ["lm_head", pair, ["no such linear"]],
  ];
  for (const [name, wrong, parts] of cases) {
    const lora = new Map([...adapter.lora, [name, wrong]]);
    await assertThrows(
      () => applyAdapter(model, { ...adapter, lora }, { isTrained: true }),
      "Cannot use the adapter on this model",
      `"${name}"`,
      ...parts,
    );
  }
});

Deno.test("Weights trained as a whole are exported beside LoRA, over those the run started from", async () => {
  using gpu = await Gpu.open({ poison: true });
  const model = await load(gpu, config, changedWeights(config), {
    isTrained: (name) => name.includes("norm"),
  });
  putLora(model, { target_modules: ["q_proj"] });
  const embeddings = { shape: [50, 32], data: normal(4, 1600), dtype: "F32" as const };
  const stale = { shape: [32], data: normal(5, 32), dtype: "F32" as const };
  const carried = new Map([["model.embed_tokens.weight", embeddings], ["model.norm.weight", stale]]);
  const { lora, extra } = await exportAdapter(
    model,
    adapterConfig({ r: 4, lora_alpha: 8, target_modules: ["q_proj"] }),
    carried,
  );
  assertEquals([...lora.keys()].length, 2);
  assertEquals([...extra.keys()].sort(), [
    "model.embed_tokens.weight",
    "model.layers.0.input_layernorm.weight",
    "model.layers.0.post_attention_layernorm.weight",
    "model.layers.1.input_layernorm.weight",
    "model.layers.1.post_attention_layernorm.weight",
    "model.norm.weight",
  ]);
  assertEquals([...extra.get("model.embed_tokens.weight")!.data], [...embeddings.data]);
  assertEquals([...extra.get("model.norm.weight")!.data], Array(32).fill(1), "the model's own norm");
});

Deno.test("requireAll() wants factors, or a whole weight, for every linear that the config targets", async () => {
  const linears = [0, 1].flatMap((layer) =>
    ["self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj"].map((name) => `model.layers.${layer}.${name}`)
  );
  const pair = { A: { shape: [2, 4], data: normal(1, 8) }, B: { shape: [4, 2], data: normal(2, 8) } };
  const check = (
    settings: Partial<AdapterConfig>,
    modules: readonly string[],
    whole: readonly string[] = [],
  ) =>
    requireAll({
      config: {
        ...adapterConfig({ r: 2, lora_alpha: 2, target_modules: ["q_proj", "v_proj"] }),
        ...settings,
      },
      lora: new Map(modules.map((module) => [module, pair])),
      extra: new Map(
        whole.map((name) => [name, { shape: [4, 4], data: normal(3, 16), dtype: "F32" as const }]),
      ),
    }, linears);
  const ofAttention = linears.filter((name) => name.includes("self_attn"));
  check({}, ofAttention);
  check({}, ofAttention.slice(1), [`${ofAttention[0]}.weight`]);
  check({ layers_to_transform: [1] }, ofAttention.slice(2));
  check({ exclude_modules: ["v_proj"] }, ofAttention.filter((name) => name.endsWith("q_proj")));
  check({ target_modules: null }, [linears[0]!]);
  check({ target_modules: ".*q_proj" }, ofAttention.filter((name) => name.endsWith("q_proj")));
  await assertThrows(() => check({ target_modules: "all-linear" }, ofAttention), "2 of the 6 linears");
  await assertThrows(() => check({}, ofAttention.slice(0, 3)), "1 of the 4 linears", ofAttention[3]!);
  await assertThrows(() => check({ layers_to_transform: [0, 1] }, []), "4 of the 4 linears", ", ...");
});
