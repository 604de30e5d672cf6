/** One rank of `bench/scaling/main.ts`: trains on a simulated device, and sends real messages. Rank 0 prints a JSON object. */
import { terminalIo } from "../../cli/io.ts";
import { gather } from "../../distributed/agreement.ts";
import { joinJob } from "../../distributed/mpi.ts";
import type { Communicator } from "../../distributed/communicator.ts";
import { makeBatch } from "../../model/batch.ts";
import { shapeConfig } from "../../model/shapes.ts";
import { trainerOptions } from "../../train/options.ts";
import { randomTrainee } from "../../train/plan/random_trainee.ts";
import { predictScaling } from "../../train/plan/scaling.ts";
import { secondsOf, stepCost } from "../../train/plan/step_cost.ts";
import { Trainer } from "../../train/trainer.ts";
import { loadTrainArgs } from "../../train_args/load.ts";
import { median } from "../measure.ts";
import { simulateGpu } from "./simulated_gpu.ts";

/** What a rank is told. */
export interface RankOptions {
  readonly shape: string;
  readonly layers: number;
  readonly settings: Readonly<Record<string, string>>;
  /** Seconds that one rank would compute for the tokens of a batch. */
  readonly batchSeconds: number;
  readonly steps: number;
  /** Bytes a second that a link carries each way. */
  readonly bytesPerSecond: number;
}

/** What rank 0 prints. */
export interface RankReport {
  readonly ranks: number;
  readonly sequenceParallel: number;
  readonly bytesPerSecond: number;
  /** As measured before. */
  readonly latencySeconds: number;
  readonly computeSeconds: number;
  readonly predictedSeconds: number;
  readonly predictedEfficiency: number;
  readonly measuredSeconds: number;
  readonly measuredEfficiency: number;
}

const { shape, layers, settings, batchSeconds, steps, bytesPerSecond } = JSON.parse(
  Deno.args[0]!,
) as RankOptions;
const { ranks, leave } = joinJob(Deno.args[1]!);
const report = await measure(ranks);
if (ranks.rank === 0) terminalIo().out(JSON.stringify(report));
await ranks.barrier();
leave();
// What is left to do would find the library gone.
Deno.exit(0);

async function measure(ranks: Communicator): Promise<RankReport> {
  const required = { model_name_or_path: "-", train_file: "-", output_dir: "-" };
  const { args } = await loadTrainArgs(null, { ...required, ...settings });
  const whole = shapeConfig(shape);
  const base = { ...whole, num_hidden_layers: layers, layers: whole.layers.slice(0, layers) };
  const sequenceParallel = args.sequence_parallel_size;

  // Rates at which one rank would take so long; all kinds of work as fast as each other.
  const alone = await stepCost({ ...args, sequence_parallel_size: 1 }, base);
  const cost = sequenceParallel === 1 ? alone : await stepCost(args, base, { worldSize: ranks.size });
  const unit = { productFlops: 1, attentionFlops: 1, bytesPerSecond: Infinity };
  const scale = batchSeconds / secondsOf(alone, unit);
  const computeSeconds = scale * secondsOf(cost, unit);

  const simulated = simulateGpu();
  const { gpu } = simulated;
  const model = await randomTrainee(gpu, args, base);
  const trainer = new Trainer(model, { ...trainerOptions(args), ranks });
  const batch = makeBatch([{ inputIds: new Uint32Array(args.max_seq_length) }]);

  const link = { bytesPerSecond, latencySeconds: await measureLatency(ranks) };
  const before = simulated.dispatches;
  await trainer.step([batch], 1e-4);
  simulated.dispatchSeconds = computeSeconds / (simulated.dispatches - before);
  const seconds: number[] = [];
  for (let step = 0; step < steps; step++) {
    await ranks.barrier();
    const began = performance.now();
    await trainer.step([batch], 1e-4);
    seconds.push((performance.now() - began) / 1000);
  }
  const all = await gather(ranks, seconds);
  const measuredSeconds = median(seconds.map((_, step) => Math.max(...all.map((own) => own[step]!))));

  const network = { ...link, hostBytesPerSecond: Infinity };
  const job = { ranks: ranks.size, sequenceParallel };
  const predicted = predictScaling(
    { cost, seconds: computeSeconds },
    { seconds: batchSeconds },
    job,
    network,
  );
  return {
    ...job,
    ...link,
    computeSeconds,
    predictedSeconds: predicted.stepSeconds!,
    predictedEfficiency: predicted.efficiency!,
    measuredSeconds,
    measuredEfficiency: batchSeconds / (sequenceParallel * measuredSeconds),
  };
}

/** Measures seconds of a small message, sent by all ranks round a ring. */
async function measureLatency(ranks: Communicator): Promise<number> {
  const { rank, size } = ranks;
  const times = 100;
  const send = { rank: (rank + 1) % size, bytes: new Uint8Array(4) };
  const receive = { rank: (rank + size - 1) % size, bytes: new Uint8Array(4) };
  await ranks.exchange(send, receive);
  await ranks.barrier();
  const began = performance.now();
  for (let i = 0; i < times; i++) await ranks.exchange(send, receive);
  return median(await gather(ranks, (performance.now() - began) / 1000 / times));
}
