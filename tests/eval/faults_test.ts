/** Models as people have them, whose figures were once wrong or refused; the right ones are of float64. */
import { evaluatePerplexity } from "../../eval/perplexity.ts";
import { mergeAdapter } from "../../model/merge.ts";
import { runTraining } from "../../train/run.ts";
import { loadTrainArgs } from "../../train_args/load.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";

const FAULTS = `${GOLDEN}/faults`;

const OPTIONS = {
  sliding_window: 64,
  batch_size: 1,
  load_in_4bit: false,
  drop_last_window: true,
  dtype: "fp32",
} as const;

/** Fails unless the loss is the right one to float32's precision. */
async function assertLoss(base_model: string, data_path: string, seq_len: number, wanted: number) {
  const { val_loss } = await evaluatePerplexity({ ...OPTIONS, base_model, data_path, seq_len });
  assert(Math.abs(val_loss / wanted - 1) < 1e-6, `val_loss ${val_loss}, not ${wanted}`);
}

Deno.test("heads that together are narrower than the hidden size: evaluated and merged", async () => {
  const folder = `${FAULTS}/01-head-dim`;
  await assertLoss(`${folder}/model`, `${folder}/ids.bin`, 64, 6.0550666);
  await withFolder(async (root) => {
    const { verification } = await mergeAdapter({
      base_model: `${folder}/model`,
      peft_model: `${folder}/adapter`,
      save_path: `${root}/merged`,
      dtype: "keep",
      max_shard_size: 5e9,
    });
    assert(verification!.max_relative_difference < 1e-5, "the merged model differs from base and adapter");
    assertEquals(verification!.argmax_agreement, 1);
  });
});

Deno.test("yarn as Qwen2.5's cards have it: the context is factor times original_max_position_embeddings", async () => {
  const folder = `${FAULTS}/08-yarn-as-documented`;
  const base_model = `${folder}/model`;
  const data_path = `${folder}/ids.bin`;
  await assertLoss(base_model, data_path, 128, 5.8701865);
  const notes: string[] = [];
  const hooks = { onProgress() {}, note: (line: string) => notes.push(line) };
  await assertThrows(
    () => evaluatePerplexity({ ...OPTIONS, base_model, data_path, seq_len: 128, context_size: 192 }, hooks),
    "the model has 128",
    "--context_size 128",
  );
  await evaluatePerplexity({ ...OPTIONS, base_model, data_path, seq_len: 192 }, hooks);
  assertEquals(notes.length, 1);
  assertIncludes(notes[0]!, "seq_len 192 is longer than the 128 tokens");
  await withFolder(async (root) => {
    const { args } = await loadTrainArgs(null, {
      model_name_or_path: base_model,
      train_file: `${folder}/t.jsonl`,
      output_dir: `${root}/run`,
      model_max_length: "128",
      max_steps: "1",
      lora_rank: "4",
      load_in_4bit: "false",
    });
    await runTraining(args, {
      onStart() {},
      onStep() {},
      onSave() {},
      note() {},
      shouldStop: () => false,
    });
    const { context_size, rope_scaling, verification } = await mergeAdapter({
      base_model,
      peft_model: `${root}/run`,
      save_path: `${root}/merged`,
      dtype: "keep",
      max_shard_size: 5e9,
    }, hooks);
    assertEquals([context_size, rope_scaling?.type], [128, "yarn"]);
    assert(verification!.max_relative_difference < 1e-5, "the merged model differs from base and adapter");
  });
});
