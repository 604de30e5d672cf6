import { Gpu } from "../../kernels/gpu.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { adapterConfig } from "../../checkpoint/peft.ts";
import { addLora } from "../../model/lora.ts";
import { makeBatch, type Sequence } from "../../model/batch.ts";
import { parseConfig } from "../../model/config.ts";
import type { ModelConfig } from "../../model/model_config.ts";
import { freshWeights } from "../../model/load/fresh.ts";
import { loadModel } from "../../model/load/load.ts";
import { checkSameRun, restoreStates, type SavedState, writeSavedState } from "../../train/saved_state.ts";
import type { OptimizerStateForm } from "../../train/optimizer_states.ts";
import { targetsOf, Trainer } from "../../train/trainer.ts";
import { loadTrainArgs } from "../../train_args/load.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { integers } from "../support/random.ts";

/** Grouped queries, biases, a vocabulary that is no multiple of 4, a rank that is none either. */
const CONFIG: ModelConfig = parseConfig({
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
  readonly states?: OptimizerStateForm;
}

async function makeTrainer(gpu: Gpu, setup: Setup = {}): Promise<Trainer> {
  const {
    format = "f32",
    nf4 = false,
    full = false,
    dropout = 0,
    checkpointing = true,
    lossScaling = false,
    states = { bits: 32, paged: false },
  } = setup;
  const model = await loadModel(gpu, freshWeights(CONFIG, 7), {
    config: CONFIG,
    format,
    quantisation: nf4 ? "nf4-double" : "none",
    isTrained: (name) => full || name.includes("norm") || name.includes("embed"),
  });
  if (!full) {
    addLora(model, adapterConfig({ r: 6, lora_alpha: 12, lora_dropout: dropout, target_modules: null }), 3);
  }
  return new Trainer(model, {
    maxGradNorm: 1,
    attention: () => ({ groupSize: 16 }),
    checkpointing,
    lossScaling,
    optimizerStates: states,
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

/** Steps of one trainer for each list of micro-batches: ranks, which sum their gradients through the host. */
async function stepTogether(ranks: readonly Trainer[], batches: readonly Sequence[][][]): Promise<number[]> {
  const made = batches.map((own) => own.map(makeBatch));
  const total = made.reduce((sum, own) => sum + targetsOf(own), 0);
  const own = await Promise.all(ranks.map((rank, i) => rank.gradients(made[i]!, total)));
  for (const [part, first] of own[0]!.entries()) {
    const sum = new Float32Array(first.size);
    for (const [i, { gpu }] of ranks.entries()) {
      (await gpu.read(own[i]![part]!)).forEach((value, at) => sum[at]! += value);
    }
    ranks.forEach(({ gpu }, i) => gpu.write(own[i]![part]!, sum));
  }
  const results = await Promise.all(ranks.map((rank) => rank.update(1e-2, total)));
  assertEquals(results.every(({ applied }) => applied), true);
  assertEquals(results, results.map(() => results[0]!));
  return [results[0]!.loss, results[0]!.gradNorm];
}

for (const setup of [{ full: true }, { nf4: true, format: "f16", lossScaling: true }] as const) {
  Deno.test(`Ranks that sum their gradients step as one trainer does: ${JSON.stringify(setup)}`, async () => {
    using gpu = await Gpu.open({ poison: true });
    const [one, ...ranks] = [
      await makeTrainer(gpu, setup),
      await makeTrainer(gpu, setup),
      await makeTrainer(gpu, setup),
    ];
    const [short, long, middle] = sequences(3, 50, 17) as [Sequence, Sequence, Sequence];
    for (let step = 0; step < 3; step++) {
      const whole = await losses(one!, 1, [[short, long, middle]]);
      // The first rank has two micro-batches, the second one; in the last step it has run out of data.
      const shares = step < 2 ? [[[short], [long]], [[middle]]] : [[[short, long], [middle]], []];
      const together = await stepTogether(ranks, shares);
      assertClose("loss and norm", together, whole, { rtol: setup.full ? 1e-5 : 2e-3, atol: 0 });
      // Later, AdamW has made more of the differences where a gradient is nearly 0.
      for (const [i, { grad, name }] of step > 0 ? [] : one!.optimised.entries()) {
        const expected = await gpu.read(grad);
        const largest = expected.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
        const tolerance = { rtol: 0, atol: (setup.full ? 1e-6 : 2e-3) * largest + 1e-12 };
        assertClose(`gradient of ${name}`, await gpu.read(ranks[0]!.optimised[i]!.grad), expected, tolerance);
      }
      assert(await stateOf(ranks[0]!) === await stateOf(ranks[1]!), "the ranks' weights or moments differ");
    }
  });
}

Deno.test("A batch without targets has loss 0 and changes nothing but decay", async () => {
  using gpu = await Gpu.open({ poison: true });
  const trainer = await makeTrainer(gpu);
  const read = () => Promise.all(trainer.optimised.map(({ value }) => gpu.read(value)));
  const before = await read();
  const { loss, gradNorm, applied } = await trainer.step([makeBatch(sequences(1))], 1);
  assertEquals({ loss, gradNorm, applied }, { loss: 0, gradNorm: 0, applied: true });
  const after = await read();
  for (const [i, { name }] of trainer.optimised.entries()) {
    const kept = name.includes("norm") ? 1 : 1 - 0.01;
    assertClose(name, after[i]!, before[i]!.map((value) => kept * value), { rtol: 1e-6, atol: 0 });
  }
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
    live.push(gpu.memory.liveBytes);
  }
  assertEquals(new Set(live.slice(1)).size, 1, `bytes in use ${live}`);
});

/** Two of the model's tensors, and four vectors, fall short of the size that 8 bits start at. */
const FORMS: readonly OptimizerStateForm[] = [
  { bits: 32, paged: false },
  { bits: 8, paged: false },
  { bits: 32, paged: true, pageBytes: 64 * 192 },
  { bits: 8, paged: true, pageBytes: 64 * 48 },
];

Deno.test("States on the host, page by page, give the bytes of those on the device", async () => {
  for (const bits of [32, 8] as const) {
    const outcomes: string[] = [];
    for (const hostCopies of [undefined, "commands", "javascript"] as const) {
      using gpu = await Gpu.open({ poison: true, ...(hostCopies ? { hostCopies } : {}) });
      const paged = hostCopies !== undefined;
      const trainer = await makeTrainer(gpu, { full: true, states: { bits, paged, pageBytes: 64 * 48 } });
      await losses(trainer, 3, [sequences(33)]);
      const bytes = trainer.optimised.map(({ states }) =>
        Object.values(states.parts).reduce((sum, { host }) => sum + (host?.byteLength ?? 0), 0)
      );
      assertEquals(gpu.host.liveBytes, bytes.reduce((a, b) => a + b), "all of the host's memory");
      assertEquals(bytes.every((count) => paged === count > 0), true, "every state is on the host, or none");
      outcomes.push(await stateOf(trainer));
    }
    // The parts on the host come last in what stateOf() gives.
    const sorted = outcomes.map((outcome) => outcome.split(",").sort().join());
    assert(sorted[1] === sorted[0] && sorted[2] === sorted[0], `states of ${bits} bits differ`);
  }
});

Deno.test("8-bit states take about a quarter of the memory, and training follows that with 32 bits", async () => {
  const run = async (bits: 32 | 8) => {
    using gpu = await Gpu.open({ poison: true });
    const trainer = await makeTrainer(gpu, { full: true, states: { bits, paged: false } });
    const curve = await losses(trainer, 12, [sequences(24)]);
    const large = trainer.optimised.filter(({ value }) => value.size >= 4096);
    const bytes = large.flatMap(({ states }) => Object.values(states.parts)).reduce(
      (sum, { device }) => sum + device!.byteLength,
      0,
    );
    return {
      curve: curve.filter((_, i) => i % 2 === 0),
      perElement: bytes / large.reduce((sum, { value }) => sum + value.size, 0),
    };
  };
  const [wide, coded] = [await run(32), await run(8)];
  assertEquals(wide.perElement, 8);
  assertClose("bytes per element", [coded.perElement], [2 + 8 / 256], { rtol: 0.01, atol: 0 });
  assert(
    coded.curve.at(-1)! < 0.8 * coded.curve[0]!,
    `loss went from ${coded.curve[0]} to ${coded.curve.at(-1)}`,
  );
  assertClose("losses", coded.curve, wide.curve, { rtol: 0.05, atol: 0 });
  assert(coded.curve.at(-1) !== wide.curve.at(-1), "8 bits must round");
});

/** Gives a trainer the weights of another and what a checkpoint holds. */
async function resume(to: Trainer, from: Trainer, folder: string): Promise<void> {
  for (const [i, { value }] of to.optimised.entries()) {
    to.gpu.write(value, await from.gpu.read(from.optimised[i]!.value));
  }
  to.state = { ...from.state };
  await restoreStates(folder, to);
}

const STATE = {} as SavedState;

for (const [i, states] of FORMS.entries()) {
  Deno.test(`States in ${states.bits} bits${states.paged ? ", paged," : ""} are saved and restored bit for bit`, async () => {
    await withFolder(async (folder) => {
      using gpu = await Gpu.open({ poison: true, ...(i === 3 ? { hostCopies: "javascript" } : {}) });
      const whole = await makeTrainer(gpu, { full: true, states });
      await losses(whole, 2, [sequences(20)]);
      await writeSavedState(folder, whole, STATE);
      // Where they are makes no difference to a checkpoint.
      const elsewhere = { ...states, paged: !states.paged };
      for (const form of [states, elsewhere]) {
        const resumed = await makeTrainer(gpu, { full: true, states: form });
        await resume(resumed, whole, folder);
        const sorted = async (trainer: Trainer) => (await stateOf(trainer)).split(",").sort().join();
        assert(await sorted(resumed) === await sorted(whole), "restored states differ");
      }
      const other = await makeTrainer(gpu, {
        full: true,
        states: { bits: states.bits === 8 ? 32 : 8, paged: false },
      });
      await assertThrows(
        () => restoreStates(folder, other),
        "its optimiser has no",
        "Use the settings of the first run",
      );
    });
  });
}

Deno.test("Resuming takes an optimiser with states of as many bits, and no other", async () => {
  const argsOf = async (optim: string) =>
    (await loadTrainArgs(null, {
      model_name_or_path: "m",
      train_file: "t",
      output_dir: "o",
      max_seq_length: "64",
      optim,
    })).args;
  const saved = { args: await argsOf("adamw_bnb_8bit"), dataHash: "h" } as SavedState;
  const run = { path: "folder", state: saved };
  checkSameRun(run, await argsOf("paged_adamw_8bit"), "h");
  await assertThrows(
    async () => checkSameRun(run, await argsOf("paged_adamw_32bit"), "h"),
    'optim was "adamw_bnb_8bit", now "paged_adamw_32bit"',
  );
});

Deno.test("Timers have their turn between the layers of a step, however long they take, and change no byte", async () => {
  const run = async (isSlow: boolean) => {
    using gpu = await Gpu.open();
    const trainer = await makeTrainer(gpu, { full: true });
    let turns = 0;
    const deaf: number[] = [];
    const submit = gpu.device.queue.submit.bind(gpu.device.queue);
    gpu.device.queue.submit = (buffers) => {
      submit(buffers);
      deaf.push(turns);
      const end = performance.now() + 110;
      while (isSlow && performance.now() < end);
    };
    const timer = setInterval(() => turns++, 0);
    const curve = await losses(trainer, 1, [sequences(20), sequences(33)]);
    clearInterval(timer);
    return { curve, state: await stateOf(trainer), deaf };
  };
  const [slow, fast] = [await run(true), await run(false)];
  // Of each micro-batch: an upload and the head are the longest stretches without a turn, of two or three submits.
  const longest = Math.max(...slow.deaf.map((turns) => slow.deaf.filter((other) => other === turns).length));
  assert(longest <= 3, `turns by the time of each submit: ${slow.deaf}`);
  assertEquals(slow.curve, fast.curve);
  assert(slow.state === fast.state, "weights or moments differ");
});

Deno.test("A device that is lost anywhere in loading or in a step is told as that, soon, and once", async () => {
  for (let point = 0; point < 20; point++) {
    const gpu = await Gpu.open();
    // From the upload of the model over the first step's pipelines to the second step.
    let left = 1 + Math.floor(0.8 * point ** 2);
    for (const name of ["createCommandEncoder", "createBindGroup", "createBuffer"] as const) {
      const make = gpu.device[name].bind(gpu.device) as (...args: unknown[]) => unknown;
      Object.defineProperty(gpu.device, name, {
        value: (...args: unknown[]) => {
          if (--left === 0) gpu.device.destroy();
          return make(...args);
        },
      });
    }
    await assertThrows(async () => {
      const trainer = await makeTrainer(gpu, { full: true });
      for (let step = 0; step < 2; step++) await losses(trainer, 1, [sequences(20)]);
    }, "The GPU device was lost");
    gpu.close();
  }
});
