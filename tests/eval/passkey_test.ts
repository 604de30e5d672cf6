/** Passkey prompts: what is in them and where, LongLoRA's draws, and that only what a model sees can be found. */
import { Tokenizer } from "../../data/tokenizer.ts";
import { RandomState } from "../../eval/mersenne_twister.ts";
import {
  checkWording,
  keyIn,
  longLoraPrompt,
  measurePasskey,
  measurePasskeyAsLongLora,
  readWording,
  WORDING,
} from "../../eval/passkey.ts";
import { evenly, randomOf } from "../../eval/trials.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { Reader } from "../support/reader.ts";
import { assertIncludes } from "../support/text.ts";

const MODEL = `${GOLDEN}/mha`;
/** Rule of a perfect reader. */
const find = (prompt: string) => ` ${/pass key is (\d+)\./.exec(prompt)?.[1] ?? "nowhere"}. The end.`;

Deno.test("numpy's RandomState is drawn as numpy draws it", () => {
  const random = new RandomState(0);
  assertEquals([random.randint(0, 3072), random.randint(1, 50000)], [2732, 43568]);
  assertEquals(random.randint(7, 8), 7, "one value needs no draw");
});

Deno.test("grids are cut as numpy's linspace, and every trial draws its own values, always the same", () => {
  assertEquals(evenly(0, 100, 10), [0, 11, 22, 33, 44, 55, 66, 77, 88, 100]);
  assertEquals(evenly(8000, 80000, 10), Array.from({ length: 10 }, (_, i) => 8000 * (i + 1)));
  assertEquals(evenly(5, 9, 1), [5]);
  const draw = (seed: number, length: number, depth: number | null, trial: number) =>
    randomOf(seed, { length, depth }, trial).below(1e9);
  const draws: [number, number, number | null, number][] = [
    [1, 64, 0, 0],
    [2, 64, 0, 0],
    [1, 65, 0, 0],
    [1, 64, 11, 0],
    [1, 64, 0, 1],
    [
      1,
      64,
      null,
      0,
    ],
  ] as const;
  assertEquals(new Set(draws.map((each) => draw(...each))).size, draws.length);
  assertEquals(draw(1, 64, 0, 0), draw(1, 64, 0, 0));
});

Deno.test("LongLoRA's prompts have its characters, its draws and its five lines", async () => {
  const chain = WORDING.filler.join(" ");
  assertEquals(chain.length, 89);
  for (const [tokens, characters] of [[1000, 3072], [8192, 30720], [32768, 122880]] as const) {
    assertEquals(longLoraPrompt(tokens, 1).characters, characters);
  }
  const { text, key, prefix, characters } = longLoraPrompt(1000, 0);
  assertEquals([key, prefix], ["43568", 2732]);
  const [task, before, needle, after, question, ...rest] = text.split("\n");
  assertEquals([task, question, rest.length], [WORDING.task, WORDING.question, 0]);
  assertEquals(needle!.split(key).length, 3, "the key stands twice");
  assertEquals([before!.length, after!.length], [prefix, characters - prefix]);
  assert(before!.startsWith(`${chain} ${chain}`) && after!.startsWith(chain), "both begin with the chain");
  await assertThrows(() => longLoraPrompt(273, 0), "at least 274");
});

Deno.test("by LongLoRA's protocol lengths are points, prompts have no template, and the tokens must be the key's", async () => {
  await withFolder(async (folder) => {
    const right = await Reader.of(MODEL, (prompt) => /pass key is (\d+)\./.exec(prompt)![1]!);
    const options = { outputDir: `${folder}/a`, maxTokens: 1500, interval: 500, trials: 2 };
    const result = await measurePasskeyAsLongLora(right, options);
    assertEquals([result.accuracy, result.lengths, result.depths], [1, [500, 1000, 1500], null]);
    assertEquals(
      right.asked.map(({ options }) => options.maxNewTokens),
      result.rows.map(({ target }) => target.length),
    );
    assert(right.asked.every(({ options }) => options.temperature === 0), "greedy");
    assertEquals(right.asked[0]!.ids, right.tokenizer.encode(longLoraPrompt(500, 0).text));
    assertEquals(result.rows[2]!.depth_found, 100 * 2732 / 3072, "seed 0 at 1,000 tokens");
    // A space more is another token.
    const late = await Reader.of(MODEL, (prompt) => ` ${/pass key is (\d+)\./.exec(prompt)![1]!}`);
    const { accuracy, rows } = await measurePasskeyAsLongLora(late, { ...options, outputDir: `${folder}/b` });
    assertEquals([accuracy, rows[2]!.similarity], [0, 0.89], "four of the five digits of 43568");
    // Nor are other tokens of the same text the key's.
    const answer = right.answer.bind(right);
    right.answer = async (...asked) => ({ ...await answer(...asked), ids: [0] });
    assertEquals(
      (await measurePasskeyAsLongLora(right, { ...options, outputDir: `${folder}/d` })).accuracy,
      0,
    );
    await assertThrows(
      () => measurePasskeyAsLongLora(late, { ...options, outputDir: `${folder}/c`, maxTokens: 499 }),
      "no length",
    );
  });
});

Deno.test("prompts fill their length with whole sentences, with the key at its depth", async () => {
  await withFolder(async (outputDir) => {
    const engine = await Reader.of(MODEL, find);
    const depths = [0, 30, 100];
    const result = await measurePasskey(engine, {
      outputDir,
      lengths: [700, 1500],
      depths,
      trials: 2,
      digits: 3,
    });
    assertEquals([result.accuracy, result.rows.length, result.cells.length], [1, 12, 6]);
    result.rows.forEach((row, i) => {
      const { text, ids } = engine.asked[i]!;
      assertEquals(row.prompt_tokens, ids.length);
      const room = row.length - 32 - ids.length;
      assert(room >= 0 && room < 24, `${ids.length} tokens for ${row.length}`);
      assertIncludes(text, `The pass key is ${row.target}.`);
      assert(/^[1-9]\d\d$/.test(row.target), row.target);
      assert(text.startsWith(WORDING.task) && text.endsWith(WORDING.question), text);
      const [before = "", after = ""] = text.slice(WORDING.task.length + 1, -WORDING.question.length - 1)
        .split(WORDING.key.replaceAll("{key}", row.target));
      const depth = 100 * before.length / (before.length + after.length);
      assert(
        Math.abs(depth - row.depth!) < 100 * 14 / before.concat(after).length,
        `depth ${depth}, not ${row.depth}`,
      );
      assert(Math.abs(depth - row.depth_found) < 1, `depth ${depth}, told ${row.depth_found}`);
      assert(before === "" || /[.] $/.test(before), "the key begins at a border");
    });
    assert(new Set(result.rows.map(({ target }) => target)).size > 9, "keys differ");
  });
});

Deno.test("a model that sees so many tokens finds the keys within them alone; tables say where", async () => {
  await withFolder(async (outputDir) => {
    const engine = await Reader.of(MODEL, find, { window: 600 });
    const options = { outputDir, lengths: [500, 1000], depths: [0, 25, 75, 100], trials: 1 };
    const result = await measurePasskey(engine, options);
    assertEquals(result.cells.map(({ accuracy }) => accuracy), [1, 1, 1, 1, 0, 0, 1, 1]);
    assertEquals(result.byLength.map(({ accuracy }) => accuracy), [1, 0.5]);
    assertEquals(result.byDepth.map(({ accuracy }) => accuracy), [0.5, 0.5, 1, 1]);
    assertEquals(
      result.byLength.map(({ similarity }) => similarity),
      [1, 0.5],
      "a key found is alike in all",
    );
    assertEquals(
      result.cells.map(({ promptTokens }) => promptTokens),
      result.rows.map((row) => row.prompt_tokens),
      "cells of one trial",
    );
    const missed = result.rows.find(({ score }) => score === 0)!;
    assertEquals([missed.similarity, missed.prediction.trim().split(".")[0]], [0, "nowhere"]);
  });
});

Deno.test("the first number of an answer counts, and an answer ends once it is whole", async () => {
  assertEquals([keyIn("It is 12, not 34", WORDING), keyIn("none", WORDING)], ["12", undefined]);
  assertEquals(keyIn(" amber , anvil", { ...WORDING, keys: ["amber"] }), "amber");
  await withFolder(async (outputDir) => {
    const engine = await Reader.of(MODEL, (prompt) => `${find(prompt)} 99`);
    const result = await measurePasskey(engine, { outputDir, lengths: [600], depths: [50], trials: 1 });
    assertEquals(result.accuracy, 1);
    assert(engine.asked[0]!.options.signal!.aborted, "ended");
  });
});

Deno.test("words that the tokenizer does not know, and contexts too short, are refused by name", async () => {
  const demo = await Tokenizer.load("demo/model");
  await assertThrows(() => checkWording(WORDING, demo), '"A", "number", "is", "hidden"');
  const own = await readWording("demo/passkey.json");
  checkWording(own, demo);
  await assertThrows(() => checkWording({ ...own, keys: null }, demo), '"1234567890"');
  const engine = await Reader.of(MODEL, find, { contextSize: 512 });
  await withFolder(async (outputDir) => {
    const measure = (length: number) =>
      measurePasskey(engine, { outputDir, lengths: [length], depths: [0], trials: 1 });
    await assertThrows(() => measure(513), "made for 512");
    await assertThrows(() => measure(64), "Ask for longer");
    await measure(512);
  });
});

Deno.test("a wording that cannot be used is refused with what is wrong in it", async () => {
  await withFolder(async (folder) => {
    const good = { filler: ["One."], key: "Key {key}.", question: "Key" };
    const cases: [unknown, string][] = [
      [{ ...good, filler: [] }, "filler"],
      [{ ...good, key: "Key." }, "{key}"],
      [{ ...good, question: " " }, "question is no text"],
      [{ ...good, keys: ["two words"] }, '"two words"'],
      [{ ...good, answer: 1 }, "answer"],
      [[], "not an object"],
    ];
    const path = `${folder}/w.json`;
    for (const [value, part] of cases) {
      await Deno.writeTextFile(path, JSON.stringify(value));
      await assertThrows(() => readWording(path), part);
    }
    await Deno.writeTextFile(path, "{");
    await assertThrows(() => readWording(path), "not JSON");
    await Deno.writeTextFile(path, JSON.stringify(good));
    assertEquals((await readWording(path)).task, "");
  });
});
