/** `tokenize`: text files to one token file, which `evaluate` reads. */
import { formatCount } from "../text.ts";
import { type Kind, list, oneOf } from "../train_args/values.ts";
import {
  booleanFlag,
  type BuiltCommand,
  newCommand,
  requiredFlag,
  requiredPath,
  valueFlag,
} from "./flags.ts";
import { formatResult } from "./format.ts";
import type { Io } from "./io.ts";
import { narrowFetched } from "./permissions.ts";

const DTYPES: Kind<"auto" | "uint16" | "uint32"> = oneOf(["auto", "uint16", "uint32"]);

/** The command. */
export function build(summary: string, io: Io): BuiltCommand {
  return newCommand("tokenize", summary, io, {
    examples: ["tokenize --model_name_or_path org/model --data_path book.txt,more/ --save_path held-out.bin"],
    usesGpu: false,
  })
    .addOption(requiredPath("model_name_or_path", "folder with the tokenizer"))
    .addOption(
      requiredFlag(
        "data_path",
        "text, jsonl or parquet files (key `text`) or folders of them, with commas between them",
        list(),
      ),
    )
    .addOption(requiredPath("save_path", "token file to write"))
    .addOption(
      valueFlag("dtype", "size of one id; auto takes 32 bits only for large vocabularies", DTYPES, "auto"),
    )
    .addOption(booleanFlag("bos", "begin each document with the beginning-of-text token", true))
    .addOption(booleanFlag("eos", "end each document with the end-of-text token", true))
    .action(async ({ json, model_name_or_path, data_path, save_path, dtype, bos, eos }) => {
      const { locate } = await import("./hub.ts");
      const { lockTarget } = await import("../checkpoint/store.ts");
      using _lock = await lockTarget(save_path, { note: (line) => io.err(line) });
      const model = await locate(io, model_name_or_path, "model");
      const inputs = await Array.fromAsync(data_path, (path) => locate(io, path, "dataset"));
      narrowFetched();
      const [{ Tokenizer }, { tokenizeFiles }] = await Promise.all([
        import("../data/tokenizer.ts"),
        import("../data/tokenize.ts"),
      ]);
      const tokenizer = await Tokenizer.load(model);
      const started = performance.now();
      let reported = started;
      const report = await tokenizeFiles(inputs, save_path, tokenizer, {
        bos,
        eos,
        ...(dtype === "auto" ? {} : { dtype }),
        note: (line) => io.err(line),
        onDocument: (documents, tokens) => {
          if (performance.now() - reported < 10_000) return;
          reported = performance.now();
          io.err(`${formatCount(documents)} documents, ${formatCount(tokens)} tokens so far`);
        },
      });
      const result = { ...report, save_path, seconds: (performance.now() - started) / 1000 };
      io.out(formatResult(result, json));
    });
}
