/** What a key of Qwen3's config.json means, and its published sizes. */
import { parseConfig } from "../../model/config.ts";
import { shapeConfig } from "../../model/shapes.ts";
import { checkpointTensors, countParameters } from "../../model/tensors.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN } from "../support/files.ts";

const raw = JSON.parse(Deno.readTextFileSync(`${GOLDEN}/qwen3/config.json`));
const parse = (changes: Record<string, unknown>) => parseConfig({ ...raw, ...changes }, "config.json");

Deno.test("What a key of Qwen3 means that is not there, and which values are refused by name", async () => {
  const { head_dim: _, num_key_value_heads: __, max_position_embeddings: ___, ...rest } = raw;
  const config = parseConfig({ ...rest, num_attention_heads: 32 }, "config.json");
  assertEquals([config.head_dim, config.num_key_value_heads, config.max_position_embeddings], [
    128,
    32,
    32768,
  ]);
  const windows = (changes: Record<string, unknown>) =>
    parse({ sliding_window: 16, layer_types: null, ...changes }).layers.map((layer) => layer.sliding_window);
  assertEquals(windows({ max_window_layers: 1 }), [null, null, null]);
  assertEquals(windows({ max_window_layers: 1, use_sliding_window: true }), [null, 16, 16]);
  const biased = [...checkpointTensors(parse({ attention_bias: true })).keys()];
  assertEquals(biased.filter((name) => name.endsWith(".bias")).length, 12);
  await assertThrows(() => parse({ hidden_act: "gelu" }), 'hidden_act is "gelu"', '"qwen3"');
  await assertThrows(
    () => parse({ partial_rotary_factor: 0.5 }),
    "partial_rotary_factor rotates 16",
    '"qwen3"',
  );
  await assertThrows(() => parse({ mlp_bias: true }), "its mlp_bias is true");
  await assertThrows(() => parse({ num_experts: 8 }), "its num_experts is 8");
});

Deno.test("Qwen3's published models have as many parameters as their cards say", () => {
  assertEquals(countParameters(shapeConfig("qwen3-4b")), 4_022_468_096);
  assertEquals(countParameters(shapeConfig("qwen3-8b")), 8_190_735_360);
});
