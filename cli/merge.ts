/** `merge`: an adapter into its base model, written as a Hugging Face folder. */
import type { MergeCheck, MergeResult } from "../model/merge.ts";
import { oneOf, whole } from "../train_args/values.ts";
import {
  booleanFlag,
  type BuiltCommand,
  newCommand,
  optionalFlag,
  requiredPath,
  shardSizeFlag,
  valueFlag,
} from "./flags.ts";
import { formatBytes, formatCount, formatJson, formatRecord, formatSeconds, formatSmall } from "./format.ts";
import type { Io } from "./io.ts";
import { narrowFetched } from "./permissions.ts";
import { stagesOn } from "./stages.ts";

/** The command. */
export function build(summary: string, io: Io): BuiltCommand {
  return newCommand("merge", summary, io, {
    examples: ["merge --base_model org/model --peft_model output/long --save_path models/long"],
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
    .addOption(
      booleanFlag("load_in_4bit", "merge onto the base as training in 4 bits saw it: to NF4 and back", false),
    )
    .action(async ({ json, ...flags }) => {
      const { locate } = await import("./hub.ts");
      const options = {
        baseModel: await locate(io, flags.base_model, "model"),
        peftModel: await locate(io, flags.peft_model, "model"),
        contextSize: flags.context_size,
        savePath: flags.save_path,
        dtype: flags.dtype,
        maxShardSize: flags.max_shard_size,
        loadIn4bit: flags.load_in_4bit,
      };
      narrowFetched();
      const { mergeAdapter } = await import("../model/merge.ts");
      const result = await stagesOn(io).counting("tensor", (hooks) => mergeAdapter(options, hooks));
      io.out(json ? formatJson(result) : describeResult(result));
    });
}

function describeResult(result: MergeResult): string {
  const { ropeScaling: scaling, verification: check, verificationAsTrained: asTrained, shards } = result;
  return formatRecord({
    saved: `${result.savePath}, ${formatBytes(result.totalBytes)} of ${result.dtypes.join(" and ")} in ` +
      `${formatCount(shards.length)} ${shards.length === 1 ? "file" : "files"}`,
    merged: `LoRA into ${formatCount(result.mergedLinears)} linears, ` +
      `${formatCount(result.replacedTensors)} tensors replaced`,
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
