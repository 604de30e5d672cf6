/** Text written token by token is what the whole model, run again for every token, would write. */
import { readAdapter } from "../../checkpoint/peft.ts";
import { Gpu, type GpuOptions } from "../../kernels/gpu.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { adapterConfig, type AdapterOptions } from "../../checkpoint/peft.ts";
import { addLora, applyAdapter } from "../../model/lora.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import { Decoder, type DecoderOptions } from "../../model/decoder.ts";
import { continueAll, generate, generateBatch, type GenerateOptions } from "../../model/generate.ts";
import { kvCacheBytes, kvCacheTokenBytes } from "../../model/kv_cache.ts";
import type { LanguageModel } from "../../model/language_model.ts";
import { openModel } from "../../model/load/open.ts";
import { logprobsOf, type TokenLogprob } from "../../model/logprobs.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { integers, normal } from "../support/random.ts";
import { ALL_SHARINGS, sharingTest } from "../support/sharing.ts";
import { changedWeights, load, logitsOf, smallConfig } from "./support.ts";

const GREEDY = { maxNewTokens: 20, temperature: 0, stopIds: [] } as const satisfies GenerateOptions;

/** The likeliest tokens, each found by running the whole sequence again; tokens that are there already are penalised. */
async function recomputed(
  model: LanguageModel,
  prompt: readonly number[],
  count: number,
  penalty = 1,
): Promise<number[]> {
  const ids = [...prompt];
  const { vocab_size } = model.config;
  for (let i = 0; i < count; i++) {
    const logits = await logitsOf(model, [{ inputIds: Uint32Array.from(ids) }]);
    const last = logits.slice((ids.length - 1) * vocab_size);
    for (const id of new Set(ids)) last[id]! *= last[id]! > 0 ? 1 / penalty : penalty;
    ids.push(last.indexOf(Math.max(...last)));
  }
  return ids.slice(prompt.length);
}

/** Logits (steps, V) of a decoder that writes greedily, and what it wrote. */
async function stepLogits(
  model: LanguageModel,
  prompt: readonly number[],
  count: number,
  { capacity = prompt.length + count, cacheFormat }: Partial<DecoderOptions> = {},
) {
  const { gpu, config: { vocab_size } } = model;
  const decoder = new Decoder(model, { capacity, cacheFormat });
  const sampling = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };
  decoder.prefill(0, prompt);
  const drawn = gpu.empty([count], "u32");
  const logits: number[] = [];
  for (let step = 0; step < count; step++) {
    if (step > 0) decoder.advance();
    const each = decoder.logits();
    logits.push(...(await gpu.read(each)).subarray(0, vocab_size));
    each.free();
    decoder.sample(sampling, drawn, step);
  }
  const ids = [...await gpu.readU32(drawn)];
  drawn.free();
  decoder.free();
  return { logits, ids };
}

/** Rows `from` to `to` of the logits of a whole sequence. */
async function wholeLogits(
  model: LanguageModel,
  ids: readonly number[],
  from: number,
  to: number,
): Promise<Float32Array> {
  const { vocab_size } = model.config;
  const logits = await logitsOf(model, [{ inputIds: Uint32Array.from(ids) }]);
  return logits.subarray(from * vocab_size, to * vocab_size);
}

/**
 * Fails unless each step's logits are those of the whole sequence so far.
 * @returns their error in the root mean square, by that of the logits
 */
async function assertSteps(
  label: string,
  model: LanguageModel,
  prompt: readonly number[],
  count: number,
  atol = 1e-5,
  options: Partial<DecoderOptions> = {},
): Promise<number> {
  const { logits, ids } = await stepLogits(model, prompt, count, options);
  const all = [...prompt, ...ids.slice(0, -1)];
  const whole = await wholeLogits(model, all, prompt.length - 1, all.length);
  const largest = whole.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
  assertClose(label, logits, whole, { rtol: 0, atol: atol * largest });
  const rms = (values: Float32Array) => Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0));
  return rms(whole.map((value, i) => value - logits[i]!)) / rms(whole);
}

Deno.test("logprobs are the log-softmax of recomputation, whatever the sampling", async () => {
  using gpu = await Gpu.open({ poison: true });
  const { model } = await openModel(gpu, { baseModel: "tests/golden/mha" });
  const { vocab_size } = model.config;
  const prompts = [7, 12].map((length) => [...integers(length, length, vocab_size)]);
  const told: TokenLogprob[][] = [[], []];
  const before = gpu.memory.liveBytes;
  const written = await generateBatch(model, prompts, {
    maxNewTokens: 6,
    temperature: 3,
    topK: 40,
    repetitionPenalty: 1.5,
    seed: 5,
    stopIds: [],
    topLogprobs: 3,
    onTokens: (ids, sequence, logprobs) => {
      assertEquals([ids.length, logprobs.length], [1, 1]);
      told[sequence]!.push(...logprobs);
    },
  });
  assertEquals(gpu.memory.liveBytes, before, "bytes left on the device");
  for (const [i, ids] of written.entries()) {
    assertEquals(told[i]!.map(({ id }) => id), ids);
    const all = [...prompts[i]!, ...ids];
    const logits = await wholeLogits(model, all, prompts[i]!.length - 1, all.length - 1);
    for (const [step, { id, logprob, top }] of told[i]!.entries()) {
      const row = logits.subarray(step * vocab_size, (step + 1) * vocab_size);
      const logSum = Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0));
      const likeliest = [...row.keys()].sort((a, b) => row[b]! - row[a]!).slice(0, 3);
      assertEquals(top.map((each) => each.id), likeliest);
      const expected = [id, ...likeliest].map((each) => row[each]! - logSum);
      assertClose("logprobs", [logprob, ...top.map((each) => each.logprob)], expected, {
        rtol: 1e-4,
        atol: 1e-4,
      });
    }
  }
  const sampled = { maxNewTokens: 6, temperature: 3, topK: 40, repetitionPenalty: 1.5, seed: 5, stopIds: [] };
  assertEquals(await generateBatch(model, prompts, sampled), written, "the same tokens as without");
  await assertThrows(() => generate(model, [1], { topLogprobs: -1 }), "topLogprobs");
});

Deno.test("logprobsOf() takes the first of equals, and no more than there are", () => {
  const logits = Float32Array.of(1, 3, 3, -Infinity, 2);
  const { logprob, top } = logprobsOf(logits, 4, 3);
  assertEquals(top.map(({ id }) => id), [1, 2, 4]);
  assertEquals(logprob, top[2]!.logprob);
  assertEquals(logprobsOf(logits, 0, 0).top, []);
  assertEquals(logprobsOf(logits, 0, 9).top.map(({ id }) => id), [1, 2, 4, 0, 3]);
  const large = logprobsOf(Float32Array.of(1000, 999), 0, 1);
  assertClose("large logits", [large.logprob], [-Math.log(1 + Math.exp(-1))], { rtol: 1e-12, atol: 0 });
});

interface Golden {
  readonly folder: string;
  readonly contextSize: number;
  readonly adapter?: boolean;
}

const GOLDEN: Record<string, Golden> = {
  "mha, positions interpolated": { folder: "mha", contextSize: 128 },
  "gqa, llama3 positions, tied head": { folder: "gqa", contextSize: 256 },
  "mha in 4 bits with an adapter": { folder: "mha-bnb4", contextSize: 128, adapter: true },
};

const WAYS: Record<string, GpuOptions> = {
  "subgroup sharing": { sharing: "subgroup" },
  "workgroup sharing": { sharing: "workgroup" },
  "bindings of 65 KiB": { maxBindingBytes: 66_560 },
};

for (const [name, { folder, contextSize, adapter }] of Object.entries(GOLDEN)) {
  for (const [way, options] of Object.entries(WAYS)) {
    const title = `Greedy tokens and their logits are those of recomputation: ${name}, ${way}`;
    sharingTest(options.sharing ?? "workgroup", title, async () => {
      using gpu = await Gpu.open({ poison: true, ...options });
      const { model } = await openModel(gpu, {
        baseModel: `tests/golden/${folder}`,
        contextSize,
        quantisation: folder === "mha-bnb4" ? "nf4-double" : "none",
      });
      if (adapter) applyAdapter(model, await readAdapter("tests/golden/adapter"), { isTrained: false });
      const prompt = [...integers(3, 45, model.config.vocab_size)];
      const before = gpu.memory.liveBytes;
      const ids = await generate(model, prompt, GREEDY);
      assertEquals(gpu.memory.liveBytes, before, "bytes left on the device");
      assertEquals(ids, await recomputed(model, prompt, GREEDY.maxNewTokens), "tokens");
      await assertSteps("logits", model, prompt, 20);
    });
  }
}

Deno.test("Heads that together are wider or narrower than the hidden size write what recomputation does", async () => {
  using gpu = await Gpu.open({ poison: true });
  for (const changes of [{ head_dim: 12 }, { head_dim: 4, num_key_value_heads: 1 }]) {
    const model = await smallModel(gpu, changes);
    const prompt = [...integers(5, 21, model.config.vocab_size)];
    const written = await generate(model, prompt, { ...GREEDY, maxNewTokens: 6 });
    assertEquals(written, await recomputed(model, prompt, 6), JSON.stringify(changes));
  }
});

/** A small model whose weights, biases included, are random. */
async function smallModel(
  gpu: Gpu,
  changes: Record<string, unknown> = {},
  format?: "bf16" | "f16",
): Promise<LanguageModel> {
  const config: ModelConfig = smallConfig(changes);
  const biases = ["q", "k", "v", "o"].map((each, i) => ({
    name: `model.layers.0.self_attn.${each}_proj.bias`,
    values: (values: Float32Array) => values.set(normal(i, values.length)),
  }));
  const weights = changedWeights(config, { changes: config.raw.attention_bias ? biases : [] });
  return await load(gpu, config, weights, format ? { format } : {});
}

Deno.test("Steps are those of the whole model: biases, LoRA, every scaling of positions, 16 bits", async () => {
  using gpu = await Gpu.open({ poison: true });
  const prompt = [...integers(1, 30, 50)];
  const scalings = [
    { type: "linear", factor: 4 },
    { type: "yarn", factor: 4, original_max_position_embeddings: 16 },
  ];
  for (const rope_scaling of scalings) {
    await assertSteps(rope_scaling.type, await smallModel(gpu, { rope_scaling }), prompt, 6);
  }
  const model = await smallModel(gpu, { attention_bias: true, mlp_bias: true });
  addLora(model, adapterConfig({ r: 6, lora_alpha: 12, lora_dropout: 0.5, target_modules: null }), 1);
  for (const [i, { lora }] of model.linears().entries()) gpu.write(lora!.B, normal(i, lora!.B.size, 0.3));
  await assertSteps("biases and LoRA", model, prompt, 6);
  for (const format of ["bf16", "f16"] as const) {
    await assertSteps(format, await smallModel(gpu, {}, format), prompt, 6, format === "bf16" ? 0.1 : 0.01);
  }
});

for (const sharing of ALL_SHARINGS) {
  sharingTest(sharing, `Steps with adapters are those of the whole model, ${sharing} sharing`, async () => {
    using gpu = await Gpu.open({ poison: true, sharing });
    const prompt = [...integers(1, 30, 50)];
    const adapters: Record<string, Partial<AdapterOptions>> = {
      "all alike": {},
      "some linears": { target_modules: ["q_proj", "v_proj", "up_proj", "down_proj"] },
      "ranks and scalings of their own": {
        rank_pattern: { q_proj: 12, up_proj: 2 },
        alpha_pattern: { v_proj: 40, down_proj: 1 },
      },
    };
    for (const [name, options] of Object.entries(adapters)) {
      // Factors A of rows of 144 bytes leave room between them.
      for (const hidden_size of [32, 36]) {
        const shape = { hidden_size, num_attention_heads: 4, head_dim: 8 };
        const model = await smallModel(gpu, shape);
        addLora(model, adapterConfig({ r: 6, lora_alpha: 12, target_modules: null, ...options }), 1);
        for (const [i, { lora }] of model.linears().entries()) {
          if (lora) gpu.write(lora.B, normal(i, lora.B.size, 0.3));
        }
        await assertSteps(`${name}, ${hidden_size}`, model, prompt, 4);
      }
    }
  });
}

Deno.test("With a cache of 8 bits the logits are near those of the whole model", async () => {
  using gpu = await Gpu.open({ poison: true });
  // Two chunks of a prompt.
  const prompt = [...integers(5, 1100, 50)];
  for (const num_hidden_layers of [1, 2]) {
    const model = await smallModel(gpu, { num_hidden_layers });
    const error = await assertSteps("q8", model, prompt, 6, 0.03, { cacheFormat: "q8" });
    // Rounding has the root mean square s / sqrt(12), with s = max |x| / 127 and max |x| at most sqrt(8) that of a head of
    // 8: 0.64 % of the head. Keys and values of each layer add such errors, independent of each other.
    const bound = Math.sqrt(8) / 127 / Math.sqrt(12) * Math.sqrt(2 * num_hidden_layers);
    assert(
      error > 1e-4 && error < bound,
      `${num_hidden_layers} layers: relative error ${error}, bound ${bound}`,
    );
  }
  await assertSteps("bf16", await smallModel(gpu, {}, "bf16"), prompt, 6, 0.1, { cacheFormat: "q8" });
});

Deno.test("A cache of floats may have another format than the activations", async () => {
  using gpu = await Gpu.open({ poison: true });
  const prompt = [...integers(5, 40, 50)];
  const model = await smallModel(gpu);
  const errors: number[] = [];
  for (const cacheFormat of ["bf16", "f16"] as const) {
    errors.push(await assertSteps(cacheFormat, model, prompt, 6, 0.1, { cacheFormat }));
  }
  const [bf16, f16] = errors;
  // f16 has three bits more.
  assert(bf16! < 0.01 && f16! > 0 && bf16! > 4 * f16! && bf16! < 16 * f16!, `relative errors ${errors}`);
  await assertSteps("f32", await smallModel(gpu, {}, "bf16"), prompt, 6, 0.1, { cacheFormat: "f32" });
});

Deno.test("Dynamic scaling has the angles of the longest sequence there may be", async () => {
  using gpu = await Gpu.open({ poison: true });
  const model = await smallModel(gpu, {
    max_position_embeddings: 16,
    rope_scaling: { type: "dynamic", factor: 2 },
  });
  const [prompt, count, capacity] = [[...integers(1, 30, 50)], 6, 50];
  const { logits, ids } = await stepLogits(model, prompt, count, { capacity });
  const padded = [...prompt, ...ids, ...new Array(capacity - prompt.length - count).fill(0)];
  const whole = await wholeLogits(model, padded, prompt.length - 1, prompt.length + count - 1);
  assertClose("logits", logits, whole, { rtol: 0, atol: 1e-5 });
});

Deno.test("A prompt of several chunks fills the cache as one pass does", async () => {
  using gpu = await Gpu.open({ poison: true });
  const model = await smallModel(gpu);
  await assertSteps("logits", model, [...integers(5, 2051, 50)], 3);
});

Deno.test("Prompts of different lengths are written side by side as alone, and stop one by one", async () => {
  using gpu = await Gpu.open({ poison: true });
  const model = await smallModel(gpu);
  const prompts = [[...integers(1, 70, 50)], [3], [...integers(2, 9, 50)]];
  const alone: number[][] = [];
  for (const prompt of prompts) alone.push(await generate(model, prompt, GREEDY));
  assertEquals(await generateBatch(model, prompts, GREEDY), alone);
  const stopIds = [alone[0]![7]!, alone[2]![3]!];
  const cut = alone.map((ids) => {
    const at = ids.findIndex((id) => stopIds.includes(id));
    return at < 0 ? ids : ids.slice(0, at + 1);
  });
  const heard: number[][] = [[], [], []];
  const onTokens = (ids: readonly number[], sequence: number) => heard[sequence]!.push(...ids);
  assertEquals(await generateBatch(model, prompts, { ...GREEDY, stopIds, onTokens, readEvery: 7 }), cut);
  assertEquals(heard, cut, "tokens heard");
});

Deno.test("A text ends with the model's eos_token_id, one or several, and after 256 tokens where none comes", async () => {
  using gpu = await Gpu.open({ poison: true });
  const prompt = [...integers(7, 9, 50)];
  const whole = await generate(await smallModel(gpu), prompt, { temperature: 0 });
  assertEquals(whole.length, 256);
  const stop = whole[5]!;
  const wanted = whole.slice(0, whole.indexOf(stop) + 1);
  for (const eos_token_id of [stop, [49, stop]]) {
    const model = await smallModel(gpu, { eos_token_id });
    const written = await generate(model, prompt, { temperature: 0 });
    const end = typeof eos_token_id === "number"
      ? wanted
      : whole.slice(0, 1 + whole.findIndex((id) => eos_token_id.includes(id)));
    assertEquals(written, end, String(eos_token_id));
    assertEquals(await generate(model, prompt, { ...GREEDY, maxNewTokens: 12 }), whole.slice(0, 12));
  }
});

Deno.test("A seed gives the same text whatever is read when; another seed another", async () => {
  using gpu = await Gpu.open({ poison: true });
  const model = await smallModel(gpu);
  const options: GenerateOptions = { maxNewTokens: 40, temperature: 1.5, topK: 40, topP: 0.95, minP: 0.01 };
  const first = await generate(model, [1, 2, 3], { ...options, seed: 5 });
  assertEquals(await generate(model, [1, 2, 3], { ...options, seed: 5, readEvery: 16 }), first);
  assertEquals(
    await generate(model, [1, 2, 3], { ...options, seed: 5, maxNewTokens: 11 }),
    first.slice(0, 11),
  );
  const other = await generate(model, [1, 2, 3], { ...options, seed: 6 });
  assert(other.join() !== first.join(), "two seeds give one text");
});

Deno.test("A repetition penalty is for tokens of the prompt too", async () => {
  using gpu = await Gpu.open({ poison: true });
  const model = await smallModel(gpu);
  const prompt = [...integers(8, 20, 50)];
  const ids = await generate(model, prompt, { ...GREEDY, repetitionPenalty: 1.7 });
  assertEquals(ids, await recomputed(model, prompt, GREEDY.maxNewTokens, 1.7), "tokens");
  assert(ids.join() !== (await generate(model, prompt, GREEDY)).join(), "the penalty changes nothing");
});

Deno.test("A conversation goes on in the cache as one text would", async () => {
  using gpu = await Gpu.open({ poison: true });
  const model = await smallModel(gpu);
  const [question, further] = [[...integers(1, 12, 50)], [...integers(2, 5, 50)]];
  const decoder = new Decoder(model, { capacity: 128 });
  decoder.prefill(0, question);
  const [full] = await continueAll(decoder, { ...GREEDY, maxNewTokens: 12 });
  decoder.truncate(0, question.length - 3);
  assertEquals([...decoder.ids(0)], question.slice(0, -3), "what truncation leaves");

  decoder.prefill(0, question.slice(-3));
  const stop = full![8]!;
  const [answer] = await continueAll(decoder, { ...GREEDY, maxNewTokens: 50, stopIds: [stop] });
  assertEquals(answer, full!.slice(0, full!.indexOf(stop) + 1), "answer");
  assertEquals([...decoder.ids(0)], [...question, ...answer!]);
  decoder.prefill(0, further);
  const [second] = await continueAll(decoder, GREEDY);
  const text = [...question, ...answer!, ...further];
  assertEquals(second, await recomputed(model, text, GREEDY.maxNewTokens), "second answer");
  decoder.free();
});

for (
  // Rotating twice rounds a key of 16 or 8 bits twice.
  const [cacheFormat, atol] of [["f32", 2e-6], ["bf16", 0.02], ["q8", 0.02]] as const
) {
  Deno.test(`Tokens that are evicted leave the others as if they had stood together, cache in ${cacheFormat}`, async () => {
    const changes: Record<string, unknown>[] = [
      {},
      { rope_scaling: { type: "linear", factor: 2 } },
      { rope_scaling: { rope_type: "yarn", factor: 4, original_max_position_embeddings: 16 } },
    ];
    for (const change of changes) {
      using gpu = await Gpu.open({ poison: true });
      // Keys and values of the first layer depend on their own tokens alone.
      const config = smallConfig({ num_hidden_layers: 1, ...change });
      const model = await load(gpu, config, changedWeights(config));
      const prompt = [...integers(1, 30, 50)];
      const options = { capacity: 40, cacheFormat };
      const [evicted, fresh] = [new Decoder(model, options), new Decoder(model, options)];
      evicted.prefill(0, prompt);
      evicted.evict(0, 3, 10);
      evicted.evict(0, 4, 5);
      const kept = [...prompt.slice(0, 3), prompt[13]!, ...prompt.slice(19)];
      assertEquals([...evicted.ids(0)], kept);
      fresh.prefill(0, kept);
      for (const decoder of [evicted, fresh]) decoder.prefill(0, [7, 9]);
      const [one, other] = await Promise.all([evicted, fresh].map(async (decoder) => {
        const logits = decoder.logits();
        const values = await gpu.read(logits);
        logits.free();
        decoder.free();
        return values;
      }));
      assertClose(JSON.stringify(change), one!, other!, { rtol: 0, atol });
    }
  });
}

Deno.test("In 8 bits values are moved as they are, and keys rounded once more", async () => {
  using gpu = await Gpu.open({ poison: true });
  const model = await smallModel(gpu);
  const { num_key_value_heads, head_dim } = model.config;
  const decoder = new Decoder(model, { capacity: 200, cacheFormat: "q8" });
  decoder.prefill(0, [...integers(1, 150, 50)]);
  const { k, v } = decoder.cache.of(1, 0);
  const read = async (rows: Tensor) => {
    const floats = decoder.cache.toFloats(rows, "f32");
    const values = await gpu.read(floats);
    floats.free();
    return values;
  };
  const width = num_key_value_heads * head_dim;
  const [valuesBefore, keysBefore] = [await gpu.readU32(v), await read(k)];
  decoder.evict(0, 5, 70);
  const [valuesAfter, keysAfter] = [await gpu.readU32(v), await read(k)];
  assertEquals([...valuesAfter.subarray(0, 80 * v.width)], [
    ...valuesBefore.subarray(0, 5 * v.width),
    ...valuesBefore.subarray(75 * v.width, 150 * v.width),
  ]);
  assertEquals([...keysAfter.subarray(0, 5 * width)], [...keysBefore.subarray(0, 5 * width)]);
  const frequencies = Array.from(
    { length: head_dim / 2 },
    (_, i) => model.config.rope_theta ** (-2 * i / head_dim),
  );
  for (let row = 5; row < 80; row++) {
    for (let head = 0; head < num_key_value_heads; head++) {
      const at = row * width + head * head_dim;
      const from = at + 70 * width;
      const turned = frequencies.flatMap((frequency, i) => {
        const [x1, x2] = [keysBefore[from + i]!, keysBefore[from + i + head_dim / 2]!];
        const [c, s] = [Math.cos(-70 * frequency), Math.sin(-70 * frequency)];
        return [[i, x1 * c - x2 * s], [i + head_dim / 2, x2 * c + x1 * s]];
      }) as [number, number][];
      // Half a step.
      const atol = Math.max(...turned.map(([, value]) => Math.abs(value))) / 127 * 0.501;
      for (const [c, value] of turned) {
        assertClose(`key ${row}`, [keysAfter[at + c]!], [value], { rtol: 0, atol });
      }
    }
  }
  decoder.free();
});

Deno.test("Tokens that are not there cannot be evicted", async () => {
  using gpu = await Gpu.open();
  const decoder = new Decoder(await load(gpu, smallConfig()), { capacity: 20 });
  decoder.prefill(0, [1, 2, 3, 4]);
  for (const [start, count] of [[2, 3], [0, 5], [-1, 1], [0, 0]] as const) {
    await assertThrows(() => decoder.evict(0, start, count), "Cannot forget tokens");
  }
  decoder.evict(0, 0, 4);
  assertEquals(decoder.ids(0).length, 0);
  decoder.free();
});

Deno.test("The next steps are sent before the tokens of those before are told", async () => {
  using gpu = await Gpu.open();
  const { model } = await openModel(gpu, { baseModel: "tests/golden/mha" });
  const { queue } = gpu.device;
  const submit = queue.submit.bind(queue);
  let submits = 0;
  queue.submit = (commands) => {
    submits++;
    submit(commands);
  };
  const told: number[] = [];
  const options = { ...GREEDY, maxNewTokens: 9, readEvery: 2 };
  await generate(model, [1, 2, 3], { ...options, onTokens: () => told.push(submits) });
  const before = told[0]! - 2;
  // 1, 2, 2, 2, 2 tokens: behind the last there are none to send.
  assertEquals(told.map((sent) => sent - before), [2, 3, 4, 5, 5]);
});

Deno.test("An aborted text ends soon and is what was written so far", async () => {
  using gpu = await Gpu.open({ poison: true });
  const model = await smallModel(gpu);
  const controller = new AbortController();
  const whole = await generate(model, [4], { ...GREEDY, maxNewTokens: 60 });
  const cut = await generate(model, [4], {
    ...GREEDY,
    maxNewTokens: 60,
    signal: controller.signal,
    onTokens: () => controller.abort(),
  });
  assert(cut.length > 0 && cut.length < 60, `${cut.length} tokens`);
  assertEquals(cut, whole.slice(0, cut.length));
});

Deno.test("The cache takes the bytes that are announced", async () => {
  using gpu = await Gpu.open();
  const model = await smallModel(gpu, {}, "bf16");
  const size = { sequences: 2, capacity: 100, format: "bf16" } as const;
  // 2 for keys and values, 2 layers, 2 sequences of 128 rows, 2 kv heads of 8, 2 bytes.
  assertEquals(kvCacheBytes(model.config, size), 2 * 2 * 2 * 128 * 2 * 8 * 2);
  // The same in 8 bits: 1 byte, and a scale of 4 for each head.
  assertEquals(kvCacheBytes(model.config, { ...size, format: "q8" }), 2 * 2 * 2 * 128 * 2 * (8 + 4));
  const llama = { ...model.config, num_hidden_layers: 1, num_key_value_heads: 8, head_dim: 128 };
  assertEquals(kvCacheTokenBytes(llama, "q8"), 2112);
  assertEquals(kvCacheTokenBytes(llama, "bf16"), 4096);
  for (const format of ["bf16", "q8"] as const) {
    const before = gpu.memory.liveBytes;
    const decoder = new Decoder(model, { ...size, cacheFormat: format });
    const held = decoder.cache.layers.reduce((sum, { k, v }) => sum + k.byteLength + v.byteLength, 0);
    const rest = gpu.memory.liveBytes - before - held;
    assertEquals(held, kvCacheBytes(model.config, { ...size, format }));
    assertEquals(decoder.cache.bytes, held);
    assert(rest > 0 && rest < 5000, `${rest} bytes besides the cache`);
    decoder.prefill(0, [1, 2, 3]);
    decoder.evict(0, 0, 1);
    decoder.free();
    assertEquals(gpu.memory.liveBytes, before);
  }
});

Deno.test("A token's attention is two dispatches a layer in a short context, three in a long one", async () => {
  const kernels: string[] = [];
  using gpu = await Gpu.open({ onDispatch: ({ kernel }) => kernels.push(kernel) });
  const sampling = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };
  const drawn = gpu.empty([1], "u32");
  // Heads of 8: 2,048 keys are the most that are not split.
  for (const changes of [{}, { model_type: "smollm3", no_rope_layers: [0, 1] }]) {
    const model = await smallModel(gpu, changes);
    for (const cacheFormat of ["f32", "bf16", "q8"] as const) {
      for (const [length, dispatches] of [[2047, 2], [2048, 3]] as const) {
        const decoder = new Decoder(model, { capacity: length + 1, cacheFormat });
        decoder.fillRandomly(length);
        decoder.sample(sampling, drawn, 0);
        kernels.length = 0;
        decoder.advance();
        const attention = kernels.filter((kernel) => /rope|cache/.test(kernel));
        assertEquals(attention.length, 2 * dispatches, `${cacheFormat}, ${length} tokens: ${attention}`);
        decoder.free();
      }
    }
  }
  await gpu.settle();
});

Deno.test("Options and prompts out of range are named, all at once", async () => {
  using gpu = await Gpu.open();
  const model = await smallModel(gpu);
  const bad = {
    maxNewTokens: 0,
    temperature: -1,
    topK: 0.5,
    topP: 1.5,
    minP: -1,
    repetitionPenalty: 0,
    seed: -1,
  };
  await assertThrows(
    () => generate(model, [1], bad),
    ...[
      "maxNewTokens",
      "temperature",
      "topK",
      "topP",
      "minP",
      "repetitionPenalty",
      "seed must be a whole number",
    ],
  );
  await assertThrows(() => generate(model, [], GREEDY), "empty prompt");
  await assertThrows(() => generate(model, [1, 50], GREEDY), "token 50", "vocab_size 50");
  const decoder = new Decoder(model, { capacity: 4 });
  await assertThrows(() => decoder.prefill(0, [1, 2, 3, 4, 5]), "it holds 4");
});

Deno.test("Logits that are no numbers end the text with an error", async () => {
  using gpu = await Gpu.open();
  const model = await smallModel(gpu);
  gpu.write(model.parts.norm.weight, new Float32Array(32).fill(NaN));
  await assertThrows(() => generate(model, [1], GREEDY), "logits that are not numbers");
});
