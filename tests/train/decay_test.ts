/** What weight decay applies to: matrices, embeddings and LoRA's factors, but no norm and no bias. */
import { adapterConfig } from "../../checkpoint/peft.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { adamWReference } from "../../kernels/optimizer/reference.ts";
import { addLora } from "../../model/lora.ts";
import { makeBatch } from "../../model/batch.ts";
import { parseConfig } from "../../model/config.ts";
import { freshWeights } from "../../model/load/fresh.ts";
import { loadModel } from "../../model/load/load.ts";
import { isDecayed } from "../../model/parameter.ts";
import { Trainer } from "../../train/trainer.ts";
import { assert, assertClose, assertEquals } from "../support/assert_close.ts";
import { integers } from "../support/random.ts";

const ADAM = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.3 };
const LEARNING_RATE = 1e-2;

const LLAMA = parseConfig({
  model_type: "llama",
  vocab_size: 76,
  hidden_size: 48,
  intermediate_size: 104,
  num_hidden_layers: 2,
  num_attention_heads: 6,
  num_key_value_heads: 3,
  max_position_embeddings: 64,
  attention_bias: true,
  mlp_bias: true,
}, "tests");
const NEOX = parseConfig({
  model_type: "gpt_neox",
  vocab_size: 76,
  hidden_size: 48,
  intermediate_size: 96,
  num_hidden_layers: 2,
  num_attention_heads: 6,
  max_position_embeddings: 64,
  rotary_pct: 0.5,
  hidden_act: "gelu",
  use_parallel_residual: true,
}, "tests");

const CASES = [
  { name: "LLaMA, all weights", config: LLAMA, trained: "", lora: false },
  { name: "GPT-NeoX, all weights", config: NEOX, trained: "", lora: false },
  { name: "LoRA beside norms and embeddings", config: LLAMA, trained: "norm|embed", lora: true },
];

for (const { name, config, trained, lora } of CASES) {
  Deno.test(`Weight decay leaves out norms and biases, as float64 has it: ${name}`, async () => {
    using gpu = await Gpu.open();
    const model = await loadModel(gpu, freshWeights(config, 7), {
      config,
      format: "f32",
      quantisation: "none",
      isTrained: (tensor) => (!lora || trained !== "") && new RegExp(trained).test(tensor),
    });
    if (lora) addLora(model, adapterConfig({ r: 4, lora_alpha: 8, target_modules: null }), 3);
    const trainer = new Trainer(model, {
      ...ADAM,
      maxGradNorm: 0,
      attention: () => ({}),
      checkpointing: true,
      lossScaling: false,
      seed: 5,
    });
    const before = new Map<string, Float64Array>();
    for (const { name, value } of trainer.optimised) {
      before.set(name, Float64Array.from(await gpu.read(value)));
    }
    await trainer.step([makeBatch([{ inputIds: integers(9, 40, config.vocab_size) }])], LEARNING_RATE);
    const kept: string[] = [];
    for (const { name, value, grad } of trainer.optimised) {
      // In these models norms and biases are all that is trained of one axis.
      const isDecayed = value.shape.length > 1;
      if (!isDecayed) kept.push(name);
      const param = before.get(name)!;
      const [m, v] = [new Float64Array(param.length), new Float64Array(param.length)];
      const options = { ...ADAM, weightDecay: isDecayed ? ADAM.weightDecay : 0 };
      adamWReference({ param, grad: Float64Array.from(await gpu.read(grad)), m, v }, {
        ...options,
        learningRate: LEARNING_RATE,
        step: 1,
      });
      assertClose(name, await gpu.read(value), param, { rtol: 1e-5, atol: 1e-6 });
    }
    assert(kept.length >= 5 && kept.length < trainer.optimised.length, `not decayed: ${kept}`);
  });
}

Deno.test("Names that are not decayed are those of Hugging Face's trainer", () => {
  const decayed = [
    "model.embed_tokens.weight",
    "lm_head.weight",
    "gpt_neox.embed_in.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.self_attn.q_proj.lora_A.weight",
    "model.normaliser.weight",
  ];
  const kept = [
    "model.norm.weight",
    "model.layers.0.input_layernorm.weight",
    "model.layers.0.self_attn.q_norm.weight",
    "model.layers.0.self_attn.q_proj.bias",
    "gpt_neox.final_layer_norm.weight",
    "gpt_neox.final_layer_norm.bias",
    "transformer.h.0.RMSNorm.weight",
    "norm.weight",
  ];
  assertEquals(decayed.filter((name) => !isDecayed(name)), []);
  assertEquals(kept.filter(isDecayed), []);
});
