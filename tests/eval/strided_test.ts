/** Long-LLM's perplexity of documents: which tokens each window scores, and against windows that are scored whole. */
import { scoreWindows } from "../../eval/perplexity.ts";
import { evaluateStrided, scoreStrided, stridedWindows } from "../../eval/strided.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { openModel } from "../../model/load/open.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { integers } from "../support/random.ts";
import { assertIncludes } from "../support/text.ts";

function assertRelative(label: string, actual: number, wanted: number): void {
  assert(Math.abs(actual / wanted - 1) < 1e-5, `${label}: got ${actual}, expected ${wanted}`);
}

Deno.test("windows cover each token once; the last ends with the document", () => {
  assertEquals(stridedWindows(10, 6, 3).map(({ start, end, first }) => [start, end, first]), [[0, 6, 0], [
    3,
    9,
    6,
  ], [
    6,
    10,
    9,
  ]]);
  assertEquals(stridedWindows(9, 6, 3).length, 2, "no window without targets");
  assertEquals(stridedWindows(6, 6, 3).length, 1);
  assertEquals(stridedWindows(100, 6, 0), [{ start: 0, end: 6, first: 0 }]);
  assertEquals(stridedWindows(0, 6, 3), []);
});

Deno.test("losses are those of whole windows less those of what the window before has scored", async () => {
  using gpu = await Gpu.open();
  const { model } = await openModel(gpu, { baseModel: `${GOLDEN}/mha` });
  const documents = [integers(3, 50, 256), integers(4, 21, 256)];
  /** Summed loss of the targets of a text that begins a window. */
  const lossOf = async (ids: readonly number[]) => {
    if (ids.length < 2) return 0;
    const tokens = Uint32Array.from([...ids, 0]);
    const options = { seqLen: ids.length, slidingWindow: 1, batchSize: 1, dropLastWindow: false };
    return (await scoreWindows(model, tokens, options)).tokenLoss * (ids.length - 1);
  };
  for (const bosId of [undefined, 257]) {
    const before = bosId === undefined ? [] : [bosId];
    const [maxLength, stride] = [24, 10];
    const means: number[] = [];
    let [total, count] = [0, 0];
    for (const ids of documents) {
      let [sum, targets] = [0, ids.length - 1 + before.length];
      for (const { start, end, first } of stridedWindows(ids.length, maxLength - before.length, stride)) {
        const part = (to: number) => lossOf([...before, ...ids.slice(start, to)]);
        sum += await part(end) - (first > start ? await part(first) : 0);
      }
      means.push(sum / targets);
      [total, count] = [total + sum, count + targets];
    }
    const result = await scoreStrided(model, documents, { maxLength, stride, bosId, batchSize: 3 });
    assertEquals([result.numDocuments, result.numTokens], [2, count]);
    assertRelative(`mean over documents, bos ${bosId}`, result.loss, (means[0]! + means[1]!) / 2);
    assertRelative(`all tokens, bos ${bosId}`, result.tokenPerplexity, Math.exp(total / count));
    assertEquals(result.perplexity, Math.exp(result.loss));
  }
  // Windows side by side: without a token before it, each one's first is no target.
  const beside = await scoreStrided(model, documents, { maxLength: 10, stride: 10 });
  assertEquals([beside.numWindows, beside.numTokens], [8, 71 - 8]);
  await assertThrows(
    () => scoreStrided(model, documents, { maxLength: 10, stride: 10, bosId: 257 }),
    "left out",
  );
  await assertThrows(() => scoreStrided(model, [[5]], { maxLength: 10, stride: 5 }), "no document has");
});

Deno.test("documents are the first ones that are long enough, behind the tokenizer's beginning of text", async () => {
  await withFolder(async (folder) => {
    const dataPath = `${folder}/d.jsonl`;
    const texts = ["tiny", "a".repeat(40), "b".repeat(50), "", "c".repeat(60)];
    await Deno.writeTextFile(dataPath, texts.map((text) => `${JSON.stringify({ text })}\n`).join(""));
    const options = { baseModel: `${GOLDEN}/mha`, dataPath, maxLength: 32, stride: 16 };
    const result = await evaluateStrided({ ...options, minLength: 10, maxSampleNum: 2 });
    assertEquals([result.numDocuments, result.numTokens, result.protocol.bos], [2, 90, true]);
    assertEquals(result.protocol.tooShort, 1);
    const notes: string[] = [];
    await evaluateStrided({ ...options, maxLength: 100 }, { note: (line) => notes.push(line) });
    assertIncludes(notes.join(), "seq_len 100 is longer than the 64 tokens");
    await assertThrows(
      () => evaluateStrided({ ...options, minLength: 99 }),
      "none of its documents has 99 tokens",
    );
    await assertThrows(() => evaluateStrided({ ...options, stride: 33 }), "left out");
    await assertThrows(
      () => evaluateStrided({ ...options, dataPath: `${GOLDEN}/data.bin` }),
      "where documents end",
    );
  });
});
