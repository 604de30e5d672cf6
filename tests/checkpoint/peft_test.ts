import { join } from "../../checkpoint/deps.ts";
import {
  type Adapter,
  adapterConfig,
  isTarget,
  loraRank,
  loraScaling,
  readAdapter,
  writeAdapter,
} from "../../checkpoint/peft.ts";
import { encodeAdapterConfig } from "../../checkpoint/peft_config.ts";
import { writeSafetensors } from "../../checkpoint/safetensors.ts";
import { fromF32, toF32 } from "../../checkpoint/dtype.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { normal } from "../support/random.ts";
import { stateDict, tensor, torchFile } from "./torch_file.ts";

const Q = "model.layers.0.self_attn.q_proj";
const BASE = "base_model.model.";

const CONFIG = { peft_type: "LORA", r: 2, lora_alpha: 4, target_modules: ["q_proj"], bias: "none" };

/** Tensors of a small adapter by the key they are stored under. */
function tensors(): Record<string, [number[], Float32Array]> {
  return {
    [`${BASE}${Q}.lora_A.weight`]: [[2, 6], normal(1, 12)],
    [`${BASE}${Q}.lora_B.weight`]: [[4, 2], normal(2, 8)],
  };
}

async function writeFolder(
  folder: string,
  stored: Record<string, [number[], Float32Array]> = tensors(),
  config: object = {},
  file = "adapter_model.safetensors",
): Promise<void> {
  Deno.writeTextFileSync(join(folder, "adapter_config.json"), JSON.stringify({ ...CONFIG, ...config }));
  await writeSafetensors(
    join(folder, file),
    Object.entries(stored).map(([name, [shape, data]]) => ({
      name,
      dtype: "F32",
      shape,
      read: () => Promise.resolve(fromF32(data, "F32")),
    })),
  );
}

function assertSame(actual: Adapter, expected: Adapter): void {
  assertEquals([...actual.lora.keys()].sort(), [...expected.lora.keys()].sort(), "modules");
  for (const [module, { A, B }] of expected.lora) {
    const pair = actual.lora.get(module)!;
    assertEquals([pair.A.shape, [...pair.A.data]], [A.shape, [...A.data]], `${module} A`);
    assertEquals([pair.B.shape, [...pair.B.data]], [B.shape, [...B.data]], `${module} B`);
  }
  assertEquals([...actual.extra.keys()].sort(), [...expected.extra.keys()].sort(), "extra");
  for (const [name, { shape, data }] of expected.extra) {
    assertEquals(
      [actual.extra.get(name)!.shape, [...actual.extra.get(name)!.data]],
      [shape, [...data]],
      name,
    );
  }
}

Deno.test("readAdapter() reads the golden adapters, pickled and not", async () => {
  const adapter = await readAdapter(join(GOLDEN, "adapter"));
  assertEquals([adapter.lora.size, adapter.extra.size], [14, 0]);
  assertEquals(adapter.lora.get("model.layers.1.mlp.down_proj")!.A.shape, [8, 176]);
  assertEquals(adapter.lora.get("model.layers.1.mlp.down_proj")!.B.shape, [64, 8]);
  assertEquals([adapter.config.r, adapter.config.lora_alpha], [8, 16]);
  const pickled = await readAdapter(join(GOLDEN, "adapter-bin"));
  assertEquals(pickled.lora.size, 14);
  assertEquals(pickled.extra.size, 6);
  assertEquals(pickled.extra.get("model.embed_tokens.weight")!.shape, [260, 64]);
  assertEquals(pickled.extra.get("model.norm.weight")!.shape, [64]);
  // The same factors, saved in two formats.
  assertSame({ ...pickled, extra: new Map() }, adapter);
});

Deno.test("writeAdapter() writes what readAdapter() reads, with PEFT's keys", async () => {
  const adapter = await readAdapter(join(GOLDEN, "adapter-bin"));
  await withFolder(async (folder) => {
    await writeAdapter(folder, adapter);
    assertSame(await readAdapter(folder), adapter);

    // Read by hand: keys as PEFT's own loader expects them.
    const bytes = Deno.readFileSync(join(folder, "adapter_model.safetensors"));
    const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
    assertEquals(Object.keys(header).length, 1 + 28 + 6);
    assertEquals(header.__metadata__, { format: "pt" });
    const { dtype, shape, data_offsets: [begin, end] } = header[`${BASE}${Q}.lora_A.weight`];
    assertEquals([dtype, shape], ["F32", [8, 64]]);
    const data = new Float32Array(bytes.slice(8 + length + begin, 8 + length + end).buffer);
    assertEquals([...data], [...adapter.lora.get(Q)!.A.data]);
    assertEquals(header[`${BASE}model.layers.1.input_layernorm.weight`].shape, [64]);

    const config = JSON.parse(Deno.readTextFileSync(join(folder, "adapter_config.json")));
    assertEquals(config.modules_to_save, [
      "embed_tokens",
      "input_layernorm",
      "model.norm",
      "post_attention_layernorm",
    ]);
    assertEquals([config.peft_type, config.r, config.lora_alpha, config.bias], ["LORA", 8, 16, "none"]);
    assertEquals(Object.keys(config), Object.keys(config).sort(), "order of keys");
  });
});

Deno.test("writeAdapter() lists the modules where the config names none", async () => {
  const adapter = await readAdapter(join(GOLDEN, "adapter"));
  await withFolder(async (folder) => {
    await writeAdapter(folder, { ...adapter, config: { ...adapter.config, target_modules: null } });
    const { config, lora } = await readAdapter(folder);
    // Whole names: whether the model has more layers is not known here.
    assertEquals(config.target_modules, [...adapter.lora.keys()].sort());
    assertEquals(lora.size, 14);
  });
});

Deno.test("writeAdapter() rounds to the type asked for", async () => {
  const adapter = await readAdapter(join(GOLDEN, "adapter"));
  for (const dtype of ["BF16", "F16"] as const) {
    await withFolder(async (folder) => {
      await writeAdapter(folder, adapter, { dtype });
      const back = await readAdapter(folder);
      const rounded = toF32(fromF32(adapter.lora.get(Q)!.B.data, dtype), dtype);
      assertEquals([...back.lora.get(Q)!.B.data], [...rounded]);
    });
  }
});

Deno.test("readAdapter() understands every way that keys are written", async () => {
  const [a, b] = [normal(1, 12), normal(2, 8)];
  const rows = (seed: number): [number[], Float32Array] => [[3, 2], normal(seed, 6)];
  const forms: Record<string, [number[], Float32Array]>[] = [
    {
      [`${BASE}${Q}.lora_A.default.weight`]: [[2, 6], a],
      [`${BASE}${Q}.lora_B.default.weight`]: [[4, 2], b],
    },
    { [`${Q}.lora_A.weight`]: [[2, 6], a], [`${Q}.lora_B.weight`]: [[4, 2], b] },
  ];
  for (const form of forms) {
    await withFolder(async (folder) => {
      await writeFolder(folder, {
        ...form,
        [`${BASE}model.embed_tokens.modules_to_save.default.weight`]: rows(5),
        [`${BASE}model.embed_tokens.original_module.weight`]: rows(6),
        [`${BASE}lm_head.0.weight`]: rows(7),
        [`${BASE}model.norm.weight`]: [[2], normal(8, 2)],
      });
      const { lora, extra } = await readAdapter(folder);
      assertEquals([[...lora.get(Q)!.A.data], [...lora.get(Q)!.B.data]], [[...a], [...b]]);
      assertEquals([...extra.keys()].sort(), [
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.norm.weight",
      ]);
      assertEquals([...extra.get("model.embed_tokens.weight")!.data], [...normal(5, 6)]);
      assertEquals([...extra.get("lm_head.weight")!.data], [...normal(7, 6)]);
    });
  }
});

Deno.test("readAdapter() refuses an adapter whose modules_to_save are not there", async () => {
  const factors: Record<string, [number[], Float32Array]> = {
    [`${Q}.lora_A.weight`]: [[2, 6], normal(1, 12)],
    [`${Q}.lora_B.weight`]: [[4, 2], normal(2, 8)],
  };
  const embedding = { "model.embed_tokens.weight": [[3, 2], normal(3, 6)] as [number[], Float32Array] };
  const norm = { "model.layers.0.input_layernorm.weight": [[2], normal(4, 2)] as [number[], Float32Array] };
  const read = (tensors: Record<string, [number[], Float32Array]>, modules_to_save: string[]) =>
    withFolder(async (folder) => {
      await writeFolder(folder, { ...factors, ...tensors }, { modules_to_save });
      return [...(await readAdapter(folder)).extra.keys()].sort();
    });
  assertEquals(await read({ ...embedding, ...norm }, ["embed_tokens", "lm_head", "input_layernorm"]), [
    "model.embed_tokens.weight",
    "model.layers.0.input_layernorm.weight",
  ], "what is there");
  await assertThrows(() => read({}, ["embed_tokens"]), '"embed_tokens" in modules_to_save', "missing");
  await assertThrows(() => read(norm, ["norm", "input_layernorm"]), '"norm" in modules_to_save');
  await assertThrows(() => read(norm, ["lm_head"]), '"lm_head"', "trainable_params.bin");
});

Deno.test("readAdapter() reads trainable_params of either format and refuses contradictions", async () => {
  await withFolder(async (folder) => {
    await writeFolder(folder);
    await writeFolder(
      folder,
      { "model.norm.weight": [[2], normal(3, 2)] },
      {},
      "trainable_params.safetensors",
    );
    assertEquals([...(await readAdapter(folder)).extra.get("model.norm.weight")!.data], [...normal(3, 2)]);
    await writeFolder(folder, { ...tensors(), [`${BASE}model.norm.weight`]: [[2], normal(4, 2)] });
    await assertThrows(() => readAdapter(folder), "trainable_params", '"model.norm.weight"', "than before");
  });
  await withFolder(async (folder) => {
    await writeFolder(folder);
    const norm = tensor({ key: "0", length: 2, shape: [2], strides: [1] });
    const bytes = torchFile(stateDict({ "lm_head.0.weight": norm }), {
      0: Uint8Array.of(0, 0, 128, 63, 0, 0, 0, 192),
    });
    Deno.writeFileSync(join(folder, "trainable_params.bin"), bytes);
    assertEquals([...(await readAdapter(folder)).extra.get("lm_head.weight")!.data], [1, -2]);
    const integers = tensor({ storage: "LongStorage", key: "0", length: 1, shape: [1], strides: [1] });
    Deno.writeFileSync(
      join(folder, "trainable_params.bin"),
      torchFile(stateDict({ "lm_head.0.weight": integers }), { 0: new Uint8Array(8) }),
    );
    await assertThrows(() => readAdapter(folder), "trainable_params.bin", "I64, not floating point");
  });
});

Deno.test("readAdapter() refuses unsupported features by name", async () => {
  const refused: [object, string][] = [
    [{ peft_type: "IA3" }, '"IA3"'],
    [{ peft_type: undefined }, "peft_type"],
    [{ use_dora: true }, "DoRA"],
    [{ bias: "all" }, "biases"],
    [{ bias: "lora_only" }, "biases"],
    [{ lora_bias: true }, "lora_bias"],
    [{ layer_replication: [[0, 2]] }, "layer_replication"],
    [{ trainable_token_indices: [1] }, "trainable_token_indices"],
    [{ target_parameters: ["w"] }, "target_parameters"],
    [{ kasa_config: { rank: 1 } }, "KaSA"],
    [{ init_lora_weights: "pissa_niter_4" }, "pissa_niter_4"],
    [{ init_lora_weights: "loftq" }, "loftq"],
    [{ r: 0 }, "r must be"],
    [{ r: "2" }, "r must be"],
    [{ r: 2.5 }, "r must be"],
    [{ lora_alpha: -1 }, "lora_alpha"],
    [{ lora_dropout: 1 }, "lora_dropout"],
    [{ target_modules: [1] }, "target_modules"],
    [{ use_rslora: "yes" }, "use_rslora"],
    [
      { rank_pattern: { "(a": 4 } },
      'rank_pattern "(a" cannot be used as a Python regular expression: it lacks a )',
    ],
    [{ rank_pattern: { q_proj: "4" } }, "rank_pattern"],
    [{ rank_pattern: { q_proj: 2.5 } }, "whole number"],
    [{ alpha_pattern: { "(?>q)_proj": 4 } }, "atomic group"],
    [{ alpha_pattern: { q_proj: 0 } }, "above 0"],
    [{ target_modules: ".*(q_proj" }, "target_modules"],
    [{ target_modules: String.raw`(q)_\1` }, "backreference"],
    [{ exclude_modules: "[q" }, "exclude_modules"],
    [{ target_modules: ".*q_proj", layers_to_transform: [0] }, "layers_to_transform"],
    [{ layers_to_transform: [0], layers_pattern: ["(h"] }, "layers_pattern"],
    [{ init_lora_weights: "PiSSA" }, "PiSSA"],
    [{ init_lora_weights: "of_tomorrow" }, "of_tomorrow"],
    [{ alora_invocation_tokens: [1, 2] }, "alora_invocation_tokens"],
    [{ use_bdlora: { target_modules_bd_a: ["q_proj"] } }, "block-diagonal"],
    [{ megatron_config: { hidden_size: 4 } }, "Megatron"],
    [{ enable_lora: [true, false] }, "enable_lora"],
    [{ use_of_tomorrow: true }, "use_of_tomorrow"],
    [{ tomorrow_config: { rank: 4 } }, "tomorrow_config"],
    [{ modules_to_save: "embed" }, "modules_to_save"],
  ];
  await withFolder(async (folder) => {
    for (const [config, says] of refused) {
      await writeFolder(folder, tensors(), config);
      await assertThrows(() => readAdapter(folder), "adapter_config.json", says);
    }
    // Keys that newer versions of PEFT write, at rest.
    await writeFolder(folder, tensors(), {
      eva_config: null,
      corda_config: null,
      use_qalora: false,
      loftq_config: {},
      trainable_token_indices: null,
      init_lora_weights: "gaussian",
      velora_config: { rank: 1 },
      ensure_weight_tying: false,
      fan_in_fan_out: true,
      auto_mapping: { base_model_class: "LlamaForCausalLM" },
      peft_version: "0.20.0",
      use_of_tomorrow: false,
      tomorrow_config: {},
      some_future_key: 5,
    });
    assertEquals((await readAdapter(folder)).config.unknown, ["some_future_key"]);
  });
});

Deno.test("readAdapter() refuses tensors that do not belong together", async () => {
  const [keyA, keyB] = Object.keys(tensors()) as [string, string];
  const cases: [Record<string, [number[], Float32Array] | undefined>, string, string][] = [
    [{ [keyB]: undefined }, Q, "no lora_B"],
    [{ [keyA]: undefined }, Q, "no lora_A"],
    [{ [keyA]: undefined, [keyB]: undefined }, "no LoRA tensors", ""],
    [{ [keyA]: [[3, 4], normal(1, 12)] }, "[3,4]", "r = 2"],
    [{ [keyB]: [[2, 4], normal(1, 8)] }, "[2,4]", "r = 2"],
    [{ [keyB]: [[8], normal(1, 8)] }, "[8]", "r = 2"],
    [{ [keyB]: [[0], normal(1, 0)] }, "empty", "ZeRO-3"],
    [{ [keyB]: [[4, 2], Float32Array.of(1, 2, NaN, 4, 5, 6, 7, 8)] }, "element 2", "NaN"],
    [{ [`${BASE}${Q}.lora_A.other.weight`]: [[2, 6], normal(4, 12)] }, "two lora_A", Q],
    [{ [`${BASE}${Q}.lora_magnitude_vector`]: [[4], normal(4, 4)] }, "DoRA", ""],
    [{ [`${BASE}model.embed_tokens.lora_embedding_A`]: [[2, 3], normal(4, 6)] }, "LoRA on an embedding", ""],
    [{ [`${BASE}${Q}.lora_B.bias`]: [[4], normal(4, 4)] }, "no tensor of plain LoRA", ""],
    [{ "prompt_embeddings": [[4], normal(4, 4)] }, "prompt_embeddings", "no weight"],
  ];
  await withFolder(async (folder) => {
    for (const [change, ...says] of cases) {
      const all = Object.entries({ ...tensors(), ...change }).filter(([, value]) => value !== undefined);
      await writeFolder(folder, Object.fromEntries(all) as Record<string, [number[], Float32Array]>);
      await assertThrows(() => readAdapter(folder), "adapter_model.safetensors", ...says.filter(Boolean));
    }
  });
});

Deno.test("readAdapter() says which file is missing", async () => {
  await assertThrows(() => readAdapter(join(GOLDEN, "nothing")), "nothing", "no such folder");
  await assertThrows(
    () => readAdapter(join(GOLDEN, "mha")),
    "mha",
    "adapter_model.safetensors nor adapter_model.bin",
  );
  await withFolder(async (folder) => {
    await writeFolder(folder);
    Deno.removeSync(join(folder, "adapter_config.json"));
    await assertThrows(() => readAdapter(folder), "adapter_config.json", "no such file");
  });
});

Deno.test("loraScaling() is alpha / r, or alpha / sqrt(r) with rslora, with patterns by the end of the name", () => {
  const config = adapterConfig({
    r: 16,
    lora_alpha: 32,
    target_modules: ["q_proj", "k_proj"],
    rank_pattern: { "layers.1.self_attn.q_proj": 4 },
    alpha_pattern: { k_proj: 8 },
  });
  assertEquals(loraScaling(config, Q), 2);
  assertEquals(loraRank(config, "model.layers.1.self_attn.q_proj"), 4);
  assertEquals(loraScaling(config, "model.layers.1.self_attn.q_proj"), 8);
  assertEquals(loraRank(config, "model.layers.11.self_attn.q_proj"), 16);
  assertEquals(loraScaling(config, "model.layers.0.self_attn.k_proj"), 0.5);
  assertEquals(loraScaling(config, "model.layers.0.self_attn.xk_proj"), 2, "only whole parts of a name fit");
  assertEquals(loraScaling({ ...config, use_rslora: true }, Q), 8);
});

Deno.test("What decides about targets is read, and written again as PEFT reads it", async () => {
  await withFolder(async (folder) => {
    const given = {
      layers_to_transform: 0,
      layers_pattern: "layers",
      exclude_modules: ["v_proj"],
      target_modules: ["q_proj", "v_proj"],
      rank_pattern: { "^model.*q_proj": 2 },
      ensure_weight_tying: true,
    };
    await writeFolder(folder, tensors(), given);
    const { config } = await readAdapter(folder);
    const written = JSON.parse(encodeAdapterConfig(config));
    for (
      const [key, value] of Object.entries({ ...given, layers_to_transform: [0], layers_pattern: ["layers"] })
    ) {
      assertEquals(written[key], value, key);
    }
    const older = JSON.parse(
      encodeAdapterConfig({ ...config, exclude_modules: null, ensure_weight_tying: false }),
    );
    assert(!("exclude_modules" in older) && !("ensure_weight_tying" in older), "an older PEFT refuses them");
    assert(!("unknown" in written), "unknown is no key of PEFT");
    for (const layers_to_transform of ["1", [1.5], {}]) {
      await writeFolder(folder, tensors(), { layers_to_transform });
      await assertThrows(() => readAdapter(folder), "layers_to_transform");
    }
  });
});

Deno.test("An adapter with LoRA where its config has none is refused: PEFT would leave that out", async () => {
  await withFolder(async (folder) => {
    for (
      const config of [
        { target_modules: ["v_proj"] },
        { target_modules: "model.layers.1.*" },
        { layers_to_transform: [1] },
        { exclude_modules: ".*q_proj" },
        { modules_to_save: ["self_attn"] },
      ]
    ) {
      const norm = {
        [`${BASE}model.layers.0.self_attn.norm.weight`]: [[2], normal(3, 2)] as [number[], Float32Array],
      };
      await writeFolder(folder, { ...tensors(), ...norm }, config);
      await assertThrows(() => readAdapter(folder), `LoRA on "${Q}"`, "leaves out");
    }
    await writeFolder(folder, tensors(), { target_modules: "all-linear" });
    assertEquals((await readAdapter(folder)).lora.size, 1);
  });
});

Deno.test("readAdapter() reads the names that wrappers and savers leave", async () => {
  const [a, b] = [normal(1, 12), normal(2, 8)];
  const head: [number[], Float32Array] = [[3, 2], normal(3, 6)];
  // The names of A, of B, and of the head.
  const rename = (change: (key: string) => string) =>
    [`${BASE}${Q}.lora_A.weight`, `${BASE}${Q}.lora_B.weight`, `${BASE}lm_head.weight`].map(change);
  const forms = [
    rename((key) => `_orig_mod.${key}`),
    rename((key) => key.replace("layers.0.", "layers.0._checkpoint_wrapped_module.")),
    rename((key) =>
      `_fsdp_wrapped_module.${
        key.replace("layers.0.", "layers.0._fsdp_wrapped_module._checkpoint_wrapped_module.")
      }`
    ),
    rename((key) => `module.${key}`),
    rename((key) => `module._orig_mod.${key}`),
    rename((key) => key.replace("base_model.model.", "base_model.model._orig_mod.")),
    rename((key) => `model.${key}`),
    rename((key) => `${BASE}${key}`),
    rename((key) => key.replace(BASE, "")),
    rename((key) => key.replace(/(lora_[AB])/, "$1.default")),
    rename((key) => key.replace(/(lora_[AB])/, "$1.my-adapter")),
    rename((key) => key.replace("lm_head", "lm_head.modules_to_save")),
    rename((key) => key.replace("lm_head", "lm_head.modules_to_save.default")),
    rename((key) => `_orig_mod.${key.replace("lm_head", "lm_head.modules_to_save.other")}`),
  ];
  for (const [keyA, keyB, keyHead] of forms as [string, string, string][]) {
    await withFolder(async (folder) => {
      const copy = keyHead.replace(/lm_head.*/, "lm_head.original_module.weight");
      await writeFolder(
        folder,
        { [keyA]: [[2, 6], a], [keyB]: [[4, 2], b], [keyHead]: head, [copy]: [[3, 2], normal(9, 6)] },
        { modules_to_save: ["lm_head"] },
      );
      const { lora, extra } = await readAdapter(folder);
      assertEquals([[...lora.keys()], [...extra.keys()]], [[Q], ["lm_head.weight"]], keyA);
      assertEquals([[...lora.get(Q)!.A.data], [...lora.get(Q)!.B.data]], [[...a], [...b]], keyA);
      assertEquals([...extra.get("lm_head.weight")!.data], [...head[1]], keyHead);
    });
  }
});

Deno.test("Two tensors of one name are refused with both keys, unless they are the same", async () => {
  const head: [number[], Float32Array] = [[3, 2], normal(3, 6)];
  const other: [number[], Float32Array] = [[3, 2], normal(4, 6)];
  const [whole, saved] = [`${BASE}lm_head.weight`, `${BASE}lm_head.modules_to_save.weight`];
  await withFolder(async (folder) => {
    await writeFolder(folder, { ...tensors(), [whole]: head, [saved]: other });
    await assertThrows(() => readAdapter(folder), `"${whole}"`, `"${saved}"`, "another");
    // PEFT saves a resized head under both names.
    await writeFolder(folder, { ...tensors(), [whole]: head, [saved]: head });
    assertEquals([...(await readAdapter(folder)).extra.keys()], ["lm_head.weight"]);
    const [keyA] = Object.keys(tensors()) as [string];
    const twice: [number[], Float32Array] = [[2, 6], normal(1, 12)];
    await writeFolder(folder, { ...tensors(), [`_orig_mod.${keyA}`]: twice });
    await assertThrows(() => readAdapter(folder), `"${keyA}" and "_orig_mod.${keyA}"`, "wrappers");
    const second = keyA.replace("lora_A", "lora_A.second");
    await writeFolder(folder, { ...tensors(), [second]: twice });
    await assertThrows(() => readAdapter(folder), `"${keyA}" and "${second}"`);
  });
});

Deno.test("writeAdapter() names what was trained whole so that PEFT still finds the LoRA on the others", async () => {
  await withFolder(async (folder) => {
    const { lora, config } = await readAdapter(join(GOLDEN, "adapter"));
    const without = new Map([...lora].filter(([module]) => module !== Q));
    const whole = { shape: [64, 64], data: normal(5, 64 * 64), dtype: "F32" as const };
    const names = [...without.keys()];
    await writeAdapter(folder, {
      config: { ...config, target_modules: names },
      lora: without,
      extra: new Map([[`${Q}.weight`, whole], ["lm_head.weight", whole]]),
    });
    const back = await readAdapter(folder);
    assertEquals(back.config.modules_to_save, ["lm_head", Q]);
    assertEquals(names.map((name) => isTarget(back.config, name)), names.map(() => true));
  });
});
