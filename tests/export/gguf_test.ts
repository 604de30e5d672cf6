import { GGMLQuantizationType as Kind, gguf } from "@huggingface/gguf";
import { encodeGguf, type GgufType, type GgufValue, writeGguf } from "../../checkpoint/gguf.ts";
import { openWeights } from "../../checkpoint/weights.ts";
import { toF32 } from "../../checkpoint/dtype.ts";
import { convertToGguf } from "../../export/gguf.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";
import { normal } from "../support/random.ts";

async function convert(model: string, type: "f32" | "f16" | "bf16" | "q8_0" | "q4_0") {
  const path = await Deno.makeTempFile({ suffix: ".gguf" });
  try {
    await convertToGguf(`${GOLDEN}/${model}`, path, { outtype: type, overwrite: true });
    const parsed = await gguf(path, { allowLocalFile: true });
    const metadata = parsed.metadata as unknown as Readonly<Record<string, unknown>>;
    return { ...parsed, metadata, bytes: await Deno.readFile(path) };
  } finally {
    await Deno.remove(path);
  }
}

/** Rows of a head in pairs that were half a head apart: how llama.cpp turns them. */
function paired(values: Float32Array, width: number, headDim: number): Float32Array {
  const result = new Float32Array(values.length);
  for (let row = 0; row < values.length / width; row++) {
    const [head, i] = [Math.floor(row / headDim), row % headDim];
    const to = head * headDim + (i < headDim / 2 ? 2 * i : 2 * (i - headDim / 2) + 1);
    result.set(values.subarray(row * width, (row + 1) * width), to * width);
  }
  return result;
}

// With these files llama.cpp (node-llama-cpp 3, on the CPU) picked the same 12 tokens as model.logits, for both models.
for (const model of ["mha", "gqa"]) {
  Deno.test(`GGUF of ${model} holds every tensor and what llama.cpp needs to run it`, async () => {
    const { metadata, tensorInfos, tensorDataOffset, bytes } = await convert(model, "f32");
    const config = JSON.parse(await Deno.readTextFile(`${GOLDEN}/${model}/config.json`));
    assertEquals(metadata["general.architecture"], "llama");
    assertEquals(metadata["llama.attention.head_count_kv"], config.num_key_value_heads);
    assertEquals(metadata["llama.vocab_size"], config.vocab_size);
    assertEquals(metadata["llama.feed_forward_length"], config.intermediate_size);
    assertEquals(metadata["llama.attention.layer_norm_rms_epsilon"], Math.fround(config.rms_norm_eps));
    assertEquals(metadata["general.file_type"], 0);
    const tokens = metadata["tokenizer.ggml.tokens"] as string[];
    const kinds = metadata["tokenizer.ggml.token_type"] as number[];
    assertEquals([tokens.length, tokens[258], kinds[258], kinds[65]], [config.vocab_size, "</s>", 3, 1]);
    const weights = await openWeights(`${GOLDEN}/${model}`);
    const infos = new Map(tensorInfos.map((info) => [info.name, info]));
    const read = (name: string) => {
      const { offset, shape } = infos.get(name)!;
      const size = shape.reduce((product, axis) => product * Number(axis), 1);
      const at = Number(tensorDataOffset) + Number(offset);
      assertEquals(at % 32, 0, name);
      return new Float32Array(bytes.slice(at, at + 4 * size).buffer);
    };
    const check = async (ours: string, theirs: string, order = (values: Float32Array) => values) => {
      const { dtype } = weights.info(ours);
      assertEquals([...read(theirs)], [...order(toF32(await weights.read(ours), dtype))], theirs);
    };
    await check("model.embed_tokens.weight", "token_embd.weight");
    await check("model.norm.weight", "output_norm.weight");
    if (!config.tie_word_embeddings) await check("lm_head.weight", "output.weight");
    await check("model.layers.1.mlp.gate_proj.weight", "blk.1.ffn_gate.weight");
    await check("model.layers.1.mlp.up_proj.weight", "blk.1.ffn_up.weight");
    await check("model.layers.1.mlp.down_proj.weight", "blk.1.ffn_down.weight");
    await check("model.layers.1.input_layernorm.weight", "blk.1.attn_norm.weight");
    await check("model.layers.1.post_attention_layernorm.weight", "blk.1.ffn_norm.weight");
    await check("model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight");
    await check("model.layers.0.self_attn.o_proj.weight", "blk.0.attn_output.weight");
    const { hidden_size, num_attention_heads } = config;
    const headDim = config.head_dim ?? hidden_size / num_attention_heads;
    await check(
      "model.layers.0.self_attn.q_proj.weight",
      "blk.0.attn_q.weight",
      (w) => paired(w, hidden_size, headDim),
    );
    await check(
      "model.layers.1.self_attn.k_proj.weight",
      "blk.1.attn_k.weight",
      (w) => paired(w, hidden_size, headDim),
    );
    assertEquals(infos.has("output.weight"), !config.tie_word_embeddings);
    assertEquals(infos.has("rope_freqs.weight"), model === "gqa");
    assertEquals(tensorInfos.length, [...weights.names()].length + (model === "gqa" ? 1 : 0), "tensors");
    weights.close();
  });
}

Deno.test("GGUF keeps norms in F32, and in F16 what blocks of 32 do not divide", async () => {
  const { tensorInfos, metadata } = await convert("mha", "q8_0");
  assertEquals(metadata["general.file_type"], 7);
  const kinds = new Map(tensorInfos.map(({ name, dtype }) => [name, dtype]));
  assertEquals(kinds.get("blk.0.attn_norm.weight"), Kind.F32);
  assertEquals(kinds.get("blk.0.ffn_up.weight"), Kind.Q8_0);
  assertEquals(kinds.get("blk.0.ffn_down.weight"), Kind.F16);
});

Deno.test("encodeGguf() rounds to nearest, and Q8_0 is within half a step of its block", () => {
  const values = normal(11, 4096);
  const bf16 = new Uint16Array(encodeGguf(values, "BF16").buffer);
  values.forEach((value, i) => {
    const back = new Float32Array(Uint32Array.of(bf16[i]! << 16).buffer)[0]!;
    assert(Math.abs(back - value) <= Math.abs(value) * 2 ** -8, `${value} became ${back}`);
  });
  const f16 = new Float16Array(encodeGguf(values, "F16").buffer);
  assertClose("F16", f16, values, { rtol: 2 ** -11, atol: 2 ** -25 });
  const q8 = new DataView(encodeGguf(values, "Q8_0").buffer);
  assertEquals(q8.byteLength, 4096 / 32 * 34);
  for (let block = 0; block < 128; block++) {
    const scale = q8.getFloat16(34 * block, true);
    const largest = Math.max(...values.subarray(32 * block, 32 * block + 32).map(Math.abs));
    assertEquals(scale, Float16Array.of(largest / 127)[0], "the largest is 127 steps");
    const back = Float32Array.from({ length: 32 }, (_, i) => scale * q8.getInt8(34 * block + 2 + i));
    assertClose(`block ${block}`, back, values.subarray(32 * block, 32 * block + 32), {
      rtol: 0,
      atol: 0.55 * scale,
    });
  }
});

Deno.test("GGUF is refused numbers that its type cannot hold, and those that are none", async () => {
  const write = (type: GgufType, values: readonly number[], metadata: [string, GgufValue][] = []) =>
    withFolder((folder) =>
      writeGguf(`${folder}/model.gguf`, new Map(metadata), [{
        name: "output.weight",
        shape: [2, values.length],
        type,
        readRows: () =>
          Promise.resolve({
            bytes: new Uint8Array(Float32Array.from([...values, ...values]).buffer),
            dtype: "F32",
          }),
      }])
    );
  const row = [...normal(3, 31), 65519];
  for (const type of ["F32", "F16", "BF16", "Q8_0", "Q4_0"] as const) await write(type, row);
  row[5] = -65520;
  await assertThrows(
    () => write("F16", row),
    "element 5 is -65520, which it cannot hold. Pass --outtype bf16",
  );
  for (const type of ["F32", "BF16", "Q8_0"] as const) await write(type, row);
  row[5] = 6e5;
  await assertThrows(() => write("Q4_0", row), "--outtype bf16");
  row[5] = 1e7;
  await assertThrows(() => write("Q8_0", row), "--outtype bf16");
  row[5] = 3.4e38;
  await assertThrows(() => write("BF16", row), "--outtype f32");
  await write("F32", row);
  row[5] = NaN;
  await assertThrows(() => write("F32", row), "element 5 of 64 is NaN");
  const theta: [string, GgufValue] = ["llama.rope.freq_base", { f32: 1e300 }];
  await assertThrows(() => write("F32", [1], [theta]), "llama.rope.freq_base is 1e+300");
});

/** `quantize_row_q4_0_ref` and `dequantize_row_q4_0` of ggml-quants.c, one number at a time, in 32 bits. */
function q4Reference(block: Float32Array): { scale: number; codes: number[]; values: number[] } {
  let [amax, max] = [0, 0];
  for (const v of block) if (amax < Math.abs(v)) [amax, max] = [Math.abs(v), v];
  const [f, d] = [Math.fround, Math.fround(max / -8)];
  const id = d !== 0 ? f(1 / d) : 0;
  const codes = [...block].map((v) => Math.min(15, Math.trunc(f(f(v * id) + 8.5))));
  const scale = Float16Array.of(d)[0]!;
  return { scale, codes, values: codes.map((code) => (code - 8) * scale) };
}

Deno.test("Q4_0 is llama.cpp's: the number of largest magnitude is exact to the scale, halves of a block share bytes", () => {
  const values = normal(12, 4096);
  values.fill(0, 64, 96);
  const bytes = encodeGguf(values, "Q4_0");
  assertEquals(bytes.length, 4096 / 32 * 18);
  const view = new DataView(bytes.buffer);
  for (let block = 0; block < 128; block++) {
    const numbers = values.subarray(32 * block, 32 * block + 32);
    const { scale, codes, values: back } = q4Reference(numbers);
    const packed = bytes.subarray(18 * block + 2, 18 * block + 18);
    assertEquals(view.getFloat16(18 * block, true), scale);
    assertEquals([...[...packed].map((byte) => byte & 15), ...[...packed].map((byte) => byte >> 4)], codes);
    // Codes end at 7 on the side away from the largest, so a number there may be a whole step off.
    assertClose(`block ${block}`, Float32Array.from(back), numbers, {
      rtol: 0,
      atol: 1.01 * Math.abs(scale) + 1e-30,
    });
  }
  // By hand: the largest is -8, so the scale is 1, and codes are the numbers + 8.
  const known = Float32Array.from({ length: 32 }, (_, i) => i === 5 ? -8 : i % 8);
  const hand = encodeGguf(known, "Q4_0");
  assertEquals(new DataView(hand.buffer).getFloat16(0, true), 1);
  assertEquals([hand[2], hand[2 + 5], hand[2 + 7]], [0x88, 0xd0, 0xff]);
});

Deno.test("a GGUF file in Q4_0 has embeddings and head in 8 bits, and says what it is", async () => {
  const { tensorInfos, metadata } = await convert("mha", "q4_0");
  const kinds = new Map(tensorInfos.map(({ name, dtype }) => [name, dtype]));
  assertEquals(metadata["general.file_type"], 2);
  assertEquals(
    ["blk.0.ffn_up", "blk.1.attn_q", "token_embd", "output", "blk.0.ffn_down", "blk.0.attn_norm"].map((
      name,
    ) => kinds.get(`${name}.weight`)),
    [Kind.Q4_0, Kind.Q4_0, Kind.Q8_0, Kind.Q8_0, Kind.F16, Kind.F32],
  );
});

Deno.test("a GGUF file that is there stays, unless it is to be overwritten", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/model.gguf`;
    await Deno.writeTextFile(path, "precious");
    await assertThrows(
      () => convertToGguf(`${GOLDEN}/mha`, path),
      path,
      "is there already",
      "--overwrite",
    );
    assertEquals(await Deno.readTextFile(path), "precious");
    assertEquals(namesIn(folder), ["model.gguf"]);
    const overwrite = () => convertToGguf(`${GOLDEN}/mha`, path, { overwrite: true });
    await assertThrows(overwrite, path, "is no GGUF file");
    assertEquals(await Deno.readTextFile(path), "precious");
    await Deno.writeTextFile(path, "GGUF of an older day");
    await overwrite();
    assertEquals((await Deno.readFile(path)).subarray(0, 4), new TextEncoder().encode("GGUF"));
  });
});

Deno.test("two conversions to one path never mix: one is refused, the other's file is whole", async () => {
  await withFolder(async (folder) => {
    const alone = `${folder}/alone.gguf`;
    await convertToGguf(`${GOLDEN}/mha`, alone, { outtype: "f32" });
    const expected = await Deno.readFile(alone);
    await Deno.remove(alone);
    for (const overwrite of [false, true]) {
      const path = `${folder}/model.gguf`;
      const results = await Promise.allSettled(
        [1, 2].map(() => convertToGguf(`${GOLDEN}/mha`, path, { outtype: "f32", overwrite })),
      );
      assert(results.some(({ status }) => status === "fulfilled"), "one is written");
      for (const result of results) {
        if (result.status === "rejected") assertIncludes(String(result.reason), path);
      }
      assertEquals(await Deno.readFile(path), expected);
      assertEquals(namesIn(folder), ["model.gguf"]);
    }
  });
});

Deno.test("a GGUF file that cannot be written whole leaves nothing", async () => {
  await withFolder(async (folder) => {
    await assertThrows(
      () => convertToGguf(`${GOLDEN}/mha`, `${folder}/none/model.gguf`),
      "Cannot write",
      "none",
    );
    await assertThrows(
      () => convertToGguf(`${GOLDEN}/none`, `${folder}/model.gguf`),
      "no config.json",
    );
    assertEquals(namesIn(folder), []);
  });
});

Deno.test("GGUF has the positions that llama.cpp computes, and refuses those it does not", async () => {
  const folder = `${GOLDEN}/faults/08-yarn-as-documented/model`;
  const raw = JSON.parse(await Deno.readTextFile(`${folder}/config.json`));
  await withFolder(async (root) => {
    for (const { name } of Deno.readDirSync(folder)) {
      await Deno.copyFile(`${folder}/${name}`, `${root}/${name}`);
    }
    const convertWith = async (changes: Readonly<Record<string, unknown>>) => {
      await Deno.writeTextFile(`${root}/config.json`, JSON.stringify({ ...raw, ...changes }));
      const notes: string[] = [];
      await convertToGguf(root, `${root}/model.gguf`, {}, { note: (line) => notes.push(line) });
      const { metadata } = await gguf(`${root}/model.gguf`, { allowLocalFile: true });
      await Deno.remove(`${root}/model.gguf`);
      const keys = metadata as unknown as Readonly<Record<string, unknown>>;
      const scaling = (key: string) => keys[`qwen2.rope.scaling.${key}`];
      return { keys, notes, scaling };
    };
    const { rope_scaling: yarn } = raw;
    const documented = await convertWith({});
    assertEquals(documented.keys["qwen2.context_length"], 128);
    const { scaling } = documented;
    assertEquals(
      [scaling("type"), scaling("factor"), scaling("original_context_length"), scaling("attn_factor")],
      ["yarn", 4, 32, undefined],
    );
    const louder = await convertWith({ rope_scaling: { ...yarn, attention_factor: 2 } });
    const factor = louder.scaling("attn_factor") as number;
    assert(Math.abs(factor * (0.1 * Math.log(4) + 1) - 2) < 1e-6, `attn_factor ${factor}`);
    for (const [key, value] of [["beta_fast", 16], ["beta_slow", 2], ["truncate", false]] as const) {
      await assertThrows(
        () => convertWith({ rope_scaling: { ...yarn, [key]: value } }),
        `has ${key} ${value}`,
        "llama.cpp computes",
      );
    }
    const factors = { short_factor: [1, 1, 1, 1], long_factor: [2, 2, 2, 2] };
    await assertThrows(
      () => convertWith({ rope_scaling: { rope_type: "longrope", ...factors } }),
      '"longrope"',
    );
    await assertThrows(() => convertWith({ rope_scaling: { type: "dynamic", factor: 2 } }), '"dynamic"');
    const window = { use_sliding_window: true, max_window_layers: 0, sliding_window: 16 };
    assertEquals((await convertWith(window)).notes.length, 1);
  });
});

Deno.test("GGUF of heads that together are narrower than the hidden size", async () => {
  const { metadata, tensorInfos } = await convert("faults/01-head-dim/model", "f32");
  const keys = ["attention.key_length", "attention.value_length", "rope.dimension_count", "embedding_length"];
  assertEquals(keys.map((key) => metadata[`llama.${key}`]), [8, 8, 8, 24]);
  const shapes = new Map(tensorInfos.map(({ name, shape }) => [name, shape.map(Number)]));
  assertEquals(shapes.get("blk.0.attn_q.weight"), [24, 16]);
  assertEquals(shapes.get("blk.0.attn_output.weight"), [16, 24]);
});

Deno.test("GGUF of Qwen2 is llama.cpp's own kind, its rows and biases as they are", () =>
  withFolder(async (root) => {
    const source = `${GOLDEN}/faults/08-yarn-as-documented/model`;
    for (const { name } of Deno.readDirSync(source)) {
      await Deno.copyFile(`${source}/${name}`, `${root}/${name}`);
    }
    const raw = JSON.parse(await Deno.readTextFile(`${root}/config.json`));
    await Deno.writeTextFile(`${root}/config.json`, JSON.stringify({ ...raw, rope_scaling: null }));
    await convertToGguf(root, `${root}/model.gguf`, { outtype: "f32" });
    const { metadata, tensorInfos, tensorDataOffset } = await gguf(`${root}/model.gguf`, {
      allowLocalFile: true,
    });
    const keys = metadata as unknown as Readonly<Record<string, unknown>>;
    assertEquals(
      [keys["general.architecture"], keys["qwen2.block_count"], keys["qwen2.attention.head_count"]],
      ["qwen2", raw.num_hidden_layers, raw.num_attention_heads],
    );
    const bytes = await Deno.readFile(`${root}/model.gguf`);
    const weights = await openWeights(root);
    for (const kind of ["weight", "bias"]) {
      const name = `model.layers.0.self_attn.q_proj.${kind}`;
      const wanted = toF32(await weights.read(name), weights.info(name).dtype);
      const { offset } = tensorInfos.find((info) => info.name === `blk.0.attn_q.${kind}`)!;
      const at = Number(tensorDataOffset) + Number(offset);
      assertEquals([...new Float32Array(bytes.slice(at, at + 4 * wanted.length).buffer)], [...wanted], name);
    }
    weights.close();
  }));
