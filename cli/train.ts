/** `train`: pre-training or fine-tuning from a YAML file, with any option as a flag on top. */
import { formatBytes, formatCount, formatSeconds } from "../text.ts";
import { exists } from "../checkpoint/files.ts";
import type { WebGpu } from "../kernels/device.ts";
import type { GpuOptions } from "../kernels/gpu.ts";
import type { TrainArgs } from "../train_args/schema.ts";
import { loadTrainArgs, type TrainSettings } from "../train_args/load.ts";
import type { TrainResult } from "../train/hooks.ts";
import { type BuiltCommand, newCommand } from "./flags.ts";
import { formatJson } from "./format.ts";
import { gpuOptionsOf } from "./gpu_options.ts";
import type { Io } from "./io.ts";
import { narrowFetched } from "./permissions.ts";
import { stagesOn } from "./stages.ts";
import { Interrupted } from "./stop_signal.ts";
import { addTrainFlags, givenSettings, trainedModelFlags } from "./train_flags.ts";

/** The command; every option of train_args/schema.ts is a flag of it. */
export function build(summary: string, io: Io): BuiltCommand {
  const command: BuiltCommand = newCommand("train", summary, io, {
    examples: [
      "train train_args/llama2-7b-pretrain.yaml --model_name_or_path org/model --train_file book.txt --output_dir output/long",
      "train my.yaml --learning_rate 1e-4",
      "train book.pdf --model org/model --context 32k",
    ],
  });
  addTrainFlags(command, { takesDocuments: true });
  return command.action(async () => {
    const { json, webgpu } = command.opts() as { json: boolean; webgpu: WebGpu };
    const { file, documents, overrides } = givenSettings(command, { takesDocuments: true });
    const gpuOptions = gpuOptionsOf(io, webgpu);
    if (documents.length === 0) {
      await run(file, overrides, { json, hasNext: true, gpuOptions }, io);
      return;
    }
    const { describeExtension, measureExtension, prepareDocuments } = await import("./train_documents.ts");
    const prepared = await prepareDocuments(documents, overrides, io);
    const result = await run(null, prepared.settings, { json, hasNext: false, gpuOptions }, io);
    const scores = await measureExtension(prepared, gpuOptions, io);
    io.out(json ? formatJson({ ...result, ...scores }) : describeExtension(prepared, scores));
  });
}

async function run(
  file: string | null,
  overrides: TrainSettings,
  { json, hasNext, gpuOptions }: {
    readonly json: boolean;
    readonly hasNext: boolean;
    readonly gpuOptions: GpuOptions;
  },
  io: Io,
): Promise<TrainResult> {
  const { args, notes, whereIs } = await loadTrainArgs(file, overrides);
  notes.forEach((line) => io.err(line));
  const stages = stagesOn(io);
  const result = await stages.training(args.logging_steps, async (hooks) => {
    const { runTraining } = await import("../train/run.ts");
    const { locate } = await import("./hub.ts");
    const { userCacheFolder } = await import("./user_cache.ts");
    return runTraining(args, {
      ...hooks,
      locate: (place, kind) => locate(io, place, kind, { where: whereIs(place) }),
      onLocated: narrowFetched,
      cacheFolder: userCacheFolder() ?? undefined,
      gpuOptions,
      ...(io.ranks && { ranks: io.ranks }),
    });
  });
  const hasReport = await exists(`${result.outputDir}/report.html`);
  // With --json what is measured afterwards belongs to the same object.
  if (!json) io.out(describeResult(result, args, { hasReport, hasNext }));
  else if (hasNext || result.stopped) io.out(formatJson(result));
  if (!result.stopped || stages.stoppedBy === null) return result;
  throw new Interrupted(stages.stoppedBy, "run the same command again to go on from there", { isTold: true });
}

/** The commands that people type next. */
function nextCommands(args: TrainArgs): string[] {
  const model = trainedModelFlags(args);
  return [
    "Next:",
    `  ./longreach evaluate ${model} --data_path HELD_OUT.txt --seq_len ${args.max_seq_length}`,
    ...(args.low_rank_training ? [`  ./longreach merge ${model} --save_path MERGED`] : []),
  ];
}

function describeResult(
  result: TrainResult,
  args: TrainArgs,
  { hasReport, hasNext }: { readonly hasReport: boolean; readonly hasNext: boolean },
): string {
  const steps = `${formatCount(result.steps)} of ${formatCount(result.totalSteps)} steps`;
  const lines = [
    `${result.stopped ? "Stopped and saved after" : "Done:"} ${steps} in ${
      formatSeconds(result.elapsedMs / 1000)
    }, ` +
    `${formatCount(result.tokens)} tokens, peak memory ${formatBytes(result.peakBytes)}`,
  ];
  if (result.loss !== null) lines.push(`Loss of the last step ${result.loss.toFixed(4)}`);
  const best = result.bestEvaluation;
  if (best !== null) {
    const last = result.evalLoss === null ? "" : `eval_loss ${result.evalLoss.toFixed(4)}, `;
    lines.push(
      `${last || "eval_loss: "}the best ${best.loss.toFixed(4)} after step ${formatCount(best.step)}`,
    );
  }
  if (result.skippedSteps > 0) {
    lines.push(`Steps skipped for loss or gradient not finite: ${result.skippedSteps}`);
  }
  lines.push(`Saved in ${result.outputDir}${hasReport ? "; report.html there tells the run" : ""}`);
  if (!result.stopped && hasNext) lines.push(...nextCommands(args));
  return lines.join("\n");
}
