import { Gpu } from "../../kernels/gpu.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { addLora } from "../../model/adapter.ts";
import { makeBatch, type Sequence } from "../../model/batch.ts";
import { type LlamaConfig, parseConfig } from "../../model/config.ts";
import { freshWeights } from "../../model/fresh.ts";
import { loadModel } from "../../model/load.ts";
import { Trainer } from "../../train/trainer.ts";
import { assert, assertClose, assertEquals } from "../support/assert_close.ts";
import { integers } from "../support/random.ts";

/** Grouped queries, biases, a vocabulary that is no multiple of 4, a rank that is none either. */
const CONFIG: LlamaConfig = parseConfig({
  model_type: "llama",
  vocab_size: 75,
  hidden_size: 48,
  intermediate_size: 104,
  num_hidden_layers: 2,
  num_attention_heads: 6,
  num_key_value_heads: 3,
  max_position_embeddings: 64,
  attention_bias: true,
  mlp_bias: true,
}, "tests");

interface Setup {
  readonly format?: Format;
  readonly nf4?: boolean;
  readonly full?: boolean;
  readonly dropout?: number;
  readonly checkpointing?: boolean;
  readonly lossScaling?: boolean;
}

async function makeTrainer(gpu: Gpu, setup: Setup = {}): Promise<Trainer> {
  const {
    format = "f32",
    nf4 = false,
    full = false,
    dropout = 0,
    checkpointing = true,
    lossScaling = false,
  } = setup;
  const model = await loadModel(gpu, freshWeights(CONFIG, 7), {
    config: CONFIG,
    format,
    loadIn4bit: nf4,
    doubleQuant: true,
    isTrained: (name) => full || name.includes("norm") || name.includes("embed"),
  });
  if (!full) {
    addLora(model, { rank: 6, alpha: 12, dropout, rslora: false, targetModules: null, seed: 3 });
  }
  return new Trainer(model, {
    maxGradNorm: 1,
    groupSize: 16,
    checkpointing,
    lossScaling,
    seed: 5,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weightDecay: 0.01,
  });
}

function sequences(...lengths: number[]): Sequence[] {
  return lengths.map((length, i) => ({ inputIds: integers(20 + i, length, CONFIG.vocab_size) }));
}

/** Every byte that training changes. */
async function stateOf(trainer: Trainer): Promise<string> {
  const parts = trainer.optimised.flatMap(({ states }) => Object.values(states.parts));
  const bytes = await trainer.gpu.readBytes([
    ...trainer.optimised.map(({ value }) => value),
    ...parts.flatMap(({ device }) => device ?? []),
  ]);
  for (const { host } of parts) if (host) bytes.push(await host.read() as Uint8Array<ArrayBuffer>);
  return bytes.map((part) => part.toBase64()).join();
}

async function losses(trainer: Trainer, steps: number, batches: Sequence[][]): Promise<number[]> {
  const results: number[] = [];
  for (let i = 0; i < steps; i++) {
    const { loss, gradNorm, applied } = await trainer.step(batches.map(makeBatch), 1e-2);
    assert(applied, "the step was skipped");
    results.push(loss, gradNorm);
  }
  return results;
}

Deno.test("Training twice gives the same bytes", async () => {
  const run = async () => {
    using gpu = await Gpu.open({ poison: true });
    const trainer = await makeTrainer(gpu, { nf4: true, dropout: 0.2 });
    const curve = await losses(trainer, 3, [sequences(33, 20), sequences(7)]);
    return [curve.join(), await stateOf(trainer)];
  };
  const [first, second] = [await run(), await run()];
  assertEquals(first[0], second[0]);
  assert(first[1] === second[1], "weights or moments differ");
});

Deno.test("Training learns its batch", async () => {
  using gpu = await Gpu.open();
  const trainer = await makeTrainer(gpu, { nf4: true });
  const curve = await losses(trainer, 25, [sequences(24)]);
  assert(curve.at(-2)! < 0.5 * curve[0]!, `loss went from ${curve[0]} to ${curve.at(-2)}`);
});

Deno.test("Recomputed dropout masks are those of the forward pass", async () => {
  const run = async (checkpointing: boolean) => {
    using gpu = await Gpu.open({ poison: true });
    return await losses(await makeTrainer(gpu, { dropout: 0.3, checkpointing }), 3, [sequences(40)]);
  };
  assertEquals(await run(true), await run(false));
});

Deno.test("Micro-batches of uneven length count by their targets, as one batch would", async () => {
  const run = async (batches: Sequence[][]) => {
    using gpu = await Gpu.open({ poison: true });
    return await losses(await makeTrainer(gpu, { full: true }), 3, batches);
  };
  const [short, long, middle] = sequences(3, 50, 17) as [Sequence, Sequence, Sequence];
  const together = await run([[short, long, middle]]);
  assertClose("losses and norms", await run([[short], [long], [middle]]), together, { rtol: 1e-5, atol: 0 });
});

Deno.test("A batch without targets has loss 0 and changes nothing but decay", async () => {
  using gpu = await Gpu.open({ poison: true });
  const trainer = await makeTrainer(gpu);
  const { loss, gradNorm, applied } = await trainer.step([makeBatch(sequences(1))], 0);
  assertEquals({ loss, gradNorm, applied }, { loss: 0, gradNorm: 0, applied: true });
});

for (const [format, tolerance] of [["bf16", 2e-2], ["f16", 2e-3]] as const) {
  Deno.test(`Training with activations in ${format} follows f32`, async () => {
    const run = async (setup: Setup) => {
      using gpu = await Gpu.open({ poison: true });
      return await losses(await makeTrainer(gpu, setup), 4, [sequences(48, 30)]);
    };
    const exact = await run({ nf4: true });
    const rounded = await run({ nf4: true, format, lossScaling: format === "f16" });
    assertClose("losses and norms", rounded, exact, { rtol: tolerance, atol: 0 });
    assert(rounded.some((value, i) => value !== exact[i]), "16-bit activations must round");
  });
}

Deno.test("A loss scale that overflows is halved until steps apply, and nothing changes before", async () => {
  using gpu = await Gpu.open();
  const trainer = await makeTrainer(gpu, { format: "f16", lossScaling: true });
  trainer.state.lossScale = 2 ** 30;
  const before = await stateOf(trainer);
  let skipped = 0;
  for (;;) {
    const { applied } = await trainer.step([makeBatch(sequences(48))], 1e-3);
    if (applied) break;
    skipped++;
    assert(await stateOf(trainer) === before, "a skipped step changed weights or moments");
  }
  assert(skipped > 2 && skipped < 30, `${skipped} steps were skipped`);
  assertEquals(trainer.state, {
    updates: 1,
    passes: skipped + 1,
    lossScale: 2 ** (30 - skipped),
    scaleAge: 1,
  });
});

for (const bad of [NaN, Infinity, -Infinity]) {
  Deno.test(`${bad} in a weight skips the step and leaves every byte as it was`, async () => {
    using gpu = await Gpu.open();
    const trainer = await makeTrainer(gpu);
    const target = trainer.optimised.find(({ name }) => name.endsWith("layers.0.input_layernorm.weight"))!;
    const weights = await gpu.read(target.value);
    weights[5] = bad;
    gpu.write(target.value, weights);
    const before = await stateOf(trainer);
    const { applied } = await trainer.step([makeBatch(sequences(30))], 1e-2);
    assertEquals(applied, false);
    assert(await stateOf(trainer) === before, "weights or moments changed");
  });
}

Deno.test("Memory in use is the same after every step", async () => {
  using gpu = await Gpu.open();
  const trainer = await makeTrainer(gpu, { nf4: true, dropout: 0.1 });
  const live: number[] = [];
  for (let i = 0; i < 4; i++) {
    await trainer.step([makeBatch(sequences(40))], 1e-3);
    live.push(gpu.liveBytes);
  }
  assertEquals(new Set(live.slice(1)).size, 1, `bytes in use ${live}`);
});
