/** Models as people have them, whose figures were once wrong or refused; the right ones are of float64. */
import { evaluatePerplexity } from "../../eval/perplexity.ts";
import { mergeAdapter } from "../../export/merge.ts";
import { runTraining } from "../../train/run.ts";
import { loadTrainArgs } from "../../train_args/load.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";

const FAULTS = `${GOLDEN}/faults`;

const OPTIONS = {
  slidingWindow: 64,
  batchSize: 1,
  quantisation: "none",
  dropLastWindow: true,
  dtype: "fp32",
} as const;

/** Fails unless the loss is the right one to float32's precision. */
async function assertLoss(baseModel: string, dataPath: string, seqLen: number, wanted: number) {
  const { valLoss } = await evaluatePerplexity({ ...OPTIONS, baseModel, dataPath, seqLen });
  assert(Math.abs(valLoss / wanted - 1) < 1e-6, `valLoss ${valLoss}, not ${wanted}`);
}

Deno.test("heads that together are narrower than the hidden size: evaluated and merged", async () => {
  const folder = `${FAULTS}/01-head-dim`;
  await assertLoss(`${folder}/model`, `${folder}/ids.bin`, 64, 6.0550666);
  await withFolder(async (root) => {
    const { verification } = await mergeAdapter({
      baseModel: `${folder}/model`,
      peftModel: `${folder}/adapter`,
      savePath: `${root}/merged`,
      dtype: "keep",
      maxShardSize: 5e9,
    });
    assert(verification!.maxRelativeDifference < 1e-5, "the merged model differs from base and adapter");
    assertEquals(verification!.argmaxAgreement, 1);
  });
});

Deno.test("yarn as Qwen2.5's cards have it: the context is factor times original_max_position_embeddings", async () => {
  const folder = `${FAULTS}/08-yarn-as-documented`;
  const baseModel = `${folder}/model`;
  const dataPath = `${folder}/ids.bin`;
  await assertLoss(baseModel, dataPath, 128, 5.8701865);
  const notes: string[] = [];
  const hooks = { onProgress() {}, note: (line: string) => notes.push(line) };
  await assertThrows(
    () => evaluatePerplexity({ ...OPTIONS, baseModel, dataPath, seqLen: 128, contextSize: 192 }, hooks),
    "the model has 128",
    "--context_size 128",
  );
  await evaluatePerplexity({ ...OPTIONS, baseModel, dataPath, seqLen: 192 }, hooks);
  assertEquals(notes.length, 1);
  assertIncludes(notes[0]!, "seq_len 192 is longer than the 128 tokens");
  await withFolder(async (root) => {
    const { args } = await loadTrainArgs(null, {
      model_name_or_path: baseModel,
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
    const { contextSize, ropeScaling, verification } = await mergeAdapter({
      baseModel,
      peftModel: `${root}/run`,
      savePath: `${root}/merged`,
      dtype: "keep",
      maxShardSize: 5e9,
    }, hooks);
    assertEquals([contextSize, ropeScaling?.type], [128, "yarn"]);
    assert(verification!.maxRelativeDifference < 1e-5, "the merged model differs from base and adapter");
  });
});
