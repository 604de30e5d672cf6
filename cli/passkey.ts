/** `passkey`: whether a model finds a key in long texts, over lengths and depths. */
import { UserError } from "../errors.ts";
import { oneOf, text, whole } from "../train_args/values.ts";
import { gridOf, openSubject, showGrid, withEvalFlags, withGridFlags } from "./eval_flags.ts";
import { type BuiltCommand, newCommand, optionalFlag, valueFlag } from "./flags.ts";
import type { Io } from "./io.ts";
import { stagesOn } from "./stages.ts";

/** Flags that one protocol alone reads. */
const ONLY = {
  tokens: [
    "test_length",
    "min_length",
    "max_length",
    "num_length_interval",
    "test_depth",
    "min_depth",
    "max_depth",
    "num_depth_interval",
    "passkey_length",
    "max_new_tokens",
    "seed",
  ],
  longlora: ["max_tokens", "interval"],
} as const;

/** The command. Names of flags are Long-LLM's, and LongLoRA's for its protocol. */
export function build(summary: string, io: Io): BuiltCommand {
  const command = newCommand("passkey", summary, io, {
    examples: [
      "passkey --base_model models/long --test_length 8192,16384,32768 --num_tests 5",
      "passkey --base_model org/model --peft_model output/long --protocol longlora --max_tokens 32000",
      "passkey --base_model demo/model --wording demo/passkey.json",
    ],
  });
  return withGridFlags(withEvalFlags(command, "passkey"))
    .addOption(
      valueFlag(
        "protocol",
        "prompts of real tokens at even depths, or LongLoRA's of characters at drawn ones",
        oneOf(["tokens", "longlora"]),
        "tokens",
      ),
    )
    .addOption(optionalFlag("num_tests", "keys at each place", whole(1, 10_000), "3, with longlora 10"))
    .addOption(optionalFlag("passkey_length", "digits of a key", whole(1, 9), "5"))
    .addOption(optionalFlag("max_new_tokens", "room for the answer", whole(1, 4096), "32"))
    .addOption(optionalFlag("seed", "draws the keys", whole(0, 2 ** 32 - 1), "123"))
    .addOption(
      optionalFlag("max_tokens", "longlora: longest text, 3.75 characters to a token", whole(1), "32000"),
    )
    .addOption(optionalFlag("interval", "longlora: tokens between two lengths", whole(1), "1000"))
    .addOption(
      optionalFlag(
        "wording",
        "JSON file with the prompt's parts: task, filler, key, question, keys",
        text("path"),
        "in English, with numbers",
      ),
    )
    .action(async ({ json, ...flags }) => {
      const other = flags.protocol === "tokens" ? "longlora" : "tokens";
      const misplaced = ONLY[other].find((name) => flags[name] !== null);
      if (misplaced !== undefined) {
        throw new UserError(`--${misplaced} is for --protocol ${other}: this is ${flags.protocol}`, {
          kind: "usage",
        });
      }
      const passkey = await import("../eval/passkey.ts");
      const wording = flags.wording === null ? passkey.WORDING : await passkey.readWording(flags.wording);
      const { output_dir: outputDir, overwrite } = flags;
      using subject = await openSubject(io, flags, flags.beyond_context);
      const { engine, settings } = subject;
      const common = { wording, settings, outputDir, overwrite, ranks: io.ranks };
      const result = await stagesOn(io).counting(
        "token",
        async (hooks) =>
          flags.protocol === "tokens"
            ? await passkey.measurePasskey(engine, {
              ...common,
              ...await gridOf(flags, engine.contextSize),
              trials: flags.num_tests ?? 3,
              digits: flags.passkey_length ?? 5,
              maxNewTokens: flags.max_new_tokens ?? 32,
              seed: flags.seed ?? 123,
            }, hooks)
            : await passkey.measurePasskeyAsLongLora(engine, {
              ...common,
              trials: flags.num_tests ?? 10,
              maxTokens: flags.max_tokens ?? 32_000,
              interval: flags.interval ?? 1000,
            }, hooks),
      );
      await showGrid(io, result, [
        { title: "Passkey retrieval", score: "keys found", value: "accuracy", file: "heat_map.svg" },
      ], { outputDir, json });
    });
}
