/** `convert`: a model folder into another format. */
import { oneOf } from "../train_args/values.ts";
import { type BuiltCommand, newCommand, requiredFlag, requiredPath, valueFlag } from "./flags.ts";
import { formatBytes, formatRecord, formatSeconds } from "./format.ts";
import type { Io } from "./io.ts";
import { stagesOn } from "./stages.ts";

/** The command. */
export function build(summary: string, io: Io): BuiltCommand {
  return newCommand("convert", summary, io)
    .addOption(requiredPath("model", "folder of the model, or its name on the hub"))
    .addOption(requiredFlag("to", "format to write", oneOf(["gguf"])))
    .addOption(requiredPath("save_path", "file to write"))
    .addOption(
      valueFlag("outtype", "numbers of a GGUF file's matrices", oneOf(["f32", "f16", "bf16", "q8_0"]), "f16"),
    )
    .action(async ({ json, model: place, save_path, outtype }) => {
      const [{ locate }, { convertToGguf }] = await Promise.all([
        import("./hub.ts"),
        import("../model/gguf.ts"),
      ]);
      const started = performance.now();
      const model = await locate(io, place, "model");
      await stagesOn(io).counting(
        "tensor",
        (hooks) => convertToGguf(model, save_path, outtype, hooks.onProgress),
      );
      const { size } = await Deno.stat(save_path);
      const result = {
        model: place,
        save_path,
        outtype,
        bytes: size,
        seconds: (performance.now() - started) / 1000,
      };
      io.out(
        json ? JSON.stringify(result) : formatRecord({
          saved: `${save_path}, ${formatBytes(size)} of ${outtype}`,
          took: formatSeconds(result.seconds),
        }),
      );
    });
}
