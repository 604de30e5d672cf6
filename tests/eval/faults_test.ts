/** Models as people have them, whose figures were once wrong or refused; the right ones are of float64. */
import { evaluatePerplexity } from "../../eval/perplexity.ts";
import { mergeAdapter } from "../../model/merge.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";

const FAULTS = `${GOLDEN}/faults`;

/** Fails unless the loss is the right one to float32's precision. */
async function assertLoss(base_model: string, data_path: string, seq_len: number, wanted: number) {
  const { val_loss } = await evaluatePerplexity({
    base_model,
    data_path,
    seq_len,
    sliding_window: 64,
    batch_size: 1,
    load_in_4bit: false,
    drop_last_window: true,
    dtype: "fp32",
  });
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
