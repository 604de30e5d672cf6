/** The product's promise in miniature: a 256-token model extended to 1024, measured before and after, and merged. */
import { readTokenBin } from "../data/bin.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import { type PositionScore, scoreWindows } from "../eval/perplexity.ts";
import { readRecallCases, scoreRecall } from "../eval/recall.ts";
import type { GpuOptions } from "../kernels/gpu.ts";
import { openGpu } from "../kernels/open.ts";
import type { Quantisation } from "../kernels/quantisation.ts";
import { readConfig } from "../model/config.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { configForPositions } from "../model/positions.ts";
import { mergeAdapter } from "../export/merge.ts";
import { openModel } from "../model/load/open.ts";
import type { StageHooks } from "../train/hooks.ts";
import { runTraining } from "../train/run.ts";
import { resumeOrReplace } from "../train/run_folder.ts";
import { loadTrainArgs } from "../train_args/load.ts";
import { measureRetrieval, type Retrieval } from "./retrieval.ts";
import { demoFiles, EXTENDED_CONTEXT, RECALL_DISTANCES, writeDemoData } from "./make_data.ts";

/** Folder of the base model that comes with the repository. */
export const BASE_MODEL = new URL("./model", import.meta.url).pathname;
const RECIPE = new URL("./extend-1024.yaml", import.meta.url).pathname;
const SEED = 42;

/** One model measured at one length. */
export interface DemoScore {
  readonly length: number;
  readonly perplexity: number;
  /** The same by where in the window a token stands. */
  readonly byPosition: readonly PositionScore[];
  /** Share of recall cases answered right. */
  readonly recall: number;
  /** Perplexity of the answers alone: of the tokens that need what stands far back. */
  readonly answerPerplexity: number;
}

export interface DemoRow {
  readonly model: string;
  readonly scores: readonly DemoScore[];
}

export interface DemoResult {
  readonly rows: readonly DemoRow[];
  /** Passkey of the base and of the extended model. */
  readonly passkey: Retrieval;
  readonly base_model: string;
  readonly adapter: string;
  readonly merged: string;
  readonly data: string;
  readonly device: string;
  readonly seconds: number;
}

/** A model as it is measured. */
interface Subject {
  /** Its name in the table. */
  readonly model: string;
  readonly baseModel: string;
  readonly peftModel?: string;
  /** With its positions settled. */
  readonly config: ModelConfig;
  readonly quantisation: Quantisation;
}

/** Options of a demo. */
export interface DemoOptions {
  /** Folder for data, adapter and merged model. */
  readonly output_dir: string;
  /** Options of the devices; their defaults unless given. */
  readonly gpuOptions?: GpuOptions;
}

/** Extends, measures, merges, and measures the merged model. */
export async function runDemo(
  { output_dir, gpuOptions = {} }: DemoOptions,
  stages: StageHooks,
): Promise<DemoResult> {
  const started = performance.now();
  const data = `${output_dir}/data`;
  const adapter = `${output_dir}/adapter`;
  const merged = `${output_dir}/merged`;
  const config = await readConfig(BASE_MODEL);
  await writeDemoData(data, SEED, { baseTraining: false });

  stages.note(
    `Extending the demo model from ${config.max_position_embeddings} to ${EXTENDED_CONTEXT} tokens: S2-Attn, LoRA, ` +
      `4-bit base`,
  );
  const { args } = await loadTrainArgs(RECIPE, {
    model_name_or_path: BASE_MODEL,
    train_file: demoFiles(data).extend,
    output_dir: adapter,
  });
  await stages.training(
    10,
    async (hooks) => runTraining(await resumeOrReplace(args), { ...hooks, gpuOptions }),
  );
  stages.endIfStopped("start demo again to go on from there");

  stages.note("Merging the adapter into the base model");
  await Deno.remove(merged, { recursive: true }).catch(() => {});
  await stages.counting("tensor", (hooks) =>
    mergeAdapter({
      baseModel: BASE_MODEL,
      peftModel: adapter,
      contextSize: EXTENDED_CONTEXT,
      savePath: merged,
      dtype: "keep",
      maxShardSize: 5e9,
      gpuOptions,
    }, hooks));

  stages.note("Measuring perplexity and recall at 256, 512 and 1024 tokens");
  // Every row but the last is on the base in 4 bits, which costs the same everywhere.
  const base = { baseModel: BASE_MODEL, quantisation: "nf4-double" } as const;
  const longer = { model_max_length: EXTENDED_CONTEXT };
  const raised = configForPositions(config, { ...longer, rope_theta: args.rope_theta });
  const subjects: Subject[] = [
    { model: "base", ...base, config },
    { model: "interpolated, not trained", ...base, config: configForPositions(config, longer) },
    { model: "theta raised, not trained", ...base, config: raised },
    { model: "extended", ...base, peftModel: adapter, config: raised },
    {
      model: "extended and merged",
      baseModel: merged,
      config: await readConfig(merged),
      quantisation: "none",
    },
  ];
  const rows: DemoRow[] = [];
  for (const subject of subjects) {
    rows.push({ model: subject.model, scores: await measure(subject, data, gpuOptions, stages) });
  }

  stages.note("Asking the base and the extended model for a word in texts of 256 to 1024 tokens (passkey)");
  const passkey = await measureRetrieval(
    [
      { model: "base", ...base, gpuOptions },
      { model: "extended", ...base, peftModel: adapter, gpuOptions },
    ],
    output_dir,
    stages,
  );
  using gpu = await openGpu(gpuOptions);
  return {
    rows,
    passkey,
    base_model: BASE_MODEL,
    adapter,
    merged,
    data,
    device: gpu.info.description,
    seconds: (performance.now() - started) / 1000,
  };
}

async function measure(
  subject: Subject,
  data: string,
  gpuOptions: GpuOptions,
  stages: StageHooks,
): Promise<DemoScore[]> {
  const { model: _, ...options } = subject;
  const files = demoFiles(data);
  using gpu = await openGpu(gpuOptions);
  const { model } = await openModel(gpu, options);
  const tokenizer = await Tokenizer.load(BASE_MODEL);
  const tokens = await readTokenBin(files.heldOut);
  const scores: DemoScore[] = [];
  for (const { length } of RECALL_DISTANCES) {
    const windows = {
      seqLen: length,
      slidingWindow: length,
      batchSize: 4096 / length,
      dropLastWindow: false,
    };
    const { tokenPerplexity: perplexity, byPosition } = await stages.counting(
      "window",
      (hooks) => scoreWindows(model, tokens, windows, hooks),
    );
    const cases = await readRecallCases(files.recall[length]!, tokenizer);
    const { right, answerPerplexity } = await stages.counting(
      "recall case",
      (hooks) => scoreRecall(model, cases, hooks),
    );
    scores.push({ length, perplexity, byPosition, recall: right / cases.length, answerPerplexity });
  }
  return scores;
}
