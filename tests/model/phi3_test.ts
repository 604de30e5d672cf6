/** What sets Phi-3 and Phi-4-mini apart; golden_architectures_test and parity/golden_test compare their figures. */
import { gguf } from "@huggingface/gguf";
import { readTokenBin } from "../../data/bin.ts";
import { convertToGguf } from "../../export/gguf.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { architectureOf } from "../../model/architectures.ts";
import { makeBatch } from "../../model/batch.ts";
import { parseConfig } from "../../model/config.ts";
import { configJson } from "../../model/config_json.ts";
import { generate } from "../../model/generate.ts";
import type { LanguageModel } from "../../model/language_model.ts";
import { openModel } from "../../model/load/open.ts";
import { configForPositions, contextLength, extendContext } from "../../model/positions.ts";
import { ropeFrequencies } from "../../model/rope.ts";
import { shapeConfig } from "../../model/shapes.ts";
import { countParameters } from "../../model/tensors.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";

const PHI3 = `${GOLDEN}/phi3`;
const DATA = `${GOLDEN}/mistral/data.bin`;
const read = (file: string) => JSON.parse(Deno.readTextFileSync(`${PHI3}/${file}`));
const parse = (changes: Record<string, unknown>) =>
  parseConfig({ ...read("config.json"), ...changes }, "config.json");
const { long_factor, short_factor } = read("config.json").rope_scaling;

async function logitsOf(model: LanguageModel, ids: ArrayLike<number>): Promise<Float32Array> {
  return await model.logits(model.upload(makeBatch([{ inputIds: Uint32Array.from(ids) }])));
}

Deno.test("Both forms of Phi-3's config.json say the same, and the older names of longrope", () => {
  const config = parseConfig(read("config.json"), "config.json");
  const { raw: _, ...older } = config;
  const { raw: __, ...newer } = parseConfig(read("config-v5.json"), "config.json");
  assertEquals(newer, older);
  assertEquals([config.head_dim, config.rotary_dim, contextLength(config)], [16, 12, 512]);
  assertEquals(older.rope_scaling, {
    type: "longrope",
    factor: 8,
    original_max_position_embeddings: 64,
    short_factor,
    long_factor,
    attention_factor: Math.sqrt(1 + Math.log(8) / Math.log(64)),
  });
  assertEquals(older.notes, []);
  for (const type of ["su", "yarn"]) {
    const { raw: _, ...renamed } = parse({ rope_scaling: { type, long_factor, short_factor } });
    assertEquals(renamed, older, type);
  }
});

Deno.test("What a key of Phi-3 means that is not there, and which values are refused by name", async () => {
  const { original_max_position_embeddings: _, num_key_value_heads: __, rms_norm_eps: ___, ...rest } = read(
    "config.json",
  );
  const config = parseConfig({ ...rest, max_position_embeddings: 8192, sliding_window: null }, "config.json");
  assertEquals([config.num_key_value_heads, config.layers[0]!.sliding_window], [4, null]);
  assertEquals(architectureOf(config).layout(config).norm.eps, 1e-5);
  assert(config.rope_scaling?.type === "longrope", "type");
  assertEquals([config.rope_scaling.original_max_position_embeddings, config.rope_scaling.factor], [4096, 2]);
  assertEquals(parse({ sliding_window: 32 }).layers.map((layer) => layer.sliding_window), [32, 32]);
  assertEquals(parse({ full_attn_mod: 1, interpolate_factor: 1, mlp_bias: false }).notes, []);

  await assertThrows(() => parse({ hidden_act: "gelu" }), 'hidden_act is "gelu"', '"phi3"');
  for (const [key, value] of Object.entries({ attention_bias: true, mlp_bias: true, lm_head_bias: true })) {
    await assertThrows(() => parse({ [key]: value }), `its ${key} is ${value}`);
  }
  await assertThrows(() => parse({ full_attn_mod: 2 }), "its full_attn_mod is 2");
  await assertThrows(() => parse({ interpolate_factor: 2 }), "its interpolate_factor is 2");
  await assertThrows(
    () => parse({ partial_rotary_factor: 0.4, rope_scaling: null }),
    "partial_rotary_factor rotates 6 of a head's 16",
    "multiple of 4",
  );
  await assertThrows(() => parse({ partial_rotary_factor: 1 }), "has 6 numbers", "8 pairs");
  await assertThrows(() => parse({ rope_scaling: { type: "longrope", long_factor } }), "short_factor");
  await assertThrows(() => parse({ layer_types: ["sliding_attention"] }), "layer_types");
  const { notes } = parse({ rope_scaling: { type: "linear", factor: 2 } });
  assert(notes.some((note) => note.includes('"longrope" alone')), notes.join());
  const factor = parse({ rope_scaling: { type: "longrope", long_factor, short_factor, factor: 2 } });
  assert(factor.notes.some((note) => note.includes("factor 2")), factor.notes.join());
  assert(parse({ resid_pdrop: 0.1 }).notes.some((note) => note.includes("resid_pdrop")), "dropout is noted");
});

Deno.test("Phi-3 is extended by interpolation where it has no longrope, by nothing where it has", async () => {
  const plain = parse({ rope_scaling: null, max_position_embeddings: 64 });
  assertEquals(extendContext(plain, 128).rope_scaling, { type: "linear", factor: 2 });
  assertEquals(extendContext(parse({}), 512), parse({}));
  await assertThrows(() => extendContext(parse({}), 513), '"longrope"', "cannot extend");
  const given = { type: "longrope", long_factor, short_factor, factor: 8 };
  const longer = configForPositions(plain, { model_max_length: 512, rope_scaling: given });
  assertEquals(longer.rope_scaling, parse({}).rope_scaling);
  const written = configJson(longer);
  assertEquals(
    [written.rope_scaling, written.original_max_position_embeddings, written.max_position_embeddings],
    [{ type: "longrope", short_factor, long_factor }, 64, 512],
  );
  assertEquals(parseConfig(written, "config.json").rope_scaling, longer.rope_scaling);
});

Deno.test("Phi-3's and Phi-4-mini's published models have as many parameters as their cards say", () => {
  assertEquals(countParameters(shapeConfig("phi3-mini-4k")), 3_821_079_552);
  assertEquals(countParameters(shapeConfig("phi4-mini")), 3_836_021_760);
});

Deno.test("longrope takes the short factors up to the original length, the long ones for all of a longer sequence", () => {
  const config = parse({});
  const plain = ropeFrequencies({ ...config, rope_scaling: null }, 0);
  const divided = (factors: readonly number[]) => [...plain].map((frequency, i) => frequency / factors[i]!);
  assertEquals([...ropeFrequencies(config, 64)], divided(short_factor));
  assertEquals([...ropeFrequencies(config, 65)], divided(long_factor));
});

for (const [prompt, fresh] of [[40, 16], [100, 16], [40, 40]] as const) {
  Deno.test(`Phi-3 writes ${fresh} tokens after ${prompt} as it reads a text of that length`, async () => {
    using gpu = await Gpu.open({ poison: true });
    const { model } = await openModel(gpu, { baseModel: PHI3 });
    const ids = [...(await readTokenBin(DATA)).slice(0, prompt)];
    const written = await generate(model, ids, { maxNewTokens: fresh, temperature: 0, stopIds: [] });
    assertEquals(written.length, fresh);
    // All tokens have the angles of the longest sequence there may be: at 80 tokens, the long ones from the first on.
    const logits = await logitsOf(model, [...ids, ...written]);
    written.forEach((id, i) => {
      const row = logits.subarray(320 * (prompt + i - 1), 320 * (prompt + i));
      assertEquals(id, row.indexOf(Math.max(...row)), `token ${i}`);
    });
  });
}

Deno.test("GGUF of Phi-3 has longrope's factors as tensors", async () => {
  await withFolder(async (root) => {
    const path = `${root}/model.gguf`;
    await convertToGguf(PHI3, path, { outtype: "f32" });
    const { metadata, tensorInfos, tensorDataOffset } = await gguf(path, { allowLocalFile: true });
    assertEquals((metadata as unknown as Record<string, unknown>)["phi3.rope.scaling.type"], undefined);
    const bytes = await Deno.readFile(path);
    for (const [tensor, factors] of Object.entries({ long: long_factor, short: short_factor })) {
      const { offset } = tensorInfos.find(({ name }) => name === `rope_factors_${tensor}.weight`)!;
      const at = Number(tensorDataOffset) + Number(offset);
      assertEquals(
        [...new Float32Array(bytes.slice(at, at + 24).buffer)],
        [...Float32Array.from(factors)],
        tensor,
      );
    }
  });
});
