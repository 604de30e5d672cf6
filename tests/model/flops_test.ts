import { visitedPairs } from "../../kernels/attention/visits.ts";
import { firstKeys } from "../../kernels/attention/map.ts";
import { TYPICAL_LIMITS } from "../../kernels/dry_device.ts";
import { type Dispatch, Gpu } from "../../kernels/gpu.ts";
import { adapterConfig } from "../../checkpoint/peft.ts";
import { addLora } from "../../model/lora.ts";
import { makeBatch } from "../../model/batch.ts";
import { parseConfig } from "../../model/config.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import {
  addFlops,
  type Flops,
  forwardFlops,
  paperPairs,
  totalFlops,
  trainingFlops,
} from "../../model/flops.ts";
import { randomModel } from "../../model/load/random.ts";
import { shapeConfig } from "../../model/shapes.ts";
import { Trainer } from "../../train/trainer.ts";
import { assertEquals } from "../support/assert_close.ts";

/** Teraflops of one forward pass of Llama-2-7B: attention full and S2, projections, FFN, head, totals, shares. */
const PAPERS: readonly (readonly number[])[] = [
  [8192, 35.2, 8.8, 35.2, 70.9, 2.1, 143.4, 117.0, 24.5, 7.5],
  [16384, 140.7, 35.2, 70.4, 141.8, 4.3, 357.2, 251.7, 39.4, 14.0],
  [32768, 562.9, 140.7, 140.7, 283.7, 8.6, 996.0, 573.7, 56.5, 24.5],
  [65536, 2251.8, 562.9, 281.5, 567.3, 17.2, 3117.8, 1429.0, 72.2, 39.4],
];

Deno.test("The forward pass of Llama-2-7B takes what the papers say", () => {
  const config = shapeConfig("llama2-7b");
  for (const row of PAPERS) {
    const tokens = row[0]!;
    const full = forwardFlops(config, { tokens, pairs: paperPairs(tokens) });
    const s2 = forwardFlops(config, { tokens, pairs: paperPairs(tokens, tokens / 4) });
    const tera = (flops: number) => Number((flops / 1e12).toFixed(1));
    const share = (flops: Flops) => Number((100 * flops.attention / totalFlops(flops)).toFixed(1));
    assertEquals(
      [
        tokens,
        tera(full.attention),
        tera(s2.attention),
        tera(full.projections),
        tera(full.ffn),
        tera(full.head),
        tera(totalFlops(full)),
        tera(totalFlops(s2)),
        share(full),
        share(s2),
      ],
      row,
    );
  }
});

Deno.test("S2-Attn computes less than half of the pairs that papers count", () => {
  const [tokens, groupSize] = [4096, 1024];
  const tables = firstKeys({ starts: [0], rows: tokens, groupSize });
  const ratio = visitedPairs({ tables }, { heads: 2 }) / 2 / paperPairs(tokens, groupSize);
  assertEquals(Math.round(100 * ratio), 47);
});

const SHAPE = {
  vocab_size: 72,
  hidden_size: 48,
  intermediate_size: 104,
  num_hidden_layers: 3,
  num_attention_heads: 6,
  max_position_embeddings: 64,
};
const NEOX = { ...SHAPE, model_type: "gpt_neox", num_attention_heads: 3 };

/** Models with two of their linears: in attention, and the last of a layer. */
const MODELS: Readonly<
  Record<string, { readonly config: ModelConfig; readonly targets: readonly string[] }>
> = {
  "LLaMA": {
    config: parseConfig({ ...SHAPE, model_type: "llama", num_key_value_heads: 3 }, "tests"),
    targets: ["q_proj", "down_proj"],
  },
  "heads wider than the hidden size": {
    config: parseConfig({ ...SHAPE, model_type: "mistral", num_key_value_heads: 2, head_dim: 12 }, "tests"),
    targets: ["o_proj", "v_proj"],
  },
  "norms on q and k": {
    config: parseConfig({ ...SHAPE, model_type: "qwen3", num_key_value_heads: 3, head_dim: 12 }, "tests"),
    targets: ["q_proj", "down_proj"],
  },
  "norms behind the blocks": {
    config: parseConfig({ ...SHAPE, model_type: "olmo2", num_key_value_heads: 3 }, "tests"),
    targets: ["o_proj", "down_proj"],
  },
  "fused linears": {
    config: parseConfig({ ...SHAPE, model_type: "phi3", num_key_value_heads: 3 }, "tests"),
    targets: ["qkv_proj", "down_proj"],
  },
  "norms around the blocks": {
    config: parseConfig(
      { ...SHAPE, model_type: "gemma3_text", num_key_value_heads: 3, head_dim: 12 },
      "tests",
    ),
    targets: ["o_proj", "down_proj"],
  },
  "experts in one of three layers": {
    config: parseConfig({
      ...SHAPE,
      model_type: "qwen3_moe",
      num_key_value_heads: 3,
      num_experts: 4,
      num_experts_per_tok: 2,
      moe_intermediate_size: 64,
      decoder_sparse_step: 2,
    }, "tests"),
    targets: ["q_proj", "down_proj"],
  },
  "GPT-NeoX": { config: parseConfig(NEOX, "tests"), targets: ["dense", "dense_4h_to_h"] },
  "GPT-NeoX, MLP after attention": {
    config: parseConfig({ ...NEOX, use_parallel_residual: false }, "tests"),
    targets: ["dense", "dense_4h_to_h"],
  },
};

interface Setup {
  readonly full: boolean;
  readonly checkpointing: boolean;
  readonly nf4: boolean;
}

/** Adds up what the dispatches of a step say they multiply. */
async function countStep({ config, targets }: typeof MODELS[string], setup: Setup): Promise<number> {
  let flops = 0;
  const onDispatch = ({ kernel, uniforms: u, grid }: Dispatch) => {
    if (kernel.startsWith("matmul")) {
      const products = grid[2]! / u.parts!;
      flops += 2 * products * u.rows! * (4 * u.cols!) * (u.depth_rows! + 4 * (u.inner_depth ?? 0));
    }
    if (!kernel.startsWith("grouped_matmul")) return;
    // Behind four sections of the table, of the rows that all experts have together, and the counts of 4 experts.
    const pairs = (u.starts_at! - 4) / 4;
    flops += 2 * pairs * (4 * u.cols!) * (kernel.includes("_tn_") ? u.rows! : 4 * u.depth!);
  };
  const gpu = Gpu.dry({ limits: TYPICAL_LIMITS, onDispatch });
  const isTrained = (name: string) => setup.full || /lm_head|embed_out/.test(name);
  const format = "f32";
  const model = await randomModel(gpu, config, {
    format,
    quantisation: setup.nf4 ? "nf4-double" : "none",
    isTrained,
  });
  if (!setup.full) {
    addLora(model, adapterConfig({ r: 8, lora_alpha: 8, target_modules: targets }), 1);
  }
  const trainer = new Trainer(model, {
    maxGradNorm: 1,
    attention: () => ({ groupSize: 16 }),
    lossScaling: false,
    seed: 5,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weightDecay: 0,
    checkpointing: setup.checkpointing,
  });
  await trainer.step([makeBatch([{ inputIds: new Uint32Array(130) }])], 1e-3);
  return flops;
}

for (const [name, model] of Object.entries(MODELS)) {
  for (
    const setup of [
      { full: false, checkpointing: true, nf4: true },
      { full: false, checkpointing: false, nf4: false },
      { full: true, checkpointing: true, nf4: false },
    ]
  ) {
    Deno.test(`The products of a step of ${name} are those that its kernels are asked for: ${JSON.stringify(setup)}`, async () => {
      const { forward, recompute, backward } = trainingFlops(model.config, {
        tokens: 130,
        pairs: 0,
        rank: (module) =>
          !setup.full && model.targets.some((target) => module.endsWith(`.${target}`)) ? 8 : 0,
        isTrained: (name) => setup.full || /lm_head|embed_out/.test(name),
        checkpointing: setup.checkpointing,
      });
      assertEquals(totalFlops(addFlops(forward, recompute, backward)), await countStep(model, setup));
    });
  }
}

Deno.test("attention takes two products forward and seven back: scores and their gradients twice, dq, dk, dv", () => {
  const { config } = MODELS["LLaMA"]!;
  const product = 2 * 1000 * config.num_attention_heads * config.head_dim * config.num_hidden_layers;
  const work = { tokens: 130, pairs: 1000, isTrained: () => false, checkpointing: true };
  const { forward, recompute, backward } = trainingFlops(config, work);
  assertEquals(
    [forward.attention, recompute.attention, backward.attention],
    [2 * product, 2 * product, 7 * product],
  );
});
