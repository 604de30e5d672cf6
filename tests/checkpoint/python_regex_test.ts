import { compilePythonRegex } from "../../checkpoint/python_regex.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";

const Q = "model.layers.0.self_attn.q_proj";

Deno.test("Expressions match as Python's re.fullmatch does", () => {
  // Expression, what it matches, what it does not; each checked with Python.
  const cases: [string, readonly string[], readonly string[]][] = [
    ["q_proj", ["q_proj"], [Q, "q_projx", ""]],
    [".*q_proj", [Q, "q_proj"], ["q_proj.x"]],
    [String.raw`.*\.(q|v)_proj`, [Q], ["q_proj", "model.k_proj"]],
    [String.raw`model\.layers\.(\d|1[0-5])\..*_proj`, [Q, "model.layers.15.mlp.up_proj"], [
      "model.layers.16.mlp.up_proj",
    ]],
    ["^(?!.*mlp).*proj$", [Q], ["model.layers.0.mlp.up_proj"]],
    [String.raw`.*(?<=self_attn\.)[qk]_proj`, [Q], ["model.layers.0.mlp.q_proj"]],
    [String.raw`.*(?<!self_attn\.)[qk]_proj`, ["model.layers.0.mlp.q_proj"], [Q]],
    [String.raw`.*(?=q_)q_proj`, [Q], ["k_proj"]],
    [String.raw`(?P<block>.*)\.[^.]+`, [Q], ["q_proj"]],
    ["(?i)Q_PROJ", ["q_proj", "Q_proj"], ["k_proj"]],
    ["(?i:Q)_proj", ["q_proj"], ["q_PROJ"]],
    ["(?i)(?-i:q)_[A-P]roj", ["q_proj", "q_PROJ"], ["Q_proj"]],
    ["(?:a|ab)(?:c|bcd)(?:d*)", ["abcd", "abc", "acd", "abcdd"], ["abbd"]],
    ["a{2}b{,2}c{1,}d{1,2}", ["aacd", "aabbccdd"], ["acd", "aabbbcd", "aad", "aacddd"]],
    ["a{}{x}", ["a{}{x}"], ["a"]],
    ["[]a]+[^]b]", ["]]x", "aa-"], ["b", "ab"]],
    [String.raw`[\w-]+[a\-c]\.[+-9]`, ["q-_a.5", "x-.+"], ["q.b.5"]],
    [String.raw`\A\bq\B_proj\b\Z`, ["q_proj"], ["q.proj"]],
    [String.raw`\x61\u0062\t\055\/`, ["ab\t-/"], ["ab"]],
    ["a(?#comment)b*?c+?", ["abbcc", "ac"], ["ab"]],
    ["(|a)(b|)", ["", "a", "b", "ab"], ["ba"]],
    ["", [""], ["a"]],
  ];
  for (const [source, matching, others] of cases) {
    const matches = compilePythonRegex(source);
    for (const text of matching) assert(matches(text), `${source} must match ${text}`);
    for (const text of others) assert(!matches(text), `${source} must not match ${text}`);
  }
});

Deno.test("What Python refuses, and what is not here, is refused with its name", async () => {
  const cases: [string, string][] = [
    ["(a", "lacks a )"],
    ["a)", ") too many"],
    ["[a", "lacks a ]"],
    ["*a", "nothing to repeat"],
    ["(?:{1,2})", "nothing to repeat"],
    ["a**", "repeats a repeat"],
    ["a{2}{3}", "repeats a repeat"],
    ["a{3,2}", "larger number first"],
    ["a{5000}", "1000 repeats"],
    ["a++", "possessive"],
    ["(?>a)", "atomic"],
    [String.raw`(a)\1`, String.raw`backreference \1`],
    ["(?P<x>a)(?P=x)", "backreference"],
    ["(a)?(?(1)b|c)", "condition"],
    ["(?x)a", "flag x"],
    ["a(?i)b", "(?i"],
    [String.raw`\p{L}`, String.raw`escape \p`],
    ["a\\", "backslash"],
    [String.raw`\xg1`, "lacks digits"],
    ["[z-a]", "range"],
    ["(?<name>a)", "(?<"],
    ["(".repeat(60) + ")".repeat(60), "nested"],
    ["a".repeat(10_001), "longer"],
  ];
  for (const [source, says] of cases) await assertThrows(() => compilePythonRegex(source), says);
});

Deno.test("Expressions that take others for ever end at once", async () => {
  const text = `${"a".repeat(60)}!`;
  for (
    const source of [
      "(a+)+",
      "(a*)*b",
      "((a|aa)+)*$",
      "(.*)*(.*)*(.*)*x",
      `${"(.*a)".repeat(30)}x`,
      "(a?){60}a{60}",
    ]
  ) {
    assert(!compilePythonRegex(source)(text), `${source} must not match`);
  }
  assert(compilePythonRegex("(a?){60}a{60}")("a".repeat(60)), "a?^n a^n");
  const long = compilePythonRegex("((a?){900}){900}b");
  await assertThrows(() => long(text), "more than 100000 steps");
});

Deno.test("The steps are counted for each text alone", () => {
  const matches = compilePythonRegex(".*q_proj");
  assertEquals(Array.from({ length: 5000 }, () => matches(Q)).every(Boolean), true);
});
