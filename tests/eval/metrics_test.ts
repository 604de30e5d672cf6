/** Scores by hand, and by Python's `difflib` 3.11 where a value is not plain to see. */
import {
  characterF1,
  classificationScore,
  codeSimilarity,
  countScore,
  fuzzRatio,
  retrievalScore,
  rougeL,
  rougeLChinese,
  rougeLSum,
  tokenF1,
  tokenF1Chinese,
} from "../../eval/metrics.ts";
import { assert, assertEquals } from "../support/assert_close.ts";

function assertNear(actual: number, wanted: number, label: string): void {
  assert(Math.abs(actual - wanted) < 1e-7, `${label}: got ${actual}, expected ${wanted}`);
}

Deno.test("token F1: bags of words without case, punctuation and articles", () => {
  // 2 common of 3 and 4 words: 2 x 2 / 7.
  assertNear(tokenF1("The cat, sat down", "a CAT sat on mats"), 4 / 7, "cat");
  assertEquals(tokenF1("the a an", "the"), 0, "nothing is left");
  assertEquals(tokenF1("Anna's theatre", "annas theatre!"), 1, "articles are whole words");
  assertEquals(tokenF1("déjà a", "déj"), 0, "beside an accent no word ends");
  // A word counts as often as it stands in both.
  assertNear(tokenF1("no no no", "no no yes"), 4 / 6, "bags");
});

Deno.test("ROUGE-L: different words of the union of common subsequences, sentence by sentence", () => {
  assertNear(rougeL("the cat sat on the mat", "the cat is on the mat"), 0.8, "four of five and five");
  // Lin 2004: w1 w2 of the first, w1 w3 w5 of the second sentence; eight different words against five.
  assertNear(rougeL("w1 w2 w6 w7 w8. w1 w3 w8 w9 w5", "w1 w2 w3 w4 w5"), 2 * 0.4 / 1.3, "union");
  assertNear(rougeL("b a", "a b"), 0.5, "order counts");
  assertEquals([rougeL("", "a"), rougeL("...", "a"), rougeL("a", "")], [0, 0, 0], "no sentence");
});

Deno.test("rougeLSum() counts the words of lines that are in a common subsequence with any line of the answer", () => {
  assertNear(
    rougeLSum("the cat sat on the mat", "The cat is on the mat."),
    2 * 5 / 12,
    "five of six and six",
  );
  // Lin's example: w1 w2 with the first line, w1 w3 w5 with the second; 4 of 5 and 10.
  assertNear(rougeLSum("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", "w1 w2 w3 w4 w5"), 2 * 4 / 15, "union");
  assertNear(rougeLSum("b a", "a b"), 2 * 1 / 4, "order counts");
  assertNear(rougeLSum("b\na", "a b"), 2 * 2 / 4, "but not that of lines");
  assertNear(rougeLSum("a", "a\na"), 2 * 1 / 3, "no word counts more often than the answer has it");
  // Of "a b" and "b a" either word is common, and the way back leaves b of the truth first: a, and b of the other line.
  assertNear(rougeLSum("b a\nb", "a b"), 2 * 2 / 5, "the place that rouge_score takes of two as good");
  assertEquals([rougeLSum("", "a"), rougeLSum("é.", "a"), rougeLSum("a", "\n")], [0, 0, 0], "no word");
  // What stands behind a full stop is a sentence of one empty word.
  assertNear(rougeL("a. ", "a"), 2 * 0.5 / 1.5, "an empty word");
  assert(rougeL("A", "a") === 0, "case counts");
});

Deno.test("edit similarity: hundredths of difflib's ratio, halves to even", () => {
  assertEquals(fuzzRatio("def f(x):", "def g(x):"), 0.89);
  assertEquals(fuzzRatio("return a+b", "return a - b"), 0.82);
  assertEquals(fuzzRatio("abcd", "bcde"), 0.75);
  // 2 x 1 / 16 is 12.5 hundredths, 2 x 3 / 16 is 37.5.
  assertEquals(fuzzRatio("a1234567", "abcdefgh"), 0.12);
  assertEquals(fuzzRatio("abc45678", "abcdefgh"), 0.38);
  assertEquals([fuzzRatio("", ""), fuzzRatio("", "a"), fuzzRatio("a", "a")], [1, 0, 1]);
  // Of 223 letters 220 are too frequent to be looked up.
  const [long, other] = [`${"x".repeat(150)}abc${"x".repeat(60)}`, `${"x".repeat(120)}abd${"x".repeat(100)}`];
  assertEquals(fuzzRatio(long, other), 0.56);
});

Deno.test("code: the first line that is neither comment nor fence", () => {
  assertEquals(codeSimilarity("\n```python\n# note\n// note\nreturn x\nreturn y", "return x"), 1);
  assertEquals(codeSimilarity("# only a comment", "return x"), 0);
});

Deno.test("counts: the share of the answer's numbers that are the true one", () => {
  assertEquals([countScore("3 or 4, maybe 3", "3"), countScore("three", "3")], [2 / 3, 0]);
  assertEquals([retrievalScore("Paragraph 12", "Paragraph 12"), retrievalScore("段落5和6", "段落5")], [
    1,
    0.5,
  ]);
});

Deno.test("classification: one of k classes named, without those that are part of the true one's name", () => {
  const classes = ["city", "big city", "river"];
  assertEquals(classificationScore("a big city", "big city", classes), 1);
  assertEquals(classificationScore("a big city or river", "big city", classes), 0.5);
  assertEquals(classificationScore("a big city", "city", classes), 0.5);
  assertEquals([
    classificationScore("a lake", "city", classes),
    classificationScore("river", "city", classes),
  ], [0, 0]);
});

Deno.test("Chinese: words, and characters, without punctuation", () => {
  assertEquals(tokenF1Chinese("北京，清华大学。", "清华大学 北京"), 1);
  // One of two words against one.
  assertNear(tokenF1Chinese("北京天气", "北京"), 2 / 3, "words");
  assertNear(characterF1("北京。", "北方"), 0.5, "characters");
  assertNear(rougeLChinese("北京天气", "北京"), 2 * 0.5 / 1.5, "ROUGE-L");
});
