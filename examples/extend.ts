/**
 * Extends a model's context fourfold by training on a text, measures it before and after on another, and merges:
 *
 *     deno run --config deno.json --allow-read --allow-write --allow-env \
 *       examples/extend.ts models/base book.txt held-out.txt output/long
 */
import {
  contextLength,
  evaluatePerplexity,
  loadTrainArgs,
  mergeAdapter,
  readConfig,
  runTraining,
} from "@longreach/longreach";

const [baseModel, book, heldOut, output] = Deno.args;
if (!baseModel || !book || !heldOut || !output) {
  throw new Error("Usage: extend.ts MODEL BOOK HELD_OUT OUTPUT");
}
const seqLen = 4 * contextLength(await readConfig(baseModel));

const before = await evaluatePerplexity({ baseModel, dataPath: heldOut, seqLen });

const { args } = await loadTrainArgs(null, {
  model_name_or_path: baseModel,
  train_file: book,
  packing: true,
  model_max_length: seqLen,
  max_steps: 20,
  learning_rate: 1e-3,
  output_dir: output,
});
const { outputDir } = await runTraining(args, {
  onStep: ({ step, totalSteps, loss }) =>
    console.log(`step ${step} of ${totalSteps}: loss ${loss.toFixed(3)}`),
});

const after = await evaluatePerplexity({ baseModel, peftModel: outputDir, dataPath: heldOut, seqLen });
console.log(
  `perplexity at ${seqLen} tokens: ${before.tokenPerplexity} before, ${after.tokenPerplexity} after`,
);

const { savePath } = await mergeAdapter({ baseModel, peftModel: outputDir, savePath: `${output}-merged` });
console.log(`merged into ${savePath}`);
