/** What a key of SmolLM3's config.json means, and its published sizes. */
import { convertToGguf } from "../../export/gguf.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { parseConfig } from "../../model/config.ts";
import { LayerRopes } from "../../model/layer_ropes.ts";
import { extendContext } from "../../model/positions.ts";
import { shapeConfig } from "../../model/shapes.ts";
import { countParameters } from "../../model/tensors.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";

const raw = JSON.parse(Deno.readTextFileSync(`${GOLDEN}/smollm3/config.json`));
const parse = (changes: Record<string, unknown>) => parseConfig({ ...raw, ...changes }, "config.json");
const rotates = (changes: Record<string, unknown>) => parse(changes).layers.map(({ rope }) => rope !== null);

Deno.test("What a key of SmolLM3 means that is not there, and which values are refused by name", async () => {
  const {
    num_key_value_heads: _,
    max_position_embeddings: __,
    rope_theta: ___,
    no_rope_layers: ____,
    no_rope_layer_interval: _____,
    ...rest
  } = raw;
  const config = parseConfig(rest, "config.json");
  assertEquals(
    [
      config.num_key_value_heads,
      config.max_position_embeddings,
      config.rope_theta,
      config.tie_word_embeddings,
    ],
    [4, 32768, 2000000, true],
  );
  assertEquals(config.layers.map(({ rope }) => rope), ["model", "model", "model", null]);
  assertEquals(parse({ tie_word_embeddings: false }).tie_word_embeddings, false);
  await assertThrows(() => parse({ hidden_act: "gelu" }), 'hidden_act is "gelu"', '"smollm3"');
  await assertThrows(
    () => parse({ use_sliding_window: true, sliding_window: 16 }),
    "its use_sliding_window is true, with a sliding_window of 16",
  );
  await assertThrows(
    () => parse({ layer_types: ["full_attention", "sliding_attention"] }),
    "its layer_types is",
  );
  assertEquals(parse({ max_window_layers: 28 }).notes, []);
});

Deno.test("SmolLM3's layers rotate where no_rope_layers is 1, else all but every so-manieth", async () => {
  assertEquals(rotates({ no_rope_layers: [0, 1, true, false] }), [false, true, true, false]);
  assertEquals(rotates({ no_rope_layers: null, no_rope_layer_interval: 2 }), [true, false, true, false]);
  await assertThrows(() => parse({ no_rope_layers: [1, 0] }), "no_rope_layers are of 2 layers", "is 4");
  await assertThrows(() => parse({ no_rope_layers: [1, 1, 1, 2] }), "no_rope_layers");
  await assertThrows(
    () => parse({ no_rope_layers: null, no_rope_layer_interval: 0 }),
    "no_rope_layer_interval",
  );
});

Deno.test("Extension of SmolLM3's context touches the layers that rotate and leaves the others without", async () => {
  using gpu = await Gpu.open();
  const config = parse({ max_position_embeddings: 64 });
  const sines = async (context: typeof config) => {
    const ropes = new LayerRopes(gpu, context).forLength(128);
    return await Promise.all(ropes.map(async (rope) => rope && [...await gpu.read(rope.sin)]));
  };
  const [before, after] = [await sines(config), await sines(extendContext(config, 128))];
  assertEquals(after.map((rope) => rope === null), [false, false, false, true]);
  // Position 2 i turns as far as position i did.
  const row = before[0]!.length / 128;
  for (const i of [1, 20, 63]) {
    assertEquals(after[0]!.slice(2 * i * row, (2 * i + 1) * row), before[0]!.slice(i * row, (i + 1) * row));
  }
});

Deno.test("GGUF of a SmolLM3 whose other layers rotate is refused by name: llama.cpp knows every fourth alone", async () => {
  await withFolder(async (root) => {
    await Deno.mkdir(`${root}/model`);
    for (const name of ["model.safetensors", "tokenizer.json", "tokenizer_config.json"]) {
      await Deno.copyFile(`${GOLDEN}/smollm3/${name}`, `${root}/model/${name}`);
    }
    const config = { ...raw, no_rope_layers: [1, 0, 1, 0] };
    await Deno.writeTextFile(`${root}/model/config.json`, JSON.stringify(config));
    await assertThrows(
      () => convertToGguf(`${root}/model`, `${root}/model.gguf`),
      "Cannot write GGUF",
      "layer 1 of the model does not rotate",
    );
  });
});

Deno.test("SmolLM3's published model has as many parameters as its card says", () => {
  assertEquals(countParameters(shapeConfig("smollm3-3b")), 3_075_098_624);
  assertEquals(shapeConfig("smollm3-3b").layers.filter(({ rope }) => rope === null).length, 9);
});
