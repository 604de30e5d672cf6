/** InfiniteBench and topic retrieval: scores by hand, prompts and tables of made-up rows. */
import { INFBENCH, infBenchSource, measureInfBench } from "../../eval/infbench.ts";
import { measureTopic, topicSource, topicTable } from "../../eval/topic.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { Reader } from "../support/reader.ts";
import { assertIncludes } from "../support/text.ts";

const MODEL = `${GOLDEN}/mha`;
const CUT = { maxLength: null, most: 1000, truncateFromMiddle: true };

function scoreOf(task: string, pred: string, answers: string[], options: string[] = []): number {
  return INFBENCH[task]!.score(pred, { answers, options });
}

Deno.test("numbers, keys and names: the first, the last, or any counts", () => {
  assertEquals([scoreOf("passkey", "It is 123, or 456", ["123"]), scoreOf("passkey", "456 123", ["123"])], [
    1,
    0,
  ]);
  assertEquals(scoreOf("number_string", "007", ["7"]), 0, "digits are text");
  assertEquals(
    [scoreOf("kv_retrieval", 'value: "a-b".', ["a-b"]), scoreOf("kv_retrieval", "a-bc", ["a-b"])],
    [1, 0],
  );
  assertEquals([
    scoreOf("longdialogue_qa_eng", "It's Anna.", ["BELL", "ANNA"]),
    scoreOf("longdialogue_qa_eng", "I think Captain Bell", ["CAPTAIN BELL"]),
    scoreOf("longdialogue_qa_eng", "An", ["ANNA"]),
  ], [1, 1, 0]);
  assertEquals([scoreOf("math_find", "about 3.50", ["3.5"]), scoreOf("math_find", "none", ["0"])], [1, 0]);
  assertEquals([scoreOf("code_run", "it returns -5.", ["-5"]), scoreOf("code_run", "5 apples", ["5"])], [
    1,
    0,
  ]);
  assertEquals(scoreOf("math_calc", "1, 2, 4", ["1", "2", "3", "4"]), 0.5);
  assertEquals(scoreOf("math_calc", "1 2", ["1", "2"]), 1);
});

Deno.test("answers of each task may be as long as InfiniteBench has them", () => {
  assertEquals(Object.values(INFBENCH).map(({ newTokens }) => newTokens), [
    ...[6, 12, 50],
    ...[1200, 40, 40, 40, 40],
    ...[3, 30_000],
    ...[5, 5],
  ]);
});

Deno.test("texts: the best over the true answers", () => {
  assertEquals(scoreOf("longbook_qa_eng", "The fox", ["a dog", "fox"]), 1);
  assertEquals(scoreOf("longbook_qa_chn", "北京。", ["上海", "北京"]), 1);
  const half = scoreOf("longbook_sum_eng", "a b", ["c d", "a c"]);
  assertEquals(half, 0.5, "one of two words of each");
  // rougeLsum divides at lines, not at full stops: 2 of 2 and 4 words, 2 * 2 / 6.
  assertEquals(scoreOf("longbook_sum_eng", "One. Two!", ["Zero one. And two"]), 2 / 3);
});

Deno.test("choices: as InfiniteBench's rules take answers apart", () => {
  const options = ["red", "green", "blue"];
  const cases: [string, string, number][] = [
    ["longbook_choice_eng", "B", 1],
    ["longbook_choice_eng", " B. green", 1],
    ["longbook_choice_eng", "C, or B", 1], // the last letter
    ["longbook_choice_eng", "C\nB", 0], // of the first line; C is also the first letter
    ["longbook_choice_eng", "The answer is A, not B", 1],
    ["longbook_choice_eng", "The answer is B, not A", 1], // not the last letter, but behind the marker
    ["longbook_choice_eng", "I say B, not A", 1], // the first word that is a letter
    ["longbook_choice_eng", "I say A or B, not C", 0],
    ["longbook_choice_eng", "(B)", 1],
    ["longbook_choice_eng", "Bad luck", 1], // the first letter, whatever it begins
    ["longbook_choice_eng", "Definitely green", 0], // D
    ["longbook_choice_eng", "green", 1],
    ["longbook_choice_eng", "green.", 0], // not the text alone
    ["longbook_choice_eng", "It is: the answer is:  green", 1], // spaces are one
    ["longbook_choice_eng", "The answer is: red, green", 0],
    ["longbook_choice_eng", "the answer is:", 0],
    ["longbook_choice_eng", "my answer: Blue", 1], // behind the marker too
    ["longbook_choice_eng", "this option is green", 1],
    ["longbook_choice_eng", "éB", 0], // part of a word
    ["longbook_choice_eng", "BC", 1], // the first letter
    ["longbook_choice_eng", "so BC or B or A", 0], // of the words made of A to D the first is BC
    ["longbook_choice_eng", "", 0],
    ["code_debug", "I would say (B)", 1],
    ["code_debug", "B or E", 1], // begins with it
    ["code_debug", "not B but E", 0], // E is the last of A to J
    ["code_debug", "Option B: C", 0], // "Option" leaves a space before B
    ["code_debug", "answer: Blue", 1],
    ["code_debug", "The correct option is: green, not A", 1],
    ["code_debug", "mine is: red; answer: B, not C", 0], // "is:" comes before "answer:"
    ["code_debug", "`green`", 0], // the mark leaves a space
    ["code_debug", "green_light", 1],
    ["code_debug", "**B**", 1],
    ["code_debug", "", 0],
  ];
  for (const [task, pred, wanted] of cases) {
    assertEquals(scoreOf(task, pred, ["green"], options), wanted, `${task}: ${pred}`);
  }
});

Deno.test("infbench rows become prompts with lettered options; what is no choice of its row is refused", async () => {
  await withFolder(async (folder) => {
    const row = { context: "The sea.", input: "Which?", answer: ["green"], options: ["red", "green"] };
    await Deno.writeTextFile(`${folder}/longbook_choice_eng.jsonl`, JSON.stringify(row));
    await Deno.writeTextFile(`${folder}/passkey.jsonl`, JSON.stringify({ ...row, answer: 42 }));
    const tasks = ["passkey", "longbook_choice_eng"];
    const asked = { evalData: folder, tasks, prompts: {} };
    const source = await infBenchSource(asked);
    const engine = await Reader.of(MODEL, (prompt) => /pass key/.test(prompt) ? "42" : "B");
    const options = { task: "infbench", settings: {}, cut: CUT, outputDir: `${folder}/out` };
    const { scores } = await measureInfBench(engine, source, options);
    assertEquals([scores.average, scores.tasks.map(({ score }) => score)], [1, [1, 1]]);
    assertIncludes(engine.asked[1]!.text, "A. red\nB. green");
    assertEquals(engine.asked.map(({ options }) => options.maxNewTokens), [6, 40]);
    await Deno.writeTextFile(`${folder}/code_debug.jsonl`, JSON.stringify({ ...row, answer: "blue" }));
    await assertThrows(
      () => infBenchSource({ ...asked, tasks: ["code_debug"] }),
      "code_debug.jsonl:1",
      'not among its "options"',
    );
    // An answer that the context cannot hold is told before anything is asked.
    await Deno.writeTextFile(`${folder}/math_calc.jsonl`, JSON.stringify({ ...row, answer: [1] }));
    const long = await infBenchSource({ ...asked, tasks: ["passkey", "math_calc"] });
    const small = await Reader.of(MODEL, () => "x", { contextSize: 4096 });
    await assertThrows(
      () => measureInfBench(small, long, { ...options, outputDir: `${folder}/b` }),
      "Cannot ask math_calc",
      "30,000",
    );
    assertEquals(small.asked.length, 0);
  });
});

Deno.test("topics: accuracy and F1 by number of topics, those that are asked for", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/topics.json`;
    const row = (num_topics: number, first: string) => ({
      context: `We spoke of ${first}.`,
      question: "What was first?",
      topics: [first, "rain"],
      num_topics,
    });
    await Deno.writeTextFile(
      path,
      JSON.stringify([row(5, "Old Bees"), row(5, "trams"), row(10, "old bees"), row(7, "x")]),
    );
    const source = await topicSource(path, [5, 10]);
    assertEquals(source.count, 3);
    const engine = await Reader.of(MODEL, (prompt) => /bees/i.test(prompt) ? "The old bees." : "I forget");
    const options = { task: "topic", settings: {}, cut: CUT, outputDir: `${folder}/out` };
    const scores = await measureTopic(engine, source, options);
    assertEquals(scores.map(({ numTopics, rows, accuracy, f1 }) => [numTopics, rows, accuracy, f1]), [
      [5, 2, 0.5, 0.5],
      [10, 1, 1, 1],
    ]);
    assert(engine.asked[0]!.text === "We spoke of Old Bees. What was first?", engine.asked[0]!.text);
    const tokens = engine.asked.map(({ ids }) => ids.length);
    assertEquals(scores.map(({ promptTokens }) => promptTokens), [
      Math.round((tokens[0]! + tokens[1]!) / 2),
      tokens[2],
    ]);
    assertEquals(topicTable(scores)[1], ["5", String(scores[0]!.promptTokens), "2", "50.0 %", "0.500"]);
    const demo = await Reader.of("demo/model", () => "x");
    await assertThrows(
      () => measureTopic(demo, source, { ...options, outputDir: `${folder}/b` }),
      "Cannot use the prompts",
      "which stands for what the tokenizer does not know",
    );
    await assertThrows(() => topicSource(path, [6]), "none of its rows has num_topics of 6");
    await Deno.writeTextFile(path, JSON.stringify([{ ...row(5, "a"), topics: [] }]));
    await assertThrows(() => topicSource(path, [5]), "topics.json:1", '"topics" must be a list');
  });
});
