/** `demo`: the main job in miniature, on the tiny model that ships with the repository. */
import { text } from "../train_args/values.ts";
import { type BuiltCommand, newCommand, valueFlag } from "./flags.ts";
import type { Io } from "./io.ts";
import { stagesOn } from "./stages.ts";

/** The command. */
export function build(summary: string, io: Io): BuiltCommand {
  return newCommand("demo", summary, io)
    .addOption(
      valueFlag("output_dir", "folder for the adapter and the merged model", text("path"), "output/demo"),
    )
    .action(async ({ output_dir, json }) => {
      const { runDemo } = await import("../demo/run.ts");
      const result = await runDemo({ output_dir }, stagesOn(io));
      io.out(json ? JSON.stringify(result) : result.report);
    });
}
