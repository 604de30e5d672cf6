/** What a step makes on the device and leaves behind once each shape was seen: nothing. */
import { adapterConfig } from "../../checkpoint/peft.ts";
import { Gpu, type GpuOptions } from "../../kernels/gpu.ts";
import { addLora } from "../../model/lora.ts";
import { freeBatch, makeBatch } from "../../model/batch.ts";
import { parseConfig } from "../../model/config.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import { freshWeights } from "../../model/load/fresh.ts";
import { loadModel } from "../../model/load/load.ts";
import { Trainer, type TrainerOptions } from "../../train/trainer.ts";
import { assertEquals } from "../support/assert_close.ts";
import { integers } from "../support/random.ts";

const CONFIG: ModelConfig = parseConfig({
  model_type: "llama",
  vocab_size: 76,
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 256,
}, "tests");

/** Calls of a device that make something; each is counted. */
const MAKERS = ["createBuffer", "createBindGroup", "createComputePipeline", "pushErrorScope"] as const;

function countMade(device: GPUDevice): () => Record<string, number> {
  const counts = Object.fromEntries(MAKERS.map((name) => [name, 0]));
  for (const name of MAKERS) {
    const make = device[name].bind(device) as (...args: unknown[]) => unknown;
    Object.defineProperty(device, name, {
      value: (...args: unknown[]) => {
        counts[name]!++;
        return make(...args);
      },
    });
  }
  return () => ({ ...counts });
}

interface Case extends Partial<TrainerOptions> {
  readonly full?: boolean;
  readonly nf4?: boolean;
  readonly hostCopies?: GpuOptions["hostCopies"];
}

const CASES: Record<string, Case> = {
  "LoRA with checkpointing on 4 bits": { nf4: true },
  "full fine-tuning": { full: true, checkpointing: false },
  "offloaded activations and paged states": {
    full: true,
    offloadActivations: true,
    optimizerStates: { bits: 8, paged: true, pageBytes: 4096 },
  },
  "offloaded activations and paged states through JavaScript": {
    full: true,
    offloadActivations: true,
    optimizerStates: { bits: 32, paged: true, pageBytes: 4096 },
    hostCopies: "javascript",
  },
};

/** Micro-batches of steps: the lengths of their sequences. */
const STEPS = [[[40]], [[130], [25]], [[9, 70], [61]], [[100]]];

for (const [name, { full = false, nf4 = false, hostCopies, ...options }] of Object.entries(CASES)) {
  Deno.test(`Once each length was seen, a step makes nothing: ${name}`, async () => {
    using gpu = await Gpu.open(hostCopies ? { hostCopies } : {});
    const made = countMade(gpu.device);
    const model = await loadModel(gpu, freshWeights(CONFIG, 7), {
      config: CONFIG,
      format: "f32",
      quantisation: nf4 ? "nf4-double" : "none",
      isTrained: () => full,
    });
    if (!full) {
      addLora(model, adapterConfig({ r: 4, lora_alpha: 8, lora_dropout: 0.1, target_modules: null }), 3);
    }
    const trainer = new Trainer(model, {
      maxGradNorm: 1,
      attention: () => ({ groupSize: 16 }),
      checkpointing: true,
      lossScaling: false,
      seed: 5,
      beta1: 0.9,
      beta2: 0.999,
      epsilon: 1e-8,
      weightDecay: 0.01,
      ...options,
    });
    const batchOf = (lengths: readonly number[]) =>
      makeBatch(lengths.map((length) => ({ inputIds: integers(length, length, CONFIG.vocab_size) })));
    const round = async () => {
      for (const step of STEPS) await trainer.step(step.map(batchOf), 1e-3);
      const device = model.upload(batchOf([33]));
      await model.predict(device);
      freeBatch(device);
    };
    for (let i = 0; i < 8; i++) await round();
    const [before, memory] = [made(), gpu.memory.use];
    for (let i = 0; i < 2; i++) await round();
    assertEquals(made(), before, "made so far");
    assertEquals(gpu.memory.use, memory, "memory on the device");
  });
}
