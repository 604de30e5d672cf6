import {
  booleanFlag,
  newCommand,
  normaliseFlags,
  optionalFlag,
  requiredPath,
  runCommand,
  valueFlag,
} from "../../cli/flags.ts";
import { UserError } from "../../errors.ts";
import { oneOf, whole } from "../../train_args/values.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "./memory_io.ts";

/** Parses `words` with a command that has one flag of each kind. */
async function parse(...words: string[]): Promise<Record<string, unknown>> {
  let result: Record<string, unknown> = {};
  const command = newCommand("measure", "measures", new MemoryIo())
    .addOption(requiredPath("base_model", "a folder"))
    .addOption(valueFlag("seq_len", "tokens", whole(2), 2048))
    .addOption(optionalFlag("context_size", "tokens", whole(2), "seq_len"))
    .addOption(valueFlag("dtype", "precision", oneOf(["fp32", "bf16"]), "fp32"))
    .addOption(booleanFlag("load_in_4bit", "4 bits", false))
    .addOption(booleanFlag("drop_last_window", "drop", true))
    .action((options) => {
      result = options;
    });
  await runCommand(command, words);
  return result;
}

async function refusal(...words: string[]): Promise<string> {
  const error = await parse(...words).then(() => null, (e: unknown) => e);
  assert(error instanceof UserError, `a UserError, got ${error}`);
  assertEquals(error.kind, "usage");
  return error.message;
}

Deno.test("flags have their defaults, and null where there is none", async () => {
  assertEquals(await parse("--base_model", "m"), {
    json: false,
    webgpu: "deno",
    seq_len: 2048,
    context_size: null,
    dtype: "fp32",
    load_in_4bit: false,
    drop_last_window: true,
    base_model: "m",
  });
});

const BOOLEANS: [words: string[], wanted: boolean][] = [
  [["--load_in_4bit"], true],
  [["--load-in-4bit"], true],
  [["--no-load_in_4bit"], false],
  [["--no-load-in-4bit"], false],
  [["--no_load_in_4bit"], false],
  [["--load_in_4bit", "true"], true],
  [["--load_in_4bit", "True"], true],
  [["--load_in_4bit", "False"], false],
  [["--load_in_4bit=false"], false],
  [["--load-in-4bit=TRUE"], true],
  [["--load_in_4bit", "--seq_len", "4"], true],
  [["--load_in_4bit", "--no-load_in_4bit"], false],
];
for (const [words, wanted] of BOOLEANS) {
  Deno.test(`${words.join(" ")} is ${wanted}`, async () => {
    assertEquals((await parse("--base_model", "m", ...words)).load_in_4bit, wanted);
  });
}

Deno.test("values are read, in kebab-case too, and are themselves left alone", async () => {
  const options = await parse(
    "--base-model",
    "my-model/no-x",
    "--seq-len=16",
    "--context_size",
    "32",
    "--no-json",
  );
  assertEquals([options.base_model, options.seq_len, options.context_size], ["my-model/no-x", 16, 32]);
});

const REFUSED: [words: string[], wanted: string][] = [
  [["--base_mdel", "m"], 'Unknown flag "--base_mdel" for measure: did you mean --base_model?'],
  [["--base_model", "m", "--quite-unlike-anything"], "see longreach measure --help"],
  [[], "measure needs --base_model: see longreach measure --help"],
  [["--base_model"], "--base_model needs a value"],
  [["--base_model", "m", "--seq_len", "1"], '--seq_len: must be a whole number of at least 2, got "1"'],
  [["--base_model", "m", "--dtype", "int8"], '--dtype: must be one of fp32, bf16, got "int8"'],
  [["--base_model", "m", "--load_in_4bit", "maybe"], '--load_in_4bit: must be true or false, got "maybe"'],
  [["--base_model", "m", "stray"], 'Unexpected word "stray" for measure'],
];
for (const [words, wanted] of REFUSED) {
  Deno.test(`refused: measure ${words.join(" ")}`, async () =>
    assertIncludes(await refusal(...words), wanted));
}

Deno.test("normaliseFlags() touches nothing behind --", () => {
  assertEquals(normaliseFlags(["--a-b", "c-d", "--", "--e-f", "--no-g"]), [
    "--a_b",
    "c-d",
    "--",
    "--e-f",
    "--no-g",
  ]);
});
