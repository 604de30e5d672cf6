/** `make_demo`: the demo's corpus and base model, made again from the generator in the repository. */
import { text } from "../train_args/values.ts";
import { type BuiltCommand, newCommand, valueFlag } from "./flags.ts";
import { gpuOptionsOf } from "./gpu_options.ts";
import type { Io } from "./io.ts";
import { formatResult } from "./format.ts";
import { stagesOn } from "./stages.ts";

/** The command. */
export function build(summary: string, io: Io): BuiltCommand {
  return newCommand("make_demo", summary, io, { examples: ["make_demo"] })
    .addOption(valueFlag("output_dir", "folder to write", text("path"), "output/make_demo"))
    .action(async ({ output_dir, json, webgpu }) => {
      const { makeDemo } = await import("../demo/make.ts");
      const result = await makeDemo({ output_dir, gpuOptions: gpuOptionsOf(io, webgpu) }, stagesOn(io));
      io.out(formatResult(result, json));
    });
}
