/** `config.json`: Hugging Face's keys and defaults, what is refused, and how far positions are stretched. */
import { configForPositions, contextLength, extendContext } from "../../model/positions.ts";
import { parseConfig, readConfig } from "../../model/config.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import { configJson } from "../../model/config_json.ts";
import { parseRopeScaling } from "../../model/rope_scaling.ts";
import { torchDtype, torchDtypeOf } from "../../model/number_formats.ts";
import { UserError } from "../../errors.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";

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
    qk_norm: "none",
    layers: new Array(32).fill({ sliding_window: null, rope: "model" }),
    notes: [],
  });
});

Deno.test("What a key means that is not there, the classes of Mistral and Qwen2 say; null is no grouping and no window", () => {
  const of = (changes: Raw) => {
    const { num_key_value_heads, max_position_embeddings, layers } = parse(changes);
    const windows = new Set(layers.map((layer) => layer.sliding_window));
    return [num_key_value_heads, max_position_embeddings, ...windows];
  };
  assertEquals(of({ model_type: "mistral" }), [8, 131072, 4096]);
  assertEquals(of({ model_type: "mistral", num_key_value_heads: null, sliding_window: null }), [
    32,
    131072,
    null,
  ]);
  assertEquals(of({ model_type: "qwen2" }), [32, 32768, null]);
  const switchedOn = { model_type: "qwen2", use_sliding_window: true, num_hidden_layers: 28 };
  assertEquals(of({ ...switchedOn, max_window_layers: 0 }), [32, 32768, 4096]);
  assertEquals(of(switchedOn), [32, 32768, null]);
  const types = (type: string) => new Array(28).fill(type);
  assertEquals(of({ ...switchedOn, layer_types: types("sliding_attention") }), [32, 32768, 4096]);
  assertEquals(of({ ...switchedOn, max_window_layers: 0, layer_types: types("full_attention") }), [
    32,
    32768,
    null,
  ]);
});

Deno.test("Keys that would change the figures are refused by name, keys without effect are noted", async () => {
  for (
    const [key, value] of [
      ["attn_logit_softcapping", 50],
      ["final_logit_softcapping", 30],
      ["query_pre_attn_scalar", 256],
      ["use_qk_norm", true],
      ["logits_scaling", 8],
      ["embedding_multiplier", 12],
      ["scale_emb", 12],
      ["clip_qkv", 8],
      ["no_rope_layers", [1, 1, 0]],
      ["layer_types", ["sliding_attention", "full_attention"]],
      ["is_causal", false],
      ["pruned_heads", { 0: [1] }],
      ["num_local_experts", 8],
      ["hidden_activation", "gelu_pytorch_tanh"],
    ] as const
  ) {
    await assertRefused({ [key]: value }, `its ${key} is`, 'model_type "llama"');
    assertEquals(parse({ [key]: null }).notes, [], key);
  }
  await assertRefused({ model_type: "mistral", attention_bias: true }, "its attention_bias is true");
  await assertRefused({ model_type: "qwen2", mlp_bias: true }, "its mlp_bias is true");
  await assertRefused({ partial_rotary_factor: 0.5 }, "partial_rotary_factor rotates 64 of a head's 128");
  const neutral = { layer_types: ["full_attention"], logit_scale: 1, qk_norm: false, pruned_heads: {} };
  assertEquals(parse({ ...neutral, hidden_act: "swish", use_cache: true, bos_token_id: 1 }).notes, []);
  const { notes } = parse({ sliding_window: 16, "my\u001bkey": 3, attention_dropout: 0.1 });
  assertEquals(notes.length, 2);
  assertIncludes(notes[0]!, "sliding_window, my key are not known");
  assertIncludes(notes[1]!, "attention_dropout");
});

Deno.test("More layers than any model has are refused before a list of them is made", async () => {
  for (const model_type of ["llama", "qwen2", "gpt_neox"]) {
    const started = performance.now();
    await assertRefused(
      { model_type, num_hidden_layers: 2 ** 40 },
      `num_hidden_layers: is ${2 ** 40}`,
      "1024",
    );
    assert(performance.now() - started < 1000, "it took its time");
  }
});

Deno.test("dtype counts before torch_dtype, and one that is not known is noted", () => {
  const of = (changes: Raw) => torchDtypeOf(parse(changes));
  assertEquals(of({}), "BF16");
  assertEquals(of({ torch_dtype: "float16" }), "F16");
  assertEquals(of({ dtype: "float32" }), "F32");
  assertEquals(of({ dtype: "float32", torch_dtype: "float16" }), "F32");
  assertEquals(of({ dtype: null, torch_dtype: "torch.float16" }), "F16");
  assertEquals([of({ dtype: "half" }), of({ dtype: "float" })], ["F16", "F32"]);
  for (const dtype of ["float8_e4m3fn", "auto", 16]) {
    const config = parse({ dtype });
    assertEquals(torchDtypeOf(config), "BF16");
    assertIncludes(config.notes.join(), `dtype ${JSON.stringify(dtype)} is not known`);
  }
  // Older versions of transformers read torch_dtype alone, newer ones dtype first.
  assertEquals(torchDtype({ dtype: "bfloat16" }, ["F32"]), { torch_dtype: "float32", dtype: "float32" });
  assertEquals(torchDtype({ torch_dtype: "bfloat16" }, ["F32"]), { torch_dtype: "float32" });
  assertEquals(torchDtype({ dtype: "bfloat16" }, ["F32", "BF16"]), {});
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
  // pretraining_tp above 1 splits the products of the original without changing them.
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
    qk_norm: "none",
    layers: new Array(32).fill({ sliding_window: null, rope: "model" }),
    rope_scaling: { type, ...scaling },
  };
  for (const [key, value] of Object.entries({ ...config, notes: undefined })) {
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

Deno.test("rope_theta, original_max_position_embeddings and rope_parameters in two places", async () => {
  const linear = { rope_type: "linear", factor: 4 };
  const inside = parse({ rope_scaling: { ...linear, rope_theta: 7000 } });
  assertEquals([inside.rope_theta, inside.rope_scaling, inside.notes], [
    7000,
    { type: "linear", factor: 4 },
    [],
  ]);
  const both = parse({ rope_theta: 10000, rope_scaling: { ...linear, rope_theta: 7000 } });
  assertEquals(both.rope_theta, 7000);
  assertIncludes(both.notes.join(), "rope_theta is 10000 in config.json and 7000 within");
  const same = parse({
    rope_theta: 7000,
    rope_scaling: linear,
    rope_parameters: { ...linear, rope_theta: 7000 },
  });
  assertEquals([same.rope_theta, same.notes], [7000, []]);
  const plain = { rope_type: "default", rope_theta: 7000 };
  await assertRefused(
    { rope_scaling: linear, rope_parameters: plain },
    "rope_scaling and its rope_parameters",
  );
  const yarn = { rope_type: "yarn", factor: 4 };
  const beside = parse({
    rope_scaling: yarn,
    original_max_position_embeddings: 1024,
    max_position_embeddings: 4096,
  });
  assertEquals([beside.rope_scaling, beside.notes], [
    parse({ rope_scaling: { ...yarn, original_max_position_embeddings: 1024 } }).rope_scaling,
    [],
  ]);
  await assertRefused(
    { rope_parameters: { full_attention: plain, sliding_attention: { rope_type: "default" } } },
    "for each kind of layer (full_attention, sliding_attention)",
  );
});

Deno.test("Keys of rope_scaling that its type does not have are noted, and factors that do not fit the lengths", async () => {
  const notesOf = (rope_scaling: Raw, changes: Raw = {}) => parse({ rope_scaling, ...changes }).notes.join();
  assertEquals(
    notesOf({ type: "linear", factor: 2, beta_fast: 32, original_max_position_embeddings: 2048 }),
    'rope_scaling of type "linear": beta_fast, original_max_position_embeddings have no effect there',
  );
  assertIncludes(notesOf({ rope_type: "default", factor: 4 }), "factor has no effect");
  assertIncludes(notesOf({ rope_type: "default", type: "linear", factor: 4 }), 'type "linear" beside');
  assertEquals(notesOf({ rope_type: "default", type: "mrope", mrope_section: [16, 24, 24] }), "");
  assertEquals(notesOf({ type: "linear", factor: 2, beta_fast: null, rope_theta: 5 }), "");
  await assertRefused({ rope_scaling: { type: "mrope", mrope_section: [16, 24, 24] } }, '"mrope"', "images");
  const yarn = { type: "yarn", factor: 4, original_max_position_embeddings: 32768 };
  for (const max_position_embeddings of [32768, 131072]) {
    const config = parse({ rope_scaling: yarn, max_position_embeddings });
    assertEquals([contextLength(config), config.notes], [131072, []]);
  }
  assertIncludes(
    notesOf(yarn, { max_position_embeddings: 40960 }),
    "factor 4 times original_max_position_embeddings 32768 is 131072 tokens, but max_position_embeddings is 40960",
  );
  assertIncludes(
    notesOf({ ...yarn, mscale: 1 }, { max_position_embeddings: 32768 }),
    "mscale has no effect without",
  );
  assertIncludes(
    notesOf({ ...yarn, mscale: 1, mscale_all_dim: 1, attention_factor: 1 }, {
      max_position_embeddings: 32768,
    }),
    "beside attention_factor",
  );
  await assertRefused(
    { rope_scaling: { ...yarn, beta_fast: 1, beta_slow: 2 } },
    "beta_fast 1 is below beta_slow 2",
  );
  await assertRefused({ rope_scaling: { ...yarn, truncate: "no" } }, "truncate");
  await assertRefused(
    { rope_scaling: { ...LLAMA3, high_freq_factor: 1 } },
    "high_freq_factor 1 must be above",
  );
  const short = { rope_type: "longrope", short_factor: [1, 1], long_factor: new Array(64).fill(4) };
  await assertRefused({ rope_scaling: short }, "short_factor has 2 numbers", "64 pairs");
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
  const model = { max_position_embeddings: 4096, rotary_dim: 128 };
  assertEquals(parseRopeScaling({ type: "yarn", factor: 16 }, model, "here").rope_scaling, {
    type: "yarn",
    factor: 16,
    original_max_position_embeddings: 4096,
    beta_fast: 32,
    beta_slow: 1,
    attention_factor: 0.1 * Math.log(16) + 1,
  });
  const given = { original_max_position_embeddings: 8192, beta_fast: 16, beta_slow: 2, attention_factor: 1 };
  assertEquals(parseRopeScaling({ type: "yarn", factor: 16, ...given }, model, "here").rope_scaling, {
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
  await assertRefused({ rope_scaling: { type: "ntk", factor: 4 } }, '"ntk" is not known', "yarn");
  await assertRefused({ rope_scaling: { type: "longrope", factor: 4 } }, '"longrope"', "short_factor");
  await assertRefused({ rope_scaling: { factor: 4 } }, "rope_scaling", "type");
  await assertRefused({ rope_parameters: { factor: 4, rope_theta: 10000 } }, "rope_scaling", "type");
});

Deno.test("Weights packed by anything but bitsandbytes in 4 bits are refused by name", async () => {
  for (const quant_method of ["gptq", "awq", "fp8"]) {
    const quantization_config = { quant_method, bits: 4 };
    await assertRefused({ quantization_config }, `quantised by "${quant_method}"`, "load_in_4bit");
  }
  await assertRefused({ quantization: { group_size: 64, bits: 4 } }, "quantised by MLX");
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

Deno.test("A model that is scaled already gets the factor of the whole extension", () => {
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
  assertEquals(extendContext(yarn, 8192), yarn);
  await assertThrows(() => extendContext(yarn, 8193), '"yarn"', "the model has 8192");
  await assertThrows(() => extendContext(yarn, 8193, "Do that"), "extend. Do that");
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
  const yarn = configForPositions(base, {
    model_max_length: 16384,
    rope_scaling: { type: "yarn", factor: 4 },
  });
  assertEquals([contextLength(yarn), yarn.max_position_embeddings, yarn.notes], [16384, 16384, []]);
  // A model's own scaling knows the length it was trained on.
  const again = configForPositions(yarn, {
    model_max_length: 32768,
    rope_scaling: { type: "yarn", factor: 8 },
  });
  assertEquals(
    (again.rope_scaling as { original_max_position_embeddings: number }).original_max_position_embeddings,
    4096,
  );
  const short = configForPositions(base, {
    model_max_length: 16384,
    rope_scaling: { type: "yarn", factor: 2, x: 1 },
  });
  assertEquals(short.notes, [
    'rope_scaling of type "yarn": x has no effect there',
    "rope_scaling yarn by 2 is for 8192 tokens, fewer than the 16384 wanted",
  ]);
  const inside = configForPositions(base, {
    model_max_length: 16384,
    rope_scaling: { rope_type: "default", rope_theta: 5e5 },
  });
  assertEquals([inside.rope_theta, inside.rope_scaling], [5e5, null]);
  await assertThrows(
    () => configForPositions(base, { model_max_length: 8192, rope_scaling: { type: "ntk", factor: 2 } }),
    '"ntk"',
  );
});

Deno.test("Positions are written as every version of transformers reads them, and read again as they were", () => {
  const factors = Array.from({ length: 64 }, (_, i) => 1 + i / 8);
  const scalings: Raw[] = [
    { rope_type: "linear", factor: 4 },
    LLAMA3,
    { rope_type: "yarn", factor: 4, mscale: 1, mscale_all_dim: 0.5, truncate: false, beta_fast: 16 },
    { rope_type: "longrope", short_factor: factors, long_factor: factors.map((each) => 2 * each), factor: 4 },
  ];
  for (const rope_scaling of scalings) {
    for (
      const base of [
        parse({ max_position_embeddings: 4096, rope_theta: 10000, original_max_position_embeddings: 77 }),
        parse({
          max_position_embeddings: 4096,
          rope_parameters: { rope_type: "default", rope_theta: 10000 },
        }),
      ]
    ) {
      const config = configForPositions(base, { model_max_length: 16384, rope_scaling, rope_theta: 5e5 });
      const written = JSON.parse(JSON.stringify(configJson(config)));
      const wanted = [config.rope_theta, config.rope_scaling, contextLength(config), []];
      const readAs = (raw: Raw) => {
        const { rope_theta, rope_scaling, notes } = parseConfig(raw, "config.json");
        return [rope_theta, rope_scaling, contextLength(parseConfig(raw, "config.json")), notes];
      };
      assertEquals(readAs(written), wanted);
      const { rope_parameters, ...older } = written;
      assertEquals(readAs(older), wanted, "to transformers 4");
      if (!rope_parameters) continue;
      const { rope_scaling: _, rope_theta: __, ...newer } = written;
      assertEquals(readAs(newer), wanted, "to transformers 5");
    }
  }
});
