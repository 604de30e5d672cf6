/** `demo`: the main job in miniature, on the tiny model that ships with the repository. */
import { formatSeconds, formatTable } from "../text.ts";
import { text } from "../train_args/values.ts";
import type { DemoResult } from "../demo/run.ts";
import { formatJson } from "./format.ts";
import { type BuiltCommand, newCommand, valueFlag } from "./flags.ts";
import { gpuOptionsOf } from "./gpu_options.ts";
import type { Io } from "./io.ts";
import { stagesOn } from "./stages.ts";

/** The command. */
export function build(summary: string, io: Io): BuiltCommand {
  return newCommand("demo", summary, io, { examples: ["demo"] })
    .addOption(
      valueFlag("output_dir", "folder for the adapter and the merged model", text("path"), "output/demo"),
    )
    .action(async ({ output_dir, json, webgpu }) => {
      const { runDemo } = await import("../demo/run.ts");
      const result = await runDemo({ output_dir, gpuOptions: gpuOptionsOf(io, webgpu) }, stagesOn(io));
      io.out(json ? formatJson(result) : describe(result));
    });
}

/** The table of what was gained, and where everything is. */
function describe({ rows, base_model, adapter, merged, data, device, seconds }: DemoResult): string {
  const lengths = rows[0]!.scores.map(({ length }) => String(length));
  const headed = (head: string) => lengths.map((length, i) => i === 0 ? `${head} ${length}` : length);
  const table = formatTable([
    ["", ...headed("perplexity"), ...headed("facts found"), `answers ${lengths.at(-1)}`],
    ...rows.map(({ model, scores }) => [
      model,
      ...scores.map(({ perplexity }) => perplexity.toFixed(2)),
      ...scores.map(({ recall }) => `${Math.round(100 * recall)} %`),
      scores.at(-1)!.answerPerplexity.toFixed(2),
    ]),
  ], "lrrrrrrr");
  const places = formatTable([
    ["base model", base_model],
    ["adapter", adapter],
    ["merged model", merged],
    ["data", data],
  ]);
  const longest = rows[0]!.scores.at(-1)!;
  const byPosition = formatTable([
    ["", ...longest.byPosition.map(({ from, to }) => `${from}-${to - 1}`)],
    ...rows.map(({ model, scores }) => [
      model,
      ...scores.at(-1)!.byPosition.map(({ perplexity }) => perplexity.toFixed(2)),
    ]),
  ], "lrrrr");
  const legend = "answers: perplexity of the words asked for, told once 800 to 1,000 tokens before";
  return `\n${table}\n${legend}\n\nPerplexity by position in ${longest.length} tokens\n${byPosition}\n\n${places}\n\nDone in ${
    formatSeconds(seconds)
  } on ${device}`;
}
