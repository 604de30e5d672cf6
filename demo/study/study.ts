/** Runs the experiments on the demo model, with several seeds, and keeps every result as it comes. */
import { exists } from "../../checkpoint/files.ts";
import { writeFileAtomic } from "../../checkpoint/store.ts";
import { readTokenBin } from "../../data/bin.ts";
import { scoreWindows } from "../../eval/perplexity.ts";
import { UserError } from "../../errors.ts";
import type { GpuOptions } from "../../kernels/gpu.ts";
import { openGpu } from "../../kernels/open.ts";
import { openModel } from "../../model/load/open.ts";
import { settleContext } from "../../model/context.ts";
import { readConfig } from "../../model/config.ts";
import { quantisationOf } from "../../model/quantisation.ts";
import type { StageHooks } from "../../train/hooks.ts";
import { runTraining } from "../../train/run.ts";
import { resumeOrReplace } from "../../train/run_folder.ts";
import { loadTrainArgs } from "../../train_args/load.ts";
import { demoFiles, EXTENDED_CONTEXT, writeDemoData } from "../make_data.ts";
import { BASE_MODEL } from "../run.ts";
import { BASE, EXPERIMENTS, UNTRAINED, type Variant } from "./experiments.ts";

const RECIPE = new URL("./recipe.yaml", import.meta.url).pathname;
const DATA_SEED = 42;

/** The lengths at which perplexity is measured, over the same text. */
export const LENGTHS = [256, 512, 1024] as const;

/** One trained model, measured. */
export interface StudyRow {
  readonly variant: string;
  readonly options: Readonly<Record<string, string>>;
  readonly seed: number;
  readonly steps: number;
  /** By length. */
  readonly perplexity: Readonly<Record<string, number>>;
  readonly trainable_parameters: number;
  readonly seconds: number;
  readonly device: string;
}

export interface StudyOptions {
  readonly output_dir: string;
  /** Steps of the recipe; 1024 tokens each. */
  readonly steps: number;
  readonly seeds: number;
  /** Ids of the experiments to run; all unless given. */
  readonly only?: readonly string[] | null;
  /** Options of the devices; their defaults unless given. */
  readonly gpuOptions?: GpuOptions;
}

/**
 * Runs what `output_dir/results.jsonl` does not have yet, and returns every row of these experiments. A study that is
 * stopped goes on where it was.
 */
export async function runStudy(options: StudyOptions, stages: StageHooks): Promise<StudyRow[]> {
  const { output_dir, seeds, only } = options;
  await writeDemoData(`${output_dir}/data`, DATA_SEED, { baseTraining: false });
  const path = `${output_dir}/results.jsonl`;
  const known = await readRows(path);
  const experiments = EXPERIMENTS.filter(({ id }) => only?.includes(id) ?? true);
  const untrained: readonly Variant[] = [BASE, UNTRAINED];
  const variants = [...untrained, ...experiments.flatMap((experiment) => experiment.variants)];
  const rows: StudyRow[] = [];
  for (let seed = 1; seed <= seeds; seed++) {
    for (const variant of variants) {
      // Nothing is drawn where nothing is trained.
      if (untrained.includes(variant) && seed > 1) continue;
      const key = keyOf({ options: settingsOf(variant, options), seed });
      const row = known.get(key) ?? await runVariant(variant, seed, options, stages);
      if (!known.has(key)) await writeRows(path, known.set(key, row).values());
      rows.push({ ...row, variant: variant.name });
    }
  }
  return rows;
}

/** Settings that make two runs the same, whatever they are called. */
function keyOf({ options, seed }: Pick<StudyRow, "options" | "seed">): string {
  return JSON.stringify([Object.entries(options).sort(), seed]);
}

/** A variant's options with its steps as a number: variants write them as a share of the study's. */
function settingsOf({ options }: Variant, { steps }: StudyOptions): Record<string, string> {
  const share = Number(options.max_steps ?? 1);
  return { ...options, max_steps: String(Math.round(share * steps)) };
}

/** @throws {UserError} naming the line that is no result */
async function readRows(path: string): Promise<Map<string, StudyRow>> {
  if (!await exists(path)) return new Map();
  const rows = (await Deno.readTextFile(path)).trimEnd().split("\n").map((line, i) => {
    try {
      return JSON.parse(line) as StudyRow;
    } catch (cause) {
      throw new UserError(`Cannot go on with "${path}": line ${i + 1} is no result. Remove the line`, {
        cause,
      });
    }
  });
  return new Map(rows.map((row) => [keyOf(row), row]));
}

/** Replaces the file as a whole: a study that is killed leaves no half of a line. */
async function writeRows(path: string, rows: Iterable<StudyRow>): Promise<void> {
  await writeFileAtomic(path, [...rows].map((row) => JSON.stringify(row) + "\n").join(""));
}

async function runVariant(
  variant: Variant,
  seed: number,
  study: StudyOptions,
  stages: StageHooks,
): Promise<StudyRow> {
  const options = settingsOf(variant, study);
  const { gpuOptions = {} } = study;
  const steps = Number(options.max_steps);
  const folder = `${study.output_dir}/model`;
  const data = demoFiles(`${study.output_dir}/data`);
  stages.note(`${variant.name}, seed ${seed}: ${steps} steps`);
  const started = performance.now();
  let trainable = 0;
  if (steps > 0) {
    const { args } = await loadTrainArgs(RECIPE, {
      per_device_train_batch_size: "1",
      ...options,
      seed: String(seed),
      model_name_or_path: BASE_MODEL,
      train_file: data.extend,
      output_dir: folder,
    });
    await stages.training(steps, async (hooks) =>
      runTraining(await resumeOrReplace(args), {
        ...hooks,
        gpuOptions,
        onStart(start) {
          trainable = start.trainableParameters;
          hooks.onStart?.(start);
        },
      }));
    stages.endIfStopped("start study again to go on from there, runs that are done are kept");
  }
  const measured = await measure(steps > 0 ? folder : undefined, options, data.heldOut, gpuOptions, stages);
  return {
    variant: variant.name,
    options,
    seed,
    steps,
    ...measured,
    trainable_parameters: trainable,
    seconds: Math.round((performance.now() - started) / 100) / 10,
  };
}

async function measure(
  folder: string | undefined,
  { low_rank_training, load_in_4bit, model_max_length }: Readonly<Record<string, string>>,
  heldOut: string,
  gpuOptions: GpuOptions,
  stages: StageHooks,
): Promise<Pick<StudyRow, "perplexity" | "device">> {
  const isWhole = low_rank_training === "false";
  const baseModel = isWhole ? folder! : BASE_MODEL;
  const peftModel = isWhole ? undefined : folder;
  const { config } = await settleContext(await readConfig(baseModel), {
    peftModel: peftModel ?? null,
    contextSize: peftModel === undefined ? Number(model_max_length ?? EXTENDED_CONTEXT) : null,
    otherwise: EXTENDED_CONTEXT,
  });
  using gpu = await openGpu(gpuOptions);
  const { model } = await openModel(gpu, {
    baseModel,
    peftModel,
    config,
    quantisation: quantisationOf({ load_in_4bit: load_in_4bit !== "false" }),
  });
  const tokens = await readTokenBin(heldOut);
  const perplexity: Record<string, number> = {};
  for (const length of LENGTHS) {
    const windows = {
      seqLen: length,
      slidingWindow: length,
      batchSize: 4096 / length,
      dropLastWindow: false,
    };
    const scores = await stages.counting("window", (hooks) => scoreWindows(model, tokens, windows, hooks));
    perplexity[length] = scores.tokenPerplexity;
  }
  return { perplexity, device: gpu.info.description };
}
