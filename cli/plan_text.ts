/** A plan as people read it. */
import { formatBytes, formatCount, formatMs, formatRate, formatSeconds, formatTable } from "../text.ts";
import { PURPOSES } from "../kernels/pool.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { addFlops, type Flops, FLOPS_PARTS, totalFlops } from "../model/flops.ts";
import { countParameters } from "../model/tensors.ts";
import { describeAttention } from "../train/describe.ts";
import { describeChange, describeSuggestions, type Plan } from "../train/plan/plan.ts";
import type { Throughput } from "../train/plan/throughput.ts";
import type { TrainArgs } from "../train_args/schema.ts";

/** Names of the purposes of memory. */
const NAMES: Readonly<Record<(typeof PURPOSES)[number], string>> = {
  base: "base model",
  adapters: "adapters",
  gradients: "gradients",
  optimiser: "optimiser's states",
  checkpoints: "layers' inputs",
  activations: "activations of a layer",
  "cross-entropy": "cross-entropy chunk",
  scratch: "scratch",
};

/** The whole plan: settings, memory, arithmetic, time, and whether it fits. */
export function describePlan(
  plan: Plan,
  args: TrainArgs,
  config: ModelConfig,
  throughput: Throughput | null,
): string {
  return [
    describeSettings(plan, args, config),
    describeMemory(plan),
    describeFlops(plan),
    describeTime(plan, throughput),
    ...describeScaling(plan),
    describeRun(plan, args),
    describeFit(plan),
  ].join("\n\n");
}

function describeSettings(plan: Plan, args: TrainArgs, config: ModelConfig): string {
  const batch = args.per_device_train_batch_size;
  const passes = args.gradient_accumulation_steps;
  const base = args.load_in_4bit ? `, base in 4 bits` : "";
  return formatTable([
    ["model", `${args.model_name_or_path}, ${formatCount(countParameters(config))} parameters${base}`],
    [
      "trained",
      `${formatCount(plan.trainable)} numbers` +
      (args.low_rank_training ? `, LoRA rank ${args.lora_rank}` : ""),
    ],
    [
      "a step",
      `${passes} x ${batch} x ${formatCount(args.max_seq_length)} tokens, ${
        describeAttention(args, config)
      }, ` +
      `activations in ${args.bf16 ? "bf16" : args.fp16 ? "fp16" : "f32"}`,
    ],
    ["device", plan.device.info.description],
  ]);
}

function describeMemory({ peak, hostBytes, largestBinding, device, placement, traffic }: Plan): string {
  const row = (name: string, bytes: number, remark = "") => [
    `  ${name}`,
    formatBytes(bytes),
    `${(100 * bytes / peak.heldBytes).toFixed(0)} %`,
    remark,
  ];
  const waiting = [
    ...(placement.offloadActivations ? ["layers' inputs"] : []),
    ...(placement.pageStates ? ["optimiser's states"] : []),
    ...(hostBytes > 0 && traffic.exchanges > 0 ? ["keys and values of other ranks"] : []),
  ];
  const idle = peak.heldBytes - peak.liveBytes;
  const limit = device.maxBindingBytes ?? device.limits.maxStorageBufferBindingSize;
  return [
    `Memory on the device at its peak: ${peak.phase}`,
    formatTable(
      [
        ...PURPOSES.filter((purpose) => peak.byPurpose[purpose] > 0)
          .map((purpose) => row(NAMES[purpose], peak.byPurpose[purpose])),
        ...(idle > 0 ? [row("kept for reuse, at most", idle)] : []),
        row("in all", peak.heldBytes),
      ],
      "lrr",
    ),
    formatTable([
      [
        "Host memory",
        formatBytes(hostBytes),
        waiting.length > 0 ? waiting.join(", ") : "no tensors wait there",
      ],
      [
        "Largest binding",
        formatBytes(largestBinding.bytes),
        `of ${formatBytes(limit)} (${largestBinding.kernel})`,
      ],
      ...(placement.decodesLayers
        ? [["Weights in 4 bits", "as floats", "of a whole layer at a time, as max_memory has room"]]
        : []),
      ...(placement.chunkBytes === undefined ? [] : [
        [
          "Chunks of rows",
          formatBytes(placement.chunkBytes),
          "larger where max_memory has room: fewer dispatches",
        ],
      ]),
    ]),
  ].join("\n");
}

const FLOPS_NAMES: Readonly<Record<keyof Flops, string>> = {
  attention: "attention",
  projections: "projections",
  ffn: "FFN",
  head: "head",
  lora: "LoRA",
};

function describeFlops({ flops: { forward, recompute, backward }, dispatches }: Plan): string {
  const columns = [forward, recompute, backward, addFlops(forward, recompute, backward)];
  const all = totalFlops(columns[3]!);
  const row = (name: string, value: (flops: Flops) => number) => [
    `  ${name}`,
    ...columns.map((flops) => teraText(value(flops))),
    `${(100 * value(columns[3]!) / all).toFixed(1)} %`,
  ];
  return [
    `Arithmetic of a step in TFLOP, ${formatCount(dispatches)} dispatches`,
    formatTable(
      [
        ["", "forward", "recompute", "backward", "all", ""],
        ...FLOPS_PARTS.filter((part) => columns[3]![part] > 0)
          .map((part) => row(FLOPS_NAMES[part], (flops) => flops[part])),
        row("in all", totalFlops),
      ],
      "lrrrrr",
    ),
  ].join("\n");
}

function teraText(flops: number): string {
  const tera = flops / 1e12;
  return tera >= 1000 ? formatCount(tera) : tera === 0 ? "-" : tera.toPrecision(3);
}

function describeTime({ seconds, tokens }: Plan, throughput: Throughput | null): string {
  if (seconds === null || throughput === null) return "Time of a step: not known without measured rates";
  const giga = (rate: number) => formatRate(rate / 1e9);
  return `Time of a step: about ${formatSeconds(seconds)}, ${
    formatRate(tokens / seconds)
  } tokens/s, at this adapter's ` +
    `rates now\n  products ${giga(throughput.productFlops)} GFLOP/s, attention ${
      giga(throughput.attentionFlops)
    } GFLOP/s, ` +
    `memory ${giga(throughput.bytesPerSecond)} GB/s`;
}

/** The step of all ranks; nothing for one. */
function describeScaling({ scaling, ranks }: Plan): string[] {
  if (scaling === null) return [];
  const { sequenceParallel, stepSeconds, communicationShare, efficiency } = scaling;
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  const message = (bytes: number, seconds: number) =>
    `${formatBytes(bytes)} of a rank, ${formatMs(1000 * seconds)}`;
  return [[
    `${formatCount(scaling.ranks)} ranks, ${formatCount(scaling.tokens)} tokens a step` +
    (sequenceParallel > 1 ? `, ${sequenceParallel} share each batch` : ""),
    formatTable([
      ...(sequenceParallel > 1
        ? [
          [
            "  tokens of a batch that they hold",
            ranks.map(({ rows }) => formatCount(rows)).join(", "),
          ],
          ["  memory on their devices", ranks.map(({ peakBytes }) => formatBytes(peakBytes)).join(", ")],
        ]
        : []),
      ["  sum of gradients", message(scaling.reducedBytes, scaling.reduceSeconds)],
      ...(scaling.exchanges > 0
        ? [[
          "  keys and values",
          `${formatCount(scaling.exchanges)} messages, ${
            message(scaling.exchangedBytes, scaling.exchangeSeconds)
          }`,
        ]]
        : []),
      ...(stepSeconds === null || communicationShare === null || efficiency === null ? [] : [[
        "  a step, predicted",
        `${formatSeconds(stepSeconds)}, ${formatRate(scaling.tokens / stepSeconds)} tokens/s, messages ${
          percent(communicationShare)
        }, efficiency ${percent(efficiency)}`,
      ]]),
    ]),
  ].join("\n")];
}

/** Steps, tokens and hours of the whole run, as far as the settings alone tell them. */
function describeRun({ seconds, tokens }: Plan, { max_steps, num_train_epochs }: TrainArgs): string {
  const hours = (steps: number) =>
    seconds === null ? "" : `, about ${formatSeconds(steps * seconds)} at that pace`;
  if (max_steps > 0) {
    return `The run: ${formatCount(max_steps)} steps, up to ${formatCount(max_steps * tokens)} tokens${
      hours(max_steps)
    }`;
  }
  const perMillion = seconds === null
    ? ""
    : `; a million tokens take about ${formatSeconds(1e6 / tokens * seconds)}`;
  return `The run: ${num_train_epochs} ${
    num_train_epochs === 1 ? "epoch" : "epochs"
  } of the data${perMillion}`;
}

function describeFit({ fits, memoryBytes, peak, suggestions }: Plan): string {
  if (fits === null) {
    return "Whether it fits is not known: WebGPU does not tell how much memory there is. Set max_memory, as in 24GiB";
  }
  const difference = formatBytes(Math.abs(memoryBytes! - peak.heldBytes));
  if (fits) return `It fits in ${formatBytes(memoryBytes!)}: ${difference} are left`;
  const rows = suggestions.map(({ change, savedBytes, peakBytes, fits }) => [
    `  ${describeChange(change)}`,
    `saves ${formatBytes(savedBytes)}`,
    `leaves ${formatBytes(peakBytes)}`,
    fits ? "fits" : "",
  ]);
  return [
    `It does not fit in ${formatBytes(memoryBytes!)}: ${difference} are missing. ${
      describeSuggestions(suggestions)
    }`,
    ...(rows.length > 0 ? [formatTable(rows, "lrr")] : []),
  ].join("\n");
}

/** The longest sequence in some amount of memory, and what a step over it takes. */
export interface LongestRow {
  readonly memoryBytes: number;
  /** 0 where none fits. */
  readonly tokens: number;
  /** Bytes of the tensors that wait in host memory. */
  readonly hostBytes: number;
  readonly s2Flops: number;
  readonly fullFlops: number;
}

/** The table of longest contexts. */
export function describeLongest(rows: readonly LongestRow[]): string {
  return [
    "The longest sequence that fits; S2-Attn and full attention need the same memory and differ in TFLOP a step",
    formatTable(
      [
        ["on the device", "tokens", "host memory", "S2-Attn", "full"],
        ...rows.map(({ memoryBytes, tokens, hostBytes, s2Flops, fullFlops }) => [
          formatBytes(memoryBytes),
          ...(tokens === 0
            ? ["none"]
            : [formatCount(tokens), formatBytes(hostBytes), teraText(s2Flops), teraText(fullFlops)]),
        ]),
      ],
      "rrrrr",
    ),
  ].join("\n");
}
