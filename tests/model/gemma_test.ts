/** What only Gemma has; its figures are among those of golden_architectures_test.ts. */
import { gguf } from "@huggingface/gguf";
import { type Dtype, fromF32, toF32 } from "../../checkpoint/dtype.ts";
import { tensorByteLength, type TensorSource, writeSafetensors } from "../../checkpoint/safetensors.ts";
import { convertToSafetensors } from "../../checkpoint/to_safetensors.ts";
import { writeModel } from "../../checkpoint/save_model.ts";
import { openWeights, openWeightsFile } from "../../checkpoint/weights.ts";
import { evaluatePerplexity } from "../../eval/perplexity.ts";
import { convertToBnb4 } from "../../export/bnb4.ts";
import { convertToGguf } from "../../export/gguf.ts";
import { mergeAdapter, type MergeOptions } from "../../export/merge.ts";
import { parseConfig, readConfig } from "../../model/config.ts";
import { configJson } from "../../model/config_json.ts";
import { embeddingFactor } from "../../model/language_model.ts";
import { contextLength, extendContext } from "../../model/positions.ts";
import { shapeConfig } from "../../model/shapes.ts";
import { countParameters, normWeights } from "../../model/tensors.ts";
import { wrapperJson } from "../../model/wrapper.ts";
import { runTraining } from "../../train/run.ts";
import { loadTrainArgs } from "../../train_args/load.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";

const read = (file: string) => JSON.parse(Deno.readTextFileSync(`${GOLDEN}/${file}`));
const gemma3 = (changes: Record<string, unknown> = {}) =>
  parseConfig({ ...read("gemma3/config.json"), ...changes }, "config.json");

async function assertEvaluates(baseModel: string, figure: string, family: string, peftModel?: string) {
  const { tokenLoss } = await evaluatePerplexity({
    baseModel,
    ...(peftModel && { peftModel }),
    dataPath: `${GOLDEN}/mistral/data.bin`,
    seqLen: 128,
    contextSize: 128,
    slidingWindow: 64,
    batchSize: 1,
    dropLastWindow: true,
    dtype: "fp32",
  });
  const wanted = read(`${family}/expected.json`)[figure].val_loss;
  assert(Math.abs(tokenLoss / wanted - 1) < 1e-6, `${figure}: ${tokenLoss} for ${wanted}`);
}

Deno.test("Both forms of Gemma 3's config.json say the same, also without layer_types", () => {
  const { raw: _, ...older } = gemma3();
  const { raw: __, ...newer } = parseConfig(read("gemma3/config-v5.json"), "config.json");
  const { raw: ___, ...hub } = gemma3({ layer_types: null, _sliding_window_pattern: null });
  assertEquals(newer, older);
  assertEquals(hub, older);
  const local = { rope_theta: 10000, rotary_dim: 24, rope_scaling: null };
  const slides = { sliding_window: 32, rope: local };
  assertEquals(older.layers, [slides, slides, { sliding_window: null, rope: "model" }, slides]);
  assertEquals([older.tie_word_embeddings, older.rope_theta, older.notes], [true, 1000000, []]);
});

Deno.test("What a key of Gemma 3 means that is not there, and which values are refused by name", async () => {
  const large = {
    model_type: "gemma3_text",
    num_hidden_layers: 34,
    rope_scaling: { rope_type: "linear", factor: 8 },
  };
  const config = parseConfig(large, "config.json");
  assertEquals([config.vocab_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim], [
    262208,
    8,
    4,
    256,
  ]);
  assertEquals([config.rope_theta, config.attention_multiplier, config.layers[5]!.sliding_window], [
    1000000,
    1 / 16,
    null,
  ]);
  await assertThrows(
    () => gemma3({ hidden_activation: "silu" }),
    'hidden_activation is "silu"',
    "gemma3_text",
  );
  await assertThrows(() => gemma3({ final_logit_softcapping: 30 }), "its final_logit_softcapping is 30");
  await assertThrows(
    () => gemma3({ use_bidirectional_attention: true }),
    "its use_bidirectional_attention is true",
  );
  await assertThrows(() => gemma3({ layer_types: ["full_attention"] }), "layer_types are of 1 layers");
});

Deno.test("All forms of Gemma 2's config.json say the same, and it is refused what it does not compute", async () => {
  const [older, newer, hub] = ["config.json", "config-v5.json", "config-hub.json"].map((file) => {
    const { raw: _, ...config } = parseConfig(read(`gemma2/${file}`), file);
    return config;
  });
  assertEquals(newer, older);
  assertEquals(hub, older);
  assertEquals(older!.layers, [{ sliding_window: 32, rope: "model" }, {
    sliding_window: null,
    rope: "model",
  }]);
  assertEquals([older!.attn_logit_softcapping, older!.final_logit_softcapping, older!.tie_word_embeddings], [
    50,
    30,
    true,
  ]);
  const uncapped = parseConfig(
    { ...read("gemma2/config.json"), attn_logit_softcapping: null, final_logit_softcapping: null },
    "config.json",
  );
  assertEquals([uncapped.attn_logit_softcapping, uncapped.final_logit_softcapping], [undefined, undefined]);
  const wrong = { ...read("gemma2/config.json"), sliding_window_pattern: 6 };
  await assertThrows(() => parseConfig(wrong, "config.json"), "its sliding_window_pattern is 6");
});

Deno.test("Gemma 3's length in config.json is that after its scaling, and is extended from the one before", () => {
  const config = gemma3();
  assertEquals([contextLength(config), config.max_position_embeddings], [131072, 16384]);
  for (const file of ["config.json", "config-v5.json"]) {
    const own = parseConfig(read(`gemma3/${file}`), file);
    assertEquals(configJson(own), own.raw);
    const written = configJson(extendContext(own, 250_000));
    assertEquals(written.max_position_embeddings, 262144);
    const again = parseConfig(written, file);
    assertEquals([contextLength(again), again.rope_scaling], [262144, { type: "linear", factor: 16 }]);
    assertEquals(again.layers, own.layers);
  }
  const maps = configJson(extendContext(parseConfig(read("gemma3/config-v5.json"), "v5"), 250_000));
  assertEquals(maps.rope_parameters, {
    full_attention: { rope_type: "linear", factor: 16, rope_theta: 1000000 },
    sliding_attention: { rope_theta: 10000, rope_type: "default" },
  });
});

Deno.test("Gemma 3's published models have as many parameters as their checkpoints", () => {
  assertEquals(countParameters(shapeConfig("gemma2-2b")), 2_614_341_888);
  assertEquals(countParameters(shapeConfig("gemma3-1b")), 999_885_952);
  assertEquals(countParameters(shapeConfig("gemma3-4b")), 3_880_263_168);
});

Deno.test("Gemma's fresh norms are 0, and its factor of the embeddings is rounded as they are", () => {
  assertEquals([...new Set(normWeights(gemma3()).values())], [0]);
  const config = shapeConfig("gemma3-1b");
  assertEquals(embeddingFactor({ config, format: "f32" }), Math.sqrt(1152));
  assertEquals(embeddingFactor({ config, format: "bf16" }), 34);
  assertEquals(embeddingFactor({ config, format: "f16" }), 33.9375);
});

/** All tensors of a file, as F32 under other names. */
async function renamedTensors(from: string, rename: (name: string) => string): Promise<TensorSource[]> {
  const weights = await openWeightsFile(from);
  const tensors = await Promise.all(
    [...weights.names()].map(async (name) => {
      const bytes = await weights.read(name);
      const { shape } = weights.info(name);
      return { name: rename(name), dtype: "F32" as const, shape, read: () => Promise.resolve(bytes) };
    }),
  );
  weights.close();
  return tensors;
}

/** A tensor of bytes that are other ones in each piece that is copied at once. */
function anyTensor(name: string, dtype: Dtype, shape: readonly number[]): TensorSource {
  const bytes = new Uint8Array(tensorByteLength(dtype, shape));
  for (let i = 0; i < bytes.length; i++) bytes[i] = i % 251;
  return { name, dtype, shape, read: () => Promise.resolve(bytes) };
}

/** Parts around the text model, as transformers names them before 4.52; one is longer than a piece that is copied at once. */
const PICTURES = [
  anyTensor("vision_tower.vision_model.embeddings.patch_embedding.weight", "BF16", [3, 2, 2, 2]),
  anyTensor("vision_tower.vision_model.post_layernorm.bias", "F32", [7]),
  anyTensor("vision_tower.vision_model.embeddings.position_ids", "I64", [1, 5]),
  anyTensor("multi_modal_projector.mm_input_projection_weight", "F16", [2 ** 23 + 3]),
];

const FORMS = {
  "before 4.52": { file: "config.json", prefix: "language_model.model.", around: "", maxShardBytes: 5e9 },
  "since 5": {
    file: "config-v5.json",
    prefix: "model.language_model.",
    around: "model.",
    maxShardBytes: 300_000,
  },
};
type Form = (typeof FORMS)[keyof typeof FORMS];

/** Writes the golden Gemma 3 and its adapter as parts of a model that reads pictures. @returns its config.json */
async function writeWrapped(
  root: string,
  { file, prefix, around, maxShardBytes }: Form,
  pictures: readonly TensorSource[] = PICTURES,
): Promise<Record<string, unknown>> {
  const { architectures: _, eos_token_id: __, torch_dtype, dtype, ...text_config } = read(`gemma3/${file}`);
  const config = {
    architectures: ["Gemma3ForConditionalGeneration"],
    model_type: "gemma3",
    eos_token_id: [258, 257],
    mm_tokens_per_image: 256,
    text_config,
    ...(dtype ? { dtype } : { torch_dtype }),
    vision_config: { model_type: "siglip_vision_model" },
  };
  const [base, adapter] = [`${root}/base`, `${root}/adapter`];
  await Deno.mkdir(base);
  await Deno.mkdir(adapter);
  await writeModel(base, {
    config,
    tensors: [
      ...await renamedTensors(
        `${GOLDEN}/gemma3/model.safetensors`,
        (name) => name.replace(/^model\./, prefix),
      ),
      ...pictures.map((tensor) => ({ ...tensor, name: around + tensor.name })),
    ],
    filesFrom: `${GOLDEN}/gemma3`,
    maxShardBytes,
  });
  for (const name of ["preprocessor_config.json", "processor_config.json", "chat_template.json"]) {
    await Deno.writeTextFile(`${base}/${name}`, `{ "name":"${name}" }`);
  }
  await Deno.copyFile(`${GOLDEN}/gemma3/adapter/adapter_config.json`, `${adapter}/adapter_config.json`);
  await writeSafetensors(
    `${adapter}/adapter_model.safetensors`,
    await renamedTensors(
      `${GOLDEN}/gemma3/adapter/adapter_model.safetensors`,
      (name) => name.replace("base_model.model.model.", `base_model.model.${prefix}`),
    ),
  );
  return config;
}

async function mergeWrapped(root: string, options: Partial<MergeOptions> = {}) {
  const notes: string[] = [];
  const savePath = `${root}/merged`;
  const result = await mergeAdapter(
    { baseModel: `${root}/base`, peftModel: `${root}/adapter`, contextSize: 128, savePath, ...options },
    { note: (line) => notes.push(line) },
  );
  const config = JSON.parse(await Deno.readTextFile(`${savePath}/config.json`));
  return { result, notes: notes.join("\n"), config, savePath };
}

for (const [form, names] of Object.entries(FORMS)) {
  Deno.test(`A Gemma 3 that reads pictures is merged with what it reads them by, transformers ${form}`, async () => {
    await withFolder(async (root) => {
      const whole = await writeWrapped(root, names);
      const [base, adapter] = [`${root}/base`, `${root}/adapter`];
      const { notes: ofConfig } = await readConfig(base);
      assertEquals(ofConfig.map((note) => note.slice(0, 28)), ["The model reads pictures too"]);
      await assertEvaluates(base, "eval_128", "gemma3");
      await assertEvaluates(base, "eval_adapter_128", "gemma3", adapter);

      const { result, notes, config: { longreach: _, ...config }, savePath } = await mergeWrapped(root, {
        maxShardSize: names.maxShardBytes,
      });
      assertEquals(config, whole);
      assertIncludes(notes, "4 tensors around the text model are copied as they are");
      assertEquals([result.copiedTensors, result.shards.length > 1], [4, names.maxShardBytes < 1e9]);
      const [from, to] = [await openWeights(base), await openWeights(savePath)];
      assertEquals([...to.names()].sort(), [...from.names()].sort());
      assertEquals(
        result.totalBytes,
        [...from.names()].reduce((sum, name) => sum + from.info(name).byteLength, 0),
      );
      for (const { name, dtype, shape, read } of PICTURES) {
        const copied = to.info(names.around + name);
        assertEquals([copied.dtype, copied.shape], [dtype, shape]);
        const [wanted, bytes] = [await read() as Uint8Array, await to.read(names.around + name)];
        assert(bytes.length === wanted.length && bytes.every((byte, i) => byte === wanted[i]), name);
      }
      [from, to].forEach((weights) => weights.close());
      for (const name of ["preprocessor_config.json", "processor_config.json", "chat_template.json"]) {
        assertEquals(await Deno.readTextFile(`${savePath}/${name}`), `{ "name":"${name}" }`);
      }
      await assertEvaluates(savePath, "eval_adapter_128", "gemma3");
    });
  });

  Deno.test(`The text model of a Gemma 3 that reads pictures is merged alone where asked, transformers ${form}`, async () => {
    await withFolder(async (root) => {
      await writeWrapped(root, names);
      const { notes, config, savePath } = await mergeWrapped(root, { textOnly: true });
      assertIncludes(notes, "the text model alone is written, as Gemma3ForCausalLM");
      assertEquals([config.model_type, config.architectures, config.vision_config, config.eos_token_id], [
        "gemma3_text",
        ["Gemma3ForCausalLM"],
        undefined,
        [258, 257],
      ]);
      const weights = await openWeights(savePath);
      assertEquals(
        [...weights.names()].filter((name) => !/^model\.(layers|norm|embed_tokens)\./.test(name)),
        [],
      );
      weights.close();
      assertEquals(namesIn(savePath).filter((name) => name.includes("processor")), []);
      await assertEvaluates(savePath, "eval_adapter_128", "gemma3");
    });
  });

  Deno.test(`A longer context changes the text_config alone, and reads back, transformers ${form}`, () => {
    const text_config = read(`gemma3/${names.file}`);
    const whole = { model_type: "gemma3", text_config, mm_tokens_per_image: 256, vision_config: {} };
    const own = parseConfig(whole, "config.json");
    assertEquals(wrapperJson(whole, configJson(own)), whole);
    const packed = { ...whole, quantization_config: { quant_method: "bitsandbytes", load_in_4bit: true } };
    assertEquals(wrapperJson(packed, configJson(own)), whole);
    const longer = extendContext(own, 250_000);
    const written = wrapperJson(whole, configJson(longer));
    assertEquals({ ...written, text_config }, whole);
    const changed = Object.entries(written.text_config as Record<string, unknown>)
      .filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(text_config[key]))
      .map(([key]) => key);
    const places = names.file === "config.json"
      ? ["rope_scaling"]
      : ["rope_parameters", "rope_scaling", "rope_theta"];
    assertEquals(changed.sort(), ["max_position_embeddings", ...places]);
    const again = parseConfig(written, "config.json");
    assertEquals([contextLength(again), again.rope_scaling], [262144, { type: "linear", factor: 16 }]);
  });
}

Deno.test("A head that an adapter parts from the embeddings has the name of its kind among pictures' tensors", async () => {
  await withFolder(async (root) => {
    await writeWrapped(root, FORMS["before 4.52"], PICTURES.slice(0, 1));
    const file = `${root}/adapter/adapter_config.json`;
    const settings = JSON.parse(await Deno.readTextFile(file));
    await Deno.writeTextFile(file, JSON.stringify({ ...settings, modules_to_save: ["lm_head"] }));
    const key = "base_model.model.language_model.lm_head.weight";
    const adapter = `${root}/adapter/adapter_model.safetensors`;
    const factors = await renamedTensors(adapter, (name) => name);
    const head = new Float32Array(320 * 64).map((_, i) => Math.sin(i) / 8);
    const values = () => Promise.resolve(fromF32(head, "F32"));
    await writeSafetensors(adapter, [...factors, {
      name: key,
      dtype: "F32",
      shape: [320, 64],
      read: values,
    }]);
    const { result, config, savePath } = await mergeWrapped(root, { dtype: "fp16" });
    const weights = await openWeights(savePath);
    assertEquals(weights.info("language_model.lm_head.weight").dtype, "F16");
    assertEquals(weights.info(PICTURES[0]!.name).dtype, "BF16");
    weights.close();
    const said = [config.tie_word_embeddings, config.text_config.tie_word_embeddings, config.torch_dtype];
    assertEquals(said, [false, false, "float16"]);
    assert(result.verification!.maxRelativeDifference < 2e-2, "the merged model has the adapter's head");
  });
});

Deno.test("A text model in 4 bits is merged as floats, and what reads pictures is copied", async () => {
  await withFolder(async (root) => {
    const { file, prefix } = FORMS["before 4.52"];
    await writeWrapped(root, FORMS["before 4.52"], []);
    const packed = `${root}/packed`;
    await convertToBnb4(`${GOLDEN}/gemma3`, packed);
    const weights = await openWeights(packed);
    const tensors = [...weights.names()].map((name) => {
      const { dtype, shape } = weights.info(name);
      return { name: name.replace(/^model\./, prefix), dtype, shape, read: () => weights.read(name) };
    });
    const { quantization_config } = JSON.parse(await Deno.readTextFile(`${packed}/config.json`));
    const whole = {
      model_type: "gemma3",
      text_config: read(`gemma3/${file}`),
      torch_dtype: "float32",
      vision_config: {},
    };
    const [picture] = PICTURES;
    await Deno.remove(`${root}/base/model.safetensors`);
    await writeModel(`${root}/base`, {
      config: { ...whole, quantization_config },
      tensors: [...tensors, picture!],
    });
    weights.close();
    const { result, config: { longreach: _, ...config }, savePath } = await mergeWrapped(root);
    assertEquals(config, whole);
    assertEquals([result.copiedTensors, result.dtypes], [1, ["F32"]]);
    assert(result.verification!.maxRelativeDifference < 1e-4, "logits agree");
    const merged = await openWeights(savePath);
    assertEquals(await merged.read(picture!.name), await picture!.read());
    assertEquals([...merged.names()].filter((name) => /absmax|quant/.test(name)), []);
    merged.close();
  });
});

Deno.test("Pictures' tensors in 4 bits are refused by name, and where there are none the text model is written", async () => {
  await withFolder(async (root) => {
    const packed = PICTURES[0]!.name;
    const state = anyTensor(`${packed}.quant_state.bitsandbytes__nf4`, "U8", [4]);
    await writeWrapped(root, FORMS["before 4.52"], [PICTURES[0]!, state]);
    await assertThrows(
      () => mergeWrapped(root),
      `"${packed}", of the part that reads pictures`,
      "--text_only",
    );
  });
  await withFolder(async (root) => {
    await writeWrapped(root, FORMS["since 5"], []);
    const { notes, config, savePath } = await mergeWrapped(root);
    assertIncludes(notes, "files hold nothing of the part that reads pictures");
    assertEquals(config.architectures, ["Gemma3ForCausalLM"]);
    const weights = await openWeights(savePath);
    assert(weights.has("model.norm.weight"), "names of the text model alone");
    weights.close();
  });
});

Deno.test("As safetensors a Gemma 3 that reads pictures is written with all that it has", async () => {
  await withFolder(async (root) => {
    await writeWrapped(root, FORMS["since 5"], PICTURES.slice(0, 1));
    await convertToSafetensors(`${root}/base`, `${root}/copy`);
    const names = namesIn(`${root}/base`).filter((name) => !name.startsWith("model"));
    assertEquals(namesIn(`${root}/copy`), [...names, "model.safetensors"].sort());
  });
});

Deno.test("GGUF, 4 bits and training of all weights write the text model alone, and say so", async () => {
  await withFolder(async (root) => {
    const whole = await writeWrapped(root, FORMS["before 4.52"], PICTURES.slice(0, 1));
    const base = `${root}/base`;
    const said = "the text model alone is written, as Gemma3ForCausalLM";
    const notes: string[] = [];
    const takeNotes = () => notes.splice(0).join("\n");
    const hooks = { note: (line: string) => void notes.push(line) };
    const architectureOf = (folder: string) =>
      JSON.parse(Deno.readTextFileSync(`${folder}/config.json`)).architectures;

    await convertToBnb4(base, `${root}/bnb4`, {}, hooks);
    assertIncludes(takeNotes(), said);
    assertEquals(architectureOf(`${root}/bnb4`), ["Gemma3ForCausalLM"]);

    const { args } = await loadTrainArgs(null, {
      model_name_or_path: base,
      train_file: `${GOLDEN}/mistral/train.jsonl`,
      dataset_cache_dir: "false",
      model_max_length: "32",
      load_in_4bit: "false",
      low_rank_training: "false",
      max_steps: "1",
      output_dir: `${root}/run`,
    });
    const onEvent = () => {};
    await runTraining(args, {
      onStart: onEvent,
      onStep: onEvent,
      onSave: onEvent,
      shouldStop: () => false,
      ...hooks,
    });
    assertIncludes(takeNotes(), said);
    assertEquals(architectureOf(`${root}/run`), ["Gemma3ForCausalLM"]);

    const full = new Array(4).fill("sliding_attention");
    const text_config = { ...whole.text_config as object, query_pre_attn_scalar: 24, layer_types: full };
    await Deno.writeTextFile(`${base}/config.json`, JSON.stringify({ ...whole, text_config }));
    await convertToGguf(base, `${root}/model.gguf`, { outtype: "f32" }, hooks);
    assertIncludes(takeNotes(), said);
  });
});

Deno.test("A Gemma 3 that reads pictures without settings of its text model is refused", async () => {
  await assertThrows(() => parseConfig({ model_type: "gemma3" }, "config.json"), "it has no text_config");
});

/** Writes a golden model with other keys in its config.json as GGUF. @returns the notes */
async function writeGguf(root: string, family: string, changes: Record<string, unknown>): Promise<string[]> {
  const folder = `${root}/model`;
  await Deno.mkdir(folder, { recursive: true });
  for (const file of ["model.safetensors", "tokenizer.json", "tokenizer_config.json"]) {
    await Deno.copyFile(`${GOLDEN}/${family}/${file}`, `${folder}/${file}`);
  }
  await Deno.writeTextFile(
    `${folder}/config.json`,
    JSON.stringify({ ...read(`${family}/config.json`), ...changes }),
  );
  const notes: string[] = [];
  await convertToGguf(folder, `${root}/model.gguf`, { outtype: "f32" }, { note: (line) => notes.push(line) });
  return notes;
}

Deno.test("GGUF of Gemma 2 has its caps and its window, and is refused where llama.cpp computes otherwise", async () => {
  await withFolder(async (root) => {
    await assertThrows(() => writeGguf(root, "gemma2", {}), "query_pre_attn_scalar is 10, there 24");
    const asThere = { query_pre_attn_scalar: 24 };
    const uncapped = { ...asThere, attn_logit_softcapping: null };
    await assertThrows(() => writeGguf(root, "gemma2", uncapped), "no soft cap on its scores or logits");
    const full = { ...asThere, layer_types: ["full_attention", "full_attention"] };
    await assertThrows(() => writeGguf(root, "gemma2", full), "layer 0 has full attention");
    await writeGguf(root, "gemma2", asThere);
    const { metadata, tensorInfos } = await gguf(`${root}/model.gguf`, { allowLocalFile: true });
    const keys = metadata as unknown as Readonly<Record<string, unknown>>;
    assertEquals(keys["general.architecture"], "gemma2");
    assertEquals(keys["gemma2.attn_logit_softcapping"], 50);
    assertEquals(keys["gemma2.final_logit_softcapping"], 30);
    assertEquals(keys["gemma2.attention.sliding_window"], 32);
    const layer = tensorInfos.map(({ name }) => name).filter((name) => name.startsWith("blk.1.")).sort();
    const modules = ["attn_k", "attn_norm", "attn_output", "attn_q", "attn_v", "ffn_down", "ffn_gate"];
    modules.push("ffn_norm", "ffn_up", "post_attention_norm", "post_ffw_norm");
    assertEquals(layer, modules.map((module) => `blk.1.${module}.weight`));
  });
});

Deno.test("GGUF of Gemma 3 has llama.cpp's names of it, and norms as factors", async () => {
  await withFolder(async (root) => {
    const path = `${root}/model.gguf`;
    const write = (changes: Record<string, unknown>) => writeGguf(root, "gemma3", changes);
    const asThere = { query_pre_attn_scalar: 24, layer_types: new Array(4).fill("sliding_attention") };
    await assertThrows(() => write({}), "query_pre_attn_scalar is 10, there 24");
    await assertThrows(() => write({ query_pre_attn_scalar: 24 }), "layer 2 has full attention");
    await assertThrows(
      () => write({ ...asThere, rope_local_base_freq: 5000 }),
      "rope_theta 5000, there by 10000",
    );
    assertEquals((await write(asThere)).filter((note) => note.includes("window")), []);
    const { metadata, tensorInfos, tensorDataOffset } = await gguf(path, { allowLocalFile: true });
    const keys = metadata as unknown as Readonly<Record<string, unknown>>;
    assertEquals(keys["general.architecture"], "gemma3");
    const numbers = {
      "block_count": 4,
      "context_length": 131072,
      "attention.head_count_kv": 1,
      "attention.key_length": 24,
      "attention.sliding_window": 32,
      "rope.freq_base": 1000000,
      "rope.scaling.factor": 8,
    };
    for (const [key, value] of Object.entries(numbers)) assertEquals(keys[`gemma3.${key}`], value, key);
    const layer = tensorInfos.map(({ name }) => name).filter((name) => name.startsWith("blk.2.")).sort();
    const modules = ["attn_k", "attn_k_norm", "attn_norm", "attn_output", "attn_q", "attn_q_norm", "attn_v"];
    modules.push("ffn_down", "ffn_gate", "ffn_norm", "ffn_up", "post_attention_norm", "post_ffw_norm");
    assertEquals(layer, modules.map((module) => `blk.2.${module}.weight`));
    assertEquals(
      tensorInfos.map(({ name }) => name).filter((name) => !name.startsWith("blk.")).sort(),
      ["output_norm.weight", "token_embd.weight"],
    );
    const bytes = await Deno.readFile(path);
    const weights = await openWeights(`${root}/model`);
    const pairs = [
      ["blk.1.attn_q", "model.layers.1.self_attn.q_proj", 0],
      ["blk.1.attn_k_norm", "model.layers.1.self_attn.k_norm", 1],
      ["blk.1.ffn_gate", "model.layers.1.mlp.gate_proj", 0],
      ["blk.1.ffn_up", "model.layers.1.mlp.up_proj", 0],
      ["blk.1.ffn_norm", "model.layers.1.pre_feedforward_layernorm", 1],
      ["blk.1.post_attention_norm", "model.layers.1.post_attention_layernorm", 1],
      ["output_norm", "model.norm", 1],
    ] as const;
    for (const [theirs, ours, offset] of pairs) {
      const info = tensorInfos.find(({ name }) => name === `${theirs}.weight`)!;
      const stored = toF32(await weights.read(`${ours}.weight`), "F32").map((value) => value + offset);
      const at = Number(tensorDataOffset) + Number(info.offset);
      assertEquals(
        [...new Float32Array(bytes.slice(at, at + 4 * stored.length).buffer)],
        [...stored],
        theirs,
      );
    }
    weights.close();
  });
});
