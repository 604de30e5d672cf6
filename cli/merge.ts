/** `merge`: an adapter into its base model, written as a Hugging Face folder. */
import { formatBytes, formatCount, formatSeconds, formatSmall } from "../text.ts";
import { UserError } from "../errors.ts";
import type { GgufOptions } from "../export/gguf.ts";
import type { MergeCheck, MergeResult } from "../export/merge.ts";
import { oneOf, text, whole } from "../train_args/values.ts";
import {
  booleanFlag,
  type BuiltCommand,
  newCommand,
  optionalFlag,
  outtypeFlag,
  requiredPath,
  shardSizeFlag,
  valueFlag,
} from "./flags.ts";
import { formatJson, formatRecord } from "./format.ts";
import { gpuOptionsOf } from "./gpu_options.ts";
import type { Io } from "./io.ts";
import { narrowFetched } from "./permissions.ts";
import { stagesOn } from "./stages.ts";
import { quantisationOf } from "../model/quantisation.ts";

/** The command. */
export function build(summary: string, io: Io): BuiltCommand {
  return newCommand("merge", summary, io, {
    examples: [
      "merge --base_model org/model --peft_model output/long --save_path models/long",
      "merge --base_model org/model --peft_model output/long --save_path models/long --gguf long.gguf",
    ],
  })
    .addOption(requiredPath("base_model", "folder of the base model, or its name on the hub"))
    .addOption(requiredPath("peft_model", "adapter: folder, or name on the hub"))
    .addOption(
      optionalFlag(
        "context_size",
        "context length of the merged model, in tokens",
        whole(2, 16_777_216),
        "what the adapter was trained for, else the base's",
      ),
    )
    .addOption(requiredPath("save_path", "folder to write; must not exist or be empty"))
    .addOption(
      valueFlag("dtype", "number format of the weights", oneOf(["keep", "fp32", "bf16", "fp16"]), "keep"),
    )
    .addOption(shardSizeFlag())
    .addOption(optionalFlag("gguf", "file to write the merged model to as GGUF, too", text("path"), "none"))
    .addOption(outtypeFlag())
    .addOption(
      booleanFlag("load_in_4bit", "merge onto the base as training in 4 bits saw it: to NF4 and back", false),
    )
    .addOption(
      booleanFlag("text_only", "of a base that also reads pictures write the text model alone", false),
    )
    .action(async ({ json, webgpu, ...flags }) => {
      const { locate } = await import("./hub.ts");
      const options = {
        baseModel: await locate(io, flags.base_model, "model"),
        peftModel: await locate(io, flags.peft_model, "model"),
        contextSize: flags.context_size,
        savePath: flags.save_path,
        dtype: flags.dtype,
        maxShardSize: flags.max_shard_size,
        quantisation: quantisationOf(flags),
        textOnly: flags.text_only,
        gpuOptions: gpuOptionsOf(io, webgpu),
      };
      narrowFetched();
      if (flags.outtype !== null && flags.gguf === null) {
        throw new UserError("--outtype is for --gguf", { kind: "usage" });
      }
      const { mergeAdapter } = await import("../export/merge.ts");
      const result = await stagesOn(io).counting("tensor", (hooks) => mergeAdapter(options, hooks));
      if (flags.gguf !== null) await toGguf(result.savePath, flags.gguf, flags.outtype ?? "f16", io);
      const written = { ...result, gguf: flags.gguf };
      io.out(json ? formatJson(written) : describeResult(written));
    });
}

/** Writes the merged model as GGUF. @throws {UserError} if that cannot be, with where the merged model is */
async function toGguf(
  folder: string,
  path: string,
  outtype: NonNullable<GgufOptions["outtype"]>,
  io: Io,
): Promise<void> {
  const { convertToGguf } = await import("../export/gguf.ts");
  try {
    await stagesOn(io).counting("tensor", (hooks) => convertToGguf(folder, path, { outtype }, hooks));
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    throw new UserError(`${error.message}. The merged model itself is in "${folder}"`, {
      cause: error,
      kind: error.kind,
    });
  }
}

function describeResult(result: MergeResult & { readonly gguf: string | null }): string {
  const { ropeScaling: scaling, verification: check, verificationAsTrained: asTrained, shards } = result;
  return formatRecord({
    saved: `${result.savePath}, ${formatBytes(result.totalBytes)} of ${result.dtypes.join(" and ")} in ` +
      `${formatCount(shards.length)} ${shards.length === 1 ? "file" : "files"}`,
    ...(result.gguf === null ? {} : { gguf: result.gguf }),
    merged: `LoRA into ${formatCount(result.mergedLinears)} linears, ` +
      `${formatCount(result.replacedTensors)} tensors replaced`,
    ...(result.copiedTensors > 0 && {
      copied: `${formatCount(result.copiedTensors)} tensors of the part that reads pictures`,
    }),
    context: `${formatCount(result.contextSize)} tokens, ` +
      (scaling ? `rope_scaling ${scaling.type} by ${scaling.factor}` : "no rope_scaling"),
    compared: check === null ? "no, see above" : describeCheck(check, "base and adapter"),
    ...(asTrained && { "as trained": describeCheck(asTrained, "the base in 4 bits and adapter") }),
    took: formatSeconds(result.seconds),
  });
}

function describeCheck(check: MergeCheck, beside: string): string {
  return `${formatCount(check.sampleTokens)} tokens with ${beside}: logits differ by at most ` +
    `${formatSmall(check.maxAbsoluteDifference)} (${formatSmall(check.maxRelativeDifference)} of the ` +
    `largest), the likeliest token agrees on ${Number((100 * check.argmaxAgreement).toFixed(1))} %`;
}
