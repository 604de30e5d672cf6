/** `evaluate` and `merge` as command lines: what they print, where, and their exit codes. */
import { runCli } from "../../cli/main.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "./memory_io.ts";

const expected = JSON.parse(await Deno.readTextFile(`${GOLDEN}/expected.json`));

/** Runs one command line; words are split at spaces. */
async function run(line: string): Promise<{ code: number; io: MemoryIo }> {
  const io = new MemoryIo();
  return { code: await runCli(line.split(" "), io), io };
}

const EVALUATE =
  `evaluate --base_model ${GOLDEN}/mha --data_path ${GOLDEN}/data.bin --seq_len 128 --sliding_window 64`;
const MERGE = `merge --base_model ${GOLDEN}/mha --peft_model ${GOLDEN}/adapter --context-size 128`;

Deno.test("evaluate --json prints one object with every figure, and progress on stderr alone", async () => {
  const { code, io } = await run(`${EVALUATE} --peft_model ${GOLDEN}/adapter --json`);
  assertEquals(code, 0);
  assertEquals(io.stdout.trimEnd().split("\n").length, 1, "lines on stdout");
  const result = JSON.parse(io.stdout);
  assert(Math.abs(result.val_loss / expected.eval_adapter_128.val_loss - 1) < 1e-6, "val_loss");
  assertEquals(Object.keys(result), [
    "val_loss",
    "val_perplexity",
    "val_acc",
    "val_perplexity_per_chunk",
    "token_loss",
    "token_perplexity",
    "by_position",
    "token_accuracy",
    "target_accuracy",
    "num_windows",
    "num_tokens",
    "protocol",
    "model",
    "seconds",
    "peak_bytes",
  ]);
  assertIncludes(io.stderr, "tensor 21/21");
  assertIncludes(io.stderr, "window 21/21");
});

Deno.test("evaluate prints a table, and takes flags in kebab-case and as words", async () => {
  const { code, io } = await run(
    `${EVALUATE} --context-size 128 --load-in-4bit True --drop-last-window=false --batch-size 8`,
  );
  assertEquals(code, 0);
  assertIncludes(io.stdout, "val_perplexity");
  assertIncludes(io.stdout, "22 of 128 tokens, every 64, the last included");
  assertIncludes(io.stdout, "linears in 4 bits (quantised while loading)");
  assertIncludes(io.stdout, "rope_scaling linear by 2, full attention");
});

Deno.test("evaluate --by_position is a table and a picture; by protocol the figures that its script gives lead", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/ppl.svg`;
    const { code, io } = await run(`${EVALUATE} --by_position 8 --plot_path ${path} --batch_size 8`);
    assertEquals(code, 0, io.stderr);
    const rows = [...io.stdout.matchAll(/^ *(\d+)-(\d+) +(\d+\.\d{4})$/gm)];
    assertEquals(rows.map(([, from, to]) => `${from}-${to}`), [
      "1-15",
      "16-31",
      "32-47",
      "48-63",
      "64-79",
      "80-95",
      "96-111",
      "112-127",
    ]);
    const svg = await Deno.readTextFile(path);
    const [, line] = /stroke-linecap="round" d="M([^"]*)"/.exec(svg)!;
    assertEquals(line!.split("L").length, 8, "points");
    assertIncludes(svg, "perplexity over tokens before the one that is predicted");
    const distributed = await run(`${EVALUATE} --protocol distributed --batch_size 8 --json`);
    const result = JSON.parse(distributed.io.stdout);
    assertEquals([result.num_windows, result.protocol.drop_last_window], [22, false]);
    const shown = (await run(`${EVALUATE} --protocol distributed --batch_size 8`)).io.stdout;
    assertIncludes(shown, `perplexity  ${result.token_perplexity.toFixed(4)}`);
    assertIncludes(shown, `${(100 * result.target_accuracy).toFixed(2)} %`);
    await Deno.writeTextFile(`${folder}/a.txt`, "to be or not to be that is the question ".repeat(9));
    const strided = `${EVALUATE.replace(`${GOLDEN}/data.bin`, `${folder}/a.txt`)} --protocol strided`;
    assertIncludes(
      (await run(strided)).io.stdout,
      "of up to 128 tokens, every 64, each behind the beginning-of-text token",
    );
    const bad: [string, string][] = [
      [`${EVALUATE} --protocol distributed --drop_last_window`, "keeps the last window"],
      [`${EVALUATE} --min_length 5`, "--min_length is not for --protocol longlora"],
      [`${strided} --by_position 3`, "--by_position is not for --protocol strided"],
      [`${EVALUATE} --protocol strided`, "a token file does not tell where documents end"],
    ];
    for (const [line, part] of bad) {
      const { code, io } = await run(line);
      assertEquals([code, io.stdout], [2, ""], line);
      assertIncludes(io.stderr, part);
    }
  });
});

Deno.test("evaluate ends with one line and its exit code on bad input", async () => {
  const cases: [string, number, string][] = [
    [EVALUATE.replace("data.bin", "no.bin"), 1, "no.bin"],
    [EVALUATE.replace("golden/mha", "golden/no"), 1, "no such file or folder"],
    [`${EVALUATE} --peft_model ${GOLDEN}/mha`, 1, "adapter"],
    [EVALUATE.replace("seq_len 128", "seq_len 2000"), 1, "at least 2065 are needed"],
    [EVALUATE.replace("seq_len 128", "seq_len 1"), 2, "--seq_len"],
    [`${EVALUATE} --dtype int8`, 2, "fp32, bf16, fp16"],
    [`${EVALUATE} --context_size 1000000000000`, 2, "from 2 to 16777216"],
    [EVALUATE.replace("golden/mha", "golden/adapter"), 1, "no config.json"],
  ];
  for (const [line, code, part] of cases) {
    const { code: actual, io } = await run(line);
    assertEquals([actual, io.stdout], [code, ""], line);
    assertIncludes(io.stderr, part);
    assertEquals(io.stderr.trimEnd().split("\n").length, 1, io.stderr);
  }
});

Deno.test("merge makes a folder that evaluate gives the adapter's figures, and shows the comparison", async () => {
  await withFolder(async (root) => {
    const { code, io } = await run(`${MERGE} --save_path ${root}/merged --max_shard_size 100KB`);
    assertEquals(code, 0);
    assertIncludes(io.stdout, "LoRA into 14 linears");
    assertIncludes(io.stdout, "the likeliest token agrees on 100 %");
    assertIncludes(io.stderr, "tensor 21/21");
    assert(namesIn(`${root}/merged`).includes("model.safetensors.index.json"), "an index");
    const evaluated = await run(`${EVALUATE.replace(`${GOLDEN}/mha`, `${root}/merged`)} --json`);
    const { val_loss } = JSON.parse(evaluated.io.stdout);
    assert(Math.abs(val_loss / expected.eval_adapter_128.val_loss - 1) < 1e-6, `val_loss ${val_loss}`);
  });
});

Deno.test("merge --json prints one object, and refuses a folder in use with exit code 2", async () => {
  await withFolder(async (root) => {
    const line = `${MERGE} --save_path ${root}/merged --dtype bf16 --text_only --json`;
    const { code, io } = await run(line);
    assertEquals(code, 0);
    const result = JSON.parse(io.stdout);
    assertEquals([result.dtypes, result.shards, result.context_size], [["BF16"], ["model.safetensors"], 128]);
    assert(result.verification!.argmax_agreement > 0.9, "the comparison");
    assertEquals(result.copied_tensors, 0);
    assertIncludes(io.stderr, "--text_only changes nothing: the base is a text model");
    const again = await run(line);
    assertEquals([again.code, JSON.parse(again.io.stdout).error.exit_code], [2, 2]);
    assertIncludes(again.io.stderr, "not empty");
    assertEquals(namesIn(root), ["merged"]);
  });
});

Deno.test("merge writes GGUF too, where it is asked for, and keeps the merged model where that cannot be", async () => {
  await withFolder(async (root) => {
    const { code, io } = await run(
      `${MERGE} --save_path ${root}/merged --gguf ${root}/m.gguf --outtype q8_0 --json`,
    );
    assertEquals([code, JSON.parse(io.stdout).gguf], [0, `${root}/m.gguf`], io.stderr);
    assertEquals(new TextDecoder().decode(Deno.readFileSync(`${root}/m.gguf`).subarray(0, 4)), "GGUF");
    const again = await run(`${MERGE} --save_path ${root}/again --gguf ${root}/m.gguf`);
    assertEquals(again.code, 2, again.io.stderr);
    assertIncludes(again.io.stderr, `The merged model itself is in "${root}/again"`);
    assertEquals(namesIn(root), ["again", "m.gguf", "merged"]);
    assertIncludes(
      (await run(`${MERGE} --save_path ${root}/x --outtype f16`)).io.stderr,
      "--outtype is for --gguf",
    );
  });
});
