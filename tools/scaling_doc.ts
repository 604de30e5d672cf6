/** The text of `docs/scaling.md`: steps of many GPUs, reckoned from measured rates of one, and how good such reckoning was. */
import { formatBytes, formatCount, formatRate, formatSeconds } from "../text.ts";
import { addFlops, totalFlops } from "../model/flops.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { shapeConfig } from "../model/shapes.ts";
import { TYPICAL_NETWORK } from "../train/plan/plan.ts";
import { predictScaling } from "../train/plan/scaling.ts";
import { secondsOf, type StepCost, stepCost } from "../train/plan/step_cost.ts";
import type { Throughput } from "../train/plan/throughput.ts";
import { loadTrainArgs, type TrainArgs } from "../train_args/load.ts";

/**
 * What one NVIDIA H100 80GB HBM3 did (driver 580.159, Deno's own WebGPU, commit e890b9a, 2026-11-26): a step of Llama-2-7B
 * by train_args/llama2-7b-pretrain.yaml with one sequence, on the clock; S2-Attn of 32 heads of 128 at 8192 tokens in groups
 * of 2048, by pass timestamps; and the rate at which a probe kernel reads memory.
 */
const MEASURED = {
  stepSeconds: { 8192: 12.71, 2048: 3.08 },
  attentionFlops: { forward: 18.7e12, backward: 14.5e12 },
  bytesPerSecond: 2970e9,
} as const;

const MODELS = ["llama2-7b", "llama2-13b", "llama2-70b"] as const;
const LENGTHS = [8192, 32_768, 98_304] as const;
const GPUS = [8, 64, 512] as const;
/** S2-Attn's groups are a quarter of the sequence: so many ranks may share one. */
const SHARED = 4;

/** A row of a table of predictions. */
export interface ScalingLine {
  readonly model: string;
  readonly tokens: number;
  readonly sequenceParallel: number;
  /** Cells of the table. */
  readonly cells: readonly string[];
}

/** Settings of the tables: QLoRA of rank 64 on all linears, a sequence a step for each rank or run of ranks. */
async function settingsOf(tokens: number, sequenceParallel: number): Promise<TrainArgs> {
  const { args } = await loadTrainArgs(null, {
    model_name_or_path: "-",
    train_file: "-",
    output_dir: "-",
    max_seq_length: String(tokens),
    bf16: "true",
    sequence_parallel_size: String(sequenceParallel),
  });
  return args;
}

/** What the tables need of a step's cost. */
type Cost = Pick<StepCost, "flops" | "trafficBytes" | "tokens" | "trainable" | "traffic" | "passes"> & {
  readonly peakBytes: number;
};

/** Layers of the dry runs from which that of all layers is reckoned: each layer adds the same. */
const FEW_LAYERS = 3;

/** Counts the cost of a step from two dry runs with few layers: with all, those of 70B at 98,304 tokens take minutes. */
async function costOf(args: TrainArgs, base: ModelConfig): Promise<Cost> {
  const withLayers = async (layers: number): Promise<Cost> => {
    const few = { ...base, num_hidden_layers: layers, layers: base.layers.slice(0, layers) };
    const { flops, trafficBytes, tokens, trainable, traffic, passes, peak } = await stepCost(args, few);
    return { flops, trafficBytes, tokens, trainable, traffic, passes, peakBytes: peak.heldBytes };
  };
  const [few, more] = [await withLayers(FEW_LAYERS), await withLayers(FEW_LAYERS + 1)];
  return extrapolated(few, more, base.num_hidden_layers - FEW_LAYERS);
}

/** Adds to every number of `few` the difference to `more`, so many times. */
function extrapolated<T>(few: T, more: T, times: number): T {
  if (typeof few === "number") return few + times * (more as number - few) as T;
  return Object.fromEntries(
    Object.entries(few as object).map(([key, value]) => [
      key,
      extrapolated(value, (more as Record<string, unknown>)[key], times),
    ]),
  ) as T;
}

/** The rates of the measured card: those of products such that the step at 8192 tokens takes what it took. */
export async function measuredThroughput(): Promise<Throughput> {
  const cost = await costOf(await settingsOf(8192, 1), shapeConfig("llama2-7b"));
  const { forward, recompute, backward } = cost.flops;
  const attention = forward.attention + recompute.attention + backward.attention;
  const attentionSeconds = (forward.attention + recompute.attention) / MEASURED.attentionFlops.forward +
    backward.attention / MEASURED.attentionFlops.backward;
  const rest = MEASURED.stepSeconds[8192] - attentionSeconds - cost.trafficBytes / MEASURED.bytesPerSecond;
  return {
    productFlops: (totalFlops(addFlops(forward, recompute, backward)) - attention) / rest,
    attentionFlops: attention / attentionSeconds,
    bytesPerSecond: MEASURED.bytesPerSecond,
  };
}

/** Seconds that the same rates give for the step that was measured at 2048 tokens. */
async function checkSeconds(throughput: Throughput): Promise<number> {
  return secondsOf(await costOf(await settingsOf(2048, 1), shapeConfig("llama2-7b")), throughput);
}

/** Reckons the rows of a model at a length, data parallel and with sequences that ranks share. */
export async function linesOf(model: string, tokens: number, throughput: Throughput): Promise<ScalingLine[]> {
  const base = shapeConfig(model);
  const timed = (cost: Cost) => ({ cost, seconds: secondsOf(cost, throughput) });
  const alone = timed(await costOf(await settingsOf(tokens, 1), base));
  const shared = timed(await costOf(await settingsOf(tokens, SHARED), base));
  return [{ sequenceParallel: 1, own: alone }, { sequenceParallel: SHARED, own: shared }].map(
    ({ sequenceParallel, own }) => {
      const jobs = GPUS.map((ranks) =>
        predictScaling(own, alone, { ranks, sequenceParallel }, TYPICAL_NETWORK)
      );
      const percent = (share: number | null) => (100 * share!).toFixed(1);
      return {
        model,
        tokens,
        sequenceParallel,
        cells: [
          model,
          formatCount(tokens),
          formatBytes(own.cost.peakBytes),
          formatSeconds(own.seconds),
          `${formatBytes(jobs[0]!.reducedBytes)}, ${formatBytes(jobs[0]!.exchangedBytes)}`,
          jobs.map(({ communicationShare }) => percent(communicationShare)).join(" / "),
          jobs.map(({ efficiency }) => percent(efficiency)).join(" / "),
          jobs.map(({ tokens, stepSeconds }) => formatRate(tokens / stepSeconds!)).join(" / "),
        ],
      };
    },
  );
}

/** A row of `bench/results/scaling.json`. */
export interface MeasuredRow {
  readonly kind: "data" | "sequence";
  readonly rateMbit: number;
  readonly ranks: number;
  readonly bytesPerSecond: number;
  readonly latencySeconds: number;
  readonly computeSeconds: number;
  readonly predictedSeconds: number;
  readonly predictedEfficiency: number;
  readonly measuredSeconds: number;
  readonly measuredEfficiency: number;
}

/** Reckons all rows and writes the text. @param measured of `deno task bench:scaling` */
export async function scalingDocument(measured: readonly MeasuredRow[]): Promise<string> {
  const throughput = await measuredThroughput();
  const lines: ScalingLine[] = [];
  for (const model of MODELS) {
    for (const tokens of LENGTHS) lines.push(...await linesOf(model, tokens, throughput));
  }
  const tera = (rate: number) => (rate / 1e12).toFixed(1);
  const { bytesPerSecond, latencySeconds, hostBytesPerSecond } = TYPICAL_NETWORK;
  const predictions = (sequenceParallel: number) =>
    markdownTable(
      [
        "model",
        "tokens",
        "memory of a GPU",
        "own work",
        "gradients, keys and values sent",
        "messages, % of a step",
        "efficiency, %",
        "tokens/s of all",
      ],
      lines.filter((line) => line.sequenceParallel === sequenceParallel).map(({ cells }) => cells),
    );
  return `<!-- deno-fmt-ignore-file -->
<!-- Written by \`deno task scaling_doc\` (tools/scaling_doc.ts) from what was measured: change it there. -->

# Scaling

No job has run on more than one GPU. What stands here for many is **predicted**, by the formulas of
\`train/plan/scaling.ts\`, which \`plan --ranks\` uses too; below is how far such predictions were from jobs of 2, 4 and 8
ranks with slow links.

## Predicted: 8, 64 and 512 H100s

QLoRA of rank 64 on all linears, bf16, gradient checkpointing, S2-Attn with groups of a quarter of the sequence. Three
figures in a cell are those of 8 / 64 / 512 GPUs. Efficiency is tokens a second of a GPU against one that works alone.

- Own work stands on one H100 80GB HBM3 (driver 580.159, Deno's own WebGPU, commit e890b9a): ${
    MEASURED.stepSeconds[8192]
  } s
  for a step of Llama-2-7B at 8192 tokens, attention at ${
    tera(MEASURED.attentionFlops.forward)
  } TFLOP/s forward and ${tera(MEASURED.attentionFlops.backward)} backward, memory at
  ${formatRate(MEASURED.bytesPerSecond / 1e9)} GB/s. So products run at ${
    tera(throughput.productFlops)
  } TFLOP/s. The same rates give ${(await checkSeconds(throughput)).toFixed(2)} s at 2048 tokens, where ${
    MEASURED.stepSeconds[2048]
  } s
  were measured. Larger models, and kernels made since, were not measured.
- Memory and arithmetic are counted by dry runs of 3 and 4 layers, of which each further one adds the same; memory is that
  of the rank that needs most. What passes 80 GiB needs \`offload_activations\`, or more ranks for a sequence.
- The network is assumed, not measured: ${
    bytesPerSecond / 1e9
  } GB/s (100 Gbit/s) that each GPU sends and receives at once,
  ${latencySeconds * 1e6} us a message, ${
    hostBytesPerSecond / 1e9
  } GB/s between device and host. A sum over N ranks sends
  2 (N - 1) / N of the gradients' bytes, after all other work. Keys and values hold a rank up by one message for each rank
  that they come from in turn, as long as a message is shorter than a layer. \`plan --bandwidth --latency\` takes other
  figures.

### Data parallel: a sequence for each GPU

${predictions(1)}

### Sequence parallel: a sequence for ${SHARED} GPUs

${predictions(SHARED)}

## Predicted and measured: 2, 4 and 8 ranks

\`deno task bench:scaling\` on two processor cores that other work shares: the ranks of one Open MPI job, each in a network
namespace of its own, behind links that \`tc\` holds to ${
    measured[0]?.rateMbit ?? "?"
  } Mbit/s each way. Devices are
simulated, since compute does not scale where ranks share cores: every rank records the true step of six layers of
SmolLM3-3B with LoRA, and its device takes a fixed time for it. What is measured is the messages, by the program's own code and MPI. The
prediction is that of \`train/plan/scaling.ts\` with the rate that TCP has of such a link, and the latency of a message as
measured just before. Open MPI is told to sum by recursive doubling on two ranks and by a ring on more
(\`coll_tuned_allreduce_algorithm\`): left to itself it took twice as long on such links. What
is left of the difference is mostly that a rank which has its message waits for a processor: with all 36 layers, six times
as many messages and two cores for 4 ranks and other work, a step was measured at 13.2 s where 9.9 s were predicted.

${measuredTable(measured)}
`;
}

/** The table of what was predicted and measured. */
export function measuredTable(measured: readonly MeasuredRow[]): string {
  return markdownTable(
    [
      "parallel",
      "ranks",
      "own work, s",
      "step, predicted, s",
      "step, measured, s",
      "efficiency, predicted",
      "efficiency, measured",
      "ratio",
    ],
    measured.map((row) => [
      row.kind,
      String(row.ranks),
      row.computeSeconds.toFixed(2),
      row.predictedSeconds.toFixed(2),
      row.measuredSeconds.toFixed(2),
      `${(100 * row.predictedEfficiency).toFixed(1)} %`,
      `${(100 * row.measuredEfficiency).toFixed(1)} %`,
      (row.predictedEfficiency / row.measuredEfficiency).toFixed(3),
    ]),
  );
}

function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}
