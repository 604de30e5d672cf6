/**
 * A run of 20,000 steps as users start it: samples of many lengths, logged, evaluated and saved in between. What the
 * process takes of the machine's memory must not grow with the steps.
 */
import { loadTrainArgs } from "../../train_args/load.ts";
import { runTraining } from "../../train/run.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { integers } from "../support/random.ts";
import type { CampaignOptions, CampaignRow } from "./campaign.ts";

const STEPS = 20_000;
/** By then every length was seen, and the collectors have found their pace. */
const SETTLED_SHARE = 0.1;
const MOST_GROWTH_MIB = 16;

/** What differs between the parts. */
const PARTS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  lora: { lora_rank: "4" },
};

function rssMib(): number {
  return Deno.memoryUsage().rss / 2 ** 20;
}

/** Rows of 1 to 12 words. */
function rows(seed: number, count: number): string {
  const words = "lamp quiet harbour orchard river seven stone winter letter copper".split(" ");
  return [...integers(seed, count, 12)].map((length, i) => {
    const text = [...integers(seed + 1 + i, 1 + length, words.length)].map((word) => words[word]).join(" ");
    return JSON.stringify({ text }) + "\n";
  }).join("");
}

async function soak(
  part: string,
  { count: steps = STEPS, seed, say }: CampaignOptions,
): Promise<CampaignRow> {
  let settled = NaN;
  let last = NaN;
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/train.jsonl`, rows(seed, 200));
    await Deno.writeTextFile(`${folder}/eval.jsonl`, rows(seed + 1000, 6));
    const every = Math.max(1, Math.floor(steps / 20));
    const { args } = await loadTrainArgs(null, {
      model_name_or_path: `${GOLDEN}/mha`,
      train_file: `${folder}/train.jsonl`,
      eval_file: `${folder}/eval.jsonl`,
      eval_strategy: "steps",
      eval_steps: String(every),
      output_dir: `${folder}/out`,
      dataset_cache_dir: "false",
      sft: "false",
      model_max_length: "64",
      per_device_train_batch_size: "1",
      max_steps: String(steps),
      save_steps: String(every),
      save_total_limit: "2",
      logging_steps: "10",
      ...PARTS[part],
    });
    await runTraining(args, {
      onStart() {},
      onStep: ({ step, elapsedMs }) => {
        if (step === Math.round(steps * SETTLED_SHARE)) settled = rssMib();
        if (step % every !== 0) return;
        last = rssMib();
        say(`  step ${step}: ${last.toFixed(1)} MiB, ${(elapsedMs / step).toFixed(0)} ms a step`);
      },
      onSave() {},
      note() {},
      shouldStop: () => false,
    });
  });
  const grown = last - settled;
  const fault = `from ${settled.toFixed(1)} to ${last.toFixed(1)} MiB between steps ${
    steps * SETTLED_SHARE
  } and ${steps}`;
  return {
    part,
    tried: steps,
    counts: { "MiB grown": Number(grown.toFixed(1)) },
    faults: grown <= MOST_GROWTH_MIB ? [] : [fault],
  };
}

/** Runs each part. */
export async function* run(options: CampaignOptions): AsyncIterable<CampaignRow> {
  for (const part of Object.keys(PARTS)) {
    if (options.only === undefined || options.only === part) yield await soak(part, options);
  }
}
