/** `mmlu`: questions with four answers, by the likeliest letter. */
import { UserError } from "../errors.ts";
import { formatCount, formatTable } from "../text.ts";
import { text, whole } from "../train_args/values.ts";
import { saveResults, withEvalFlags } from "./eval_flags.ts";
import { type BuiltCommand, newCommand, optionalFlag, requiredPath, valueFlag } from "./flags.ts";
import { gpuOptionsOf } from "./gpu_options.ts";
import type { Io } from "./io.ts";
import { narrowFetched } from "./permissions.ts";
import { CountProgress } from "./progress.ts";
import { stagesOn } from "./stages.ts";
import { quantisationOf } from "../model/quantisation.ts";

/** The command. Names of flags are Long-LLM's. */
export function build(summary: string, io: Io): BuiltCommand {
  const command = newCommand("mmlu", summary, io, {
    examples: [
      "mmlu --base_model models/long --eval_data mmlu/test.json",
      "mmlu --base_model org/model --peft_model output/long --eval_data mmlu/test.json --few_shot 5 --train_data mmlu/dev.json",
    ],
  });
  return withEvalFlags(command, "mmlu")
    .addOption(requiredPath("eval_data", "file of questions: rows of query, subject, choices and answer"))
    .addOption(valueFlag("few_shot", "examples of its subject before each question", whole(0, 100), 0))
    .addOption(
      optionalFlag("train_data", "file of questions that examples are taken from", text("path"), "none"),
    )
    .addOption(valueFlag("batch_size", "questions in one forward pass", whole(1, 4096), 2))
    .action(async ({ json, ...flags }) => {
      const [mmlu, { settleModel }, { Tokenizer }, { identify }, { locate }] = await Promise.all([
        import("../eval/mmlu.ts"),
        import("../eval/measured_model.ts"),
        import("../data/tokenizer.ts"),
        import("../eval/identity.ts"),
        import("./hub.ts"),
      ]);
      const questions = await mmlu.readMmlu(flags.eval_data);
      const examples = flags.train_data === null ? [] : await mmlu.readMmlu(flags.train_data);
      const baseModel = await locate(io, flags.base_model, "model");
      const peftModel = flags.peft_model && await locate(io, flags.peft_model, "model");
      narrowFetched();
      const tokenizer = await Tokenizer.load(baseModel, peftModel ?? undefined);
      const template = flags.chat_template ?? (tokenizer.chatTemplate === undefined ? "no" : "model");
      const encoded = mmlu.encodeMmlu(questions, tokenizer, { template, shots: flags.few_shot, examples });
      const longest = Math.max(...encoded.map(({ sequences }) => sequences[0]!.inputIds.length));
      const { context_size: contextSize, dtype } = flags;
      const gpuOptions = gpuOptionsOf(io, flags.webgpu);
      const settled = await settleModel(
        { baseModel, peftModel, contextSize, quantisation: quantisationOf(flags), dtype, gpuOptions },
        longest,
      );
      if (longest > settled.contextSize) {
        throw new UserError(
          `Cannot ask the longest question: it has ${
            formatCount(longest)
          } tokens, and the model is made for ${
            formatCount(settled.contextSize)
          }. Lower --few_shot, or pass --context_size ${longest}`,
        );
      }
      const loading = new CountProgress(io, "tensor");
      using opened = await settled.open({
        note: (line) => io.err(line),
        onLoad: (done, total, tensor) => loading.onProgress(done, total, tensor),
      }).finally(() => loading.stop());
      const settings = {
        base_model: flags.base_model,
        peft_model: flags.peft_model,
        context_size: settled.contextSize,
        load_in_4bit: flags.load_in_4bit,
        dtype,
        chat_template: template,
        ...await identify(baseModel, peftModel),
        few_shot: flags.few_shot,
        questions: mmlu.hashQuestions(encoded),
      };
      const { output_dir: outputDir, overwrite, batch_size: batchSize } = flags;
      const scores = await stagesOn(io).counting(
        "question",
        (hooks) =>
          mmlu.measureMmlu(opened.model, encoded, { outputDir, overwrite, settings, batchSize }, hooks),
      );
      const result = await saveResults(outputDir, { settings, ...scores });
      const percent = (share: number) => `${(100 * share).toFixed(2)} %`;
      io.out(
        json ? result : [
          formatTable([
            ["subject", "questions", "right"],
            ...scores.subjects.map((
              { subject, rows, accuracy },
            ) => [subject, formatCount(rows), percent(accuracy)]),
          ], "lrr"),
          "",
          formatTable([
            ...scores.categories.map(({ category, accuracy }) => [category, percent(accuracy)]),
            ["All", percent(scores.all)],
          ], "lr"),
          "",
          `means over subjects; results.json and results.jsonl in ${outputDir}`,
        ].join("\n"),
      );
    });
}
