/** LongBench: prompts, cuts and scores of made-up rows, and answers of others that are scored again. */
import {
  LONGBENCH,
  LONGBENCH_ENGLISH,
  longBenchScore,
  longBenchSource,
  measureLongBench,
  readLongBenchAnswers,
  scoreLongBench,
} from "../../eval/longbench.ts";
import {
  classificationScore,
  codeSimilarity,
  countScore,
  retrievalScore,
  rougeL,
  rougeLChinese,
  tokenF1,
  tokenF1Chinese,
} from "../../eval/metrics.ts";
import { cutPrompt } from "../../eval/questions.ts";
import { readPrompts } from "../../eval/task_rows.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { Reader } from "../support/reader.ts";
import { assertIncludes } from "../support/text.ts";

const MODEL = `${GOLDEN}/mha`;
const ROW = { input: "Who?", context: "Anna left.", answers: ["Anna", "Ann"], length: 2, all_classes: null };

async function write(folder: string, task: string, rows: readonly unknown[]): Promise<void> {
  await Deno.writeTextFile(`${folder}/${task}.jsonl`, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
}

Deno.test("there are 21 tasks, 14 of them English and code without the synthetic ones", () => {
  assertEquals([Object.keys(LONGBENCH).length, LONGBENCH_ENGLISH.length], [21, 14]);
  assertEquals(Object.values(LONGBENCH).map(({ newTokens }) => newTokens), [
    ...[128, 128, 64, 64],
    ...[32, 32, 32, 128],
    ...[512, 512, 512, 512],
    ...[64, 32, 128, 64],
    ...[32, 32, 32],
    ...[64, 64],
  ]);
  assertEquals(Object.values(LONGBENCH).map(({ score }) => score), [
    ...[tokenF1, tokenF1, tokenF1, tokenF1Chinese],
    ...[tokenF1, tokenF1, tokenF1, rougeLChinese],
    ...[rougeL, rougeL, rougeL, rougeLChinese],
    ...[classificationScore, tokenF1, rougeL, classificationScore],
    ...[countScore, retrievalScore, retrievalScore],
    ...[codeSimilarity, codeSimilarity],
  ]);
  for (const [task, { prompt }] of Object.entries(LONGBENCH)) {
    assert(prompt.includes("{context}"), task);
    const lacksInput = ["gov_report", "multi_news", "vcsum", "passage_count"].includes(task);
    assertEquals(prompt.includes("{input}"), !lacksInput, task);
  }
});

Deno.test("the best over the true answers counts, of some tasks in the first line alone", () => {
  const kept = { answers: ["red fox", "a dog"], all_classes: null };
  assertEquals(longBenchScore("qasper", "The Dog", kept), 1);
  assertEquals(longBenchScore("triviaqa", "\n\ndog\nred fox", kept), 1);
  assertEquals(longBenchScore("triviaqa", "cat\nred fox", kept), 0);
  // Two words of three and two.
  assertEquals(longBenchScore("qasper", "cat\nred fox", kept), 0.8, "other tasks are scored whole");
  assertEquals(longBenchScore("trec", "City", { answers: ["City"], all_classes: ["City", "Other"] }), 1);
});

Deno.test("scores are percent over rows, over tasks of a category, and over tasks", () => {
  const row = (task: string, pred: string) => ({ ...ROW, task, pred });
  const { tasks, categories, average } = scoreLongBench([
    row("qasper", "Anna"),
    row("qasper", "Bob"),
    row("qasper", "Ann"),
    row("narrativeqa", "Bob"),
    row("hotpotqa", "Anna"),
  ]);
  assertEquals(tasks.map(({ task, rows, score }) => [task, rows, score]), [
    ["narrativeqa", 1, 0],
    ["qasper", 3, 66.67],
    ["hotpotqa", 1, 100],
  ]);
  assertEquals(categories.map(({ category, score }) => [category, score]), [
    ["single-document QA", 33.34],
    ["multi-document QA", 100],
  ]);
  assertEquals(average, 55.56);
});

Deno.test("a long text is cut in its middle or before its end, and never passes the context", async () => {
  const engine = await Reader.of(MODEL, () => "x", { contextSize: 201 });
  const prompt = Array.from({ length: 100 }, (_, i) => `${i} `).join("");
  const question = { task: "qasper", prompt, isChat: false, maxNewTokens: 20 };
  const cut = (maxLength: number | null, truncateFromMiddle: boolean) =>
    cutPrompt(engine, question, { maxLength, most: 31_500, truncateFromMiddle });
  const textOf = (ids: readonly number[]) => engine.tokenizer.decode(ids, { skipSpecial: true });
  assertEquals(textOf(cut(20, true).ids), prompt.slice(0, 10) + prompt.slice(-10));
  assertEquals(textOf(cut(20, false).ids), prompt.slice(-20));
  assertEquals([cut(null, true).ids.length, cut(null, true).isCut], [181, true]);
  const short = cutPrompt(engine, { ...question, prompt: "short" }, {
    maxLength: 20,
    most: 9,
    truncateFromMiddle: true,
  });
  assertEquals([textOf(short.ids), short.isCut], ["short", false]);
  await assertThrows(
    () => cut(181, true),
    "181 tokens of text and an answer of up to 20 pass the model's context of 201",
  );
  await assertThrows(
    () =>
      cutPrompt(engine, { ...question, maxNewTokens: 300 }, {
        maxLength: null,
        most: 9,
        truncateFromMiddle: true,
      }),
    "leave the task out",
  );
});

Deno.test("rows become prompts, answers are kept, and a stopped run goes on", async () => {
  await withFolder(async (folder) => {
    await write(folder, "qasper", [ROW, { ...ROW, context: "Bob left." }]);
    await write(folder, "trec", [{ ...ROW, answers: ["City"], all_classes: ["City", "Other"] }]);
    const engine = await Reader.of(MODEL, (prompt) => /Anna/.test(prompt) ? "Anna\nof course" : "nobody");
    const asked = { evalData: folder, tasks: ["qasper", "trec"], prompts: {}, newlineAsEos: true };
    const source = await longBenchSource(asked);
    assertEquals(source.count, 3);
    const questions = await Array.fromAsync(source.questions());
    assertEquals(questions.map(({ isChat }) => isChat), [true, true, false], "few-shot prompts stand alone");
    const options = {
      ...asked,
      task: "longbench",
      settings: {},
      cut: { maxLength: null, most: 31_500, truncateFromMiddle: true },
      outputDir: `${folder}/out`,
    };
    const { scores, answers } = await measureLongBench(engine, source, options);
    assertEquals(answers.map(({ pred }) => pred), ["Anna", "nobody", "Anna\nof course"]);
    assertEquals(scores.tasks.map(({ score }) => score), [50, 0]);
    const [first, , last] = engine.asked;
    assertIncludes(first!.text, "The paper: Anna left.");
    assert(first!.text.endsWith("Question: Who?\n\nAnswer:"), first!.text);
    assertEquals([first!.options.maxNewTokens, first!.options.stop], [128, ["\n"]]);
    assertEquals([last!.options.maxNewTokens, last!.options.stop], [64, []]);
    const path = `${folder}/out/results.jsonl`;
    const lines = (await Deno.readTextFile(path)).split("\n");
    await Deno.writeTextFile(path, `${lines.slice(0, 3).join("\n")}\n`);
    const notes: string[] = [];
    const again = await measureLongBench(engine, source, options, { note: (line) => notes.push(line) });
    assertEquals([engine.asked.length, again.scores], [4, scores]);
    assertIncludes(notes.join(), "2 of 3 answers were in");
    await assertThrows(
      () =>
        measureLongBench(engine, source, { ...options, cut: { ...options.cut, truncateFromMiddle: false } }),
      "truncate_from_middle was true, is false",
    );
    const own = await longBenchSource({
      ...asked,
      tasks: ["qasper"],
      prompts: { qasper: "{input} {context} {other}" },
    });
    assertEquals((await Array.fromAsync(own.questions()))[0]!.prompt, "Who? Anna left. {other}");
  });
});

Deno.test("rows that are not LongBench's, and files that are missing, are refused by name", async () => {
  await withFolder(async (folder) => {
    const source = (tasks: string[]) =>
      longBenchSource({ evalData: folder, tasks, prompts: {}, newlineAsEos: true });
    await assertThrows(() => source(["qasper"]), "qasper.jsonl");
    const { answers: _, ...without } = ROW;
    const cases: [unknown, string][] = [
      [without, 'it lacks "answers"'],
      [{ ...ROW, answers: "Anna" }, '"answers" must be a list of texts'],
      [{ ...ROW, context: 3 }, '"context" must be text, got a number'],
      [{ ...ROW, length: "long" }, '"length" must be a number'],
    ];
    for (const [row, part] of cases) {
      await write(folder, "qasper", [ROW, row]);
      await assertThrows(() => source(["qasper"]), "qasper.jsonl:2", part);
    }
    await Deno.writeTextFile(`${folder}/p.json`, '{"qasper": "{input}"}');
    await assertThrows(() => readPrompts(`${folder}/p.json`), '"qasper" has no {context}');
  });
});

Deno.test("answers of LongBench's and Long-LLM's files are scored again", async () => {
  await withFolder(async (folder) => {
    await assertThrows(() => readLongBenchAnswers(folder), "no TASK.jsonl");
    await write(folder, "qasper", [{ pred: "Anna", answers: ["Anna"], all_classes: null, length: 5 }]);
    const saved = `12.5\n${JSON.stringify({ input: "?", answers: ["Bob"], length: 3, pred: "Bob's" })}\n`;
    await Deno.writeTextFile(`${folder}/musique.jsonl`, saved);
    const { tasks } = scoreLongBench(await readLongBenchAnswers(folder));
    assertEquals(tasks.map(({ task, score }) => [task, score]), [["qasper", 100], ["musique", 0]]);
    await Deno.writeTextFile(`${folder}/musique.jsonl`, "12.5\n{");
    await assertThrows(() => readLongBenchAnswers(folder), "musique.jsonl:2");
  });
});
