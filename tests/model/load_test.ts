/** From checkpoint to device: what is checked, in which format weights stay, and what 4 bits cost. */
import type { FloatDtype } from "../../checkpoint/dtype.ts";
import type { Quantisation } from "../../kernels/quantisation.ts";
import { toF32 } from "../../checkpoint/dtype.ts";
import { writeModel } from "../../checkpoint/save_model.ts";
import { openWeights, type WeightReader } from "../../checkpoint/weights.ts";
import { UserError } from "../../errors.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { Nf4Weight, quantiseNf4 } from "../../kernels/nf4/nf4.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { readConfig } from "../../model/config.ts";
import { configJson } from "../../model/config_json.ts";
import { freshWeights } from "../../model/load/fresh.ts";
import type { LanguageModel } from "../../model/language_model.ts";
import type { LoadOptions } from "../../model/load/load.ts";
import { checkpointTensors } from "../../model/tensors.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { changedWeights, load, logitsOf, sequence, smallConfig } from "./support.ts";

const LINEAR = "model.layers.1.mlp.up_proj.weight";
const config = smallConfig();

/** One device for the tests that look at messages only. */
async function assertRefused(
  gpu: Gpu,
  weights: WeightReader,
  options: Partial<LoadOptions>,
  ...parts: string[]
): Promise<void> {
  let thrown: unknown;
  const message = await assertThrows(async () => {
    try {
      await load(gpu, config, weights, options);
    } catch (error) {
      thrown = error;
      throw error;
    }
  }, ...parts);
  assert(thrown instanceof UserError && !message.includes("\n"), `not one line for the user: ${message}`);
}

Deno.test("Tensors that are missing or of another shape than config.json says are named, each kind of them", async () => {
  using gpu = await Gpu.open();
  for (const [name, shape] of checkpointTensors(config)) {
    if (name.includes("layers.1.")) continue;
    await assertRefused(gpu, changedWeights(config, { changes: [{ name, isMissing: true }] }), {}, name);
    const [rows = 1, ...rest] = shape;
    for (const other of [[rows + 1, ...rest], [...shape, 1], rest.length > 0 ? [rows] : []]) {
      const weights = changedWeights(config, { changes: [{ name, shape: other }] });
      await assertRefused(gpu, weights, {}, name, `[${other}]`, `[${shape}]`, "config.json");
    }
  }
});

Deno.test("A model of one config does not load with that of another: head count, vocabulary, layers, ties", async () => {
  using gpu = await Gpu.open();
  const changes: [Record<string, unknown>, string][] = [
    [{ num_key_value_heads: 4 }, "k_proj"],
    [{ vocab_size: 60 }, "embed_tokens"],
    [{ head_dim: 16 }, "q_proj"],
    [{ tie_word_embeddings: true }, "lm_head.weight"],
    [{ num_hidden_layers: 1 }, "layers.1."],
    [{ attention_bias: true }, "q_proj.bias"],
  ];
  for (const [change, part] of changes) {
    const other = smallConfig(change);
    const hasMore =
      [...checkpointTensors(other).keys()].length > [...checkpointTensors(config).keys()].length;
    const weights = hasMore ? changedWeights(config) : changedWeights(other);
    await assertThrows(() => load(gpu, hasMore ? other : config, weights), part);
  }
});

Deno.test("Layers and biases that config.json does not name are refused; what nothing needs is passed over", async () => {
  using gpu = await Gpu.open();
  const more: [Record<string, unknown>, string][] = [
    [{ num_hidden_layers: 3 }, "model.layers.2."],
    [{ attention_bias: true }, "q_proj.bias"],
  ];
  for (const [change, part] of more) {
    await assertRefused(
      gpu,
      changedWeights(smallConfig(change)),
      {},
      part,
      "config.json",
      "num_hidden_layers 2",
    );
  }
  // A head stored beside tied embeddings, and the angles that old checkpoints carry.
  const tied = smallConfig({ tie_word_embeddings: true });
  const weights = changedWeights(config);
  const names = [...weights.names(), "model.layers.0.self_attn.rotary_emb.inv_freq"];
  assertEquals((await load(gpu, tied, { ...weights, names: () => names })).linears().length, 14);
});

Deno.test("NaN and infinity are named with tensor, element and value, in every format", async () => {
  using gpu = await Gpu.open();
  for (const dtype of ["F32", "BF16", "F16"] as const) {
    for (
      const [name, element] of [["model.embed_tokens.weight", 1599], [LINEAR, 0], [
        "model.norm.weight",
        5,
      ]] as const
    ) {
      for (const value of [NaN, Infinity, -Infinity]) {
        const values = (all: Float32Array) => void (all[element] = value);
        const weights = changedWeights(config, { dtype, changes: [{ name, values }] });
        for (const quantisation of ["none", "nf4-double"] as const) {
          await assertRefused(gpu, weights, { quantisation }, name, `element ${element} `, String(value));
        }
      }
    }
  }
});

Deno.test("Frozen matrices keep the checkpoint's format and bits; norms, and what is trained, become f32", async () => {
  using gpu = await Gpu.open({ poison: true });
  const formats: [FloatDtype, string][] = [["F32", "f32"], ["BF16", "bf16"], ["F16", "f16"]];
  for (const [dtype, format] of formats) {
    const weights = changedWeights(config, { dtype });
    const model = await load(gpu, config, weights, { isTrained: (name) => name.includes("layers.0.mlp") });
    for (const { name, weight, weightGrad } of model.linears()) {
      const tensor = weight as Tensor;
      const trained = name.includes("layers.0.mlp");
      assertEquals([tensor.dtype, weightGrad?.dtype], trained ? ["f32", "f32"] : [format, undefined], name);
      const expected = toF32(await weights.read(`${name}.weight`), dtype);
      assertEquals([...await gpu.read(tensor)], [...expected], name);
    }
    const { embeddings, norm, head } = model.parts;
    assertEquals([embeddings.weight.dtype, head.weight.dtype, norm.weight.dtype], [
      format,
      format,
      "f32",
    ]);
  }
});

Deno.test("A checkpoint of mixed formats keeps each", async () => {
  using gpu = await Gpu.open();
  const changes = [{ name: LINEAR, dtype: "F32" as const }, {
    name: "lm_head.weight",
    dtype: "F16" as const,
  }];
  const model = await load(gpu, config, changedWeights(config, { dtype: "BF16", changes }));
  const up = model.linears().find(({ name }) => `${name}.weight` === LINEAR)!.weight as Tensor;
  const { embeddings, head } = model.parts;
  assertEquals([up.dtype, head.weight.dtype, embeddings.weight.dtype], ["f32", "f16", "bf16"]);
});

Deno.test("Shards, one file and memory give the same logits, and progress counts every tensor", async () => {
  await withFolder(async (root) => {
    using gpu = await Gpu.open({ poison: true });
    const weights = changedWeights(config);
    const tensors = [...weights.names()].map((name) => ({
      ...weights.info(name),
      dtype: "F32" as const,
      read: () => weights.read(name),
    }));
    const tokens = [sequence(config, 20)];
    const expected = await logitsOf(await load(gpu, config, weights), tokens);
    for (const [name, maxShardBytes, files] of [["whole", 1e9, 1], ["shards", 8000, 9]] as const) {
      await Deno.mkdir(`${root}/${name}`);
      const written = await writeModel(`${root}/${name}`, {
        config: configJson(config),
        tensors,
        maxShardBytes,
      });
      assert(written.shards.length >= files, `${written.shards.length} shards`);
      const reader = await openWeights(`${root}/${name}`);
      const seen: string[] = [];
      const model = await load(gpu, await readConfig(`${root}/${name}`), reader, {
        onProgress: (tensor, done, total) => seen.push(`${done}/${total} ${tensor}`),
      });
      reader.close();
      assertEquals([...await logitsOf(model, tokens)], [...expected], name);
      const total = checkpointTensors(config).size;
      assertEquals(seen.length, total, "progress");
      assertEquals(seen.at(-1), `${total}/${total} lm_head.weight`);
    }
  });
});

Deno.test("NF4 takes 0.516 bytes a weight, 0.5625 with scales in 32 bits, and only for the linears", async () => {
  using gpu = await Gpu.open({ poison: true });
  const large = smallConfig({ hidden_size: 512, intermediate_size: 4096, num_hidden_layers: 1 });
  for (const [doubleQuant, wanted] of [[true, 0.5 + 1 / 64 + 4 / 64 / 256], [false, 0.5 + 4 / 64]] as const) {
    const before = gpu.memory.liveBytes;
    const model = await load(gpu, large, freshWeights(large, 3), {
      quantisation: doubleQuant ? "nf4-double" : "nf4",
    });
    let bytes = 0;
    for (const { name, weight } of model.linears()) {
      assert(weight instanceof Nf4Weight, `${name} is not in 4 bits`);
      if (!name.endsWith("down_proj")) continue;
      // Beside the weights' own share, the map of the scales: 1 KiB.
      const [outputs, inputs] = weight.shape;
      const perWeight = (weight.byteLength - (doubleQuant ? 1028 : 0)) / (outputs * inputs);
      assert(Math.abs(perWeight - wanted) < 1e-6, `${perWeight} bytes a weight, not ${wanted}`);
      if (doubleQuant) assert(Math.abs(weight.byteLength / (outputs * inputs) - 0.516) < 1e-3, "0.516");
      bytes += weight.byteLength;
    }
    assert(bytes > 1e6, "down_proj was not seen");
    assertEquals(model.parts.embeddings.weight.dtype, "f32");
    // What the device holds is what is counted: nothing dense is left behind.
    const linears = model.linears().reduce((sum, { weight }) => sum + (weight as Nf4Weight).byteLength, 0);
    const rest = 4 * (2 * 50 * 512 + 3 * 512);
    assert(
      gpu.memory.liveBytes - before < 1.02 * (linears + rest),
      `${gpu.memory.liveBytes - before} bytes on the device`,
    );
  }
});

/** Modules of the first layer whose weights lie in the buffer of another's, each after the one that it lies behind. */
function besideEachOther(model: LanguageModel): string[] {
  const first = model.parts.layers[0]!.linears.map(({ name, weight }) => ({
    name: name.split(".").at(-1)!,
    buffer: (weight instanceof Nf4Weight ? weight.codes : weight as Tensor).segments[0]!.buffer.id,
  }));
  return first.filter(({ buffer }, i) => first[i - 1]?.buffer === buffer).map(({ name }) => name);
}

Deno.test("Linears that read the same rows lie side by side where they are of one form", async () => {
  using gpu = await Gpu.open({ poison: true });
  const all = ["k_proj", "v_proj", "up_proj"];
  for (const dtype of ["F32", "BF16", "F16"] as const) {
    for (const quantisation of ["none", "nf4", "nf4-double"] as const) {
      const model = await load(gpu, config, changedWeights(config, { dtype }), { quantisation });
      assertEquals(besideEachOther(model), all, `${dtype} ${quantisation}`);
    }
  }
  const key = "model.layers.0.self_attn.k_proj.weight";
  const mixed = await load(gpu, config, changedWeights(config, { changes: [{ name: key, dtype: "BF16" }] }));
  assertEquals(besideEachOther(mixed), ["up_proj"], "another format");
  const isTrained = (name: string) => name === key;
  const trained = await load(gpu, config, changedWeights(config, { dtype: "BF16" }), { isTrained });
  assertEquals(besideEachOther(trained), ["up_proj"], "one that is trained");
  const packed = await openWeights(`${GOLDEN}/mha-bnb4`);
  const golden = await readConfig(`${GOLDEN}/mha-bnb4`);
  assertEquals(besideEachOther(await load(gpu, golden, packed)), all, "in 4 bits in the checkpoint");
  const map = `${key}.nested_quant_map`;
  const other: WeightReader = {
    names: () => packed.names(),
    has: (name) => packed.has(name),
    info: (name) => packed.info(name),
    readInto: (name, from, into) => packed.readInto(name, from, into),
    close: () => packed.close(),
    async read(name) {
      const bytes = await packed.read(name);
      if (name === map) new DataView(bytes.buffer, bytes.byteOffset).setFloat32(0, -0.5, true);
      return bytes;
    },
  };
  assertEquals(besideEachOther(await load(gpu, golden, other)), ["up_proj"], "scales of another map");
  packed.close();
});

Deno.test("Linears in 4 bits that would be trained are refused where the checkpoint has no more, else kept whole", async () => {
  using gpu = await Gpu.open({ poison: true });
  const packed = await openWeights(`${GOLDEN}/mha-bnb4`);
  const golden = await readConfig(`${GOLDEN}/mha-bnb4`);
  await assertThrows(
    () => load(gpu, golden, packed, { isTrained: () => true }),
    'Cannot train "model.layers.0.self_attn.q_proj.weight"',
    "4 bits",
    "low_rank_training: true",
  );
  // Embeddings and norms beside them are whole, so these can be trained.
  const model = await load(gpu, golden, packed, { isTrained: (name) => /embed|norm/.test(name) });
  assertEquals(model.parameters().length, 6);
  packed.close();
  const own = await load(gpu, config, changedWeights(config, { dtype: "BF16" }), {
    quantisation: "nf4-double",
    isTrained: (name) => name === LINEAR,
  });
  for (const { name, weight } of own.linears()) {
    assertEquals(weight instanceof Nf4Weight, `${name}.weight` !== LINEAR, name);
  }
});

Deno.test("Rows that 4 bits cannot pack are refused with the way out", async () => {
  using gpu = await Gpu.open();
  const odd = smallConfig({ intermediate_size: 44 });
  await assertThrows(
    () => load(gpu, odd, changedWeights(odd), { quantisation: "nf4-double" }),
    "mlp.down_proj.weight",
    "no multiple of 8",
    "load_in_4bit: false",
  );
});

Deno.test("Biases and tied heads load, and count where they are used", async () => {
  using gpu = await Gpu.open({ poison: true });
  const biased = smallConfig({ attention_bias: true, mlp_bias: true, tie_word_embeddings: true });
  const tokens = [sequence(biased, 9)];
  const base = await logitsOf(await load(gpu, biased), tokens);
  for (const name of ["self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj"]) {
    const changes = [{
      name: `model.layers.0.${name}.bias`,
      values: (all: Float32Array) => all.forEach((_, i) => all[i] = Math.sin(i)),
    }];
    const model = await load(gpu, biased, changedWeights(biased, { changes }));
    assert(model.parts.head === model.parts.embeddings, "the head is tied");
    const changed = await logitsOf(model, tokens);
    assert(
      changed.some((value, i) => Math.abs(value - base[i]!) > 1e-3),
      `the bias of ${name} has no effect`,
    );
  }
});

Deno.test("Fresh weights: the same for a seed whatever is read first, normal in matrices, ones in norms", async () => {
  const large = smallConfig({ hidden_size: 256, attention_bias: true });
  const [a, b, other] = [freshWeights(large, 5), freshWeights(large, 5), freshWeights(large, 6)];
  const name = "model.layers.1.self_attn.v_proj.weight";
  await b.read("model.embed_tokens.weight");
  const values = toF32(await a.read(name), "F32");
  assertEquals([...values], [...toF32(await b.read(name), "F32")]);
  assert(toF32(await other.read(name), "F32").some((value, i) => value !== values[i]), "another seed");
  const next = toF32(await a.read("model.layers.0.self_attn.v_proj.weight"), "F32");
  assert(next.some((value, i) => value !== values[i]), "another tensor");
  // Deviation 1 / sqrt(256), estimated from 32,768 draws.
  const deviation = Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0) / values.length);
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  assert(Math.abs(deviation * 16 - 1) < 0.02 && Math.abs(mean) < 0.002, `${mean} +- ${deviation}`);
  assertEquals([...new Set(toF32(await a.read("model.norm.weight"), "F32"))], [1]);
  assertEquals([...new Set(toF32(await a.read("model.layers.0.self_attn.q_proj.bias"), "F32"))], [0]);
  const part = new Uint8Array(2049);
  await a.readInto(name, 3 * 1024 + 2, part);
  assertEquals([...part], [...(await a.read(name)).subarray(3 * 1024 + 2, 5 * 1024 + 3)], "a part");
  await assertThrows(() => Promise.resolve().then(() => a.read("model.layers.9.x")), "model.layers.9.x");
});

/** One layer whose matrices are larger than what is read at once. */
const WIDE = smallConfig({
  vocab_size: 5000,
  hidden_size: 512,
  intermediate_size: 4608,
  num_hidden_layers: 1,
  num_attention_heads: 8,
  num_key_value_heads: 2,
});

/** Weights of {@linkcode WIDE} that cost little to make; notes what is read. `spoil` changes what a read gives. */
function wideWeights(
  dtype: "F32" | "BF16",
  spoil: (name: string, from: number, into: Uint8Array) => void = () => {},
): WeightReader & { readonly lengths: number[] } {
  const fresh = freshWeights(WIDE, 1);
  const size = dtype === "F32" ? 4 : 2;
  const lengths: number[] = [];
  const info = (name: string) => {
    const { shape, byteLength } = fresh.info(name);
    return { name, dtype, shape, byteLength: byteLength / 4 * size };
  };
  const readInto = (name: string, from: number, into: Uint8Array) => {
    // Sign and fraction at random, exponents from 2^-8 to 2^-5.
    const [words, first] = [new Uint32Array(into.length / 4), from / 4 + name.length];
    for (let i = 0; i < words.length; i++) {
      const word = Math.imul(first + i, 2654435761) ^ 0x5bd1e995;
      words[i] = dtype === "F32" ? word & 0x80ffffff | 0x3c000000 : word & 0x80ff80ff | 0x3c003c00;
    }
    into.set(new Uint8Array(words.buffer));
    lengths.push(into.length);
    spoil(name, from, into);
    return Promise.resolve();
  };
  const read = async (name: string) => {
    const bytes = new Uint8Array(info(name).byteLength);
    await readInto(name, 0, bytes);
    return bytes;
  };
  return { names: fresh.names, has: fresh.has, info, read, readInto, lengths, close() {} };
}

Deno.test("Tensors of many chunks arrive as they are, in any format and binding size; little is read at once", async () => {
  for (const maxBindingBytes of [undefined, 2 ** 21]) {
    using gpu = await Gpu.open({ poison: true, ...(maxBindingBytes ? { maxBindingBytes } : {}) });
    for (const dtype of ["F32", "BF16"] as const) {
      const weights = wideWeights(dtype);
      const isTrained = (name: string) => name === "lm_head.weight";
      const model = await load(gpu, WIDE, weights, { isTrained });
      assert(
        Math.max(...weights.lengths) <= 8 * 2 ** 20,
        `${Math.max(...weights.lengths)} bytes were read at once`,
      );
      const { embeddings, head } = model.parts;
      const down = model.linears()[6]!.weight as Tensor;
      const tensors = { "model.embed_tokens.weight": embeddings.weight, "lm_head.weight": head.weight };
      for (const [name, tensor] of Object.entries({ ...tensors, [down.label]: down })) {
        const wanted = toF32(await weights.read(name), dtype);
        const found = await gpu.read(tensor);
        assertEquals(found.findIndex((value, i) => value !== wanted[i]), -1, `first difference in ${name}`);
      }
    }
  }
});

Deno.test("Quantised by chunks a matrix is what it is quantised whole, and no more stays on the device", async () => {
  using gpu = await Gpu.open({ poison: true });
  const weights = wideWeights("BF16");
  const { scratch } = gpu.memory.use.byPurpose;
  const model = await load(gpu, WIDE, weights, { quantisation: "nf4-double" });
  assertEquals(gpu.memory.use.byPurpose.scratch, scratch, "bytes that stay");
  for (const { name, weight } of model.linears()) {
    const { shape } = weight;
    const dense = gpu.tensor(shape, toF32(await weights.read(`${name}.weight`), "BF16"));
    const whole = quantiseNf4(gpu, dense);
    const parts = (packed: Nf4Weight) => [packed.codes, packed.absmax, packed.nested!.scales];
    const expected = await gpu.readBytes(parts(whole));
    for (const [i, bytes] of (await gpu.readBytes(parts(weight as Nf4Weight))).entries()) {
      assertEquals(bytes.findIndex((byte, at) => byte !== expected[i]![at]), -1, `${name}, part ${i}`);
    }
    whole.free();
    dense.free();
  }
});

Deno.test("What goes wrong in a later chunk is named as in the first: a number, a read", async () => {
  using gpu = await Gpu.open();
  const name = "model.layers.0.mlp.down_proj.weight";
  const last = 512 * 4608 - 1;
  for (const quantisation of ["none", "nf4-double"] as const) {
    const infinite = wideWeights("BF16", (tensor, from, into) => {
      const at = 2 * last - from;
      if (tensor === name && at < into.length) into.set([0x80, 0xff], at);
    });
    await assertRefusedWide(gpu, infinite, quantisation, name, `element ${last} of ${last + 1} is -Infinity`);
    const torn = wideWeights("F32", (tensor, from) => {
      if (tensor === name && from > 0) throw new UserError("it became shorter");
    });
    await assertRefusedWide(gpu, torn, quantisation, "it became shorter");
  }
});

function assertRefusedWide(gpu: Gpu, weights: WeightReader, quantisation: Quantisation, ...parts: string[]) {
  return assertThrows(() => load(gpu, WIDE, weights, { quantisation }), ...parts);
}

Deno.test("4-bit weights read back are within half a step of what was loaded", async () => {
  using gpu = await Gpu.open({ poison: true });
  const weights = changedWeights(config);
  const model = await load(gpu, config, weights, { quantisation: "nf4" });
  const { name, weight } = model.linears()[6]!;
  const exact = toF32(await weights.read(`${name}.weight`), "F32");
  const back = await gpu.read((weight as Nf4Weight).dequantise(gpu));
  const largest = exact.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  // The widest gap of the sixteen values is 0.304 of the block's scale.
  assertClose(name, back, exact, { rtol: 0, atol: 0.153 * largest });
  assert(back.some((value, i) => value !== exact[i]), "something was rounded");
});
