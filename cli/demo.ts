/** `demo`: the main job in miniature, on the tiny model that ships with the repository. */
import { formatSeconds, formatTable } from "../text.ts";
import { text } from "../train_args/values.ts";
import type { Retrieval } from "../demo/retrieval.ts";
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
      valueFlag(
        "output_dir",
        "folder for the adapter, the merged model and the report",
        text("path"),
        "output/demo",
      ),
    )
    .action(async ({ output_dir, json, webgpu }) => {
      const { runDemo } = await import("../demo/run.ts");
      const result = await runDemo({ output_dir, gpuOptions: gpuOptionsOf(io, webgpu) }, stagesOn(io));
      io.out(json ? formatJson(result) : await describe(result));
    });
}

/** The tables of what was gained, and where everything is. */
async function describe(result: DemoResult): Promise<string> {
  const { rows, passkey, base_model, adapter, merged, data, device, seconds } = result;
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
    ["passkey", passkey.report],
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
  return `\n${table}\n${legend}\n\nPerplexity by position in ${longest.length} tokens\n${byPosition}\n\n${await passkeyTable(
    passkey,
  )}\n\n${places}\n\nDone in ${formatSeconds(seconds)} on ${device}`;
}

/** What each model finds by length, and what guessing would. */
async function passkeyTable(passkey: Retrieval): Promise<string> {
  const { retrievalTable } = await import("../demo/retrieval.ts");
  const share = (value: number) => `${Math.round(100 * value)} %`;
  const { depths, trials, keys } = passkey;
  const rows = retrievalTable(passkey, "passkey found in tokens", share);
  return `${formatTable(rows, `l${"r".repeat(rows[0]!.length - 1)}`)}\n` +
    `${depths.length * trials} texts of each length; by chance one of ${keys} words, ${share(1 / keys)}`;
}
