/** What a key of OLMo-2's config.json means, and its published sizes. */
import { parseConfig } from "../../model/config.ts";
import { shapeConfig } from "../../model/shapes.ts";
import { checkpointTensors, countParameters } from "../../model/tensors.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN } from "../support/files.ts";

const raw = JSON.parse(Deno.readTextFileSync(`${GOLDEN}/olmo2/config.json`));
const parse = (changes: Record<string, unknown>) => parseConfig({ ...raw, ...changes }, "config.json");

Deno.test("What a key of OLMo-2 means that is not there, and which values are refused by name", async () => {
  const { rms_norm_eps: _, max_position_embeddings: __, num_key_value_heads: ___, ...rest } = raw;
  const config = parseConfig(rest, "config.json") as unknown as Record<string, unknown>;
  assertEquals([config.rms_norm_eps, config.max_position_embeddings, config.num_key_value_heads], [
    1e-5,
    2048,
    4,
  ]);
  assertEquals(checkpointTensors(parse({})).get("model.layers.0.self_attn.k_norm.weight"), [32]);
  await assertThrows(() => parse({ hidden_act: "gelu" }), 'hidden_act is "gelu"', '"olmo2"');
  await assertThrows(() => parse({ clip_qkv: 8 }), "its clip_qkv is 8");
  await assertThrows(() => parse({ mlp_bias: true }), "its mlp_bias is true");
  await assertThrows(
    () => parse({ layer_types: ["sliding_attention", "full_attention"], sliding_window: 64 }),
    "its layer_types is",
  );
});

Deno.test("OLMo-2's published model has as many parameters as its card says", () => {
  assertEquals(countParameters(shapeConfig("olmo2-7b")), 7_298_617_344);
});
