import { runCli } from "../../cli/main.ts";
import { completionScript } from "../../cli/completion.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "./memory_io.ts";

/** What bash offers for a line whose last word is being typed. */
async function complete(script: string, ...words: string[]): Promise<string[]> {
  const line =
    `${script}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _longreach; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout } = await new Deno.Command("sh", {
    args: ["-c", 'exec bash -c "$0" bash "$@"', line, ...words],
  }).output();
  return new TextDecoder().decode(stdout).trim().split("\n").filter((word) => word !== "");
}

Deno.test("bash completes commands, their flags, and values where there are few", async () => {
  const io = new MemoryIo();
  assertEquals(await runCli(["completion", "--shell", "bash"], io), 0);
  assertEquals(await complete(io.stdout, "longreach", "ev"), ["evaluate"]);
  assertEquals(await complete(io.stdout, "longreach", "train", "--lora_r"), ["--lora_rank"]);
  assertEquals(await complete(io.stdout, "longreach", "convert", "--to", ""), [
    "gguf",
    "bnb-4bit",
    "safetensors",
  ]);
  const flags = await complete(io.stdout, "longreach", "merge", "--");
  assert(
    flags.includes("--save_path") && flags.includes("--help") && !flags.includes("--lora_rank"),
    flags.join(),
  );
});

Deno.test("zsh and fish have scripts of their own", () => {
  const flags = [{ name: "--to", doc: "the user's format", choices: ["a", "b"] }];
  const commands = [{ name: "convert", summary: "converts", flags }];
  assertIncludes(completionScript("zsh", commands), "bashcompinit");
  assertIncludes(
    completionScript("fish", commands),
    "-n '__fish_seen_subcommand_from convert' -l to -x -a 'a b' -d 'the user\\'s format'",
  );
});
