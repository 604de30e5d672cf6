/** `inference`: a question about a document, or a text to go on from. */
import type { Answer } from "../chat/engine.ts";
import { MATERIAL_TYPES } from "../chat/material.ts";
import { UserError } from "../errors.ts";
import { oneOf, text } from "../train_args/values.ts";
import {
  MOST_TOKENS,
  noteUnknown,
  openEngine,
  samplingOf,
  sinksOf,
  withAnswerFlags,
  withSinkFlags,
} from "./answer_flags.ts";
import { type BuiltCommand, newCommand, optionalFlag, valueFlag } from "./flags.ts";
import { formatJson } from "./format.ts";
import type { Io } from "./io.ts";
import { narrowFetched } from "./permissions.ts";
import { CountProgress } from "./progress.ts";
import { formatCount, formatRate, formatSeconds } from "../text.ts";

/** The command. Its flags and defaults are those of LongLoRA's `inference.py`; `--prompt` is LongQLoRA's script. */
export function build(summary: string, io: Io): BuiltCommand {
  return withSinkFlags(withAnswerFlags(newCommand("inference", summary, io, {
    examples: [
      'inference --base_model models/long --material book.pdf --question "Who is the narrator?"',
      'inference --base_model org/model --peft_model output/long --prompt "Once upon a time"',
    ],
  })))
    .addOption(
      optionalFlag("material", "document that the question is about: .txt or .pdf", text("path"), "none"),
    )
    .addOption(
      valueFlag("material_type", "what the document is called in the prompt", oneOf(MATERIAL_TYPES), "none"),
    )
    .addOption(valueFlag("material_title", "title of a book, for the prompt", text(), ""))
    .addOption(optionalFlag("question", "what to ask", text(), "none"))
    .addOption(optionalFlag("prompt", "text to go on from as it is, without a template", text(), "none"))
    .action(async ({ json, ...flags }) => {
      const { question, prompt, material } = flags;
      if ((question === null) === (prompt === null) || (prompt !== null && material !== null)) {
        throw new UserError("inference needs --question, with or without --material, or --prompt alone", {
          kind: "usage",
        });
      }
      const { askAbout, readMaterial } = await import("../chat/material.ts");
      const about = { type: flags.material_type, title: flags.material_title };
      const content = question === null
        ? null
        : material === null
        ? question
        : askAbout(await readMaterial(material), question, about);
      using engine = await openEngine(io, flags, sinksOf(flags));
      narrowFetched();
      const ids = content === null
        ? engine.tokenizer.encode(prompt!)
        : engine.promptOf([{ role: "user", content }]);
      noteUnknown(io, engine, ids, "the prompt");
      const sampling = samplingOf(flags);
      const reading = new CountProgress(io, "token");
      const answer = await engine.answer(ids, {
        ...sampling,
        maxNewTokens: flags.max_gen_len ?? Math.max(1, Math.min(MOST_TOKENS, engine.roomBehind(ids.length))),
        onPrompt: (done, total) => {
          reading.onProgress(done, total, "of the prompt");
          if (done === total) reading.stop();
        },
        ...(json ? {} : { onText: (piece) => io.print(piece) }),
      }).finally(() => reading.stop());
      if (json) io.out(formatJson({ ...answer, seed: sampling.seed }));
      else io.print("\n");
      io.err(describeAnswer(answer, sampling.seed));
    });
}

/** Describes the tokens and time of an answer in one line. */
export function describeAnswer(answer: Answer, seed: number): string {
  const { promptTokens, cachedTokens, completionTokens, promptSeconds, writeSeconds, finishReason } = answer;
  const cached = cachedTokens === 0 ? "" : `, ${formatCount(cachedTokens)} of them kept from before`;
  const rate = completionTokens > 1
    ? ` in ${formatSeconds(writeSeconds)} (${formatRate((completionTokens - 1) / writeSeconds)} tokens/s)`
    : "";
  const end = { stop: "", length: "; cut at the limit", cancelled: "; stopped" }[finishReason];
  return `prompt ${formatCount(promptTokens)} tokens${cached}, read in ${formatSeconds(promptSeconds)}; ` +
    `answer ${formatCount(completionTokens)} tokens${rate}${end}; seed ${seed}`;
}
