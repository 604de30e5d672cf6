import { Tokenizer } from "../../data/tokenizer.ts";
import { readRecallCases, scoreRecall } from "../../eval/recall.ts";
import type { LanguageModel } from "../../model/language_model.ts";
import { assertClose, assertEquals, assertThrows } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";

const MODEL = new URL("../../demo/model", import.meta.url).pathname;

Deno.test("readRecallCases() begins each prompt with <s>, and wants answers of one token", async () => {
  const tokenizer = await Tokenizer.load(MODEL);
  await withFolder(async (folder) => {
    const path = `${folder}/cases.jsonl`;
    const write = (...rows: object[]) =>
      Deno.writeTextFile(path, rows.map((row) => JSON.stringify(row)).join("\n"));
    await write({ prompt: "the password", answer: "lantern" });
    const [one] = await readRecallCases(path, tokenizer);
    const ids = tokenizer.encode("the password lantern", { bos: true, eos: false });
    assertEquals([...one!.tokens, one!.answer], [...ids]);
    await write({ prompt: "the password", answer: "lantern" }, { prompt: "the", answer: "the lantern" });
    await assertThrows(() => readRecallCases(path, tokenizer), `${path}:2`, '"the lantern" is not one token');
  });
});

Deno.test("scoreRecall() scores what each prompt's last token predicts, wherever it lies in the batch", async () => {
  const freed = { free() {} };
  let batch: number[] = [];
  // Predicts after each token that token plus one, with a loss of a tenth of its id.
  const model = {
    upload({ tokens }: { tokens: Uint32Array }) {
      batch = [...tokens];
      return { tokens: freed, labels: freed, positions: freed, maps: new Map() };
    },
    predict: () =>
      Promise.resolve({
        losses: Float32Array.from(batch, (id) => id / 10),
        argmax: Uint32Array.from(batch, (id) => id + 1),
      }),
  } as unknown as LanguageModel;
  const cases = [[1, 2, 3], [4, 5], [7, 8, 9, 10]].map((tokens) => ({
    tokens: Uint32Array.from(tokens),
    answer: tokens.at(-1)! + (tokens.length === 2 ? 5 : 1),
  }));
  const score = await scoreRecall(model, cases);
  assertEquals([score.right, score.cases], [2, 3]);
  assertClose("perplexity", [score.answerPerplexity], [Math.exp((0.3 + 0.5 + 1) / 3)], {
    rtol: 1e-6,
    atol: 0,
  });
});
