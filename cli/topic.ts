/** `topic`: whether a model names the first topic of long conversations. */
import { formatTable } from "../text.ts";
import { wholes } from "../train_args/values.ts";
import { openSubject, saveResults, withEvalFlags } from "./eval_flags.ts";
import { type BuiltCommand, newCommand, optionalFlag, requiredPath } from "./flags.ts";
import type { Io } from "./io.ts";
import { stagesOn } from "./stages.ts";

/** The command. Names of flags and defaults are Long-LLM's. */
export function build(summary: string, io: Io): BuiltCommand {
  const command = newCommand("topic", summary, io, {
    examples: [
      "topic --base_model models/long --eval_data topic_retrieval.json",
      "topic --base_model org/model --peft_model output/long --eval_data topic_retrieval.json --num_topic 5,10,20",
    ],
  });
  return withEvalFlags(command, "topic")
    .addOption(
      requiredPath("eval_data", "file of conversations: rows of context, question, topics and num_topics"),
    )
    .addOption(
      optionalFlag("num_topic", "conversations of so many topics", wholes(1), "5,10,15,20,25,30,40,50,60,70"),
    )
    .action(async ({ json, ...flags }) => {
      const { measureTopic, NUM_TOPICS, topicSource, topicTable } = await import("../eval/topic.ts");
      const source = await topicSource(flags.eval_data, flags.num_topic ?? NUM_TOPICS);
      const { output_dir: outputDir, overwrite } = flags;
      using subject = await openSubject(io, flags);
      const scores = await stagesOn(io).counting("question", (hooks) =>
        measureTopic(subject.engine, source, {
          task: "topic",
          settings: subject.settings,
          // A conversation without its beginning has lost what is asked for.
          cut: { maxLength: null, most: subject.engine.contextSize, truncateFromMiddle: true },
          outputDir,
          overwrite,
        }, hooks));
      const result = await saveResults(outputDir, { settings: subject.settings, scores });
      io.out(
        json
          ? result
          : `${formatTable(topicTable(scores), "rrrrr")}\n\nresults.json and results.jsonl in ${outputDir}`,
      );
    });
}
