/** `convert`: a model folder into another format. */
import { formatBytes, formatSeconds } from "../text.ts";
import type { GgufOptions } from "../export/gguf.ts";
import type { WorkHooks } from "../model/hooks.ts";
import { oneOf } from "../train_args/values.ts";
import { UserError } from "../errors.ts";
import {
  booleanFlag,
  type BuiltCommand,
  newCommand,
  outtypeFlag,
  requiredFlag,
  requiredPath,
  shardSizeFlag,
  valueFlag,
} from "./flags.ts";
import { formatJson, formatRecord } from "./format.ts";
import { gpuOptionsOf } from "./gpu_options.ts";
import type { Io } from "./io.ts";
import { narrowFetched } from "./permissions.ts";
import { stagesOn } from "./stages.ts";

/** Result of a conversion. */
interface Converted {
  readonly bytes: number;
  /** The bytes in words. */
  readonly of: string;
}

/** The command. */
export function build(summary: string, io: Io): BuiltCommand {
  return newCommand("convert", summary, io, {
    examples: [
      "convert --model models/long --to gguf --save_path long.gguf",
      "convert --model models/long --to bnb-4bit --save_path models/long-4bit",
    ],
  })
    .addOption(
      requiredPath("model", "folder of the model (or adapter, to safetensors), or its name on the hub"),
    )
    .addOption(requiredFlag("to", "format to write", oneOf(["gguf", "bnb-4bit", "safetensors"])))
    .addOption(requiredPath("save_path", "file to write, or folder that is empty or does not exist"))
    .addOption(outtypeFlag())
    .addOption(booleanFlag("overwrite", "gguf: replace the file if it is there", false))
    .addOption(booleanFlag("double_quant", "bnb-4bit: scales in 8 bits too", true))
    .addOption(
      valueFlag(
        "dtype",
        "bnb-4bit: embeddings, norms and head",
        oneOf(["keep", "fp32", "bf16", "fp16"]),
        "keep",
      ),
    )
    .addOption(shardSizeFlag())
    .action(async ({ json, model: place, save_path, to, outtype, overwrite, ...flags }) => {
      const started = performance.now();
      const options = {
        quantisation: flags.double_quant ? "nf4-double" as const : "nf4" as const,
        dtype: flags.dtype,
        maxShardSize: flags.max_shard_size,
      };
      const { locate } = await import("./hub.ts");
      const model = await locate(io, place, "model");
      narrowFetched();
      if (outtype !== null && to !== "gguf") {
        throw new UserError(`--outtype is for --to gguf, not for ${to}`, { kind: "usage" });
      }
      if (overwrite && to !== "gguf") {
        throw new UserError(`--overwrite is for --to gguf, not for ${to}`, { kind: "usage" });
      }
      const { bytes, of } = await stagesOn(io).counting("tensor", async (hooks): Promise<Converted> => {
        if (to === "gguf") {
          return await toGguf(model, save_path, { outtype: outtype ?? "f16", overwrite }, hooks);
        }
        if (to === "safetensors") {
          const { convertToSafetensors } = await import("../checkpoint/to_safetensors.ts");
          await convertToSafetensors(model, save_path, options, hooks);
          return { bytes: await folderBytes(save_path), of: "safetensors" };
        }
        const { convertToBnb4 } = await import("../export/bnb4.ts");
        const gpuOptions = gpuOptionsOf(io, flags.webgpu);
        await convertToBnb4(model, save_path, { ...options, gpuOptions }, hooks);
        return { bytes: await folderBytes(save_path), of: "NF4 as bitsandbytes has it" };
      });
      const seconds = (performance.now() - started) / 1000;
      io.out(
        json
          ? formatJson({
            model: place,
            save_path,
            to,
            ...(to === "gguf" ? { outtype: of } : {}),
            bytes,
            seconds,
          })
          : formatRecord({
            saved: `${save_path}, ${formatBytes(bytes)} of ${of}`,
            took: formatSeconds(seconds),
          }),
      );
    });
}

async function toGguf(
  model: string,
  path: string,
  options: Required<GgufOptions>,
  hooks: WorkHooks,
): Promise<Converted> {
  const { convertToGguf } = await import("../export/gguf.ts");
  await convertToGguf(model, path, options, hooks);
  return { bytes: (await Deno.stat(path)).size, of: options.outtype };
}

async function folderBytes(folder: string): Promise<number> {
  let bytes = 0;
  for await (const { name } of Deno.readDir(folder)) bytes += (await Deno.stat(`${folder}/${name}`)).size;
  return bytes;
}
