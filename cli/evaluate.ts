/** `evaluate`: sliding-window perplexity of a model, with or without an adapter. */
import { oneOf, text, whole } from "../train_args/values.ts";
import {
  booleanFlag,
  type BuiltCommand,
  newCommand,
  optionalFlag,
  requiredPath,
  valueFlag,
} from "./flags.ts";
import { formatResult } from "./format.ts";
import type { Io } from "./io.ts";
import { stagesOn } from "./stages.ts";

/** The command. Defaults are LongLoRA's eval.py, but for `batch_size` (32 there) and `dtype` (fp16 there). */
export function build(summary: string, io: Io): BuiltCommand {
  return newCommand("evaluate", summary, io)
    .addOption(requiredPath("base_model", "folder of the model"))
    .addOption(optionalFlag("peft_model", "adapter folder to put on top of it", text("path"), "none"))
    .addOption(requiredPath("data_path", "token file: ids of 16 bits, or 32 where its sidecar says so"))
    .addOption(valueFlag("seq_len", "tokens in one window", whole(2), 2048))
    .addOption(
      optionalFlag("context_size", "context the model was extended to, in tokens", whole(2), "seq_len"),
    )
    .addOption(valueFlag("sliding_window", "tokens between the starts of two windows", whole(1), 256))
    .addOption(valueFlag("batch_size", "windows in one forward pass", whole(1, 65_536), 1))
    .addOption(booleanFlag("load_in_4bit", "load the base in 4-bit NF4", false))
    .addOption(booleanFlag("drop_last_window", "leave the last window out, as LongLoRA's script does", true))
    .addOption(valueFlag("dtype", "precision of activations", oneOf(["fp32", "bf16", "fp16"]), "fp32"))
    .action(async ({ json, ...options }) => {
      const { evaluatePerplexity } = await import("../eval/perplexity.ts");
      const context_size = options.context_size ?? options.seq_len;
      const result = await stagesOn(io).counting(
        "window",
        (hooks) => evaluatePerplexity({ ...options, context_size }, hooks),
      );
      io.out(formatResult(result, json));
    });
}
