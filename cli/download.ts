/** `download`: a model, adapter or data set of the hub into the shared cache. */
import { oneOf } from "../train_args/values.ts";
import { type BuiltCommand, newCommand, requiredFlag, valueFlag } from "./flags.ts";
import { formatJson, formatRecord } from "./format.ts";
import type { Io } from "./io.ts";
import { text } from "../train_args/values.ts";

/** The command. */
export function build(summary: string, io: Io): BuiltCommand {
  return newCommand("download", summary, io, {
    examples: ["download --name org/model", "download --name org/data --kind dataset"],
    usesGpu: false,
  })
    .addOption(
      requiredFlag("name", "org/name or org/name@revision", text("name on the hub")),
    )
    .addOption(valueFlag("kind", "what it is", oneOf(["model", "dataset"]), "model"))
    .action(async ({ json, name, kind }) => {
      const { locate } = await import("./hub.ts");
      const path = await locate(io, name, kind, { onHub: true });
      io.out(json ? formatJson({ name, path }) : formatRecord({ name, path }));
    });
}
