import type { Communicator } from "../../distributed/communicator.ts";
import { SafetensorsFile } from "../../checkpoint/safetensors.ts";
import type { StepMetrics, TrainHooks } from "../../train/hooks.ts";
import { runTraining } from "../../train/run.ts";
import { loadTrainArgs } from "../../train_args/load.ts";
import { assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";
import { playRanks } from "../support/ranks.ts";

/** Samples of uneven lengths, and an epoch that no number of ranks divides. */
const SETTINGS = {
  model_name_or_path: `${GOLDEN}/mha`,
  train_file: `${GOLDEN}/train.jsonl`,
  sft: "false",
  model_max_length: "64",
  lora_rank: "2",
  lora_dropout: "0.1",
  trainable_params: "embed,norm",
  learning_rate: "0.002",
  max_steps: "4",
  save_steps: "2",
  eval_file: `${GOLDEN}/train.jsonl`,
  eval_strategy: "steps",
  eval_steps: "2",
  dataset_cache_dir: "false",
};

interface Ran {
  readonly losses: number[];
  readonly evalLosses: number[];
  readonly notes: string[];
}

async function run(
  settings: Readonly<Record<string, string>>,
  ranks: Communicator,
  stopAfter = Infinity,
): Promise<Ran> {
  const { args } = await loadTrainArgs(null, { ...SETTINGS, ...settings });
  const ran: Ran = { losses: [], evalLosses: [], notes: [] };
  const hooks: TrainHooks = {
    onStep: ({ loss }: StepMetrics) => ran.losses.push(loss),
    onEvaluate: (_, loss) => ran.evalLosses.push(loss),
    note: (line) => ran.notes.push(line),
    // As a signal would: any rank may hear of it.
    shouldStop: () => ranks.rank === ranks.size - 1 && ++asked[ranks.rank]! >= stopAfter,
    ranks,
  };
  const asked = new Array(ranks.size).fill(0);
  await runTraining(args, hooks);
  return ran;
}

/** Trains on so many ranks, with a global batch of 4 sequences. @returns what rank 0 told */
async function train(
  size: number,
  settings: Readonly<Record<string, string>>,
  stopAfter?: number,
): Promise<Ran> {
  const batch = { gradient_accumulation_steps: `${4 / size}`, per_device_train_batch_size: "1" };
  const [first, ...others] = await playRanks(
    size,
    (ranks) => run({ ...batch, ...settings }, ranks, stopAfter),
  );
  assertEquals(others.flatMap(({ losses, notes }) => [...losses, ...notes]), [], "only rank 0 tells");
  return first!;
}

async function trained(folder: string): Promise<Map<string, Float32Array>> {
  const file = await SafetensorsFile.open(`${folder}/adapter_model.safetensors`);
  try {
    const tensors = new Map<string, Float32Array>();
    for (const [name, span] of file.tensors) {
      tensors.set(name, new Float32Array((await file.read(span)).slice().buffer));
    }
    return tensors;
  } finally {
    file.close();
  }
}

Deno.test("Ranks train as one rank with the same global batch, also when another number of them goes on", async () => {
  await withFolder(async (folder) => {
    const one = await train(1, { output_dir: `${folder}/1` });
    const expected = await trained(`${folder}/1`);
    for (const size of [2, 4]) {
      const output_dir = `${folder}/${size}`;
      const ran = await train(size, { output_dir });
      assertClose("losses", ran.losses, one.losses, { rtol: 1e-5, atol: 0 });
      assertClose("eval_loss", ran.evalLosses, one.evalLosses, { rtol: 1e-5, atol: 0 });
      for (const [name, values] of await trained(output_dir)) {
        assertClose(`${name} of ${size} ranks`, values, expected.get(name)!, { rtol: 1e-5, atol: 1e-5 });
      }
    }
    // Stopped on two ranks, and gone on with on four, then refused where a step would be of another size.
    const output_dir = `${folder}/resumed`;
    assertEquals((await train(2, { output_dir }, 2)).losses.length, 2);
    const other = { output_dir, gradient_accumulation_steps: "2" };
    await assertThrows(
      () => train(1, other),
      "the number of ranks was 2, now 1, and a step had 4 sequences, now 2",
    );
    const rest = await train(4, { output_dir });
    assertIncludes(rest.notes.join("\n"), "the number of ranks was 2, now 4");
    assertClose("losses gone on with", rest.losses, one.losses.slice(2), { rtol: 1e-5, atol: 0 });
    for (const [name, values] of await trained(output_dir)) {
      assertClose(`${name}, gone on with`, values, expected.get(name)!, { rtol: 1e-5, atol: 1e-5 });
    }
  });
});
