import { type DatasetOptions, loadDataset } from "../../data/dataset.ts";
import type { Sample } from "../../data/sample.ts";
import { parseSources } from "../../data/sources.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { writeTokenBin } from "../../data/bin.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN } from "../support/files.ts";
import { integers } from "../support/random.ts";

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

const load = (path: string, options: DatasetOptions) => loadDataset(parseSources([path]), tokenizer, options);

/** LongQLoRA's prompt, word for word. */
const longQLoraPrompt = (question: string) =>
  "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, " +
  `and polite answers to the user's questions.\nUSER: ${question}\nASSISTANT: `;

function plain({ inputIds, labels }: Sample) {
  return { inputIds: [...inputIds], labels: [...labels] };
}

Deno.test("loadDataset() frames, cuts and labels every position", async () => {
  // The golden tokenizer gives one id per byte: "ab" is 97, 98.
  await withRows([{ text: "ab" }, { text: "abc" }, { text: "abcdef" }], async (path) => {
    const { samples, report } = await load(path, { maxSeqLength: 4 });
    assertEquals(samples.map(plain), [
      { inputIds: [BOS, 97, 98, EOS], labels: [BOS, 97, 98, EOS] },
      { inputIds: [BOS, 97, 98, 99], labels: [BOS, 97, 98, 99] },
      { inputIds: [BOS, 97, 98, 99], labels: [BOS, 97, 98, 99] },
    ]);
    assertEquals(report, {
      rows: 3,
      kept: 3,
      truncated: 1,
      tokensLost: 4,
      tokensRead: 17,
      tooShort: 0,
      tooLong: 0,
      skippedWithoutTargets: 0,
      drawn: [3],
      texts: 3,
      samples: 3,
      tokens: 12,
      targets: 9,
      longest: 4,
    });
  });
});

Deno.test("loadDataset() trains on the end token even where padding shares its id", async () => {
  const json = JSON.parse(await Deno.readTextFile(`${GOLDEN}/mha/tokenizer.json`));
  const padIsEos = new Tokenizer(json, { bos_token: "<s>", eos_token: "</s>", pad_token: "</s>" });
  assertEquals(padIsEos.padId, EOS);
  await withRows([{ text: "ab</s>c" }], async (path) => {
    const { samples } = await loadDataset(parseSources([path]), padIsEos, {
      maxSeqLength: 16,
    });
    assertEquals([...samples[0]!.labels], [BOS, 97, 98, EOS, 99, EOS]);
  });
});

Deno.test("loadDataset() skips and counts rows without text", async () => {
  await withRows([{ text: "" }, { text: "a" }, { text: "  \n" }], async (path) => {
    const { samples, report } = await load(path, { maxSeqLength: 8 });
    assertEquals(samples.map(plain), [{ inputIds: [BOS, 97, EOS], labels: [BOS, 97, EOS] }]);
    assertEquals([report.rows, report.kept, report.skippedWithoutTargets], [3, 1, 2]);
  });
  await withRows([{ text: " " }], async (path) => {
    await assertThrows(
      () => load(path, { maxSeqLength: 8 }),
      "Cannot train on",
      "none of its 1 rows",
    );
  });
});

Deno.test("loadDataset() makes the golden file's four samples of 128 tokens", async () => {
  const { samples, report } = await load(`${GOLDEN}/train.jsonl`, {
    maxSeqLength: 128,
  });
  assertEquals(samples.map((sample) => sample.inputIds.length), [128, 128, 128, 128]);
  assertEquals([report.truncated, report.tokens, report.targets], [0, 512, 508]);
});

Deno.test("loadDataset() cuts a token file into rows as they come", async () => {
  const path = await Deno.makeTempFile({ suffix: ".bin" });
  try {
    const tokens = integers(5, 21, 256);
    await writeTokenBin(path, tokens);
    const { samples, report } = await load(path, { maxSeqLength: 8 });
    assertEquals(samples.map((sample) => [...sample.inputIds]), [
      [...tokens.subarray(0, 8)],
      [...tokens.subarray(8, 16)],
      [...tokens.subarray(16, 21)],
    ]);
    assertEquals(samples.map((sample) => [...sample.labels]), samples.map((sample) => [...sample.inputIds]));
    assertEquals([report.rows, report.tokens, report.targets], [3, 21, 18]);
    // A last row of one token predicts nothing.
    const odd = await load(path, { maxSeqLength: 10 });
    assertEquals([odd.report.rows, odd.report.kept, odd.report.skippedWithoutTargets], [3, 2, 1]);
  } finally {
    await Deno.remove(path);
    await Deno.remove(`${path}.json`);
  }
});

Deno.test("loadDataset() masks the prompt and trains on the stripped output and its end", async () => {
  const prompt = longQLoraPrompt("why?");
  await withRows([{ input: " why?\n", output: "\tso  " }], async (path) => {
    const { samples, report } = await load(path, { maxSeqLength: 512 });
    const bytes = [...new TextEncoder().encode(prompt)];
    assertEquals(samples.map(plain), [{
      inputIds: [...bytes, 115, 111, EOS],
      labels: [...bytes.map(() => -100), 115, 111, EOS],
    }]);
    assertEquals(report.targets, 3);
    assertEquals(report.tokens, bytes.length + 3);
  });
});

Deno.test("loadDataset() cuts on the right, and skips and counts what is left without targets", async () => {
  const length = longQLoraPrompt("q").length;
  const rows = [{ input: "q", output: "abc" }, { input: "qq", output: "a" }, {
    input: "q".repeat(9),
    output: "a",
  }];
  await withRows(rows, async (path) => {
    const { samples, report } = await load(path, { maxSeqLength: length + 1 });
    assertEquals(samples.length, 1);
    assertEquals([...samples[0]!.labels].filter((label) => label !== -100), [97]);
    assertEquals(samples[0]!.inputIds.length, length + 1);
    assertEquals(report, {
      rows: 3,
      kept: 1,
      truncated: 3,
      tokensLost: 14,
      tokensRead: 539,
      tooShort: 0,
      tooLong: 0,
      skippedWithoutTargets: 2,
      drawn: [1],
      texts: 0,
      samples: 1,
      tokens: length + 1,
      targets: 1,
      longest: length + 1,
    });
  });
  await withRows(rows, async (path) => {
    await assertThrows(
      () => load(path, { maxSeqLength: 16 }),
      "none of its 3 rows has a target within max_seq_length 16",
    );
  });
});

Deno.test("loadDataset() names file and line of a row without its keys", async () => {
  await withRows([{ input: "a", output: "b" }, { text: "a" }], async (path) => {
    await assertThrows(
      () => load(path, { maxSeqLength: 512, sft: true }),
      `${path}:2: sft is true`,
      'plain "text"',
    );
    await assertThrows(() => load(path, { maxSeqLength: 512, sft: false }), `${path}:1: sft is false`);
  });
  await withRows([{ text: "a" }, { Input: "a", outptu: "b", id: 1 }], async (path) => {
    await assertThrows(
      () => load(path, { maxSeqLength: 8 }),
      `${path}:2: it has "Input"`,
      'Is "input" meant?',
    );
  });
});

Deno.test("loadDataset() refuses a length that cannot hold a target", async () => {
  await withRows([{ text: "a" }], async (path) => {
    const message = await assertThrows(
      () => load(path, { maxSeqLength: 1 }),
      "max_seq_length must be",
      "got 1",
    );
    assert(message.includes("at least 2 tokens"), message);
  });
});

Deno.test("loadDataset() packs documents into full rows that keep apart, or see each other if asked", async () => {
  const rows = [{ text: "abc" }, { text: "de" }, { text: "f" }];
  await withRows(rows, async (path) => {
    const stream = [BOS, 97, 98, 99, EOS, BOS, 100, 101, EOS, BOS, 102, EOS];
    const { samples, report } = await load(path, { maxSeqLength: 7, packing: true });
    assertEquals(samples.map(plain).map(({ inputIds }) => inputIds), [stream.slice(0, 7), stream.slice(7)]);
    // The second row begins inside the second document.
    assertEquals(samples.map(({ documents }) => [...documents!]), [[0, 5], [0, 2]]);
    // Of 12 tokens the first of each row and of each document have nothing before them.
    assertEquals([report.rows, report.samples, report.tokens, report.targets], [3, 2, 12, 8]);
    const crossed = await load(path, { maxSeqLength: 7, packing: true, crossDocumentAttention: true });
    assertEquals(crossed.samples.map(({ documents }) => documents), [undefined, undefined]);
    assertEquals(crossed.report.targets, 10);
    // A last row of one token predicts nothing and is left out.
    const odd = await load(path, { maxSeqLength: 11, packing: true });
    assertEquals([odd.report.samples, odd.report.tokens], [1, 11]);
  });
});

Deno.test("loadDataset() packs whole answers, the longest first, and never cuts one in two", async () => {
  const rows = [{ input: "a", output: "bb" }, { input: "cccc", output: "dddd" }, { input: "e", output: "f" }];
  await withRows(rows, async (path) => {
    const options = { maxSeqLength: 16, packing: true, chatTemplate: "no" } as const;
    const { samples } = await load(path, options);
    const text = ({ inputIds }: Sample) => tokenizer.decode(inputIds, { skipSpecial: false });
    assertEquals(samples.map(text), ["<s>cccc dddd</s><s>e f</s>", "<s>a bb</s>"]);
    assertEquals([...samples[0]!.documents!], [0, 11]);
    const learnt = [...samples[0]!.labels].filter((label) => label >= 0);
    assertEquals(tokenizer.decode(learnt, { skipSpecial: false }), "dddd</s>f</s>");
  });
});

Deno.test("loadDataset() leaves out rows by length and counts them", async () => {
  await withRows([{ text: "a" }, { text: "abcd" }, { text: "abcdefgh" }], async (path) => {
    const options = { maxSeqLength: 8, minLength: 6, overlong: "drop" } as const;
    const { samples, report } = await load(path, options);
    assertEquals(samples.map(({ inputIds }) => inputIds.length), [6]);
    assertEquals([report.rows, report.kept, report.tooShort, report.tooLong, report.truncated], [
      3,
      1,
      1,
      1,
      0,
    ]);
  });
});

Deno.test("loadDataset() draws rows by count and by weight, the same for the same seed", async () => {
  await withRows(Array.from({ length: 20 }, (_, i) => ({ text: `a${i}` })), async (first) => {
    await withRows(Array.from({ length: 5 }, (_, i) => ({ text: `b${i}` })), async (second) => {
      const drawn = async (entries: string[], weights: number[] | null, seed: number) => {
        const sources = parseSources(entries, { weights });
        const { samples } = await loadDataset(sources, tokenizer, { maxSeqLength: 8, seed });
        return samples.map(({ inputIds }) => tokenizer.decode(inputIds, { skipSpecial: true }));
      };
      const seven = await drawn([`${first}[7]`, second], null, 1);
      assertEquals(seven.length, 12);
      assertEquals(new Set(seven).size, 12);
      assertEquals(await drawn([`${first}[7]`, second], null, 1), seven);
      assert(
        (await drawn([`${first}[7]`, second], null, 2)).join() !== seven.join(),
        "the seed changes nothing",
      );
      // Of 25 rows three fifths are to be of the second file: its 5 rows three times.
      const weighed = await drawn([first, second], [2, 3], 1);
      assertEquals(weighed.filter((text) => text.startsWith("a")).length, 10);
      for (let i = 0; i < 5; i++) assertEquals(weighed.filter((text) => text === `b${i}`).length, 3);
    });
  });
});

Deno.test("loadDataset() takes more rows, and longer ones, than a call takes arguments", async () => {
  const many = 200_000;
  const path = await Deno.makeTempFile({ suffix: ".bin" });
  try {
    await writeTokenBin(path, integers(5, 2 * many, 256));
    const sources = parseSources([path, path], { weights: [1, 3] });
    const { samples } = await loadDataset(sources, tokenizer, { maxSeqLength: 2 });
    assertEquals(samples.length, 2 * many);
  } finally {
    await Deno.remove(path);
  }
  await withRows([{ input: "ab", output: "one ".repeat(many / 4) }], async (path) => {
    const { report } = await load(path, { maxSeqLength: 2 * many });
    assert(report.longest > many && report.truncated === 0, `${report.longest} tokens`);
  });
});
