import type { Communicator } from "../../distributed/communicator.ts";
import { SafetensorsFile } from "../../checkpoint/safetensors.ts";
import type { StepMetrics, TrainHooks } from "../../train/hooks.ts";
import { asRows } from "../../kernels/optimizer/adamw_8bit.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { allReduceBf16 } from "../../train/gradient_sum.ts";
import { shardsOf } from "../../train/shards.ts";
import { readConfig } from "../../model/config.ts";
import { stepCost } from "../../train/plan/step_cost.ts";
import { runTraining } from "../../train/run.ts";
import { loadTrainArgs } from "../../train_args/load.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
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
  const replicas = size / Number(settings.sequence_parallel_size ?? 1);
  const batch = { gradient_accumulation_steps: `${4 / replicas}`, per_device_train_batch_size: "1" };
  const [first, ...others] = await playRanks(
    size,
    (ranks) => run({ ...batch, ...settings }, ranks, stopAfter),
  );
  assertEquals(others.flatMap(({ losses, notes }) => [...losses, ...notes]), [], "only rank 0 tells");
  return first!;
}

async function trained(
  folder: string,
  name = "adapter_model.safetensors",
): Promise<Map<string, Float32Array>> {
  const file = await SafetensorsFile.open(`${folder}/${name}`);
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

Deno.test("ZeRO: ranks that share the optimiser's states train as one rank, and save them whole", async () => {
  await withFolder(async (folder) => {
    const full = {
      low_rank_training: "false",
      load_in_4bit: "false",
      max_grad_norm: "0.5",
      weight_decay: "0.1",
      eval_strategy: "no",
      max_steps: "3",
      save_steps: "1",
    };
    for (const optim of ["adamw_torch", "paged_adamw_8bit"]) {
      const one = await train(1, { ...full, optim, output_dir: `${folder}/${optim}-1` });
      const output_dir = `${folder}/${optim}-4`;
      const sharded = { ...full, optim, output_dir, zero_stage: "1" };
      const begun = await train(4, sharded, 2);
      // One rank goes on with the states of four.
      const rest = await train(1, { ...sharded, zero_stage: "0" });
      assertClose("losses", [...begun.losses, ...rest.losses], one.losses, { rtol: 1e-5, atol: 0 });
      if (optim !== "adamw_torch") continue;
      for (const name of ["optimizer.safetensors", "model.safetensors"]) {
        const expected = await trained(`${folder}/${optim}-1/checkpoint-3`, name);
        for (const [tensor, values] of await trained(`${output_dir}/checkpoint-3`, name)) {
          assertClose(tensor, values, expected.get(tensor)!, { rtol: 1e-4, atol: 1e-6 });
        }
      }
    }
    const third = { ...full, output_dir: `${folder}/3`, zero_stage: "3" };
    await assertThrows(() => train(2, third), "zero_stage 3 splits the model itself over ranks");
  });
});

Deno.test("shardsOf() gives every row to one rank, by whole blocks, and small parameters in turn", () => {
  const tensorOf = (shape: number[]) => new Tensor(shape, "f32", "", []);
  for (const ranks of [1, 2, 3, 7]) {
    const parameters = [[4], [300], [8, 64], [100, 12], [640, 4], [1000, 8], [64, 4]].map(tensorOf);
    for (const [i, shards] of shardsOf(parameters, ranks).entries()) {
      const { rows } = asRows(parameters[i]!);
      const sorted = shards.filter(({ start, end }) => start < end).sort((a, b) => a.start - b.start);
      assertEquals([sorted[0]!.start, sorted.at(-1)!.end], [0, rows]);
      for (const [k, { start }] of sorted.entries()) {
        assertEquals([start, start % 64], [k === 0 ? 0 : sorted[k - 1]!.end, 0]);
      }
    }
  }
  const owners = shardsOf([[8, 64], [8, 64], [8, 64]].map(tensorOf), 3)
    .map((shards) => shards.findIndex(({ start, end }) => start < end));
  assertEquals(owners, [0, 1, 2]);
});

Deno.test("allReduceBf16() rounds a value twice, and gives all ranks the same", async () => {
  for (const [size, length] of [[2, 5], [3, 1], [4, 1003]] as const) {
    const values = (rank: number) => Float32Array.from({ length }, (_, i) => Math.sin(1 + i * (rank + 1)));
    const sums = await playRanks(size, async (ranks) => {
      const own = values(ranks.rank);
      await allReduceBf16(ranks, own);
      return own;
    });
    const all = Array.from({ length: size }, (_, rank) => values(rank));
    for (const [i, sum] of sums[0]!.entries()) {
      const exact = all.reduce((total, one) => total + one[i]!, 0);
      const magnitude = all.reduce((total, one) => total + Math.abs(one[i]!), 0);
      // Half a unit of 8 bits for each value, and as much for the sum.
      assert(
        Math.abs(sum - exact) <= 2 ** -7 * magnitude,
        `value ${i} of ${size} ranks: ${sum}, not ${exact}`,
      );
    }
    for (const other of sums) assertEquals(other, sums[0]);
  }
});

Deno.test("Gradients in bf16 between ranks train to nearly the same losses", async () => {
  await withFolder(async (folder) => {
    const settings = { eval_strategy: "no", max_steps: "3", lora_dropout: "0" };
    const exact = await train(2, { ...settings, output_dir: `${folder}/f32` });
    for (const zero_stage of ["0", "1"]) {
      const output_dir = `${folder}/bf16-${zero_stage}`;
      const rounded = await train(2, { ...settings, output_dir, ddp_comm_hook: "bf16", zero_stage });
      assertClose("losses", rounded.losses, exact.losses, { rtol: 1e-4, atol: 0 });
      assert(rounded.losses[2] !== exact.losses[2], `nothing was rounded, zero_stage ${zero_stage}`);
      assertEquals(rounded.losses[0], exact.losses[0], "losses are not rounded");
    }
  });
});

Deno.test("Ranks that share sequences train as one rank, and one goes on with what they saved", async () => {
  await withFolder(async (folder) => {
    const shared = { lora_dropout: "0.1", neftune_noise_alpha: "5", group_size: "8" };
    const one = await train(1, { ...shared, output_dir: `${folder}/1` });
    const expected = await trained(`${folder}/1`);
    const output_dir = `${folder}/4`;
    // Of the shortest sequences one rank of two has nothing.
    const two = { ...shared, output_dir, sequence_parallel_size: "2" };
    assertClose("losses", (await train(4, two, 2)).losses, one.losses.slice(0, 2), { rtol: 1e-5, atol: 0 });
    await assertThrows(
      () => train(1, { ...shared, output_dir, gradient_accumulation_steps: "2" }),
      "the number of ranks was 4, now 1, sequence_parallel_size was 2, now 1, and a step had 4 sequences, now 2",
    );
    const rest = await train(1, { ...shared, output_dir });
    assertIncludes(rest.notes.join("\n"), "sequence_parallel_size was 2, now 1");
    assertClose("losses gone on with", rest.losses, one.losses.slice(2), { rtol: 1e-5, atol: 0 });
    for (const [name, values] of await trained(output_dir)) {
      assertClose(`${name}, gone on with`, values, expected.get(name)!, { rtol: 1e-5, atol: 1e-5 });
    }
    await assertThrows(
      () => train(1, two),
      "sequence_parallel_size 2 does not divide the 1 ranks of this job",
    );
  });
});

Deno.test("A plan for several ranks counts each one's part of the optimiser's states", async () => {
  const settings = { ...SETTINGS, low_rank_training: "false", load_in_4bit: "false", output_dir: "o" };
  const bytes = async (zero_stage: string, worldSize: number) => {
    const { args } = await loadTrainArgs(null, { ...settings, zero_stage });
    const { peak } = await stepCost(args, await readConfig(SETTINGS.model_name_or_path), { worldSize });
    return peak.byPurpose.optimiser;
  };
  const whole = await bytes("0", 4);
  assertEquals(await bytes("1", 1), whole);
  const part = await bytes("1", 4);
  assert(part < 0.26 * whole && part > 0.2 * whole, `${part} of ${whole} bytes`);
});
