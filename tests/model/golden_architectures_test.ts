/** Every family of tests/golden that has these figures, through every command. */
import { gguf } from "@huggingface/gguf";
import { toF32 } from "../../checkpoint/dtype.ts";
import { adapterConfig } from "../../checkpoint/peft.ts";
import { openWeights } from "../../checkpoint/weights.ts";
import { readTokenBin } from "../../data/bin.ts";
import { evaluatePerplexity } from "../../eval/perplexity.ts";
import { convertToBnb4 } from "../../export/bnb4.ts";
import { convertToGguf } from "../../export/gguf.ts";
import { mergeAdapter } from "../../export/merge.ts";
import { embed } from "../../kernels/embedding/embedding.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { makeBatch } from "../../model/batch.ts";
import { parseConfig, readConfig } from "../../model/config.ts";
import { Decoder } from "../../model/decoder.ts";
import { embeddingFactor } from "../../model/language_model.ts";
import { LayerRopes } from "../../model/layer_ropes.ts";
import { openModel } from "../../model/load/open.ts";
import { addLora } from "../../model/lora.ts";
import { checkpointTensors } from "../../model/tensors.ts";
import { assert, assertClose, assertEquals } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { ALL_SHARINGS, sharingTest } from "../support/sharing.ts";

const V = 320;

/** What sets a family's files apart. */
interface Family {
  /** A norm and a linear within a layer, as the checkpoint has them. */
  readonly norm: string;
  /** Its linears, the one with the queries first; one for each of LLaMA's unless given. */
  readonly linears?: readonly string[];
  /** Name of the routers in a layer, where there are experts: then there is no figure in NF4. */
  readonly routers?: string;
  /** Undefined where llama.cpp computes otherwise than this model: gemma_test.ts has ones that it can. */
  readonly gguf?: {
    readonly architecture: string;
    /** Metadata after the architecture's name. */
    readonly numbers: Readonly<Record<string, number>>;
    /** llama.cpp's modules of a layer. */
    readonly modules: readonly string[];
    /** Row of a query's head that llama.cpp has as the second: 1, or D / 2 where it rotates neighbours. */
    readonly secondRow: number;
    /** llama.cpp's names of some tensors that are stored as they are. */
    readonly same: Readonly<Record<string, string>>;
    /** llama.cpp's names of tensors of all experts, by ours with * for the expert. */
    readonly experts?: Readonly<Record<string, string>>;
    /** Tensors outside the layers. */
    readonly others: readonly string[];
  };
}

const LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
const ATTENTION = ["attn_k", "attn_output", "attn_q", "attn_v"];
const BLOCKS = [...ATTENTION, "ffn_down", "ffn_gate", "ffn_up"];
const EXPERTS = ["ffn_down_exps", "ffn_gate_exps", "ffn_gate_inp", "ffn_up_exps"];
const TIED = ["output_norm.weight", "token_embd.weight"];

const FAMILIES: Readonly<Record<string, Family>> = {
  qwen3: {
    norm: "self_attn.q_norm",
    gguf: {
      architecture: "qwen3",
      numbers: {
        "block_count": 3,
        "embedding_length": 64,
        "feed_forward_length": 96,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 32,
        "attention.value_length": 32,
        "rope.freq_base": 1000000,
        "context_length": 40960,
      },
      modules: [...BLOCKS, "attn_norm", "attn_k_norm", "attn_q_norm", "ffn_norm"],
      secondRow: 1,
      same: { "self_attn.q_proj": "attn_q", "self_attn.k_norm": "attn_k_norm" },
      others: TIED,
    },
  },
  mistral: {
    norm: "post_attention_layernorm",
    gguf: {
      architecture: "llama",
      numbers: {
        "block_count": 2,
        "embedding_length": 64,
        "attention.key_length": 24,
        "attention.value_length": 24,
        "rope.dimension_count": 24,
        "rope.freq_base": 1000000,
        "context_length": 32768,
      },
      modules: [...BLOCKS, "attn_norm", "ffn_norm"],
      secondRow: 12,
      same: { "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output" },
      others: [...TIED, "output.weight"],
    },
  },
  phi3: {
    norm: "post_attention_layernorm",
    linears: ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
    gguf: {
      architecture: "phi3",
      numbers: {
        "block_count": 2,
        "embedding_length": 64,
        "feed_forward_length": 96,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.sliding_window": 262144,
        "rope.dimension_count": 12,
        "rope.freq_base": 10000,
        "rope.scaling.original_context_length": 64,
        "rope.scaling.attn_factor": Math.fround(Math.sqrt(1.5)),
        "context_length": 512,
      },
      modules: ["attn_norm", "attn_output", "attn_qkv", "ffn_down", "ffn_norm", "ffn_up"],
      secondRow: 1,
      same: { "self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up" },
      others: [...TIED, "rope_factors_long.weight", "rope_factors_short.weight"],
    },
  },
  granite: {
    norm: "post_attention_layernorm",
    gguf: {
      architecture: "granite",
      numbers: {
        "block_count": 2,
        "attention.scale": 0.0625,
        "embedding_scale": 12,
        "residual_scale": Math.fround(0.22),
        "logit_scale": 8,
        "rope.freq_base": 5000000,
      },
      modules: [...BLOCKS, "attn_norm", "ffn_norm"],
      secondRow: 8,
      same: { "self_attn.v_proj": "attn_v", "post_attention_layernorm": "ffn_norm" },
      others: TIED,
    },
  },
  olmo2: {
    norm: "self_attn.k_norm",
    gguf: {
      architecture: "olmo2",
      numbers: { "block_count": 2, "rope.freq_base": 500000, "context_length": 4096 },
      modules: [...BLOCKS, "attn_k_norm", "attn_q_norm", "post_attention_norm", "post_ffw_norm"],
      secondRow: 1,
      same: {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_norm": "attn_k_norm",
        "post_attention_layernorm": "post_attention_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
      },
      others: [...TIED, "output.weight"],
    },
  },
  mixtral: {
    norm: "post_attention_layernorm",
    linears: ["q_proj", "k_proj", "v_proj", "o_proj", "w1", "w2", "w3"],
    routers: "block_sparse_moe.gate",
    gguf: {
      architecture: "llama",
      numbers: {
        "block_count": 2,
        "feed_forward_length": 64,
        "expert_count": 4,
        "expert_used_count": 2,
        "rope.freq_base": 1000000,
      },
      modules: [...ATTENTION, ...EXPERTS, "attn_norm", "ffn_norm"],
      secondRow: 8,
      same: { "self_attn.v_proj": "attn_v", "block_sparse_moe.gate": "ffn_gate_inp" },
      experts: {
        "block_sparse_moe.experts.*.w1": "ffn_gate_exps",
        "block_sparse_moe.experts.*.w3": "ffn_up_exps",
        "block_sparse_moe.experts.*.w2": "ffn_down_exps",
      },
      others: [...TIED, "output.weight"],
    },
  },
  qwen3_moe: {
    norm: "self_attn.q_norm",
    routers: "mlp.gate",
    gguf: {
      architecture: "qwen3moe",
      numbers: {
        "block_count": 2,
        "feed_forward_length": 96,
        "expert_feed_forward_length": 32,
        "expert_count": 8,
        "expert_used_count": 3,
        "attention.key_length": 32,
      },
      modules: [...ATTENTION, ...EXPERTS, "attn_norm", "attn_k_norm", "attn_q_norm", "ffn_norm"],
      secondRow: 1,
      same: { "self_attn.k_norm": "attn_k_norm", "mlp.gate": "ffn_gate_inp" },
      experts: {
        "mlp.experts.*.gate_proj": "ffn_gate_exps",
        "mlp.experts.*.up_proj": "ffn_up_exps",
        "mlp.experts.*.down_proj": "ffn_down_exps",
      },
      others: [...TIED, "output.weight"],
    },
  },
  gemma2: { norm: "pre_feedforward_layernorm" },
  gemma3: { norm: "post_feedforward_layernorm" },
  smollm3: {
    norm: "input_layernorm",
    gguf: {
      architecture: "smollm3",
      numbers: { "block_count": 4, "rope.freq_base": 5000000, "context_length": 65536 },
      modules: [...BLOCKS, "attn_norm", "ffn_norm"],
      secondRow: 8,
      same: { "self_attn.v_proj": "attn_v", "input_layernorm": "attn_norm" },
      others: TIED,
    },
  },
};

async function evaluate(
  baseModel: string,
  options: Pick<Parameters<typeof evaluatePerplexity>[0], "peftModel" | "quantisation"> = {},
) {
  return await evaluatePerplexity({
    ...options,
    baseModel,
    dataPath: `${GOLDEN}/mistral/data.bin`,
    seqLen: 128,
    contextSize: 128,
    slidingWindow: 64,
    batchSize: 1,
    dropLastWindow: true,
    dtype: "fp32",
  });
}

for (const [name, family] of Object.entries(FAMILIES)) {
  const folder = `${GOLDEN}/${name}`;
  const read = (file: string) => JSON.parse(Deno.readTextFileSync(`${folder}/${file}`));
  const expected = read("expected.json");
  const { linears = LINEARS } = family;
  const assertRelative = (actual: number, wanted: number, tolerance: number) =>
    assert(Math.abs(actual / wanted - 1) < tolerance, `${actual} for ${wanted}`);
  const assertLoss = (figure: string, actual: number) => {
    const wanted = expected[figure].val_loss;
    assert(Math.abs(actual / wanted - 1) < 1e-6, `${figure}: ${actual} for ${wanted}`);
  };

  Deno.test(`Both forms of config.json say the same, ${name}`, () => {
    const { raw: _, ...older } = parseConfig(read("config.json"), "config.json");
    const { raw: __, ...newer } = parseConfig(read("config-v5.json"), "config.json");
    assertEquals(newer, older);
    assertEquals(older.notes, []);
  });

  Deno.test(`Checkpoints have the tensors that their config names; LoRA goes on the linears alone, ${name}`, async () => {
    const config = await readConfig(folder);
    const weights = await openWeights(folder);
    assertEquals([...checkpointTensors(config).keys()].sort(), [...weights.names()].sort());
    weights.close();
    using gpu = await Gpu.open();
    const { model } = await openModel(gpu, { baseModel: folder });
    const { target_modules } = addLora(
      model,
      adapterConfig({ r: 4, lora_alpha: 4, target_modules: null }),
      1,
    );
    assertEquals([target_modules].flat().sort(), linears.toSorted());
  });

  Deno.test(`The first window gives PyTorch's residual stream and logits, ${name}`, async () => {
    using gpu = await Gpu.open({ poison: true });
    const { model } = await openModel(gpu, { baseModel: folder });
    const { config, parts } = model;
    const tokens = await readTokenBin(`${GOLDEN}/mistral/data.bin`);
    const device = model.upload(makeBatch([{ inputIds: tokens.slice(0, 128) }]));
    const logits = await model.logits(device);
    const rows = Object.entries(expected.first_window.logits as Record<string, number[]>);
    for (const [position, values] of rows) {
      const row = logits.subarray(V * Number(position), V * (Number(position) + 1));
      const atol = 1e-5 * Math.max(...values.map(Math.abs));
      assertClose(`position ${position}`, row.subarray(0, values.length), values, { rtol: 0, atol });
    }
    const ropes = new LayerRopes(gpu, config).forLength(128);
    const { positions, maps } = device;
    let x = embed(gpu, device.tokens, parts.embeddings.weight, "f32", embeddingFactor(parts));
    for (const [i, layer] of parts.layers.entries()) {
      x = await layer.forward(gpu, x, {
        map: maps.get(config.layers[i]!.sliding_window)!,
        positions,
        rope: ropes[i]!,
        dropout: undefined,
        chunkRows: Infinity,
        decodesLayers: false,
      });
      const values: number[] = expected.first_window.layers[i];
      const { hidden_size } = config;
      const row = (await gpu.read(x)).subarray(hidden_size * 127, hidden_size * 128);
      const atol = 1e-5 * Math.max(...row.map(Math.abs));
      assertClose(`layer ${i}`, row.subarray(0, values.length), values, { rtol: 0, atol });
    }
  });

  for (const sharing of ALL_SHARINGS) {
    sharingTest(
      sharing,
      `A model writes token by token what it reads at once, ${name}, ${sharing}`,
      async () => {
        using gpu = await Gpu.open({ poison: true, sharing });
        const { model } = await openModel(gpu, { baseModel: folder });
        const ids = [...(await readTokenBin(`${GOLDEN}/mistral/data.bin`)).slice(0, 40)];
        const decoder = new Decoder(model, { capacity: 64 });
        const likeliest = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };
        const drawn = gpu.empty([8], "u32");
        decoder.prefill(0, ids);
        for (let step = 0; step < 8; step++) {
          if (step > 0) decoder.advance();
          const logits = decoder.logits();
          const written = (await gpu.read(logits)).slice(0, V);
          const read = await model.logits(model.upload(makeBatch([{ inputIds: Uint32Array.from(ids) }])));
          const atol = 1e-5 * Math.max(...read.slice(-V).map(Math.abs));
          assertClose(`step ${step}`, written, read.slice(-V), { rtol: 0, atol });
          logits.free();
          decoder.sample(likeliest, drawn, step);
          ids.push(written.indexOf(Math.max(...written)));
        }
        const [bytes] = await gpu.readBytes([drawn]);
        assertEquals([...new Uint32Array(bytes!.buffer)], ids.slice(40), "drawn tokens");
        decoder.free();
      },
    );
  }

  Deno.test(`A model merged with its adapter is PyTorch's, and evaluates to its figure, ${name}`, async () => {
    await withFolder(async (root) => {
      const savePath = `${root}/merged`;
      await mergeAdapter({
        baseModel: folder,
        peftModel: `${folder}/adapter`,
        contextSize: 128,
        savePath,
        dtype: "keep",
      }, {});
      const weights = await openWeights(savePath);
      for (const [tensor, values] of Object.entries(expected.merged_probe as Record<string, number[]>)) {
        const merged = toF32(await weights.read(tensor), weights.info(tensor).dtype);
        assertClose(tensor, merged.subarray(0, values.length), values, { rtol: 1e-6, atol: 1e-8 });
      }
      weights.close();
      assertLoss("eval_adapter_128", (await evaluate(savePath)).tokenLoss);
    });
  });

  Deno.test(`A model converted to bnb-4bit evaluates to its figure in NF4, ${name}`, async () => {
    await withFolder(async (root) => {
      const packed = `${root}/packed`;
      await convertToBnb4(folder, packed, { quantisation: "nf4-double", dtype: "keep" });
      const { tokenLoss } = await evaluate(packed);
      if (family.routers === undefined) assertLoss("eval_128_nf4", tokenLoss);
      else {
        // Experts are quantised each for itself, routers are not, whoever does it.
        assertEquals(tokenLoss, (await evaluate(folder, { quantisation: "nf4-double" })).tokenLoss);
        assertRelative(tokenLoss, expected.eval_128.val_loss, 0.02);
      }
      const weights = await openWeights(packed);
      assertEquals(weights.info(`model.layers.0.self_attn.${linears[0]}.weight`).dtype, "U8");
      assertEquals(weights.info(`model.layers.0.${family.norm}.weight`).dtype, "F32");
      const router = `model.layers.0.${family.routers}`;
      if (family.routers) {
        assertEquals(weights.info(`${router}.weight`).dtype, "F32");
        const { quantization_config: form } = JSON.parse(await Deno.readTextFile(`${packed}/config.json`));
        assert(form.llm_int8_skip_modules.includes(router), "bitsandbytes is told to leave routers");
      }
      weights.close();
    });
  });

  const form = family.gguf;
  if (!form) continue;

  Deno.test(`GGUF has llama.cpp's names and numbers, ${name}`, async () => {
    await withFolder(async (root) => {
      const path = `${root}/model.gguf`;
      await convertToGguf(folder, path, { outtype: "f32" });
      const { metadata, tensorInfos, tensorDataOffset } = await gguf(path, { allowLocalFile: true });
      const keys = metadata as unknown as Readonly<Record<string, unknown>>;
      const { architecture, numbers, modules, secondRow, same, others } = form;
      assertEquals(keys["general.architecture"], architecture);
      for (const [key, value] of Object.entries(numbers)) {
        assertEquals(keys[`${architecture}.${key}`], value, key);
      }
      const names = tensorInfos.map((each) => each.name);
      const layer = names.filter((each) => each.startsWith("blk.1.")).sort();
      assertEquals(layer, modules.map((module) => `blk.1.${module}.weight`).sort());
      assertEquals(names.filter((each) => !each.startsWith("blk.")).sort(), others.toSorted());
      const bytes = await Deno.readFile(path);
      const weights = await openWeights(folder);
      const stored = async (
        module: string,
      ) => [...toF32(await weights.read(`model.layers.1.${module}.weight`), "F32")];
      const written = (module: string) => {
        const { offset, shape } = tensorInfos.find((each) => each.name === `blk.1.${module}.weight`)!;
        const at = Number(tensorDataOffset) + Number(offset);
        const size = shape.reduce((product, length) => product * Number(length), 1);
        return [...new Float32Array(bytes.slice(at, at + 4 * size).buffer)];
      };
      for (const [ours, theirs] of Object.entries(form.experts ?? {})) {
        const all: number[] = [];
        for (let expert = 0; expert < Number(numbers.expert_count); expert++) {
          all.push(...await stored(ours.replace("*", String(expert))));
        }
        assertEquals(written(theirs), all, theirs);
        const { shape } = tensorInfos.find((each) => each.name === `blk.1.${theirs}.weight`)!;
        assertEquals(Number(shape.at(-1)), Number(numbers.expert_count), "axes");
      }
      for (const [ours, theirs] of Object.entries(same)) {
        assertEquals(written(theirs), await stored(ours), theirs);
      }
      const row = (values: number[], number: number) => values.slice(64 * number, 64 * (number + 1));
      assertEquals(
        row(written(`attn_${linears[0]!.replace("_proj", "")}`), 1),
        row(await stored(`self_attn.${linears[0]}`), secondRow),
        "a head's rows",
      );
      weights.close();
    });
  });
}
