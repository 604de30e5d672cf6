/** `evaluate`: perplexity of a model, with or without an adapter, by one of three protocols. */
import { UserError } from "../errors.ts";
import { formatBytes, formatCount, formatSeconds, formatTable } from "../text.ts";
import type { LoadedModel } from "../eval/measured_model.ts";
import type { PerplexityResult } from "../eval/perplexity.ts";
import type { StridedResult } from "../eval/strided.ts";
import { oneOf, text, whole } from "../train_args/values.ts";
import {
  adapterFlag,
  booleanFlag,
  type BuiltCommand,
  newCommand,
  optionalFlag,
  requiredPath,
  valueFlag,
} from "./flags.ts";
import { formatJson, formatRecord } from "./format.ts";
import { gpuOptionsOf } from "./gpu_options.ts";
import { type Io, isFirstRank } from "./io.ts";
import { narrowFetched } from "./permissions.ts";
import { loadingAndCounting } from "./stages.ts";
import { quantisationOf } from "../model/quantisation.ts";

/** Flags that one kind of protocol alone reads. */
const ONLY = {
  windows: ["drop_last_window", "by_position", "plot_path"],
  strided: ["max_sample_num", "min_length"],
} as const;

/** The command. Defaults are those of the scripts of each protocol, but for `batch_size` and `dtype` (32, fp16 in eval.py). */
export function build(summary: string, io: Io): BuiltCommand {
  return newCommand("evaluate", summary, io, {
    examples: [
      "evaluate --base_model org/model --data_path book.txt --seq_len 4096",
      "evaluate --base_model org/model --peft_model output/long --data_path held-out.bin --seq_len 8192",
      "evaluate --base_model models/long --data_path book.txt --seq_len 32768 --by_position 16 --plot_path ppl.svg",
      "evaluate --base_model models/long --data_path pg19.jsonl --protocol strided --seq_len 32768",
    ],
  })
    .addOption(requiredPath("base_model", "folder of the model, or its name on the hub"))
    .addOption(adapterFlag())
    .addOption(requiredPath(
      "data_path",
      "held-out data: a token file (.bin), or text, jsonl, parquet, a folder of them, hf://datasets/...",
    ))
    .addOption(
      valueFlag(
        "protocol",
        "LongLoRA's eval.py, its eval_distributed.py, or Long-LLM's eval_lm, document by document",
        oneOf(["longlora", "distributed", "strided"]),
        "longlora",
      ),
    )
    .addOption(optionalFlag("seq_len", "tokens in one window", whole(2), "2048; strided 4096"))
    .addOption(
      optionalFlag(
        "context_size",
        "context to scale the positions for, in tokens",
        whole(2, 16_777_216),
        "the model's own; with an adapter what it was trained for, else seq_len",
      ),
    )
    .addOption(
      optionalFlag(
        "sliding_window",
        "tokens between the starts of two windows; strided: 0 for a document's first alone",
        whole(0),
        "256; strided 2048",
      ),
    )
    .addOption(valueFlag("batch_size", "windows in one forward pass", whole(1, 65_536), 1))
    .addOption(booleanFlag("load_in_4bit", "load the base in 4-bit NF4", false))
    .addOption(
      booleanFlag("drop_last_window", "leave the last window out, as LongLoRA's eval.py does", true)
        .default(null as boolean | null, "true; distributed false"),
    )
    .addOption(
      optionalFlag(
        "by_position",
        "segments of a window to tell perplexity of, in a table",
        whole(1, 1000),
        "4, in a line",
      ),
    )
    .addOption(optionalFlag("plot_path", "SVG file for perplexity by position", text("path"), "none"))
    .addOption(optionalFlag("max_sample_num", "strided: documents at most, from the first", whole(1), "100"))
    .addOption(optionalFlag("min_length", "strided: tokens that a document has at least", whole(1), "none"))
    .addOption(valueFlag("dtype", "precision of activations", oneOf(["fp32", "bf16", "fp16"]), "fp32"))
    .action(async ({ json, webgpu, ...flags }) => {
      const isStrided = flags.protocol === "strided";
      const misplaced = ONLY[isStrided ? "windows" : "strided"].find((name) => flags[name] !== null);
      if (misplaced !== undefined) throw usage(`--${misplaced} is not for --protocol ${flags.protocol}`);
      const dropLastWindow = flags.drop_last_window ?? flags.protocol === "longlora";
      if (dropLastWindow && flags.protocol === "distributed") {
        throw usage("--protocol distributed keeps the last window: leave --drop_last_window out");
      }
      const { locate } = await import("./hub.ts");
      const options = {
        baseModel: await locate(io, flags.base_model, "model"),
        peftModel: flags.peft_model && await locate(io, flags.peft_model, "model"),
        dataPath: await locate(io, flags.data_path, "dataset"),
        contextSize: flags.context_size,
        batchSize: flags.batch_size,
        quantisation: quantisationOf(flags),
        dtype: flags.dtype,
        gpuOptions: gpuOptionsOf(io, webgpu),
        ranks: io.ranks,
      };
      narrowFetched();
      if (isStrided) {
        const { evaluateStrided } = await import("../eval/strided.ts");
        const result = await loadingAndCounting(io, "window", (hooks) =>
          evaluateStrided({
            ...options,
            maxLength: flags.seq_len ?? 4096,
            stride: flags.sliding_window ?? 2048,
            maxSampleNum: flags.max_sample_num ?? 100,
            minLength: flags.min_length ?? 0,
          }, hooks));
        io.out(json ? formatJson(result) : describeStrided(result));
        return;
      }
      const { evaluatePerplexity } = await import("../eval/perplexity.ts");
      const result = await loadingAndCounting(io, "window", (hooks) =>
        evaluatePerplexity({
          ...options,
          seqLen: flags.seq_len ?? 2048,
          slidingWindow: flags.sliding_window ?? 256,
          dropLastWindow,
          ...(flags.by_position === null ? {} : { segments: flags.by_position }),
        }, hooks));
      if (!isFirstRank(io)) return;
      if (flags.plot_path !== null) await savePlot(flags.plot_path, result);
      io.out(json ? formatJson(result) : describeResult(result, flags.protocol, flags.by_position !== null));
      if (flags.plot_path !== null) io.err(`perplexity by position is drawn in ${flags.plot_path}`);
    });
}

function usage(message: string): UserError {
  return new UserError(message, { kind: "usage" });
}

async function savePlot(path: string, { byPosition, protocol, model }: PerplexityResult): Promise<void> {
  const [{ curvePlot }, { writeFileAtomic }] = await Promise.all([
    import("../report/plot.ts"),
    import("../checkpoint/atomic.ts"),
  ]);
  const points = byPosition.map(({ from, to, perplexity }) => ({ x: (from + to - 1) / 2, y: perplexity }));
  const name = model.peftModel ?? model.baseModel;
  const axes = {
    x: "tokens before the one that is predicted",
    y: "perplexity",
    across: [0, protocol.seqLen] as const,
  };
  await writeFileAtomic(path, curvePlot("Perplexity by position", axes, [{ name, points }]));
}

function describeDocuments(documents: number | null): string {
  if (documents === null) return "";
  return documents === 1
    ? ", one document, tokenized with its beginning and end of text"
    : `, ${
      formatCount(documents)
    } documents one after the other, each tokenized with its beginning and end of text`;
}

/** The lines of a result by the names of its protocol, the one to compare with others' figures first. */
function describeResult(result: PerplexityResult, protocolName: string, isTable: boolean): string {
  const { protocol, model } = result;
  const rows = protocolName === "distributed"
    ? [
      ["perplexity", result.tokenPerplexity.toFixed(4), `over all ${formatCount(result.numTokens)} targets`],
      ["loss", result.tokenLoss.toFixed(6), "nats per token"],
      ["accuracy", `${(100 * result.targetAccuracy).toFixed(2)} %`, "of the targets"],
    ]
    : [
      ["perplexity", result.valPerplexity.toFixed(4), "val_perplexity"],
      ["loss", result.valLoss.toFixed(6), "val_loss, nats per token"],
      ["accuracy", `${(100 * result.valAcc).toFixed(2)} %`, "val_acc"],
      [
        "by tokens",
        result.tokenPerplexity.toFixed(4),
        `perplexity over all ${formatCount(result.numTokens)} targets`,
      ],
    ];
  const segments = result.byPosition.map(({ from, to, perplexity }) => [
    `${formatCount(from)}-${formatCount(to - 1)}`,
    perplexity.toFixed(isTable ? 4 : 2),
  ]);
  return [
    formatTable(rows, "lr"),
    isTable
      ? `\n${formatTable([["position", "perplexity"], ...segments], "rr")}`
      : `by position: ${segments.map(([where, perplexity]) => `${perplexity} at ${where}`).join(", ")}`,
    "",
    formatRecord({
      ...modelLines(model),
      data: `${protocol.dataPath}, ${formatCount(protocol.dataTokens)} tokens` +
        describeDocuments(protocol.documents),
      windows: `${formatCount(result.numWindows)} of ${formatCount(protocol.seqLen)} tokens, every ` +
        `${formatCount(protocol.slidingWindow)}, ${
          protocol.dropLastWindow ? "without the last" : "the last included"
        }`,
      took: `${formatSeconds(result.seconds)}, peak memory ${formatBytes(result.peakBytes)}`,
    }),
  ].join("\n");
}

function describeStrided(result: StridedResult): string {
  const { protocol } = result;
  const rows = [
    [
      "perplexity",
      result.perplexity.toFixed(4),
      `exp of the mean over ${formatCount(result.numDocuments)} documents`,
    ],
    ["loss", result.loss.toFixed(6), "nats per token, mean over documents"],
    [
      "by tokens",
      result.tokenPerplexity.toFixed(4),
      `perplexity over all ${formatCount(result.numTokens)} targets`,
    ],
  ];
  const short = protocol.tooShort === 0 ? "" : `, ${formatCount(protocol.tooShort)} too short ones left out`;
  return [
    formatTable(rows, "lr"),
    "",
    formatRecord({
      ...modelLines(result.model),
      data: `${protocol.dataPath}, ${formatCount(result.numDocuments)} documents${short}`,
      windows: `${formatCount(result.numWindows)} of up to ${formatCount(protocol.maxLength)} tokens` +
        (protocol.stride === 0 ? ", one a document" : `, every ${formatCount(protocol.stride)}`) +
        (protocol.bos ? ", each behind the beginning-of-text token" : ""),
      took: `${formatSeconds(result.seconds)}, ${
        result.secondsPerWindow.toFixed(3)
      } s a window, peak memory ${formatBytes(result.peakBytes)}`,
    }),
  ].join("\n");
}

function modelLines(model: LoadedModel): Record<string, string> {
  const adapter = model.peftModel === null ? "" : ` with adapter ${model.peftModel}`;
  const bits = model.quantized === "no" ? "" : `, linears in 4 bits (quantised ${model.quantized})`;
  const scaling = model.ropeScaling;
  return {
    model: `${model.baseModel}${adapter}, ${model.dtype}${bits}`,
    context: `${formatCount(model.contextSize)} tokens, ` +
      (scaling ? `rope_scaling ${scaling.type} by ${scaling.factor}` : "no rope_scaling") +
      ", full attention",
  };
}
