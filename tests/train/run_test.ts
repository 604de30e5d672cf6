import { loadTrainArgs } from "../../train_args/load.ts";
import type { StepMetrics, TrainHooks, TrainResult } from "../../train/hooks.ts";
import { runTraining } from "../../train/run.ts";
import { MEASURED } from "../../train/run_log.ts";
import { exists } from "../../checkpoint/files.ts";
import { readAdapter } from "../../checkpoint/peft.ts";
import { openWeights, openWeightsFile } from "../../checkpoint/weights.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { readEvents } from "../support/event_file.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { comparedBytes, withoutMeasured } from "../support/metrics.ts";

/** Settings of a small QLoRA run with everything that has state: dropout, schedule, accumulation, several epochs. */
const SETTINGS: Record<string, string> = {
  model_name_or_path: `${GOLDEN}/mha`,
  train_file: `${GOLDEN}/train.jsonl`,
  sft: "false",
  model_max_length: "128",
  lora_rank: "6",
  lora_dropout: "0.1",
  neftune_noise_alpha: "5",
  trainable_params: "embed,norm",
  per_device_train_batch_size: "1",
  gradient_accumulation_steps: "3",
  learning_rate: "0.002",
  lr_scheduler_type: "cosine",
  warmup_steps: "2",
  max_steps: "6",
  save_steps: "2",
  logging_steps: "2",
};

interface Finished {
  readonly result: TrainResult;
  readonly steps: StepMetrics[];
  readonly saved: string[];
  readonly notes: string[];
}

async function run(overrides: Record<string, string>, stopAfter = Infinity): Promise<Finished> {
  const { args } = await loadTrainArgs(null, { ...SETTINGS, ...overrides });
  const steps: StepMetrics[] = [];
  const saved: string[] = [];
  const notes: string[] = [];
  const hooks: TrainHooks = {
    onStart() {},
    onStep: (metrics) => steps.push(metrics),
    onSave: (path) => saved.push(path),
    note: (line) => notes.push(line),
    shouldStop: () => steps.length >= stopAfter,
  };
  return { result: await runTraining(args, hooks), steps, saved, notes };
}

const curve = (steps: StepMetrics[]) =>
  steps.map(({ loss, gradNorm, learningRate }) => [loss, gradNorm, learningRate]);

Deno.test("A run writes adapter, state, settings, logs and checkpoints", async () => {
  await withFolder(async (output_dir) => {
    const { result, saved, steps } = await run({ output_dir, save_total_limit: "2" });
    assertEquals([result.steps, result.stopped, result.skippedSteps], [6, false, 0]);
    assertEquals(saved, [2, 4, 6].map((step) => `${output_dir}/checkpoint-${step}`).concat(output_dir));
    assertEquals(namesIn(output_dir), [
      ".longreach.lock",
      "README.md",
      "adapter_config.json",
      "adapter_model.safetensors",
      "checkpoint-4",
      "checkpoint-6",
      "metrics.jsonl",
      "report.html",
      "runs",
      "train.log",
      "train_args.yaml",
      "trainer_state.json",
    ]);
    const state = JSON.parse(await Deno.readTextFile(`${output_dir}/trainer_state.json`));
    assertEquals([state.global_step, state.max_steps, state.log_history.length], [6, 6, 3]);
    assertEquals(Object.keys(state.log_history[0]), ["epoch", "step", "loss", "grad_norm", "learning_rate"]);
    // An entry has the mean over its two steps, the result that over all.
    const sums = [0, 2, 4].map((i) => steps[i]!.loss + steps[i + 1]!.loss);
    assertEquals(state.log_history.map(({ loss }: { loss: number }) => loss), sums.map((sum) => sum / 2));
    assertEquals(result.trainLoss, steps.reduce((sum, { loss }) => sum + loss, 0) / 6);
    // Four samples in steps of three: the second step of each epoch has the one that is left.
    assertEquals(state.log_history.map(({ epoch }: { epoch: number }) => epoch), [1, 2, 3]);
    const text = await Deno.readTextFile(`${output_dir}/metrics.jsonl`);
    const rows = (jsonl: string) => jsonl.trim().split("\n").map((row) => JSON.parse(row));
    const metrics = rows(text);
    assertEquals(rows(withoutMeasured(text)), state.log_history);
    for (const { tokens_per_second, peak_memory_bytes } of metrics) {
      assert(tokens_per_second > 0, `${tokens_per_second} tokens/s`);
      assert(peak_memory_bytes > 2 ** 20 && peak_memory_bytes <= result.peakBytes, `${peak_memory_bytes} B`);
    }
    const seconds = metrics.map((entry) => entry.seconds);
    assert(seconds[0] > 0 && seconds[0] < seconds[1] && seconds[1] < seconds[2], `seconds ${seconds}`);
    assert(seconds[2] < result.elapsedMs / 1000, `seconds ${seconds}`);
    const [events] = await readEvents(`${output_dir}/runs`);
    assertEquals(events!.slice(2).map(({ step, values }) => [Number(step), values!["train/loss"]]), [
      ...metrics.map(({ step, loss }) => [step, Math.fround(loss)]),
    ], "TensorBoard's events");
    assertEquals(
      ["tokens_per_second", "seconds", "peak_memory_bytes"].map((key) =>
        events!.at(-1)!.values![`train/${key}`]
      ),
      MEASURED.map((key) => Math.fround(metrics.at(-1)[key])),
      "what was measured",
    );
    const report = await Deno.readTextFile(`${output_dir}/report.html`);
    assert(report.includes("6 of 6, epoch 3.00") && report.includes("<svg"), "the report");
    const adapter = await readAdapter(output_dir);
    assertEquals([adapter.config.r, adapter.lora.size], [6, 14]);
    assertEquals([...adapter.extra.keys()].filter((name) => !name.includes("layers")).sort(), [
      "model.embed_tokens.weight",
      "model.norm.weight",
    ]);
  });
});

Deno.test("A run that goes on from an adapter has that adapter's tokenizer, and so has what it saves", async () => {
  await withFolder(async (folder) => {
    const adapter = `${folder}/adapter`;
    await Deno.mkdir(adapter);
    for (const name of ["adapter_config.json", "adapter_model.safetensors"]) {
      await Deno.copyFile(`${GOLDEN}/adapter/${name}`, `${adapter}/${name}`);
    }
    const turns = "{% for m in messages %}{{ m['role'] + m['content'] + '!' }}{% endfor %}";
    const settings = { bos_token: "<s>", eos_token: "!", chat_template: turns };
    await Deno.writeTextFile(`${adapter}/tokenizer_config.json`, JSON.stringify(settings));
    const chat = [{ role: "user", content: "q" }, { role: "assistant", content: "a" }];
    await Deno.writeTextFile(`${folder}/chat.jsonl`, JSON.stringify({ messages: chat }));
    const going = {
      adapter_name_or_path: adapter,
      train_file: `${folder}/chat.jsonl`,
      sft: "true",
      chat_template: "model",
      output_dir: `${folder}/out`,
      save_steps: "1",
      max_steps: "2",
    };
    const { notes } = await run(going, 1);
    assertEquals(notes.filter((note) => note.includes("tokenizer is the adapter's")).length, 1);
    const checkpoint = await Deno.readTextFile(`${folder}/out/checkpoint-1/tokenizer_config.json`);
    assertEquals(JSON.parse(checkpoint), settings);
    await Deno.writeTextFile(`${folder}/out/README.md`, "# Mine\n");
    await run({ ...going, resume_from_checkpoint: "true" });
    assertEquals(await Deno.readTextFile(`${folder}/out/README.md`), "# Mine\n");
    assertEquals(await Deno.readTextFile(`${folder}/out/tokenizer_config.json`), checkpoint);
    assertEquals(await exists(`${folder}/out/tokenizer.json`), false);
  });
});

Deno.test("Stopped after any step and resumed, a run ends with the same bytes as one that never stopped", async () => {
  await withFolder(async (folder) => {
    const whole = await run({ output_dir: `${folder}/whole` });
    const expected = await Deno.readFile(`${folder}/whole/adapter_model.safetensors`);
    for (const stop of [1, 2, 3, 5]) {
      const output_dir = `${folder}/stopped-${stop}`;
      const first = await run({ output_dir }, stop);
      assertEquals([first.result.stopped, first.result.steps], [true, stop]);
      const second = await run({ output_dir, resume_from_checkpoint: "true" });
      assertEquals(
        curve([...first.steps, ...second.steps]),
        curve(whole.steps),
        `curve stopped after ${stop}`,
      );
      const actual = await Deno.readFile(`${output_dir}/adapter_model.safetensors`);
      assert(actual.toBase64() === expected.toBase64(), `the adapter stopped after ${stop} differs`);
      // The second start continues where the checkpoint was.
      const starts = (await readEvents(`${output_dir}/runs`)).flat().filter(({ starts }) => starts);
      assertEquals(starts.map((event) => Number(event.step)), [0, stop + 1], "starts");
      for (const name of ["trainer_state.json", "metrics.jsonl", "README.md"]) {
        const [a, b] = await Promise.all(
          [`${folder}/whole`, output_dir].map(async (at) =>
            new TextDecoder().decode(await comparedBytes(at, name))
          ),
        );
        assertEquals(b, a, name);
      }
      // Seconds count over both starts.
      const state = await Deno.readTextFile(`${output_dir}/checkpoint-${stop}/training_state.json`);
      const { time } = JSON.parse(state).log;
      const last = JSON.parse(
        (await Deno.readTextFile(`${output_dir}/metrics.jsonl`)).trim().split("\n").at(-1)!,
      );
      assertEquals([time.starts, time.seconds > 0 && last.seconds > time.seconds], [1, true]);
      const report = await Deno.readTextFile(`${output_dir}/report.html`);
      assert(/<th scope="row">Time<\/th><td>[^<]+ over 2 starts/.test(report), "starts in the report");
    }
  });
});

Deno.test("With checkpoints on the host and states in 8 bits, a resumed run ends with the same bytes too", async () => {
  await withFolder(async (folder) => {
    const settings = { max_steps: "3", optim: "adamw_8bit" };
    const whole = await run({ ...settings, output_dir: `${folder}/whole` });
    const expected = await Deno.readFile(`${folder}/whole/adapter_model.safetensors`);
    const output_dir = `${folder}/stopped`;
    // Neither what waits on the host nor where states are changes a byte.
    await run({ ...settings, output_dir, offload_activations: "true" }, 2);
    const rest = { optim: "paged_adamw_8bit", offload_activations: "false", resume_from_checkpoint: "true" };
    const { steps } = await run({ ...settings, ...rest, output_dir });
    assertEquals(curve(steps), curve(whole.steps.slice(2)));
    const actual = await Deno.readFile(`${output_dir}/adapter_model.safetensors`);
    assert(actual.toBase64() === expected.toBase64(), "the adapters differ");
    const stored = await openWeightsFile(`${output_dir}/checkpoint-3/optimizer.safetensors`);
    const names = [...stored.names()];
    stored.close();
    assert(names.includes("model.embed_tokens.weight.m.codes"), "the embeddings' states are in 8 bits");
    assert(names.includes("model.norm.weight.m"), "those of a norm are too few for it");
  });
});

Deno.test("Full fine-tuning writes a model that loads again and resumes", async () => {
  await withFolder(async (folder) => {
    const settings = { low_rank_training: "false", max_steps: "4" };
    const whole = await run({ ...settings, output_dir: `${folder}/whole` });
    const output_dir = `${folder}/stopped`;
    const first = await run({ ...settings, output_dir }, 1);
    const second = await run({
      ...settings,
      output_dir,
      resume_from_checkpoint: `${output_dir}/checkpoint-1`,
    });
    assertEquals(curve([...first.steps, ...second.steps]), curve(whole.steps));
    const weights = await openWeights(output_dir);
    assertEquals([...weights.names()].length, 21);
    weights.close();
    const config = JSON.parse(await Deno.readTextFile(`${output_dir}/config.json`));
    assertEquals([config.rope_scaling.factor, config.max_position_embeddings], [2, 64]);
  });
});

Deno.test("A second run on the same data tokenizes nothing, unless told to", async () => {
  await withFolder(async (folder) => {
    const settings = { max_steps: "1", dataset_cache_dir: `${folder}/cache` };
    const first = await run({ ...settings, output_dir: `${folder}/first` });
    const { Worker } = globalThis;
    globalThis.Worker = undefined as unknown as typeof Worker;
    try {
      const second = await run({ ...settings, output_dir: `${folder}/second` });
      assertEquals(curve(second.steps), curve(first.steps));
      const without = { output_dir: `${folder}/third`, dataset_cache_dir: "false" };
      await assertThrows(() => run({ ...settings, ...without }), "Worker");
    } finally {
      globalThis.Worker = Worker;
    }
  });
});

Deno.test("A run does not touch what an earlier one left, unless told to", async () => {
  await withFolder(async (output_dir) => {
    await run({ output_dir, max_steps: "2" });
    await assertThrows(() => run({ output_dir }), "of an earlier run", "resume_from_checkpoint: true");
    const { result } = await run({
      output_dir,
      overwrite_output_dir: "true",
      max_steps: "1",
      save_strategy: "no",
    });
    assertEquals(result.steps, 1);
    assert(!(namesIn(output_dir)).includes("checkpoint-2"), "the old run's checkpoint is still there");
  });
});

Deno.test("Resuming with settings that change what a step computes is refused by key", async () => {
  await withFolder(async (output_dir) => {
    await run({ output_dir }, 2);
    await assertThrows(
      () => run({ output_dir, resume_from_checkpoint: "true", learning_rate: "0.003", seed: "7" }),
      "learning_rate was 0.002, now 0.003",
      "seed was 42, now 7",
    );
    const { result } = await run({
      output_dir,
      resume_from_checkpoint: "true",
      max_steps: "3",
      save_steps: "5",
    });
    assertEquals(result.steps, 3);
  });
});

Deno.test("A damaged checkpoint is passed over for the one before it", async () => {
  await withFolder(async (output_dir) => {
    await run({ output_dir }, 4);
    const path = `${output_dir}/checkpoint-4/optimizer.safetensors`;
    const bytes = await Deno.readFile(path);
    bytes[bytes.length >> 1]! ^= 1;
    await Deno.writeFile(path, bytes);
    const { steps, notes } = await run({ output_dir, resume_from_checkpoint: "true" });
    assertEquals(steps[0]!.step, 3);
    assert(notes.some((note) => note.includes("checkpoint-4")), `no note names the damaged one: ${notes}`);
  });
});

Deno.test("Gradients that stay infinite end the run and leave its checkpoint", async () => {
  await withFolder(async (output_dir) => {
    const settings = {
      output_dir,
      trainable_params: "null",
      learning_rate: "1e30",
      lr_scheduler_type: "constant",
      warmup_steps: "0",
      max_grad_norm: "0",
      save_steps: "1",
    };
    await assertThrows(() => run(settings), "Training diverged", "is intact", "learning_rate");
    const kept = (namesIn(output_dir)).filter((name) => name.startsWith("checkpoint-"));
    assert(kept.length > 0, "no checkpoint is left");
  });
});

Deno.test("A run reads config.json once, and the tokenizer once beside hashing its files", async () => {
  const opened = new Map<string, number>();
  const open = Deno.open;
  await withFolder(async (output_dir) => {
    try {
      Deno.open = (path, options) => {
        const name = String(path).split("/").at(-1)!;
        opened.set(name, (opened.get(name) ?? 0) + 1);
        return open(path, options);
      };
      const held = { eval_file: SETTINGS.train_file!, eval_strategy: "steps" };
      await run({ output_dir, ...held, resize_vocabulary: "true", max_steps: "1" });
    } finally {
      Deno.open = open;
    }
  });
  assertEquals(["config.json", "tokenizer.json"].map((name) => opened.get(name)), [1, 2]);
});
