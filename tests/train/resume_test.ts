import { loadTrainArgs } from "../../train_args/load.ts";
import type { StepMetrics, TrainHooks } from "../../train/hooks.ts";
import { runTraining } from "../../train/run.ts";
import { resumeOrReplace } from "../../train/run_folder.ts";
import { readConfig } from "../../model/config.ts";
import { fingerprintModel, otherBaseNote } from "../../model/load/fingerprint.ts";
import { writeModel } from "../../checkpoint/save_model.ts";
import { openWeights } from "../../checkpoint/weights.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { writeChangedModel } from "../support/changed_model.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { comparedBytes } from "../support/metrics.ts";
import { assertIncludes } from "../support/text.ts";

const SETTINGS: Record<string, string> = {
  model_name_or_path: `${GOLDEN}/mha`,
  train_file: `${GOLDEN}/train.jsonl`,
  sft: "false",
  model_max_length: "64",
  lora_rank: "2",
  trainable_params: "norm",
  learning_rate: "0.002",
  lr_scheduler_type: "cosine",
  max_steps: "4",
  save_steps: "1",
};

interface Ran {
  readonly steps: StepMetrics[];
  readonly notes: string[];
}

async function run(overrides: Record<string, string>, stopAfter = Infinity): Promise<Ran> {
  const { args } = await loadTrainArgs(null, { ...SETTINGS, ...overrides });
  const steps: StepMetrics[] = [];
  const notes: string[] = [];
  const hooks: TrainHooks = {
    onStart() {},
    onStep: (metrics) => steps.push(metrics),
    onSave() {},
    note: (line) => line.includes(" were cut") || notes.push(line),
    shouldStop: () => steps.length >= stopAfter,
  };
  await runTraining(args, hooks);
  return { steps, notes };
}

const numbers = ({ steps }: Ran) => steps.map(({ step }) => step);
const stateOf = (folder: string) => JSON.parse(Deno.readTextFileSync(`${folder}/trainer_state.json`));

Deno.test("An unfinished run of the same settings goes on by itself, and a finished one is left alone", async () => {
  await withFolder(async (folder) => {
    const whole = `${folder}/whole`;
    const output_dir = `${folder}/out`;
    await run({ output_dir: whole });
    await run({ output_dir }, 2);
    const rest = await run({ output_dir });
    assertEquals(numbers(rest), [3, 4]);
    assertEquals(rest.notes, [
      `Going on from step 2 of the unfinished run in "${output_dir}"; overwrite_output_dir: true starts afresh`,
    ]);
    for (const name of ["adapter_model.safetensors", "metrics.jsonl", "trainer_state.json"]) {
      assertEquals(await comparedBytes(output_dir, name), await comparedBytes(whole, name), name);
    }
    await assertThrows(() => run({ output_dir }), "of an earlier run", "resume_from_checkpoint: true");
    await assertThrows(() => run({ output_dir, max_steps: "6" }), "of an earlier run");
    const replaced = await run({ output_dir, overwrite_output_dir: "true", max_steps: "1" });
    assertEquals(numbers(replaced), [1]);
  });
});

Deno.test("An unfinished run of other settings is neither gone on with nor written over; each is named", async () => {
  await withFolder(async (output_dir) => {
    await run({ output_dir }, 2);
    const before = Deno.readTextFileSync(`${output_dir}/metrics.jsonl`);
    await assertThrows(
      () => run({ output_dir, learning_rate: "0.003", lora_rank: "4" }),
      "unfinished run",
      "learning_rate was 0.002, now 0.003",
      "lora_rank was 2, now 4",
      "overwrite_output_dir: true",
    );
    await assertThrows(
      () => run({ output_dir, max_steps: "9" }),
      "max_steps was 4, now 9",
      "resume_from_checkpoint: true to go on with the new ones",
    );
    await assertThrows(() => run({ output_dir, resume_from_checkpoint: "false" }), "of an earlier run");
    assertEquals(Deno.readTextFileSync(`${output_dir}/metrics.jsonl`), before);
    const { steps, notes } = await run({ output_dir, save_steps: "2", max_memory: "8GiB" });
    assertEquals(steps[0]!.step, 3);
    assertEquals(
      notes.at(-1),
      "Going on with other settings: max_memory was null, now 8589934592; save_steps was 1, now 2",
    );
  });
});

Deno.test("Resumed with another length, a run says what that does to the learning rate", async () => {
  await withFolder(async (output_dir) => {
    await run({ output_dir }, 2);
    const { notes } = await run({ output_dir, resume_from_checkpoint: "true", max_steps: "3" });
    assertEquals(notes, [
      "Going on with other settings: max_steps was 4, now 3",
      "The run now has 3 steps instead of 4: lr_scheduler_type cosine gives step 3 the learning rate 0.000500 instead " +
      "of 0.00100",
    ]);
  });
});

Deno.test("resume_from_checkpoint: true starts afresh where nothing was saved yet, and says so", async () => {
  await withFolder(async (folder) => {
    const output_dir = `${folder}/new`;
    const { steps, notes } = await run({ output_dir, resume_from_checkpoint: "true", max_steps: "1" });
    assertEquals([steps.length, notes], [1, [
      `Nothing was saved in "${output_dir}" yet: the run starts afresh`,
    ]]);
  });
});

Deno.test("A checkpoint of another folder never leads to writing over a run", async () => {
  await withFolder(async (folder) => {
    const [one, other] = [`${folder}/one`, `${folder}/other`];
    await run({ output_dir: one, max_steps: "2" });
    await run({ output_dir: other, max_steps: "2", seed: "7" });
    const before = Deno.readFileSync(`${other}/adapter_model.safetensors`);
    const from = { resume_from_checkpoint: `${one}/checkpoint-1`, max_steps: "2" };
    await assertThrows(
      () => run({ ...from, output_dir: other }),
      "of another run",
      `Set output_dir to "${one}"`,
    );
    assertEquals(Deno.readFileSync(`${other}/adapter_model.safetensors`), before);
    assertEquals(numbers(await run({ ...from, output_dir: `${folder}/free` })), [2]);
    assertEquals(
      Deno.readFileSync(`${folder}/free/adapter_model.safetensors`),
      Deno.readFileSync(`${one}/adapter_model.safetensors`),
    );
    // By another path to the same folder, it is its own.
    Deno.symlinkSync(one, `${folder}/link`);
    assertEquals(numbers(await run({ ...from, output_dir: `${folder}/link` })), [2]);
  });
});

Deno.test("A run never removes or writes over what it is made from", async () => {
  await withFolder(async (folder) => {
    const model = `${folder}/model`;
    Deno.mkdirSync(`${folder}/rows`);
    Deno.mkdirSync(model);
    for (const { name } of Deno.readDirSync(`${GOLDEN}/mha`)) {
      Deno.copyFileSync(`${GOLDEN}/mha/${name}`, `${model}/${name}`);
    }
    Deno.copyFileSync(`${GOLDEN}/train.jsonl`, `${folder}/rows/metrics.jsonl`);
    const before = namesIn(model);
    const overwrite = { overwrite_output_dir: "true", max_steps: "1" };
    await assertThrows(
      () => run({ ...overwrite, model_name_or_path: model, output_dir: `${folder}/rows/../model/` }),
      `made from "${model}"`,
      "another output_dir",
    );
    assertEquals(namesIn(model).filter((name) => name !== ".longreach.lock"), before);
    const train_file = `${folder}/rows/metrics.jsonl`;
    await assertThrows(
      () => run({ max_steps: "1", train_file, output_dir: `${folder}/rows` }),
      `made from "${train_file}"`,
    );
    await assertThrows(
      () =>
        run({ ...overwrite, model_name_or_path: `${folder}/out/checkpoint-1`, output_dir: `${folder}/out` }),
      "made from",
    );
  });
});

Deno.test("A base model that changed under a run is named", async () => {
  await withFolder(async (folder) => {
    const base = `${folder}/base`;
    const copy = async () => {
      await Deno.remove(base, { recursive: true }).catch(() => {});
      await Deno.mkdir(base);
      for (const name of namesIn(`${GOLDEN}/mha`)) {
        await Deno.copyFile(`${GOLDEN}/mha/${name}`, `${base}/${name}`);
      }
    };
    await copy();
    const output_dir = `${folder}/out`;
    const settings = { model_name_or_path: base, output_dir };
    await run(settings, 1);
    const refused = async (change: (path: string) => void, part: string) => {
      await copy();
      change(base);
      await assertThrows(() => run(settings), `the base model "${base}" has changed`, `(${part})`);
    };
    const edit = (name: string, from: string, to: string) => (path: string) => {
      const text = Deno.readTextFileSync(`${path}/${name}`);
      assert(text.includes(from), `${name} has ${from}`);
      Deno.writeTextFileSync(`${path}/${name}`, text.replace(from, to));
    };
    await refused((path) => {
      const file = `${path}/model.safetensors`;
      const bytes = Deno.readFileSync(file);
      bytes[bytes.length - 100]! ^= 1;
      Deno.writeFileSync(file, bytes);
    }, "weights");
    await refused(edit("config.json", '"rms_norm_eps": 1e-05', '"rms_norm_eps": 1e-06'), "config.json");
    await refused(edit("tokenizer.json", "{", "{ "), "tokenizer");
    await copy();
    edit("config.json", "{", '{ "transformers_version": "9.9", ')(base);
    assertEquals(numbers(await run(settings)), [2, 3, 4]);
  });
});

Deno.test("A fingerprint is of the content: files and their order do not matter, every tensor does", async () => {
  await withFolder(async (folder) => {
    const weights = await openWeights(`${GOLDEN}/mha`);
    const tensors = [...weights.names()].reverse().map((name) => ({
      ...weights.info(name),
      read: () => weights.read(name),
    }));
    const config = JSON.parse(await Deno.readTextFile(`${GOLDEN}/mha/config.json`));
    await Deno.mkdir(`${folder}/shards`);
    await writeModel(`${folder}/shards`, {
      config,
      tensors,
      filesFrom: `${GOLDEN}/mha`,
      maxShardBytes: 50_000,
    });
    weights.close();
    const fingerprint = async (model: string) =>
      await fingerprintModel(model, { config: (await readConfig(model)).raw, weights: true });
    const one = await fingerprint(`${GOLDEN}/mha`);
    assertEquals(await fingerprint(`${folder}/shards`), one);
    assertEquals(new Set(tensors.map(({ dtype }) => dtype)), new Set(["F32"]), "as a changed model has them");
    for (const { name } of tensors) {
      await writeChangedModel(`${GOLDEN}/mha`, `${folder}/${name}`, name, (values) => {
        values[3]! += 1e-6;
      });
      assert((await fingerprint(`${folder}/${name}`)).weights !== one.weights, `one value of ${name}`);
    }
  });
});

Deno.test("An adapter tells by which base it was trained", async () => {
  await withFolder(async (folder) => {
    const output_dir = `${folder}/adapter`;
    await run({ output_dir, max_steps: "1" });
    assertEquals(await otherBaseNote(output_dir, `${GOLDEN}/mha`), undefined as unknown as string);
    await writeChangedModel(
      `${GOLDEN}/mha`,
      `${folder}/changed`,
      "model.norm.weight",
      (values) => values.fill(2),
    );
    assertIncludes(
      await otherBaseNote(output_dir, `${folder}/changed`) ?? "",
      `was trained on other weights than those of "${folder}/changed": on those that "${GOLDEN}/mha" had`,
    );
    assertEquals(
      await otherBaseNote(`${GOLDEN}/adapter`, `${folder}/changed`),
      undefined as unknown as string,
    );
  });
});

Deno.test("Of a checkpoint only what its manifest lists is read", async () => {
  await withFolder(async (folder) => {
    const adapters = [`${folder}/whole`, `${folder}/cut`];
    await run({ output_dir: adapters[0]! });
    await run({ output_dir: adapters[1]! }, 2);
    const extra = `${adapters[1]}/checkpoint-2`;
    await Deno.copyFile(
      `${GOLDEN}/adapter/adapter_model.safetensors`,
      `${extra}/trainable_params.safetensors`,
    );
    await Deno.writeTextFile(`${extra}/trainable_params.bin`, "no pickle");
    await Deno.writeTextFile(`${extra}/adapter_model.bin`, "no pickle");
    assertEquals(numbers(await run({ output_dir: adapters[1]! })), [3, 4]);
    const [expected, actual] = adapters.map((path) => Deno.readFileSync(`${path}/adapter_model.safetensors`));
    assertEquals(actual, expected);
    const models = {
      low_rank_training: "false",
      trainable_params: "none",
      max_steps: "2",
      output_dir: `${folder}/full`,
    };
    await run(models, 1);
    const index = { metadata: {}, weight_map: { "model.norm.weight": "other.safetensors" } };
    await Deno.writeTextFile(
      `${folder}/full/checkpoint-1/model.safetensors.index.json`,
      JSON.stringify(index),
    );
    await Deno.writeTextFile(`${folder}/full/checkpoint-1/other.safetensors`, "nothing");
    assertEquals(numbers(await run(models)), [2]);
  });
});

Deno.test("Steps below 1 are shares of all steps, rounded up, and the best checkpoint is named", async () => {
  await withFolder(async (output_dir) => {
    await run({
      output_dir,
      eval_file: `${GOLDEN}/train.jsonl`,
      eval_strategy: "steps",
      max_steps: "7",
      eval_steps: "0.25",
      save_steps: "0.5",
      logging_steps: "0.4",
    });
    const state = stateOf(output_dir);
    assertEquals([state.eval_steps, state.save_steps, state.logging_steps], [2, 4, 3]);
    const logged = (key: string) =>
      state.log_history.filter((entry: object) => key in entry).map(({ step }: StepMetrics) => step);
    assertEquals([logged("loss"), logged("eval_loss")], [[3, 6, 7], [0, 2, 4, 6, 7]]);
    assertEquals(namesIn(output_dir).filter((name) => name.startsWith("checkpoint")), [
      "checkpoint-4",
      "checkpoint-7",
    ]);
    assertEquals([state.best_global_step, state.best_model_checkpoint], [7, `${output_dir}/checkpoint-7`]);
    assertEquals(stateOf(`${output_dir}/checkpoint-7`).best_model_checkpoint, `${output_dir}/checkpoint-7`);
    // Its best step is saved now, where a run that does not keep the best would have left it out.
    assertEquals(stateOf(`${output_dir}/checkpoint-4`).best_model_checkpoint, `${output_dir}/checkpoint-4`);
  });
});

Deno.test("Killed before its final files, a run that ended early ends again where it did", async () => {
  await withFolder(async (output_dir) => {
    const settings = {
      output_dir,
      eval_file: `${GOLDEN}/train.jsonl`,
      eval_strategy: "steps",
      eval_steps: "1",
      max_steps: "9",
      early_stopping_patience: "2",
      early_stopping_threshold: "5",
    };
    const first = await run(settings);
    const ended = first.steps.length;
    assert(ended < 9, `it ended after ${ended}`);
    const expected = Deno.readFileSync(`${output_dir}/adapter_model.safetensors`);
    await Deno.remove(`${output_dir}/trainer_state.json`);
    const again = await run(settings);
    assertEquals(again.steps.length, 0);
    assertEquals(Deno.readFileSync(`${output_dir}/adapter_model.safetensors`), expected);
  });
});

Deno.test("Work that owns its folder goes on with its run, and replaces any other", async () => {
  await withFolder(async (output_dir) => {
    await run({ output_dir }, 1);
    const argsOf = async (changes: Record<string, string>) =>
      await resumeOrReplace((await loadTrainArgs(null, { ...SETTINGS, output_dir, ...changes })).args);
    assertEquals((await argsOf({})).overwrite_output_dir, false);
    assertEquals((await argsOf({ seed: "9" })).overwrite_output_dir, true);
    assertEquals((await argsOf({ output_dir: `${output_dir}/none` })).overwrite_output_dir, true);
    await run({ output_dir });
    assertEquals((await argsOf({})).overwrite_output_dir, true);
  });
});
