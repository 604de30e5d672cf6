/** `config.json`: Hugging Face's keys and defaults, what is refused, and how far positions are stretched. */
import {
  contextLength,
  extendContext,
  type ModelConfig,
  parseConfig,
  readConfig,
} from "../../model/config.ts";
import { configForPositions } from "../../model/context.ts";
import { parseRopeScaling } from "../../model/rope_scaling.ts";
import { UserError } from "../../errors.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";

type Raw = Record<string, unknown>;

/** The keys without a default, as Llama-2-7B has them. */
const LEAST: Raw = {
  model_type: "llama",
  vocab_size: 32000,
  hidden_size: 4096,
  intermediate_size: 11008,
  num_hidden_layers: 32,
  num_attention_heads: 32,
};

const LLAMA3 = {
  rope_type: "llama3",
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
};

function parse(changes: Raw = {}): ModelConfig {
  return parseConfig({ ...LEAST, ...changes }, "config.json");
}

/** Fails unless the change is refused by one line that names the file and every part. */
async function assertRefused(changes: Raw, ...parts: string[]): Promise<void> {
  let error: unknown;
  const message = await assertThrows(
    () => {
      try {
        parse(changes);
      } catch (caught) {
        error = caught;
        throw caught;
      }
    },
    '"config.json"',
    ...parts,
  );
  assert(error instanceof UserError, `not an error for the user: ${message}`);
  assert(!message.includes("\n") && message.length < 300, `more than one line: ${message}`);
}

Deno.test("Defaults are those of Hugging Face's LlamaConfig", () => {
  const { raw: _, ...config } = parse();
  assertEquals(config, {
    model_type: "llama",
    vocab_size: 32000,
    hidden_size: 4096,
    intermediate_size: 11008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 32,
    head_dim: 128,
    rotary_dim: 128,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    rope_scaling: null,
    tie_word_embeddings: false,
    attention_bias: "none",
    mlp_bias: false,
    sliding_window: null,
  });
});

Deno.test("Every key is taken from the file, null means the default, and unknown ones are ignored", () => {
  const given = {
    num_key_value_heads: 8,
    head_dim: 80,
    max_position_embeddings: 131072,
    rms_norm_eps: 1e-5,
    rope_theta: 500000,
    rope_scaling: LLAMA3,
    tie_word_embeddings: true,
    attention_bias: true,
    mlp_bias: true,
  };
  // pretraining_tp above 1 splits the products of the original without changing them (D34).
  const { raw, ...config } = parse({ ...given, pretraining_tp: 2, hidden_act: "silu", use_cache: true });
  const { rope_type: type, ...scaling } = LLAMA3;
  const { num_key_value_heads, head_dim, ...rest } = given;
  const wanted = {
    ...LEAST,
    num_key_value_heads,
    head_dim,
    rotary_dim: head_dim,
    ...rest,
    attention_bias: "all",
    sliding_window: null,
    rope_scaling: { type, ...scaling },
  };
  for (const [key, value] of Object.entries(config)) {
    assertEquals(value, wanted[key as keyof typeof wanted], key);
  }
  assertEquals(raw.pretraining_tp, 2);
  const empty = parse({ num_key_value_heads: null, head_dim: null, rope_theta: null, rope_scaling: null });
  assertEquals([empty.num_key_value_heads, empty.head_dim, empty.rope_theta], [32, 128, 10000]);
});

Deno.test("rope_parameters, the newer form, means the same as rope_theta and rope_scaling", () => {
  const older = parse({ rope_theta: 500000, rope_scaling: LLAMA3, max_position_embeddings: 131072 });
  const newer = parse({
    rope_parameters: { ...LLAMA3, rope_theta: 500000 },
    max_position_embeddings: 131072,
  });
  assertEquals([newer.rope_theta, newer.rope_scaling], [older.rope_theta, older.rope_scaling]);
  const plain = parse({ rope_parameters: { rope_type: "default", rope_theta: 7000 } });
  assertEquals([plain.rope_theta, plain.rope_scaling], [7000, null]);
  assertEquals(parse({ rope_parameters: { rope_theta: 7000 } }).rope_scaling, null);
});

Deno.test("rope_scaling is read with rope_type or type, and yarn gets its defaults", () => {
  for (const key of ["type", "rope_type"]) {
    assertEquals(parse({ rope_scaling: { [key]: "linear", factor: 4 } }).rope_scaling, {
      type: "linear",
      factor: 4,
    });
  }
  assertEquals(parse({ rope_scaling: { type: "dynamic", factor: 2 } }).rope_scaling, {
    type: "dynamic",
    factor: 2,
  });
  assertEquals(parseRopeScaling({ type: "yarn", factor: 16 }, 4096, "here"), {
    type: "yarn",
    factor: 16,
    original_max_position_embeddings: 4096,
    beta_fast: 32,
    beta_slow: 1,
    attention_factor: 0.1 * Math.log(16) + 1,
  });
  const given = { original_max_position_embeddings: 8192, beta_fast: 16, beta_slow: 2, attention_factor: 1 };
  assertEquals(parseRopeScaling({ type: "yarn", factor: 16, ...given }, 4096, "here"), {
    type: "yarn",
    factor: 16,
    ...given,
  });
});

Deno.test("Other architectures, activations and rope types are refused by name", async () => {
  await assertRefused({ model_type: "gpt2" }, 'model_type is "gpt2"', "llama, mistral, qwen2, gpt_neox");
  await assertRefused({ model_type: undefined }, "model_type");
  for (const raw of [null, [], "llama", 3]) {
    await assertThrows(() => parseConfig(raw, "config.json"), '"config.json"', "model_type");
  }
  await assertRefused({ hidden_act: "gelu" }, 'hidden_act is "gelu"');
  await assertRefused({ rope_scaling: { type: "longrope", factor: 4 } }, '"longrope" is not known', "yarn");
  await assertRefused({ rope_scaling: { factor: 4 } }, "rope_scaling", "type");
  await assertRefused({ rope_parameters: { factor: 4, rope_theta: 10000 } }, "rope_scaling", "type");
});

Deno.test("Weights packed by anything but bitsandbytes in 4 bits are refused by name", async () => {
  for (const quant_method of ["gptq", "awq", "fp8"]) {
    const quantization_config = { quant_method, bits: 4 };
    await assertRefused({ quantization_config }, `quantised by "${quant_method}"`, "load_in_4bit");
  }
  const eight = { quant_method: "bitsandbytes", load_in_8bit: true, load_in_4bit: false };
  await assertRefused({ quantization_config: eight }, "bitsandbytes in 8 bits");
  for (const form of [null, { load_in_4bit: true }, { quant_method: "bitsandbytes", load_in_4bit: true }]) {
    parseConfig({ ...LEAST, quantization_config: form }, "config.json");
  }
});

Deno.test("Numbers that are missing, of the wrong type, or do not fit together are refused by key", async () => {
  for (const key of Object.keys(LEAST).filter((key) => key !== "model_type")) {
    await assertRefused({ [key]: undefined }, key);
    for (const value of ["4096", 0, -8, 4.5]) await assertRefused({ [key]: value }, key);
  }
  await assertRefused({ rms_norm_eps: 0 }, "rms_norm_eps");
  await assertRefused({ rope_theta: -1 }, "rope_theta");
  await assertRefused({ rope_theta: "10000" }, "rope_theta");
  for (const rope_theta of ["ten", -1, 0]) {
    await assertRefused({ rope_parameters: { rope_type: "default", rope_theta } }, "rope_theta");
  }
  await assertRefused({ tie_word_embeddings: "false" }, "tie_word_embeddings");
  await assertRefused({ num_key_value_heads: 5 }, "32 is no multiple of num_key_value_heads 5");
  await assertRefused({ num_attention_heads: 30 }, "head size");
  await assertRefused({ head_dim: 66 }, "head size 66");
  await assertRefused({ head_dim: 512 }, "head size 512");
  await assertRefused({ hidden_size: 4098, head_dim: 128 }, "hidden_size 4098");
  await assertRefused({ intermediate_size: 11006 }, "intermediate_size 11006");
  for (const factor of [undefined, "8", 0.5, -1]) {
    await assertRefused({ rope_scaling: { type: "linear", factor } }, '"linear"', "factor");
  }
  for (const key of Object.keys(LLAMA3).filter((key) => key !== "rope_type")) {
    await assertRefused({ rope_scaling: { ...LLAMA3, [key]: undefined } }, '"llama3"', key);
  }
  await assertRefused({ rope_scaling: { type: "yarn", factor: 4, beta_fast: 0 } }, '"yarn"', "beta_fast");
});

Deno.test("Several wrong keys are named at once", async () => {
  await assertRefused({ vocab_size: 0, hidden_size: "x" }, "vocab_size", "hidden_size");
});

Deno.test("readConfig() names a file that is missing, a folder that is a file, and text that is not JSON", async () => {
  await withFolder(async (folder) => {
    await assertThrows(() => readConfig(folder), folder, "no config.json", "Check the path");
    await Deno.writeTextFile(`${folder}/config.json`, '{"model_type": "llama",');
    const message = await assertThrows(() => readConfig(folder), `${folder}/config.json`, "not valid JSON");
    assert(!message.includes("\n"), message);
    await assertThrows(() => readConfig(`${folder}/config.json`), "no config.json");
  });
});

Deno.test("Positions are interpolated by ceil(length / trained length), whatever was there before", () => {
  const base = parse({ max_position_embeddings: 4096 });
  const factors: [number, number | undefined][] = [
    [2, undefined],
    [4096, undefined],
    [4097, 2],
    [8192, 2],
    [8193, 3],
    [12288, 3],
    [16384, 4],
    [32768, 8],
    [65536, 16],
    [100000, 25],
  ];
  for (const [length, factor] of factors) {
    const extended = extendContext(base, length);
    assertEquals(
      extended.rope_scaling,
      factor === undefined ? null : { type: "linear", factor },
      `at ${length}`,
    );
    // Scaled once, it is for that length: asking again changes nothing.
    assertEquals(extendContext(extended, length), extended);
    assert(contextLength(extended) >= length, `${contextLength(extended)} tokens for ${length}`);
  }
});

Deno.test("A model that is scaled already gets the factor of the whole extension (D9)", () => {
  const scaled = parse({ max_position_embeddings: 4096, rope_scaling: { type: "linear", factor: 2 } });
  assertEquals(extendContext(scaled, 32768).rope_scaling, { type: "linear", factor: 8 });
  assertEquals(extendContext(scaled, 8193).rope_scaling, { type: "linear", factor: 3 });
  for (const length of [4096, 8192]) assertEquals(extendContext(scaled, length), scaled);
});

Deno.test("llama3 and yarn models are refused beyond their context; dynamic ones adapt by themselves", async () => {
  const llama3 = parse({ max_position_embeddings: 131072, rope_scaling: LLAMA3 });
  assertEquals(extendContext(llama3, 131072), llama3);
  await assertThrows(() => extendContext(llama3, 131073), '"llama3"', "131072", "rope_scaling or rope_theta");
  const yarn = parse({ max_position_embeddings: 4096, rope_scaling: { type: "yarn", factor: 2 } });
  await assertThrows(() => extendContext(yarn, 5000), '"yarn"');
  const dynamic = parse({ max_position_embeddings: 4096, rope_scaling: { type: "dynamic", factor: 2 } });
  assertEquals(extendContext(dynamic, 100000), dynamic);
});

Deno.test("rope_theta and rope_scaling of the user take the place of interpolation", async () => {
  const base = parse({ max_position_embeddings: 4096 });
  const raised = configForPositions(base, { model_max_length: 16384, rope_theta: 1e6 });
  assertEquals([raised.rope_theta, raised.rope_scaling, contextLength(raised)], [1e6, null, 16384]);
  const linear = configForPositions(base, {
    model_max_length: 16384,
    rope_scaling: { type: "linear", factor: 5 },
  });
  assertEquals([linear.rope_scaling, linear.max_position_embeddings], [{ type: "linear", factor: 5 }, 4096]);
  const neither = configForPositions(base, { model_max_length: 16384, rope_theta: null, rope_scaling: null });
  assertEquals(neither.rope_scaling, { type: "linear", factor: 4 });
  await assertThrows(
    () => configForPositions(base, { model_max_length: 8192, rope_scaling: { type: "ntk", factor: 2 } }),
    '"ntk"',
  );
});
