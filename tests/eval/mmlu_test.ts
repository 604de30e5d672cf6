/** MMLU: letters alone are compared, against the logits; means are over subjects. */
import { Tokenizer } from "../../data/tokenizer.ts";
import {
  encodeMmlu,
  hashQuestions,
  measureMmlu,
  NUM_SUBJECTS,
  readMmlu,
  scoreMmlu,
} from "../../eval/mmlu.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { freeBatch, makeBatch } from "../../model/batch.ts";
import { openModel } from "../../model/load/open.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";

const MODEL = `${GOLDEN}/mha`;
const ROW = {
  query: "What is 1 + 1?",
  subject: "abstract algebra",
  choices: ["1", "2", "3", "4"],
  answer: 1,
};

async function read(folder: string, rows: readonly unknown[]) {
  await Deno.writeTextFile(`${folder}/q.json`, JSON.stringify(rows));
  return await readMmlu(`${folder}/q.json`);
}

Deno.test("prompts have lettered choices and examples of the subject; targets are the letter's tokens alone", async () => {
  await withFolder(async (folder) => {
    const tokenizer = await Tokenizer.load(MODEL);
    const examples = await read(folder, [
      { ...ROW, query: "What is 2 + 2?", answer: 3 },
      { ...ROW, subject: "virology" },
      { ...ROW, query: "What is 3 + 0?", answer: 2 },
    ]);
    const [question] = await read(folder, [ROW]);
    const [encoded] = encodeMmlu([question!], tokenizer, { template: "no", shots: 2, examples });
    const text = (ids: ArrayLike<number>) => tokenizer.decode(ids, { skipSpecial: true });
    encoded!.sequences.forEach(({ inputIds, labels }, i) => {
      assertEquals(text(inputIds.slice(-1)), "ABCD"[i]);
      const targets = [...labels.keys()].filter((t) => labels[t]! >= 0);
      assertEquals(text(targets.map((t) => inputIds[t]!)), "ABCD"[i]);
    });
    assertEquals(
      text(encoded!.sequences[0]!.inputIds),
      "Choose the right answer to a question about abstract algebra.\n\n" +
        "What is 2 + 2?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: D\n\nWhat is 3 + 0?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: C\n\n" +
        "What is 1 + 1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: A",
    );
    await assertThrows(
      () => encodeMmlu([question!], tokenizer, { template: "no", shots: 3, examples }),
      "q.json:1 with 3 examples: there are 2 of abstract_algebra",
    );
    // Turns that end with a mark of their own.
    const [marked] = encodeMmlu([question!], tokenizer, { template: "llama-2" });
    assert(text(marked!.sequences[2]!.inputIds).endsWith("[/INST] C"), text(marked!.sequences[2]!.inputIds));
  });
});

Deno.test("the pick is the letter of the largest logit; a stopped run goes on", async () => {
  using gpu = await Gpu.open();
  const { model } = await openModel(gpu, { baseModel: MODEL });
  const tokenizer = await Tokenizer.load(MODEL);
  await withFolder(async (folder) => {
    const rows = ["x", "yes", "zebra zebra", "w!"].map((query, i) => ({ ...ROW, query, answer: i }));
    const questions = encodeMmlu(await read(folder, rows), tokenizer, { template: "no" });
    const options = {
      outputDir: `${folder}/out`,
      settings: { hash: hashQuestions(questions) },
      batchSize: 3,
    };
    const scores = await measureMmlu(model, questions, options);
    const path = `${folder}/out/results.jsonl`;
    const whole = await Deno.readTextFile(path);
    const saved = whole.trim().split("\n").slice(1).map((line) => JSON.parse(line));
    for (const [i, { sequences }] of questions.entries()) {
      const prompt = sequences[0]!.inputIds.slice(0, -1);
      const device = model.upload(makeBatch([{ inputIds: prompt }]));
      const logits = (await model.logits(device)).slice(-model.config.vocab_size);
      freeBatch(device);
      const sum = logits.reduce((total, value) => total + Math.exp(value), 0);
      const losses = sequences.map(({ inputIds }) => Math.log(sum) - logits[inputIds.at(-1)!]!);
      losses.forEach((loss, letter) =>
        assert(Math.abs(loss - saved[i].losses[letter]) < 1e-4, `question ${i}`)
      );
      assertEquals(saved[i].pick, losses.indexOf(Math.min(...losses)));
    }
    const right = saved.filter(({ pick, answer }) => pick === answer).length;
    assertEquals(scores.all, right / 4);
    await Deno.writeTextFile(path, `${whole.split("\n").slice(0, 3).join("\n")}\n`);
    const notes: string[] = [];
    assertEquals(await measureMmlu(model, questions, options, { note: (line) => notes.push(line) }), scores);
    assertIncludes(notes.join(), "2 of 4 answers are in");
  });
});

Deno.test("means are over subjects, each as heavy as the others", () => {
  const row = (subject: string, isRight: boolean) => ({
    index: 0,
    subject,
    answer: 1,
    pick: isRight ? 1 : 0,
    losses: [],
  });
  const scores = scoreMmlu([
    row("virology", true),
    row("virology", false),
    row("virology", false),
    row("virology", false),
    row("anatomy", true),
    row("sociology", false),
  ]);
  assertEquals(scores.subjects.map(({ subject, rows, accuracy }) => [subject, rows, accuracy]), [
    ["anatomy", 1, 1],
    ["sociology", 1, 0],
    ["virology", 4, 0.25],
  ]);
  assertEquals(scores.categories, [{ category: "Social Sciences", accuracy: 0 }, {
    category: "Others",
    accuracy: 0.625,
  }]);
  assertEquals([scores.all, NUM_SUBJECTS], [1.25 / 3, 57]);
});

Deno.test("rows that are no questions are refused by file and line", async () => {
  await withFolder(async (folder) => {
    const cases: [unknown, string][] = [
      [{ ...ROW, choices: ["1", "2"] }, "must be four, got 2"],
      [{ ...ROW, answer: 4 }, "from 0 to 3, got 4"],
      [{ ...ROW, answer: "B" }, '"answer" must be a number'],
      [{ ...ROW, query: undefined }, 'it lacks "query"'],
    ];
    for (const [row, part] of cases) {
      await assertThrows(() => read(folder, [row]), "q.json:1", part);
    }
  });
});
