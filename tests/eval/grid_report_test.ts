import { gridPage, gridPicture } from "../../eval/grid_report.ts";
import type { Cell, GridResult, Trial } from "../../eval/trials.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { assertWellFormed } from "../support/html.ts";
import { assertIncludes } from "../support/text.ts";

const cell = (length: number, depth: number | null, accuracy: number): Cell => ({
  length,
  depth,
  accuracy,
  trials: 2,
  similarity: accuracy / 2,
  promptTokens: length - 3,
});

const row = (i: number, score: number): Trial => ({
  length: 2048,
  depth: 50,
  trial: i,
  prompt_tokens: 2045,
  depth_found: 49.6,
  target: "12345",
  prediction: ` <b>wrong</b> & "${i}"`,
  score,
  similarity: 0,
  seconds: 1,
});

const RESULT: GridResult = {
  task: "passkey",
  settings: { base_model: "a<b>", peft_model: null, wording: { task: "find & tell" } },
  lengths: [1024, 2048],
  depths: [0, 50],
  trials: 2,
  accuracy: 0.75,
  similarity: 0.375,
  cells: [cell(1024, 0, 1), cell(1024, 50, 1), cell(2048, 0, 1), cell(2048, 50, 0)],
  byLength: [cell(1024, null, 1), cell(2048, null, 0.5)],
  byDepth: [cell(0, 0, 1), cell(0, 50, 0.5)],
  rows: [row(0, 1), ...Array.from({ length: 20 }, (_, i) => row(i + 1, 0))],
  seconds: 75,
};
const FOUND = { title: "Passkey retrieval", score: "keys found", value: "accuracy" } as const;
const LIKE = { ...FOUND, score: "likeness", value: "similarity" } as const;

Deno.test("the page escapes what models write, and has every table; of many wrong answers it shows some", () => {
  const html = gridPage(RESULT, [FOUND, LIKE]);
  assertWellFormed(html);
  assertEquals(html.match(/<svg/g)!.length, 2, "pictures");
  assertIncludes(html, "<tr><td>2,048</td><td>50.0 %</td><td>25.0 %</td><td>2</td><td>2,045</td></tr>");
  assertIncludes(html, "<tr><td>50 %</td><td>50.0 %</td>");
  assertIncludes(html, '<td>a&lt;b&gt;</td></tr>\n<tr><th scope="row">peft_model</th><td>none</td>');
  assertIncludes(html, "12 of 20; all are in results.jsonl.");
  assertEquals(html.match(/&lt;b&gt;wrong/g)!.length, 12, "wrong answers");
  const right = gridPage({ ...RESULT, rows: [row(0, 1)] }, [FOUND]);
  assert(!right.includes("not right"), "no wrong answers");
});

Deno.test("cells stand by length and depth; drawn depths are one row", () => {
  const cellsOf = (svg: string) => [...svg.matchAll(/<g><title>([^<]*)</g)].map(([, title]) => title);
  assertEquals(cellsOf(gridPicture(RESULT, FOUND)), [
    "tokens 1,024, depth 0 %: 100",
    "tokens 2,048, depth 0 %: 100",
    "tokens 1,024, depth 50 %: 100",
    "tokens 2,048, depth 50 %: 0",
  ]);
  const drawn = { ...RESULT, depths: null, cells: RESULT.byLength };
  assertEquals(cellsOf(gridPicture(drawn, LIKE)), [
    "tokens 1,024, depth drawn: 50",
    "tokens 2,048, depth drawn: 25",
  ]);
});
