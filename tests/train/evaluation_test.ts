import { readAdapter } from "../../checkpoint/peft.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { openModel } from "../../model/load/open.ts";
import { makeBatch } from "../../model/batch.ts";
import { loadDataset } from "../../data/dataset.ts";
import { parseSources } from "../../data/sources.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { Evaluation } from "../../train/evaluation.ts";
import { runTraining } from "../../train/run.ts";
import { MEASURED } from "../../train/run_log.ts";
import { loadTrainArgs } from "../../train_args/load.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { readEvents } from "../support/event_file.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { comparedBytes } from "../support/metrics.ts";

const SETTINGS: Record<string, string> = {
  model_name_or_path: `${GOLDEN}/mha`,
  train_file: `${GOLDEN}/train.jsonl`,
  eval_file: `${GOLDEN}/train.jsonl`,
  model_max_length: "64",
  lora_rank: "4",
  lora_dropout: "0",
  eval_strategy: "steps",
  eval_steps: "2",
  max_steps: "6",
  save_steps: "6",
  logging_steps: "6",
  per_device_eval_batch_size: "3",
};

async function train(overrides: Record<string, string>, stopAfter = Infinity) {
  const { args } = await loadTrainArgs(null, { ...SETTINGS, ...overrides });
  const losses: [number, number][] = [];
  const notes: string[] = [];
  let steps = 0;
  const result = await runTraining(args, {
    onStart() {},
    onStep: () => steps++,
    onEvaluate: (step, loss) => losses.push([step, loss]),
    onSave() {},
    note: (line) => notes.push(line),
    shouldStop: () => steps >= stopAfter,
  });
  return { result, losses, notes };
}

Deno.test("A run evaluates before its first step, every so often and at its end, and logs it", async () => {
  await withFolder(async (output_dir) => {
    const { losses, result } = await train({ output_dir, max_steps: "5", learning_rate: "0.002" });
    assertEquals(losses.map(([step]) => step), [0, 2, 4, 5]);
    assert(losses.at(-1)![1] < losses[0]![1] - 0.01, `nothing was learnt: ${losses}`);
    const state = JSON.parse(await Deno.readTextFile(`${output_dir}/trainer_state.json`));
    const logged = state.log_history.filter((entry: { eval_loss?: number }) => entry.eval_loss !== undefined);
    assertEquals(
      logged.map((entry: { step: number; eval_loss: number }) => [entry.step, entry.eval_loss]),
      losses,
    );
    assertEquals(state.best_metric, Math.min(...losses.map(([, loss]) => loss)));
    const metrics = (await Deno.readTextFile(`${output_dir}/metrics.jsonl`)).trim().split("\n").map((row) =>
      JSON.parse(row)
    );
    const rows = metrics.filter((row) => "eval_loss" in row);
    const events = (await readEvents(`${output_dir}/runs`)).flat()
      .filter(({ values }) => values && "eval/loss" in values);
    for (const [i, row] of rows.entries()) {
      assertEquals(Object.keys(row), ["epoch", "step", "eval_loss", ...MEASURED]);
      assert(row.tokens_per_second > 0 && row.peak_memory_bytes > 0, JSON.stringify(row));
      assert(row.seconds > (rows[i - 1]?.seconds ?? 0), `${row.seconds} seconds`);
      const { values } = events[i]!;
      assertEquals(
        MEASURED.map((key) => values![`eval/${key}`]),
        MEASURED.map((key) => Math.fround(row[key])),
      );
    }
    assertEquals(rows.length, losses.length);
    // The loss is the mean over targets, however batches are cut, with full attention.
    const tokenizer = await Tokenizer.load(`${GOLDEN}/mha`);
    const sources = parseSources([SETTINGS.eval_file!]);
    const { samples } = await loadDataset(sources, tokenizer, { maxSeqLength: 64 });
    using gpu = await Gpu.open();
    const { model } = await openModel(gpu, {
      baseModel: `${GOLDEN}/mha`,
      peftModel: output_dir,
      quantisation: "nf4-double",
    });
    const { losses: each } = await model.predict(model.upload(makeBatch(samples)));
    // Evaluating does not count as training: both took no longer than the run.
    const trained = metrics.find((row) => "loss" in row);
    const tokens = samples.reduce((sum, { inputIds }) => sum + inputIds.length, 0);
    const before = metrics.slice(0, metrics.indexOf(trained)).map((row) => tokens / row.tokens_per_second);
    const taken = before.reduce((sum, seconds) => sum + seconds, result.tokens / trained.tokens_per_second);
    assertEquals([trained.step, before.length], [5, 3]);
    assert(taken < trained.seconds + 0.01, `${taken} seconds of ${trained.seconds}`);
    const mean = each.reduce((sum, loss) => sum + loss, 0) / makeBatch(samples).targets;
    assertClose("eval_loss", [losses.at(-1)![1]], [mean], { rtol: 1e-5, atol: 0 });
  });
});

Deno.test("The best checkpoint is kept and becomes the final one; a run that gets no better ends early", async () => {
  await withFolder(async (folder) => {
    // A learning rate that helps for some steps and then destroys.
    const settings = {
      learning_rate: "0.06",
      eval_steps: "1",
      max_steps: "12",
      load_best_model_at_end: "true",
    };
    const { losses, notes, result } = await train({
      ...settings,
      output_dir: `${folder}/best`,
      early_stopping_patience: "2",
      save_total_limit: "1",
    });
    const best = losses.reduce((least, each) => each[1] < least[1] ? each : least);
    const text = JSON.stringify(losses);
    assert(best[0] > 0 && best[0] < losses.at(-1)![0], `the best is not in the middle: ${text}`);
    assertEquals(result.steps, best[0] + 2, text);
    assert(
      notes.some((line) => line.includes(`The best evaluation was after step ${best[0]}`)),
      notes.join("\n"),
    );
    const names = namesIn(`${folder}/best`);
    assert(names.includes(`checkpoint-${best[0]}`), names.join());
    const [final, kept] = await Promise.all(
      [`${folder}/best`, `${folder}/best/checkpoint-${best[0]}`].map((path) =>
        Deno.readFile(`${path}/adapter_model.safetensors`)
      ),
    );
    assertEquals(final, kept);
    assertEquals((await readAdapter(`${folder}/best`)).config.r, 4);
  });
});

Deno.test("Resumed, a run knows what was best", async () => {
  await withFolder(async (folder) => {
    const settings = {
      learning_rate: "0.06",
      eval_steps: "1",
      max_steps: "6",
      load_best_model_at_end: "true",
    };
    const whole = await train({ ...settings, output_dir: `${folder}/whole` });
    await train({ ...settings, output_dir: `${folder}/cut` }, 4);
    const rest = await train({ ...settings, output_dir: `${folder}/cut`, resume_from_checkpoint: "true" });
    assertEquals(rest.losses, whole.losses.slice(-2));
    for (const name of ["adapter_model.safetensors", "metrics.jsonl"]) {
      assertEquals(
        await comparedBytes(`${folder}/cut`, name),
        await comparedBytes(`${folder}/whole`, name),
        name,
      );
    }
  });
});

Deno.test("Evaluation counts what is no better than the threshold as no improvement", async () => {
  const { args } = await loadTrainArgs(null, {
    ...SETTINGS,
    output_dir: "o",
    early_stopping_patience: "2",
    early_stopping_threshold: "0.25",
  });
  const evaluation = new Evaluation({ samples: [], args, evalSteps: 1, saved: undefined });
  const judged = [2, 1.75, 1.25, 1.25, 1].map((loss, step) => evaluation.judge(loss, step));
  assertEquals(judged.map(({ isBest }) => isBest), [true, true, true, false, true]);
  assertEquals(judged.map(({ isHopeless }) => isHopeless), [false, false, false, false, true]);
  assertEquals(evaluation.state, { best: { loss: 1, step: 4 }, worse: 2 });
});

Deno.test("Evaluation wants its file, and its options a strategy", async () => {
  const refused = async (changes: Record<string, string>, ...parts: string[]) => {
    const { eval_file: _, ...others } = SETTINGS;
    await assertThrows(() => loadTrainArgs(null, { ...others, output_dir: "o", ...changes }), ...parts);
  };
  await refused({}, "eval_strategy", "eval_file must be set");
  await refused({ eval_strategy: "no", load_best_model_at_end: "true" }, "needs eval_strategy");
  await refused({ eval_strategy: "no", early_stopping_patience: "2" }, "needs eval_strategy");
});
