/** `train book.pdf --model M --context N`: no settings file, and what it brought at the end. */
import { runCli } from "../../cli/main.ts";
import { readTokenBin } from "../../data/bin.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { makePdf } from "../support/make_pdf.ts";
import { integers } from "../support/random.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "./memory_io.ts";

const MODEL = new URL("../../demo/model", import.meta.url).pathname;
const tokenizer = await Tokenizer.load(MODEL);

/** A text of `length` words that the demo's tokenizer knows. */
function words(length: number, seed: number): string {
  const known = Array.from({ length: 200 }, (_, i) => tokenizer.tokenText(i + 10)).filter((word) =>
    /^[a-z]+$/.test(word)
  );
  return Array.from(integers(seed, length, known.length), (i) => known[i]!).join(" ");
}

/** A folder with a text of 900 words and a PDF of 300. */
function withDocuments(use: (folder: string) => Promise<void>): Promise<void> {
  return withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/one.txt`, words(900, 1));
    const lines = Array.from({ length: 30 }, (_, i) => ({ text: words(10, i + 2), x: 72, y: 720 - 14 * i }));
    await Deno.writeFile(`${folder}/two.pdf`, makePdf([lines]));
    await use(folder);
  });
}

async function run(...words: string[]): Promise<{ code: number; io: MemoryIo }> {
  const io = new MemoryIo();
  return { code: await runCli(["train", ...words], io), io };
}

Deno.test("documents are trained on but for their end, and measured by position before and after", () =>
  withDocuments(async (folder) => {
    const output = `${folder}/out`;
    const { code, io } = await run(
      ...[`${folder}/one.txt`, `${folder}/two.pdf`, "--model", MODEL, "--context", "320"],
      ...["--max_steps", "1", "--bf16", "false", "--output_dir", output],
    );
    assertEquals(code, 0, io.stderr);
    const [train, heldOut] = await Promise.all(
      ["train", "held-out"].map((name) => readTokenBin(`${output}-data/${name}.bin`)),
    );
    // 900 and 300 words, each document with its beginning and end.
    assertEquals([train!.length, heldOut!.length], [1204 - 321, 321]);
    assertEquals([train![0], heldOut!.at(-1)], [tokenizer.bosId, tokenizer.eosId]);
    assertIncludes(io.stderr, "883 tokens to train on, and the last 321 held out");
    assertIncludes(io.stdout, "Perplexity by position in 320 tokens");
    const rows = ["base", "extended"].map((name) =>
      new RegExp(`^${name}( +[\\d.]+){5}$`, "m").exec(io.stdout)?.[0]
    );
    assert(rows.every(Boolean) && rows[0] !== rows[1], io.stdout);
    assertIncludes(io.stdout, `./longreach chat --base_model ${MODEL} --peft_model ${output}`);
    assert(!io.stdout.includes("HELD_OUT"), "the text that was held out is known");
    const settings = await Deno.readTextFile(`${output}/train_args.yaml`);
    for (
      const line of [
        "model_max_length: 320",
        "lora_rank: 64",
        "packing: true",
        "lr_scheduler_type: constant_with_warmup",
      ]
    ) {
      assertIncludes(settings, line);
    }
  }));

Deno.test("train on documents --json: one object with the run and both measurements", () =>
  withDocuments(async (folder) => {
    const { code, io } = await run(
      ...[`${folder}/one.txt`, "--model", MODEL, "--context", "320", "--max_steps", "1", "--json"],
      ...["--output_dir", `${folder}/out`, "--low_rank_training", "false", "--load_in_4bit", "false"],
    );
    assertEquals(code, 0, io.stderr);
    const { steps, before, after } = JSON.parse(io.stdout);
    assertEquals(steps, 1);
    assert(before.token_perplexity > 1 && after.token_perplexity !== before.token_perplexity, io.stdout);
    assertEquals(after.model.context_size, 512, "twice the base, as positions are scaled by whole numbers");
  }));

Deno.test("what is missing, too short or doubled is refused before anything is loaded", () =>
  withDocuments(async (folder) => {
    const text = `${folder}/one.txt`;
    const cases: [words: string[], ...says: string[]][] = [
      [[text], "--model", "--context, as in 32k"],
      [[text, "--model", MODEL, "--context", "1k"], "902 tokens", "a context of 1,024", "more documents"],
      [["my.yaml", text], "my.yaml", "name them as train_file"],
      [[`${folder}/nope.txt`, "--model", MODEL, "--context", "64"], "nope.txt"],
      [[text, "--model", MODEL, "--context", "32kk"], "32kk", "thousands as in 32k"],
      [["lora_rank=16"], "write --lora_rank=16"],
    ];
    for (const [words, ...says] of cases) {
      const { code, io } = await run(...words, "--output_dir", `${folder}/out`);
      assert(code === 1 || code === 2, words.join(" "));
      for (const part of says) assertIncludes(io.stderr, part);
      assertEquals(io.stdout, "");
    }
  }));

Deno.test("plan takes no documents: a folder is no settings file", () =>
  withDocuments(async (folder) => {
    const io = new MemoryIo();
    assert(await runCli(["plan", folder, "--shape", "llama2-7b", "--no-rates"], io) !== 0, io.stdout);
    assertIncludes(io.stderr, folder);
  }));
