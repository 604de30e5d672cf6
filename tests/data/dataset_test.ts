import { loadPretrainSamples, loadSftSamples, type Sample } from "../../data/dataset.ts";
import { LONGQLORA_VICUNA } from "../../data/templates.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { writeTokenBin } from "../../data/bin.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { integers } from "../support/random.ts";

const GOLDEN = new URL("../golden", import.meta.url).pathname;
const [BOS, EOS] = [257, 258];
const tokenizer = await Tokenizer.load(`${GOLDEN}/mha`);

/** Rows as jsonl in a temporary file. */
async function withRows(rows: readonly unknown[], run: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempFile({ suffix: ".jsonl" });
  try {
    await Deno.writeTextFile(path, rows.map((row) => JSON.stringify(row)).join("\n"));
    await run(path);
  } finally {
    await Deno.remove(path);
  }
}

function plain({ inputIds, labels }: Sample) {
  return { inputIds: [...inputIds], labels: [...labels] };
}

Deno.test("loadPretrainSamples() frames, cuts and labels every position", async () => {
  // The golden tokenizer gives one id per byte: "ab" is 97, 98.
  await withRows([{ text: "ab" }, { text: "abc" }, { text: "abcdef" }], async (path) => {
    const { samples, report } = await loadPretrainSamples(path, tokenizer, { max_seq_length: 4 });
    assertEquals(samples.map(plain), [
      { inputIds: [BOS, 97, 98, EOS], labels: [BOS, 97, 98, EOS] },
      { inputIds: [BOS, 97, 98, 99], labels: [BOS, 97, 98, 99] },
      { inputIds: [BOS, 97, 98, 99], labels: [BOS, 97, 98, 99] },
    ]);
    assertEquals(report, {
      rows: 3,
      kept: 3,
      truncated: 1,
      skippedWithoutTargets: 0,
      tokens: 12,
      targets: 9,
      longest: 4,
    });
  });
});

Deno.test("loadPretrainSamples() trains on the end token even where padding shares its id", async () => {
  const json = JSON.parse(await Deno.readTextFile(`${GOLDEN}/mha/tokenizer.json`));
  const padIsEos = new Tokenizer(json, { bos_token: "<s>", eos_token: "</s>", pad_token: "</s>" });
  assertEquals(padIsEos.padId, EOS);
  await withRows([{ text: "ab</s>c" }], async (path) => {
    const { samples } = await loadPretrainSamples(path, padIsEos, { max_seq_length: 16 });
    assertEquals([...samples[0]!.labels], [BOS, 97, 98, EOS, 99, EOS]);
  });
});

Deno.test("loadPretrainSamples() skips and counts rows without text", async () => {
  await withRows([{ text: "" }, { text: "a" }, { text: "  \n" }], async (path) => {
    const { samples, report } = await loadPretrainSamples(path, tokenizer, { max_seq_length: 8 });
    assertEquals(samples.map(plain), [{ inputIds: [BOS, 97, EOS], labels: [BOS, 97, EOS] }]);
    assertEquals([report.rows, report.kept, report.skippedWithoutTargets], [3, 1, 2]);
  });
  await withRows([{ text: " " }], async (path) => {
    await assertThrows(
      () => loadPretrainSamples(path, tokenizer, { max_seq_length: 8 }),
      "Cannot train on",
      "none of its 1 rows",
    );
  });
});

Deno.test("loadPretrainSamples() makes the golden file's four samples of 128 tokens", async () => {
  const { samples, report } = await loadPretrainSamples(`${GOLDEN}/train.jsonl`, tokenizer, {
    max_seq_length: 128,
  });
  assertEquals(samples.map((sample) => sample.inputIds.length), [128, 128, 128, 128]);
  assertEquals([report.truncated, report.tokens, report.targets], [0, 512, 508]);
});

Deno.test("loadPretrainSamples() cuts a token file into rows as they come", async () => {
  const path = await Deno.makeTempFile({ suffix: ".bin" });
  try {
    const tokens = integers(5, 21, 256);
    await writeTokenBin(path, tokens);
    const { samples, report } = await loadPretrainSamples(path, tokenizer, { max_seq_length: 8 });
    assertEquals(samples.map((sample) => [...sample.inputIds]), [
      [...tokens.subarray(0, 8)],
      [...tokens.subarray(8, 16)],
      [...tokens.subarray(16, 21)],
    ]);
    assertEquals(samples.map((sample) => [...sample.labels]), samples.map((sample) => [...sample.inputIds]));
    assertEquals([report.rows, report.tokens, report.targets], [3, 21, 18]);
    // A last row of one token predicts nothing.
    const odd = await loadPretrainSamples(path, tokenizer, { max_seq_length: 10 });
    assertEquals([odd.report.rows, odd.report.kept, odd.report.skippedWithoutTargets], [3, 2, 1]);
  } finally {
    await Deno.remove(path);
    await Deno.remove(`${path}.json`);
  }
});

Deno.test("loadSftSamples() masks the prompt and trains on the stripped output and its end", async () => {
  const prompt = "A chat between a curious user and an artificial intelligence assistant. " +
    "The assistant gives helpful, detailed, and polite answers to the user's questions.\nUSER: why?\nASSISTANT: ";
  assertEquals(LONGQLORA_VICUNA.prompt("why?"), prompt);
  await withRows([{ input: " why?\n", output: "\tso  " }], async (path) => {
    const { samples, report } = await loadSftSamples(path, tokenizer, { max_seq_length: 512 });
    const bytes = [...new TextEncoder().encode(prompt)];
    assertEquals(samples.map(plain), [{
      inputIds: [...bytes, 115, 111, EOS],
      labels: [...bytes.map(() => -100), 115, 111, EOS],
    }]);
    assertEquals(report.targets, 3);
    assertEquals(report.tokens, bytes.length + 3);
  });
});

Deno.test("loadSftSamples() cuts on the right, and skips and counts what is left without targets", async () => {
  const length = LONGQLORA_VICUNA.prompt("q").length;
  const rows = [{ input: "q", output: "abc" }, { input: "qq", output: "a" }, {
    input: "q".repeat(9),
    output: "a",
  }];
  await withRows(rows, async (path) => {
    const { samples, report } = await loadSftSamples(path, tokenizer, { max_seq_length: length + 1 });
    assertEquals(samples.length, 1);
    assertEquals([...samples[0]!.labels].filter((label) => label !== -100), [97]);
    assertEquals(samples[0]!.inputIds.length, length + 1);
    assertEquals(report, {
      rows: 3,
      kept: 1,
      truncated: 3,
      skippedWithoutTargets: 2,
      tokens: length + 1,
      targets: 1,
      longest: length + 1,
    });
  });
  await withRows(rows, async (path) => {
    await assertThrows(
      () => loadSftSamples(path, tokenizer, { max_seq_length: 16 }),
      "none of its 3 rows has a target within max_seq_length 16",
    );
  });
});

Deno.test("loadSftSamples() names file and line of a row without its keys", async () => {
  await withRows([{ input: "a", output: "b" }, { text: "a" }], async (path) => {
    await assertThrows(
      () => loadSftSamples(path, tokenizer, { max_seq_length: 512 }),
      `${path}:2: it lacks "input", "output"`,
      'found "text"',
    );
  });
});

Deno.test("the loaders refuse a length that cannot hold a target", async () => {
  await withRows([{ text: "a" }], async (path) => {
    const message = await assertThrows(() => loadPretrainSamples(path, tokenizer, { max_seq_length: 1 }));
    assert(message.includes("at least 2 tokens"), message);
  });
});
