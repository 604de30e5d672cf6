/** `needle`: whether a model finds sentences hidden in long texts, over lengths and depths. */
import { UserError } from "../errors.ts";
import { text, whole } from "../train_args/values.ts";
import { gridOf, openSubject, showGrid, withEvalFlags, withGridFlags } from "./eval_flags.ts";
import { type BuiltCommand, newCommand, optionalFlag, requiredPath, valueFlag } from "./flags.ts";
import type { Io } from "./io.ts";
import { stagesOn } from "./stages.ts";

/** The command. Names of flags are Long-LLM's as far as it has them. */
export function build(summary: string, io: Io): BuiltCommand {
  const command = newCommand("needle", summary, io, {
    examples: [
      "needle --base_model models/long --haystack data/essays --min_length 8000 --max_length 80000",
      "needle --base_model org/model --peft_model output/long --haystack book.txt --num_needles 3",
    ],
  });
  return withGridFlags(withEvalFlags(command, "needle"))
    .addOption(
      requiredPath("haystack", "text that surrounds the needles: a folder of .txt files, or one file"),
    )
    .addOption(valueFlag("num_tests", "texts at each place", whole(1, 10_000), 1))
    .addOption(optionalFlag("num_needles", "sentences that are hidden, of ours", whole(1, 6), "1"))
    .addOption(
      optionalFlag(
        "wording",
        "JSON file with sentences of your own: needles, answers, question, task",
        text("path"),
        "ours, in English",
      ),
    )
    .addOption(valueFlag("max_new_tokens", "room for the answer", whole(1, 4096), 50))
    .addOption(valueFlag("seed", "draws where texts begin", whole(0, 2 ** 32 - 1), 123))
    .action(async ({ json, ...flags }) => {
      if (flags.wording !== null && flags.num_needles !== null) {
        throw new UserError("--num_needles is for sentences of ours: with --wording the file says how many", {
          kind: "usage",
        });
      }
      const { measureNeedle, needleWording, readHaystack, readNeedles } = await import("../eval/needle.ts");
      const wording = flags.wording === null
        ? needleWording(flags.num_needles ?? 1)
        : await readNeedles(flags.wording);
      const haystack = await readHaystack(flags.haystack);
      const { output_dir: outputDir, overwrite } = flags;
      using subject = await openSubject(io, flags, flags.beyond_context);
      const { engine, settings } = subject;
      const grid = await gridOf(flags, engine.contextSize);
      const result = await stagesOn(io).counting("token", (hooks) =>
        measureNeedle(engine, {
          ...grid,
          wording,
          haystack,
          settings,
          outputDir,
          overwrite,
          ranks: io.ranks,
          trials: flags.num_tests,
          maxNewTokens: flags.max_new_tokens,
          seed: flags.seed,
        }, hooks));
      await showGrid(io, result, [
        { title: "Needle in a haystack", score: "answers found", value: "accuracy", file: "heat_map.svg" },
        { title: "Needle in a haystack", score: "ROUGE-L", value: "similarity", file: "rouge.svg" },
      ], { outputDir, json });
    });
}
