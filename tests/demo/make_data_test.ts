import { readTokenBin } from "../../data/bin.ts";
import { loadDataset } from "../../data/dataset.ts";
import { parseSources } from "../../data/sources.ts";
import { readJsonl } from "../../data/jsonl.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { demoFiles, writeDemoData } from "../../demo/make_data.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";

Deno.test("writeDemoData() writes whole documents that the loaders take as they are", async () => {
  await withFolder(async (folder) => {
    const files = await writeDemoData(folder, 1, { baseTraining: false });
    const tokenizer = await Tokenizer.load(files.model);
    const { samples, report } = await loadDataset(
      parseSources([files.extend]),
      tokenizer,
      { maxSeqLength: 1024 },
    );
    assert(samples.every((sample) => sample.inputIds.length === 1024), "a row is not 1024 tokens");
    assertEquals([report.rows, report.truncated], [320, 0]);

    const tokens = await readTokenBin(files.heldOut, { vocabSize: tokenizer.vocabSize });
    assertEquals(tokens.length % 1024, 0);
    const starts = [...tokens.keys()].filter((i) => tokens[i] === tokenizer.bosId);
    assertEquals(starts, Array.from({ length: tokens.length / 1024 }, (_, i) => i * 1024));

    for (const [length, path] of Object.entries(files.recall)) {
      const cases = await Array.fromAsync(readJsonl(path, ["prompt", "answer"]));
      assertEquals(cases.length, 60);
      for (const { values } of cases) {
        assert(
          tokenizer.encode(values.prompt, { bos: true, eos: false }).length < Number(length),
          "too long",
        );
        assertEquals(tokenizer.encode(values.answer, { bos: false, eos: false }).length, 1);
      }
    }
  });
});

Deno.test("writeDemoData() gives the same bytes for a seed, and no held-out document is trained on", async () => {
  await withFolder(async (folder) => {
    const one = await writeDemoData(`${folder}/a`, 7, { baseTraining: false });
    const two = await writeDemoData(`${folder}/b`, 7, { baseTraining: false });
    const other = await writeDemoData(`${folder}/c`, 8, { baseTraining: false });
    const written = ({ extend, heldOut, recall }: typeof one) => [extend, heldOut, ...Object.values(recall)];
    for (const [i, file] of written(one).entries()) {
      const bytes = Deno.readFileSync(file);
      assertEquals(Deno.readFileSync(written(two)[i]!), bytes, file);
      assert(
        Deno.readFileSync(written(other)[i]!).toBase64() !== bytes.toBase64(),
        `${file} of another seed`,
      );
    }
    assertEquals(one, demoFiles(`${folder}/a`));
    const tokenizer = await Tokenizer.load(one.model);
    const trained = new Set(
      (await Array.fromAsync(readJsonl(one.extend, ["text"]))).map((row) => row.values.text),
    );
    const held = await readTokenBin(one.heldOut);
    for (let i = 0; i < held.length; i += 1024) {
      const text = tokenizer.decode(held.subarray(i, i + 1024), { skipSpecial: true });
      assert(!trained.has(text), "a held-out document is in the training set");
    }
  });
});
