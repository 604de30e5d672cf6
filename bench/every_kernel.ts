import { adapterConfig } from "../checkpoint/peft.ts";
import { cast } from "../kernels/elementwise/elementwise.ts";
import { fillBits } from "../kernels/elementwise/fill_random.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { matmul } from "../kernels/matmul/matmul.ts";
import { matvec } from "../kernels/matvec/matvec.ts";
import { quantiseNf4 } from "../kernels/nf4/nf4.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { Format } from "../kernels/wgsl.ts";
import { makeBatch } from "../model/batch.ts";
import { parseConfig } from "../model/config.ts";
import { Decoder } from "../model/decoder.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { generate } from "../model/generate.ts";
import { freshWeights } from "../model/load/fresh.ts";
import { loadModel } from "../model/load/load.ts";
import { addLora } from "../model/lora.ts";
import { Trainer } from "../train/trainer.ts";

const SHAPE = {
  vocab_size: 68,
  hidden_size: 64,
  intermediate_size: 72,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  attention_bias: true,
};

/** Small models of every kind of layer. */
export const SMALL_LLAMA: ModelConfig = parseConfig({ ...SHAPE, model_type: "llama" }, "small");
export const SMALL_OTHERS: readonly ModelConfig[] = [
  { model_type: "gpt_neox", hidden_act: "gelu" },
  { model_type: "gpt_neox", hidden_act: "gelu_new" },
  { model_type: "gemma3_text", head_dim: 32, num_key_value_heads: 2 },
  { model_type: "phi3", attention_bias: false },
  {
    model_type: "qwen3_moe",
    num_key_value_heads: 2,
    num_experts: 3,
    num_experts_per_tok: 2,
    moe_intermediate_size: 16,
  },
].map((own) => ({ ...parseConfig({ ...SHAPE, ...own }, "small"), final_logit_softcapping: 30 }));

/** Tokens that attention splits, of heads of 4 elements and more. */
const LONG = 4096;

/**
 * Runs one training step and writes tokens of text, after few and after many, with a cache of floats and one of 8 bits.
 * Everything is on: LoRA with dropout, biases, trained norms, embeddings and head, both NF4 forms, states in 8 bits and
 * in 32. Together the models and both sharing modes run every kernel.
 */
export async function runEveryKernel(gpu: Gpu, config: ModelConfig, format: Format): Promise<void> {
  const weights = freshWeights(config, 1);
  const model = await loadModel(gpu, weights, {
    config,
    format,
    quantisation: gpu.sharing === "subgroup" ? "nf4-double" : "nf4",
    isTrained: (name) => /embed|norm|head|bias/.test(name),
  });
  addLora(model, adapterConfig({ r: 4, lora_alpha: 4, lora_dropout: 0.1, target_modules: null }), 1);
  const trainer = new Trainer(model, {
    maxGradNorm: 1,
    attention: () => ({ groupSize: 8 }),
    checkpointing: true,
    lossScaling: false,
    seed: 1,
    noiseAlpha: 5,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weightDecay: 0,
    // The embeddings are large enough for 8 bits, the rest is not.
    optimizerStates: { bits: 8, paged: false },
  });
  await trainer.step([makeBatch([{ inputIds: Uint32Array.from({ length: 20 }, (_, i) => i) }])], 1e-3);
  const dequantised = quantiseNf4(gpu, gpu.zeros([4, 64])).dequantise(gpu);
  fillBits(gpu, gpu.empty([4], "u32"), 1);
  const long = gpu.zeros([4, 1024], format);
  const made: Tensor[] = [matmul(gpu, long, long), matvec(gpu, long, long), cast(gpu, dequantised, format)];
  await generate(model, [1, 2], { maxNewTokens: 2 });
  for (const cacheFormat of [format, "q8"] as const) {
    const decoder = new Decoder(model, { capacity: LONG + 1, cacheFormat });
    decoder.prefill(0, [1, 2]);
    decoder.advance();
    decoder.fillRandomly(LONG);
    decoder.advance();
    decoder.free();
  }
  await gpu.readBytes(made);
}
