/**
 * Rotary angles against Hugging Face's definitions (`transformers/modeling_rope_utils.py`) and the papers' formulas,
 * written out again here in float64 or computed by hand.
 */
import { Gpu } from "../../kernels/gpu.ts";
import { parseConfig } from "../../model/config.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import { ropeFrequencies, ropeTables } from "../../model/rope.ts";
import { assert, assertClose, assertEquals } from "../support/assert_close.ts";
import { load, logitsOf, sequence, smallConfig } from "./support.ts";

const EXACT = { rtol: 1e-13, atol: 0 };

function config(changes: Record<string, unknown> = {}): ModelConfig {
  return parseConfig({
    model_type: "llama",
    vocab_size: 32000,
    hidden_size: 4096,
    intermediate_size: 11008,
    num_hidden_layers: 2,
    num_attention_heads: 32,
    max_position_embeddings: 4096,
    ...changes,
  }, "config.json");
}

/** theta^(-i / (D/2)) for D = 128. */
function plain(theta = 10000, size = 128): number[] {
  return Array.from({ length: size / 2 }, (_, i) => Math.exp(-Math.log(theta) * i / (size / 2)));
}

/** The (P, D/2) entry of a table. */
function at(values: Float32Array, position: number, pair: number, half = 64): number {
  return values[position * half + pair]!;
}

Deno.test("Angles at position 100,000 are right to 1e-6", () => {
  // Two pairs, so that the table stays small: frequencies 1 and 1/100.
  const small = config({ head_dim: 4 });
  const { cos, sin } = ropeTables(small, 100_001);
  assertEquals([cos.length, sin.length], [2 * 100_001, 2 * 100_001]);
  for (const position of [0, 1, 4095, 65_536, 99_999, 100_000]) {
    for (const [pair, frequency] of [1, 0.01].entries()) {
      const angle = position * frequency;
      assert(Math.abs(at(cos, position, pair, 2) - Math.cos(angle)) < 1e-7, `cos at ${position}`);
      assert(Math.abs(at(sin, position, pair, 2) - Math.sin(angle)) < 1e-7, `sin at ${position}`);
    }
  }
  // cos and sin of 100,000 rad, which is 15,915 turns and 3.0994 rad.
  assert(Math.abs(at(cos, 100_000, 0, 2) + 0.9993608) < 1e-6, `cos(100000) = ${at(cos, 100_000, 0, 2)}`);
  assert(Math.abs(at(sin, 100_000, 0, 2) - 0.0357488) < 1e-6, `sin(100000) = ${at(sin, 100_000, 0, 2)}`);
});

Deno.test("Frequencies are powers of rope_theta, for any head size", () => {
  assertClose("Llama-2", ropeFrequencies(config(), 10), plain(), EXACT);
  assertClose(
    "head size 80",
    ropeFrequencies(config({ head_dim: 80, rope_theta: 5e5 }), 10),
    plain(5e5, 80),
    EXACT,
  );
  const frequencies = ropeFrequencies(config(), 10);
  assertEquals([frequencies.length, frequencies[0], frequencies[32]], [64, 1, 0.01]);
});

Deno.test("Linear scaling divides positions: token 4p of a model stretched by 4 stands where p stood", () => {
  const base = ropeTables(config({ head_dim: 16 }), 100);
  const stretched = ropeTables(config({ head_dim: 16, rope_scaling: { type: "linear", factor: 4 } }), 400);
  for (const position of [0, 1, 50, 99]) {
    const [from, to] = [position * 8, position * 8 + 8];
    assertEquals(
      [...stretched.cos.subarray(4 * from, 4 * from + 8)],
      [...base.cos.subarray(from, to)],
      `cos at ${position}`,
    );
    assertEquals(
      [...stretched.sin.subarray(4 * from, 4 * from + 8)],
      [...base.sin.subarray(from, to)],
      `sin at ${position}`,
    );
  }
  assert(Math.abs(at(stretched.cos, 1, 0, 8) - Math.cos(0.25)) < 1e-7, "position 1 is a quarter");
});

Deno.test("Dynamic scaling raises the base beyond the trained length only", () => {
  const dynamic = config({ rope_scaling: { type: "dynamic", factor: 2 } });
  for (const length of [1, 4096]) {
    assertClose(`at ${length}`, ropeFrequencies(dynamic, length), plain(), EXACT);
  }
  // base * (factor * L / L0 - (factor - 1))^(D / (D - 2)): 2 * 2 - 1 = 3 at 8192, and 2 * 4 - 1 = 7 at 16384.
  for (const [length, stretch] of [[8192, 3], [16384, 7]] as const) {
    const theta = 10000 * Math.exp(Math.log(stretch) * 128 / 126);
    assertClose(`at ${length}`, ropeFrequencies(dynamic, length), plain(theta), { rtol: 1e-12, atol: 0 });
  }
});

Deno.test("llama3 keeps short waves, stretches long ones by the factor, and blends those between", () => {
  const llama3 = config({
    rope_theta: 500000,
    max_position_embeddings: 131072,
    rope_scaling: {
      rope_type: "llama3",
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8192,
    },
  });
  const frequencies = ropeFrequencies(llama3, 10);
  const expected = plain(500000).map((frequency) => {
    const wavelength = 2 * Math.PI / frequency;
    if (wavelength < 8192 / 4) return frequency;
    if (wavelength > 8192 / 1) return frequency / 8;
    const smooth = (8192 / wavelength - 1) / (4 - 1);
    return (1 - smooth) * frequency / 8 + smooth * frequency;
  });
  assertClose("frequencies", frequencies, expected, { rtol: 1e-12, atol: 0 });
  const kept = expected.filter((value, i) => Math.abs(value / plain(500000)[i]! - 1) < 1e-12).length;
  const stretched = expected.filter((value, i) => Math.abs(8 * value / plain(500000)[i]! - 1) < 1e-12).length;
  // A wave of 2048 tokens is pair 28.2 of 64, one of 8192 pair 34.98.
  assertEquals([kept, stretched], [29, 29]);
  assertEquals(ropeFrequencies(llama3, 100_000), frequencies, "the length does not matter");
});

Deno.test("yarn leaves fast pairs, interpolates slow ones, ramps between, and scales cos and sin", () => {
  const yarn = config({ rope_scaling: { type: "yarn", factor: 16, original_max_position_embeddings: 4096 } });
  // Pair d turns r = 4096 / (2 pi 10000^(d/64)) times; 32 turns are d = 20.95, 1 turn d = 45.03: the ramp is 20 to 46.
  const expected = plain().map((frequency, d) => {
    const interpolated = Math.min(1, Math.max(0, (d - 20) / (46 - 20)));
    return frequency * (1 - interpolated) + frequency / 16 * interpolated;
  });
  assertClose("frequencies", ropeFrequencies(yarn, 10), expected, { rtol: 1e-12, atol: 0 });
  assertEquals(ropeFrequencies(yarn, 10)[20], 0.01 ** (20 / 32), "the last fast pair");
  // 0.1 ln 16 + 1, by which attention's temperature is lowered.
  const { cos, sin } = ropeTables(yarn, 3);
  assert(Math.abs(at(cos, 0, 0) - 1.2772589) < 1e-6, `cos at 0 is ${at(cos, 0, 0)}`);
  assert(Math.abs(at(sin, 2, 0) - 1.2772589 * Math.sin(2)) < 1e-6, `sin at 2 is ${at(sin, 2, 0)}`);
  const named = { type: "yarn", factor: 16, attention_factor: 1, beta_fast: 8, beta_slow: 2 };
  const other = ropeFrequencies(config({ rope_scaling: named }), 10);
  // 8 turns are d = 30.58, 2 turns d = 40.21.
  assertClose(
    "other betas",
    other,
    plain().map((frequency, d) => {
      const interpolated = Math.min(1, Math.max(0, (d - 30) / (41 - 30)));
      return frequency * (1 - interpolated) + frequency / 16 * interpolated;
    }),
    { rtol: 1e-12, atol: 0 },
  );
});

Deno.test("With dynamic scaling a sequence's logits do not depend on what ran before it", async () => {
  using gpu = await Gpu.open({ poison: true });
  const dynamic = smallConfig({
    max_position_embeddings: 16,
    rope_scaling: { type: "dynamic", factor: 2 },
  });
  const [short, long] = [[sequence(dynamic, 20)], [sequence(dynamic, 60)]];
  const alone = await logitsOf(await load(gpu, dynamic), short);
  const model = await load(gpu, dynamic);
  await logitsOf(model, long);
  assertEquals([...await logitsOf(model, short)], [...alone]);
});

/** What transformers' _compute_yarn_parameters gives, written out again. */
function yarnByHand(changes: Raw, { theta = 10000, dim = 128, factor = 4, original = 4096 } = {}): number[] {
  const { beta_fast = 32, beta_slow = 1, truncate = true } = changes as Record<string, number | undefined> & {
    truncate?: boolean;
  };
  const correction = (rotations: number) =>
    (dim * Math.log(original / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  const [low, high] = [correction(beta_fast), correction(beta_slow)];
  const [first, last] = truncate ? [Math.floor(low), Math.ceil(high)] : [low, high];
  return plain(theta, dim).map((frequency, i) => {
    const ramp = Math.min(
      1,
      Math.max(0, (i - Math.max(first, 0)) / (Math.min(last, dim - 1) - Math.max(first, 0))),
    );
    return frequency / factor * ramp + frequency * (1 - ramp);
  });
}

type Raw = Readonly<Record<string, unknown>>;

Deno.test("yarn: every key that transformers reads changes what it changes there", () => {
  const yarn = { rope_type: "yarn", factor: 4, original_max_position_embeddings: 4096 };
  const magnitudeOf = (changes: Raw) => {
    const { cos } = ropeTables(config({ rope_scaling: { ...yarn, ...changes } }), 1);
    return cos[0]!;
  };
  for (
    const changes of [{}, { truncate: false }, { beta_fast: 8, beta_slow: 2 }, {
      beta_fast: 8,
      truncate: false,
    }]
  ) {
    const scaled = config({ rope_scaling: { ...yarn, ...changes } });
    assertClose(JSON.stringify(changes), ropeFrequencies(scaled, 10), yarnByHand(changes), {
      rtol: 1e-12,
      atol: 0,
    });
  }
  const magnitude = (weight: number) => 0.1 * weight * Math.log(4) + 1;
  for (
    const [changes, wanted] of [
      [{}, magnitude(1)],
      [{ attention_factor: 0.8 }, 0.8],
      [{ mscale: 0.707, mscale_all_dim: 0.3 }, magnitude(0.707) / magnitude(0.3)],
      [{ mscale: 1, mscale_all_dim: 1 }, 1],
      [{ mscale: 0.707 }, magnitude(1)],
      [{ attention_factor: 0.8, mscale: 2, mscale_all_dim: 1 }, 0.8],
    ] as const
  ) assertEquals(magnitudeOf(changes), Math.fround(wanted), JSON.stringify(changes));
  // A factor of null is the ratio of the lengths.
  const ratio = config({ max_position_embeddings: 16384, rope_scaling: { ...yarn, factor: null } });
  assertClose("ratio", ropeFrequencies(ratio, 10), yarnByHand({}), { rtol: 1e-12, atol: 0 });
});

Deno.test("longrope divides by short or long factors, by the length, and magnifies in both cases", async () => {
  const short_factor = Array.from({ length: 64 }, (_, i) => 1 + i / 100);
  const long_factor = short_factor.map((value) => 3 * value);
  const map = { rope_type: "longrope", short_factor, long_factor, original_max_position_embeddings: 4096 };
  for (const rope_type of ["longrope", "su"]) {
    const scaled = config({ max_position_embeddings: 16384, rope_scaling: { ...map, rope_type } });
    for (const [length, factors] of [[4096, short_factor], [4097, long_factor]] as const) {
      const wanted = plain().map((frequency, i) => frequency / factors[i]!);
      assertClose(`${rope_type} at ${length}`, ropeFrequencies(scaled, length), wanted, EXACT);
    }
    assertEquals(ropeTables(scaled, 1).cos[0], Math.fround(Math.sqrt(1 + Math.log(4) / Math.log(4096))));
  }
  const given = config({ rope_scaling: { ...map, attention_factor: 1.5 } });
  assertEquals(ropeTables(given, 1).cos[0], 1.5);

  // What ran before must not matter.
  const factors = {
    short_factor: [1, 1, 1, 1],
    long_factor: [2, 3, 4, 5],
    original_max_position_embeddings: 16,
  };
  const small = smallConfig({ rope_scaling: { rope_type: "longrope", ...factors } });
  using gpu = await Gpu.open({ poison: true });
  const model = await load(gpu, small);
  const short = [sequence(small, 12)];
  const before = [...await logitsOf(model, short)];
  const long = await logitsOf(model, [sequence(small, 40)]);
  assertEquals([...await logitsOf(model, short)], before);
  const first = long.slice(0, before.length).reduce(
    (most, value, i) => Math.max(most, Math.abs(value - before[i]!)),
    0,
  );
  assert(first > 1e-3, "the long factors change nothing");
});
