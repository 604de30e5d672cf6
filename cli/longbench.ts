/** `longbench`: 21 tasks of long texts, asked and scored, or answers of before scored again. */
import type { TaskScores } from "../eval/longbench.ts";
import { UserError } from "../errors.ts";
import { formatCount, formatTable } from "../text.ts";
import { list, text } from "../train_args/values.ts";
import { cutOf, openSubject, saveResults, tasksOf, withCutFlags, withEvalFlags } from "./eval_flags.ts";
import { booleanFlag, type BuiltCommand, newCommand, optionalFlag } from "./flags.ts";
import { formatJson } from "./format.ts";
import { type Io, isFirstRank } from "./io.ts";
import { stagesOn } from "./stages.ts";

/** Tokens of a prompt's text, in Long-LLM. */
const MAX_LENGTH = 31_500;

/** The command. Names of flags and defaults are Long-LLM's. */
export function build(summary: string, io: Io): BuiltCommand {
  const command = withCutFlags(
    withEvalFlags(
      newCommand("longbench", summary, io, {
        examples: [
          "longbench --base_model models/long --eval_data data/longbench --tasks qasper,hotpotqa,gov_report",
          "longbench --base_model org/model --eval_data data/longbench --tasks all --prompts dataset2prompt.json",
          "longbench --load_result output/longbench",
        ],
      }),
      "longbench",
    ),
    MAX_LENGTH,
  )
    .addOption(
      optionalFlag("eval_data", "folder of LongBench's files, TASK.jsonl each", text("path"), "none"),
    )
    .addOption(
      optionalFlag("tasks", "tasks with commas between them, or all", list(), "English and code, 14 of them"),
    )
    .addOption(
      optionalFlag(
        "prompts",
        "JSON file with prompts by task, such as dataset2prompt.json",
        text("path"),
        "ours",
      ),
    )
    .addOption(booleanFlag("newline_as_eos", "end the answers of QA and of samsum at their first line", true))
    .addOption(
      optionalFlag(
        "load_result",
        "folder of answers, TASK.jsonl each, to score without a model",
        text("path"),
        "none",
      ),
    )
    .action(async ({ json, ...flags }) => {
      const [longbench, { readPrompts }] = await Promise.all([
        import("../eval/longbench.ts"),
        import("../eval/task_rows.ts"),
      ]);
      if (flags.load_result !== null) {
        const scores = longbench.scoreLongBench(await longbench.readLongBenchAnswers(flags.load_result));
        io.out(json ? formatJson(scores) : describeScores(scores));
        return;
      }
      if (flags.base_model === undefined || flags.eval_data === null) {
        throw new UserError("longbench needs --base_model and --eval_data, or --load_result alone", {
          kind: "usage",
        });
      }
      const tasks = tasksOf(flags.tasks, Object.keys(longbench.LONGBENCH), longbench.LONGBENCH_ENGLISH);
      const prompts = flags.prompts === null ? {} : await readPrompts(flags.prompts);
      const asked = {
        evalData: flags.eval_data,
        tasks,
        prompts,
        newlineAsEos: flags.newline_as_eos,
      };
      const source = await longbench.longBenchSource(asked);
      const { output_dir: outputDir, overwrite } = flags;
      using subject = await openSubject(io, flags);
      const settings = { ...subject.settings, prompts, newline_as_eos: flags.newline_as_eos };
      const { scores, answers } = await stagesOn(io).counting(
        "question",
        (hooks) =>
          longbench.measureLongBench(subject.engine, source, {
            ...asked,
            task: "longbench",
            settings,
            cut: cutOf(flags, MAX_LENGTH),
            outputDir,
            overwrite,
            ranks: io.ranks,
          }, hooks),
      );
      if (!isFirstRank(io)) return;
      const result = await saveResults(outputDir, { settings, ...scores });
      const { writeFileAtomic } = await import("../checkpoint/atomic.ts");
      for (const task of tasks) {
        const rows = answers.filter((row) => row.task === task)
          .map(({ pred, answers, all_classes, length }) =>
            JSON.stringify({ pred, answers, all_classes, length })
          );
        await writeFileAtomic(`${outputDir}/${task}.jsonl`, `${rows.join("\n")}\n`);
      }
      io.out(
        json
          ? result
          : `${
            describeScores(scores)
          }\n\nresults.json, results.jsonl and each task's answers in ${outputDir}`,
      );
    });
  // Scoring again needs no model.
  command.options.find((option) => option.attributeName() === "base_model")!.makeOptionMandatory(false);
  return command;
}

function describeScores({ tasks, categories, average }: TaskScores): string {
  const table = [
    ["task", "category", "rows", "score"],
    ...tasks.map(({ task, category, rows, score }) => [task, category, formatCount(rows), score.toFixed(2)]),
  ];
  return [
    formatTable(table, "llrr"),
    "",
    formatTable(categories.map(({ category, score }) => [category, score.toFixed(2)]), "lr"),
    "",
    `average over tasks ${average.toFixed(2)}`,
  ].join("\n");
}
