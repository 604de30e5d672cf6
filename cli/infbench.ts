/** `infbench`: InfiniteBench's 12 tasks of very long texts, asked and scored. */
import { formatCount, formatTable } from "../text.ts";
import { list, text } from "../train_args/values.ts";
import { cutOf, openSubject, saveResults, tasksOf, withCutFlags, withEvalFlags } from "./eval_flags.ts";
import { type BuiltCommand, newCommand, optionalFlag, requiredPath } from "./flags.ts";
import type { Io } from "./io.ts";
import { stagesOn } from "./stages.ts";

/** Tokens of a prompt's text, in Long-LLM. */
const MAX_LENGTH = 128_000;

/** The command. Names of flags and defaults are Long-LLM's. */
export function build(summary: string, io: Io): BuiltCommand {
  const command = newCommand("infbench", summary, io, {
    examples: [
      "infbench --base_model models/long --eval_data data/infbench --max_length 80000",
      "infbench --base_model org/model --peft_model output/long --eval_data data/infbench --tasks passkey,kv_retrieval",
    ],
  });
  return withCutFlags(withEvalFlags(command, "infbench"), MAX_LENGTH)
    .addOption(requiredPath("eval_data", "folder of InfiniteBench's files, TASK.jsonl each"))
    .addOption(
      optionalFlag(
        "tasks",
        "tasks with commas between them, or all",
        list(),
        "longbook_qa_eng,longbook_sum_eng",
      ),
    )
    .addOption(optionalFlag("prompts", "JSON file with prompts by task", text("path"), "ours"))
    .action(async ({ json, ...flags }) => {
      const [{ INFBENCH, INFBENCH_USUAL, infBenchSource, measureInfBench }, { readPrompts }] = await Promise
        .all([
          import("../eval/infbench.ts"),
          import("../eval/task_rows.ts"),
        ]);
      const tasks = tasksOf(flags.tasks, Object.keys(INFBENCH), INFBENCH_USUAL);
      const prompts = flags.prompts === null ? {} : await readPrompts(flags.prompts);
      const source = await infBenchSource({ evalData: flags.eval_data, tasks, prompts });
      const { output_dir: outputDir, overwrite } = flags;
      using subject = await openSubject(io, flags);
      const settings = { ...subject.settings, prompts };
      const { scores } = await stagesOn(io).counting(
        "question",
        (hooks) =>
          measureInfBench(subject.engine, source, {
            task: "infbench",
            settings,
            cut: cutOf(flags, MAX_LENGTH),
            outputDir,
            overwrite,
          }, hooks),
      );
      const result = await saveResults(outputDir, { settings, ...scores });
      const table = [
        ["task", "rows", "score"],
        ...scores.tasks.map(({ task, rows, score }) => [task, formatCount(rows), score.toFixed(4)]),
      ];
      io.out(
        json
          ? result
          : `${formatTable(table, "lrr")}\n\naverage over tasks ${scores.average.toFixed(4)}\n\n` +
            `results.json and results.jsonl in ${outputDir}`,
      );
    });
}
