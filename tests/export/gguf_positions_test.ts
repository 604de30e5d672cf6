import { positionKeys, positionTensors } from "../../export/gguf_positions.ts";
import { parseConfig } from "../../model/config.ts";
import { QWEN3 } from "../../model/qwen3/architecture.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";

type Config = Parameters<typeof positionKeys>[0];

function config(rope_scaling: Record<string, unknown> | null): Config {
  const raw = {
    model_type: "llama",
    vocab_size: 8,
    hidden_size: 512,
    intermediate_size: 8,
    num_hidden_layers: 1,
    num_attention_heads: 4,
    rope_theta: 500_000,
    max_position_embeddings: 8192,
    rope_scaling,
  };
  return parseConfig(raw, "tests") as Config;
}

Deno.test("rope_freqs are llama.cpp's divisors: 1 for short waves, the factor for long ones", async () => {
  const [tensor] = positionTensors(config({
    rope_type: "llama3",
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  }));
  assertEquals([tensor!.name, tensor!.shape], ["rope_freqs.weight", [64]]);
  const { bytes } = await tensor!.readRows(0, 1);
  const divisors = new Float32Array(bytes.slice().buffer);
  // A wave of 2048 tokens is pair 28.2 of 64, one of 8192 pair 34.98: see tests/model/rope_test.ts.
  assertClose("short waves", divisors.subarray(0, 29), new Array(29).fill(1), { rtol: 1e-6, atol: 0 });
  assertClose("long waves", divisors.subarray(35), new Array(29).fill(8), { rtol: 1e-6, atol: 0 });
  // Pair 32 has a wave of 2 pi sqrt(500,000) tokens, of which 8192 are 1.8438: between 1 and 4 it is divided by less than 8.
  const smooth = (8192 / (2 * Math.PI * Math.sqrt(500_000)) - 1) / (4 - 1);
  assertClose("between", [divisors[32]!], [1 / ((1 - smooth) / 8 + smooth)], { rtol: 1e-6, atol: 0 });
  assert(divisors.every((value, i) => i === 0 || value >= divisors[i - 1]!), "divisors rise");
  assertEquals(positionTensors(config(null)), []);
});

Deno.test("scaled positions have the length before the extension in their metadata", async () => {
  const keys = (scaling: Record<string, unknown> | null) =>
    new Map(
      positionKeys(config(scaling), QWEN3.gguf!).map((
        [key, value],
      ) => [key.replace("qwen3.rope.", ""), value]),
    );
  assertEquals([...keys(null)], [["dimension_count", { u32: 128 }], ["freq_base", { f32: 500_000 }]]);
  const linear = keys({ rope_type: "linear", factor: 4 });
  assertEquals(linear.get("scaling.type"), "linear");
  assertEquals(linear.get("scaling.factor"), { f32: 4 });
  assertEquals(linear.get("scaling.original_context_length"), { u32: 8192 });
  const yarn = { rope_type: "yarn", factor: 4, original_max_position_embeddings: 2048 };
  assertEquals(keys(yarn).get("scaling.original_context_length"), { u32: 2048 });
  assertEquals(keys(yarn).has("scaling.attn_factor"), false, "its own factor is llama.cpp's");
  assert(keys({ ...yarn, attention_factor: 2 }).has("scaling.attn_factor"), "another factor is written");
  await assertThrows(() => keys({ ...yarn, beta_fast: 16 }), "Cannot write GGUF", "beta_fast 16");
});

Deno.test("llama.cpp's Phi-3 has longrope's factors and not Llama-3.1's, the others the other way round", async () => {
  const factors = Array.from({ length: 64 }, (_, i) => 1 + i);
  const longrope = config({
    rope_type: "longrope",
    short_factor: factors,
    long_factor: factors,
    factor: 4,
    original_max_position_embeddings: 2048,
  });
  assertEquals(positionTensors(longrope).map(({ name }) => name), [
    "rope_factors_long.weight",
    "rope_factors_short.weight",
  ]);
  const form = { ...QWEN3.gguf!, architecture: "phi3", factors: "longrope", hasWindowKey: true } as const;
  assertEquals(positionKeys(longrope, form), [
    ["phi3.rope.dimension_count", { u32: 128 }],
    ["phi3.rope.freq_base", { f32: 500_000 }],
    ["phi3.attention.sliding_window", { u32: 0 }],
    ["phi3.rope.scaling.original_context_length", { u32: 2048 }],
    ["phi3.rope.scaling.attn_factor", { f32: Math.sqrt(1 + Math.log(4) / Math.log(2048)) }],
  ]);
  await assertThrows(() => positionKeys(longrope, QWEN3.gguf!), '"qwen3" has no rope_scaling', '"longrope"');
  const llama3 = config({
    rope_type: "llama3",
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  });
  await assertThrows(() => positionKeys(llama3, form), '"phi3" has no rope_scaling', '"llama3"');
});
