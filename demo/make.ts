/** Makes the demo's base model again from the generator and the two recipes beside this file. */
import { Tokenizer } from "../data/tokenizer.ts";
import { readRecallCases, scoreRecall } from "../eval/recall.ts";
import { evaluatePerplexity } from "../eval/perplexity.ts";
import type { GpuOptions } from "../kernels/gpu.ts";
import { openGpu } from "../kernels/open.ts";
import { openModel } from "../model/load/open.ts";
import type { StageHooks } from "../train/hooks.ts";
import { runTraining } from "../train/run.ts";
import { loadTrainArgs } from "../train_args/load.ts";
import { writeDemoData } from "./make_data.ts";

/** Tokens the base model is made for. */
const BASE_CONTEXT = 256;
const SEED = 42;

export interface MakeDemoResult {
  /** Folder of the finished base model. */
  readonly model: string;
  readonly perplexity: number;
  /** Share of facts found again over 150 to 240 tokens. */
  readonly recall: number;
}

/** Options of making the demo's base model. */
export interface MakeDemoOptions {
  /** Folder for the data and the models. */
  readonly output_dir: string;
  /** Options of the devices; their defaults unless given. */
  readonly gpuOptions?: GpuOptions;
}

/** Writes the data, trains at 64 and then at 256 tokens, and measures the result. */
export async function makeDemo(
  { output_dir, gpuOptions = {} }: MakeDemoOptions,
  stages: StageHooks,
): Promise<MakeDemoResult> {
  stages.note("Writing the corpus");
  const files = await writeDemoData(`${output_dir}/data`, SEED);
  const first = `${output_dir}/base-64`;
  const second = `${output_dir}/base-256`;
  await train(
    "base-64.yaml",
    {
      model_name_or_path: files.model,
      train_file: files.base64,
      output_dir: first,
    },
    gpuOptions,
    stages,
  );
  await train(
    "base-256.yaml",
    { model_name_or_path: first, train_file: files.base256, output_dir: second },
    gpuOptions,
    stages,
  );
  const { tokenPerplexity } = await stages.counting("window", (hooks) =>
    evaluatePerplexity({
      baseModel: second,
      dataPath: files.heldOut,
      seqLen: BASE_CONTEXT,
      slidingWindow: BASE_CONTEXT,
      batchSize: 16,
      dropLastWindow: false,
      dtype: "fp32",
      gpuOptions,
    }, hooks));
  using gpu = await openGpu(gpuOptions);
  const { model } = await openModel(gpu, { baseModel: second, contextSize: BASE_CONTEXT });
  const cases = await readRecallCases(files.recall[BASE_CONTEXT]!, await Tokenizer.load(second));
  const { right } = await scoreRecall(model, cases);
  return { model: second, perplexity: tokenPerplexity, recall: right / cases.length };
}

async function train(
  recipe: string,
  paths: Record<string, string>,
  gpuOptions: GpuOptions,
  stages: StageHooks,
): Promise<void> {
  const file = new URL(`./${recipe}`, import.meta.url).pathname;
  stages.note(`Training by demo/${recipe}`);
  const { args } = await loadTrainArgs(file, { ...paths, overwrite_output_dir: "true" });
  await stages.training(args.logging_steps, (hooks) => runTraining(args, { ...hooks, gpuOptions }));
  stages.endIfStopped("start make_demo again to begin anew");
}
