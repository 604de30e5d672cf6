/** Needles: where they stand, what their texts are made of, and what an answer is worth. */
import { Haystack, sentencesOf } from "../../eval/haystack.ts";
import {
  measureNeedle,
  MOST_NEEDLES,
  needleWording,
  readHaystack,
  readNeedles,
  shareFound,
} from "../../eval/needle.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { Reader } from "../support/reader.ts";
import { assertIncludes } from "../support/text.ts";

const MODEL = `${GOLDEN}/mha`;
const SENTENCES = Array.from({ length: 40 }, (_, i) => `Sentence ${"so ".repeat(i % 7)}${i}. `);
const HAYSTACK = { sentences: SENTENCES, hash: "none" };

Deno.test("sentences end at full stops and blank lines, and lose nothing", () => {
  const text = 'He said "no."  Then\nhe left!\n\nA title\n\n3.5 miles (or so.) on. 你好。再见';
  const sentences = sentencesOf(text);
  assertEquals(sentences, [
    'He said "no."  ',
    "Then\nhe left!\n\n",
    "A title\n\n",
    "3.5 miles (or so.) ",
    "on. ",
    "你好。",
    "再见",
  ]);
  assertEquals(sentences.join(""), text);
  assertEquals(sentencesOf(" \n "), []);
});

Deno.test("borders are the nearest to a depth by tokens, round and round", () => {
  const haystack = Haystack.of(["a ", "bbbb ", "cc "], { encode: (text) => [...text.trim()].map(() => 0) });
  assertEquals([haystack.tokens, haystack.tokensBefore(4), haystack.tokensBefore(6)], [7, 8, 14]);
  assertEquals([0, 1, 4, 5, 7, 8, 14].map((tokens) => haystack.sentencesWithin(tokens)), [
    0,
    1,
    1,
    2,
    3,
    4,
    6,
  ]);
  // Borders of six sentences: 0 1 5 7 8 12 14.
  assertEquals([0, 20, 22, 50, 60, 100].map((depth) => haystack.borderAt(depth, 6)), [0, 1, 2, 3, 4, 6]);
  assertEquals(haystack.text(2, 5), "cc a bbbb ");
  assertEquals([haystack.startingAt(2).text(0, 2), haystack.startingAt(2).tokensBefore(1)], ["cc a ", 2]);
});

/** The context of a prompt of ours, and characters before each needle in percent of those that are no needle. */
function placesOf(text: string, needles: readonly string[]): { context: string; depths: number[] } {
  let context = text.split("\n\n").slice(1, -1).join("\n\n");
  const at = needles.map((needle) => {
    const found = context.indexOf(needle);
    assert(found >= 0, `${needle} is missing`);
    context = context.replace(`${needle} `, "").replace(` ${needle}`, "");
    return found;
  });
  return { context, depths: at.map((place) => 100 * place / context.length) };
}

Deno.test("depth 0 is the text's beginning and 100 its end; several needles stand evenly behind the first", async () => {
  await withFolder(async (outputDir) => {
    const engine = await Reader.of(MODEL, () => " brass compass and a WOOLLEN blanket");
    const wording = needleWording(3);
    const result = await measureNeedle(engine, {
      outputDir,
      lengths: [1200],
      depths: [0, 40, 100],
      trials: 2,
      haystack: HAYSTACK,
      wording,
      maxNewTokens: 40,
    });
    const expected = [[0, 100 / 3, 200 / 3], [40, 60, 80], [100, 100, 100]];
    result.rows.forEach((row, i) => {
      const { ids, text } = engine.asked[i]!;
      assertEquals([row.prompt_tokens, row.score], [ids.length, 2 / 3]);
      assert(row.length - 40 - ids.length >= 0 && row.length - 40 - ids.length < 32, `${ids.length} tokens`);
      const { context, depths } = placesOf(text, wording.needles);
      expected[Math.floor(i / 2)]!.forEach((depth, k) => {
        assert(Math.abs(depth - depths[k]!) < 3, `needle ${k} at ${depths[k]}, not ${depth}`);
      });
      assert(Math.abs(row.depth_found - depths[0]!) < 0.5, `told ${row.depth_found}, is ${depths[0]}`);
      // Whole sentences, in order, as one round after the other has them.
      const [first] = context.match(/^Sentence (?:so )*\d+\. /)!;
      const start = SENTENCES.indexOf(first);
      assert((start === 0) === (i % 2 === 0), "the first text begins with the first sentence, others do not");
      const round = SENTENCES.map((_, at) => SENTENCES[(at + start) % SENTENCES.length]!).join("");
      assert(round.repeat(3).startsWith(context), "sentences are whole and in order");
    });
  });
});

Deno.test("answers count in any case, ROUGE-L is that against the needles; what is seen can be found", async () => {
  assertEquals(shareFound("A Tin WHISTLE.", ["tin whistle", "rope"]), 0.5);
  await withFolder(async (outputDir) => {
    const engine = await Reader.of(
      MODEL,
      (prompt) => /The best thing to do in Lisbon is (ride[^.]*|to ride[^.]*)\./.exec(prompt)?.[1] ?? "sleep",
      { window: 700 },
    );
    const result = await measureNeedle(engine, {
      outputDir,
      lengths: [1500],
      depths: [0, 100],
      trials: 1,
      haystack: HAYSTACK,
      maxNewTokens: 200,
    });
    assertEquals(result.cells.map(({ accuracy }) => accuracy), [0, 1]);
    // All 14 words of the answer, of the needle's 20 different ones: 2 x 0.7 / 1.7.
    const { similarity } = result.cells[1]!;
    assert(Math.abs(similarity - 1.4 / 1.7) < 1e-7, `${similarity}`);
    assertEquals(result.cells[0]!.similarity, 0);
  });
});

Deno.test("a haystack is a file, or the .txt files of a folder by name; a short one is repeated, and that is told", async () => {
  await withFolder(async (folder) => {
    await assertThrows(() => readHaystack(folder), "no .txt files");
    await Deno.writeTextFile(`${folder}/b.txt`, "Second.");
    await Deno.writeTextFile(`${folder}/a.txt`, "First.\n");
    await Deno.writeTextFile(`${folder}/c.md`, "Other.");
    const haystack = await readHaystack(folder);
    assertEquals(haystack.sentences.map((text) => text.trim()), ["First.", "Second."]);
    assert(haystack.hash !== (await readHaystack(`${folder}/a.txt`)).hash, "hashes differ");
    await assertThrows(() => readHaystack(`${folder}/none.txt`), "none.txt");
    await Deno.writeTextFile(`${folder}/b.txt`, " \n");
    await assertThrows(() => readHaystack(`${folder}/b.txt`), "no text");
    const notes: string[] = [];
    const engine = await Reader.of(MODEL, () => "x");
    const options = {
      outputDir: `${folder}/out`,
      lengths: [400],
      depths: [50],
      trials: 1,
      haystack,
      maxNewTokens: 8,
    };
    await measureNeedle(engine, options, { note: (line) => notes.push(line) });
    assertIncludes(notes.join(), "it is repeated in texts of up to 400");
  });
});

Deno.test("wordings: as many needles as answers are asked for, files of one's own, refusals by name", async () => {
  for (let count = 1; count <= MOST_NEEDLES; count++) {
    const { needles, answers } = needleWording(count);
    assertEquals([needles.length, shareFound(needles.join(" "), answers)], [count, 1]);
  }
  await withFolder(async (folder) => {
    const path = `${folder}/w.json`;
    await Deno.writeTextFile(path, JSON.stringify({ needles: ["A b."], answers: ["b"], question: "A" }));
    assertEquals((await readNeedles(path)).answers, ["b"]);
    await Deno.writeTextFile(path, JSON.stringify({ needles: ["A b."], question: "A" }));
    await assertThrows(() => readNeedles(path), "answers is no list");
    const demo = await Reader.of("demo/model", () => "x");
    const options = { outputDir: folder, lengths: [200], depths: [50], trials: 1, maxNewTokens: 8 };
    await assertThrows(
      async () => await measureNeedle(demo, { ...options, haystack: HAYSTACK }),
      '"Here", "is"',
    );
    const wording = {
      task: "",
      needles: ["password amber hurries ."],
      answers: ["amber"],
      question: "password",
    };
    await assertThrows(
      async () => await measureNeedle(demo, { ...options, haystack: HAYSTACK, wording }),
      "Cannot use the haystack",
    );
  });
});
