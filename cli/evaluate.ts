/** `evaluate`: sliding-window perplexity of a model, with or without an adapter. */
import { formatBytes, formatCount, formatSeconds, formatTable } from "../text.ts";
import type { PerplexityResult } from "../eval/perplexity.ts";
import { oneOf, text, whole } from "../train_args/values.ts";
import {
  booleanFlag,
  type BuiltCommand,
  newCommand,
  optionalFlag,
  requiredPath,
  valueFlag,
} from "./flags.ts";
import { formatJson, formatRecord } from "./format.ts";
import { gpuOptionsOf } from "./gpu_options.ts";
import type { Io } from "./io.ts";
import { narrowFetched } from "./permissions.ts";
import { CountProgress } from "./progress.ts";
import { stagesOn } from "./stages.ts";
import { quantisationOf } from "../model/quantisation.ts";

/** The command. Defaults are LongLoRA's eval.py, but for `batch_size` (32 there) and `dtype` (fp16 there). */
export function build(summary: string, io: Io): BuiltCommand {
  return newCommand("evaluate", summary, io, {
    examples: [
      "evaluate --base_model org/model --data_path book.txt --seq_len 4096",
      "evaluate --base_model org/model --peft_model output/long --data_path held-out.bin --seq_len 8192",
    ],
  })
    .addOption(requiredPath("base_model", "folder of the model, or its name on the hub"))
    .addOption(
      optionalFlag(
        "peft_model",
        "adapter to put on top of it: folder, or name on the hub",
        text("path"),
        "none",
      ),
    )
    .addOption(requiredPath(
      "data_path",
      "held-out data: a token file (.bin), or text, jsonl, parquet, a folder of them, hf://datasets/...",
    ))
    .addOption(valueFlag("seq_len", "tokens in one window", whole(2), 2048))
    .addOption(
      optionalFlag(
        "context_size",
        "context to scale the positions for, in tokens",
        whole(2, 16_777_216),
        "the model's own; with an adapter what it was trained for, else seq_len",
      ),
    )
    .addOption(valueFlag("sliding_window", "tokens between the starts of two windows", whole(1), 256))
    .addOption(valueFlag("batch_size", "windows in one forward pass", whole(1, 65_536), 1))
    .addOption(booleanFlag("load_in_4bit", "load the base in 4-bit NF4", false))
    .addOption(booleanFlag("drop_last_window", "leave the last window out, as LongLoRA's script does", true))
    .addOption(valueFlag("dtype", "precision of activations", oneOf(["fp32", "bf16", "fp16"]), "fp32"))
    .action(async ({ json, webgpu, ...flags }) => {
      const { locate } = await import("./hub.ts");
      const options = {
        baseModel: await locate(io, flags.base_model, "model"),
        peftModel: flags.peft_model && await locate(io, flags.peft_model, "model"),
        dataPath: await locate(io, flags.data_path, "dataset"),
        contextSize: flags.context_size,
        seqLen: flags.seq_len,
        slidingWindow: flags.sliding_window,
        batchSize: flags.batch_size,
        dropLastWindow: flags.drop_last_window,
        quantisation: quantisationOf(flags),
        dtype: flags.dtype,
        gpuOptions: gpuOptionsOf(io, webgpu),
      };
      narrowFetched();
      const { evaluatePerplexity } = await import("../eval/perplexity.ts");
      const loading = new CountProgress(io, "tensor");
      const result = await stagesOn(io).counting("window", (hooks) =>
        evaluatePerplexity(options, {
          ...hooks,
          onLoad(done, total, tensor) {
            loading.onProgress(done, total, tensor);
            if (done === total) loading.stop();
          },
        })).finally(() => loading.stop());
      io.out(json ? formatJson(result) : describeResult(result));
    });
}

function describeDocuments(documents: number | null): string {
  if (documents === null) return "";
  return documents === 1
    ? ", one document, tokenized with its beginning and end of text"
    : `, ${
      formatCount(documents)
    } documents one after the other, each tokenized with its beginning and end of text`;
}

function describeResult(result: PerplexityResult): string {
  const { protocol, model } = result;
  const adapter = model.peftModel === null ? "" : ` with adapter ${model.peftModel}`;
  const bits = model.quantized === "no" ? "" : `, linears in 4 bits (quantised ${model.quantized})`;
  const scaling = model.ropeScaling;
  const rows = [
    ["perplexity", result.valPerplexity.toFixed(4), "val_perplexity"],
    ["loss", result.valLoss.toFixed(6), "val_loss, nats per token"],
    ["accuracy", `${(100 * result.valAcc).toFixed(2)} %`, "val_acc"],
    [
      "by tokens",
      result.tokenPerplexity.toFixed(4),
      `perplexity over all ${formatCount(result.numTokens)} targets`,
    ],
  ];
  const segments = result.byPosition.map(({ from, to, perplexity }) =>
    `${perplexity.toFixed(2)} at ${formatCount(from)}-${formatCount(to - 1)}`
  );
  return [
    formatTable(rows, "lr"),
    `by position: ${segments.join(", ")}`,
    "",
    formatRecord({
      model: `${model.baseModel}${adapter}, ${model.dtype}${bits}`,
      context: `${formatCount(model.contextSize)} tokens, ` +
        (scaling ? `rope_scaling ${scaling.type} by ${scaling.factor}` : "no rope_scaling") +
        ", full attention",
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
