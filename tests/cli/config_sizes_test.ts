/** A config.json that asks for more than there is: every command says so in one line, before it builds anything. */
import { runCli } from "../../cli/main.ts";
import { SIZE_LIMITS } from "../../model/load/fits.ts";
import { parseConfig } from "../../model/config.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "./memory_io.ts";

const MODEL = `${GOLDEN}/mha`;

/** What config.json says, as text, and what must be said of it. */
const CASES: readonly [change: string, ...parts: string[]][] = [
  ['"num_hidden_layers": 16777216', "num_hidden_layers", "16777216", "1024"],
  ['"num_hidden_layers": 100000', "num_hidden_layers", "100000", "1024"],
  ['"num_hidden_layers": 1000', "model.layers.2."],
  ['"vocab_size": 16777216', "vocab_size", "16777216", "524288"],
  ['"vocab_size": 500000', "model.embed_tokens.weight", "[500000,64]"],
  ['"intermediate_size": 16777216', "intermediate_size", "16777216"],
  ['"intermediate_size": 4096', "mlp.", "[4096,64]"],
  [
    '"num_attention_heads": 1048576, "num_key_value_heads": 1048576, "head_dim": 4',
    "num_attention_heads x head_dim",
  ],
  ['"num_hidden_layers": -1', "num_hidden_layers"],
  ['"hidden_size": 64.5', "hidden_size"],
  ['"vocab_size": "260"', "vocab_size"],
  ['"vocab_size": NaN', "not valid JSON", "NaN"],
  ['"max_position_embeddings": 9007199254740991', "max_position_embeddings", "2147483647"],
  [`"model_type": ${"[".repeat(90)}${"]".repeat(90)}`, "model_type"],
  [`"model_type": ${"[".repeat(90_000)}${"]".repeat(90_000)}`, "levels deep"],
];

for (const [change, ...parts] of CASES) {
  Deno.test(`every command refuses a config.json with ${change.slice(0, 50)}`, async () => {
    await withFolder(async (root) => {
      const model = `${root}/model`;
      await Deno.mkdir(model);
      for (const name of namesIn(MODEL)) await Deno.symlink(`${MODEL}/${name}`, `${model}/${name}`);
      const config = await Deno.readTextFile(`${MODEL}/config.json`);
      await Deno.remove(`${model}/config.json`);
      // The last of two equal keys counts.
      await Deno.writeTextFile(`${model}/config.json`, config.replace(/\s*\}\s*$/, `, ${change}}`));
      const training = [
        "--model_name_or_path",
        model,
        "--train_file",
        `${GOLDEN}/train.jsonl`,
        "--output_dir",
      ];
      const length = ["--max_seq_length", "64", "--max_steps", "1"];
      const commands = [
        ["train", ...training, `${root}/out`, ...length],
        ["plan", ...training, `${root}/out`, ...length, "--rates", "false"],
        ["evaluate", "--base_model", model, "--data_path", `${GOLDEN}/data.bin`, "--seq_len", "64"],
        [
          "merge",
          "--base_model",
          model,
          "--peft_model",
          `${GOLDEN}/adapter`,
          "--save_path",
          `${root}/merged`,
        ],
        ["convert", "--model", model, "--to", "gguf", "--save_path", `${root}/x.gguf`],
        ["convert", "--model", model, "--to", "bnb-4bit", "--save_path", `${root}/bnb`],
      ];
      for (const words of commands) {
        const io = new MemoryIo();
        const started = performance.now();
        const code = await runCli(words, io);
        assert(performance.now() - started < 20_000, `${words[0]} took its time`);
        assertEquals([code, io.stdout], [1, ""], `${words[0]}: ${io.stderr}`);
        const lines = io.stderr.trimEnd().split("\n");
        for (const part of parts) assertIncludes(lines.at(-1)!, part);
        assert(
          lines.at(-1)!.length < 500 && !/bug in Longreach|^ {4}at /m.test(io.stderr),
          io.stderr.slice(0, 500),
        );
      }
      assert(namesIn(root).every((name) => name === "model" || name === "out"), `left ${namesIn(root)}`);
    });
  });
}

Deno.test("sizes at their limits are read, one above is refused by name", async () => {
  const raw = JSON.parse(await Deno.readTextFile(`${MODEL}/config.json`));
  const read = (change: Record<string, unknown>) => parseConfig({ ...raw, ...change }, "config.json");
  for (const key of ["num_hidden_layers", "vocab_size", "intermediate_size", "hidden_size"] as const) {
    const most = SIZE_LIMITS[key];
    const heads = key === "hidden_size" ? { head_dim: 16 } : {};
    assertEquals(read({ ...heads, [key]: most })[key], most);
    await assertThrows(() => read({ ...heads, [key]: most + 4 }), "config.json", key, String(most));
  }
  await assertThrows(
    () => read({ num_hidden_layers: 1024, hidden_size: 65536, intermediate_size: 131072, head_dim: 16 }),
    "the number of parameters",
  );
});
