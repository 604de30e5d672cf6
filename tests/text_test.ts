import { isMisspelt, nearest } from "../nearest.ts";
import { quote, quoteNames, typeName } from "../text.ts";
import { assert, assertEquals } from "./support/assert_close.ts";

Deno.test("quote() writes a value as JSON in one line, and cuts it", () => {
  assertEquals(["a\nb", 1.5, NaN, null, undefined, [1, "x"], { a: true }].map((value) => quote(value)), [
    '"a\\nb"',
    "1.5",
    "NaN",
    "null",
    "undefined",
    '[1,"x"]',
    '{"a":true}',
  ]);
  assertEquals(quote("x".repeat(120)), `"${"x".repeat(120)}"`);
  assertEquals(quote("x".repeat(121)), `"${"x".repeat(120)}..."`);
  assertEquals(quote("abcdef", 3), '"abc..."');
  const list = quote(Array.from({ length: 100 }, (_, i) => i));
  assertEquals([list.length, list.slice(-3)], [120, "..."]);
  const circle: unknown[] = [];
  circle.push(circle);
  assertEquals([quote(circle), quote({ circle })], ["[...]", "{...}"]);
});

Deno.test("quote() leaves nothing that steers a terminal or reorders its text", () => {
  const hostile = "\u001b[2J\u0000\r\u007f\u009b31m\u061c\u200e\u200f\u2028\u202e\u2066\u2069";
  for (const value of [hostile, [hostile], { [hostile]: 1 }]) {
    const text = quote(value);
    assert(/^[ -~]+$/.test(text), text);
    assertEquals(JSON.parse(text), value, "the escapes are JSON's");
  }
});

Deno.test("quoteNames() lists twenty names at most", () => {
  assertEquals(quoteNames([]), "");
  assertEquals(quoteNames(["a", 'b"c']), '"a", "b\\"c"');
  const names = Array.from({ length: 21 }, (_, i) => `n${i}`);
  assertEquals(quoteNames(names.slice(0, 20)).endsWith('"n19"'), true);
  assertEquals(quoteNames(names).endsWith('"n19", ...'), true);
});

Deno.test("typeName() names types as JSON has them", () => {
  assertEquals([null, undefined, [], {}, 1, "a", true].map(typeName), [
    "null",
    "undefined",
    "a list",
    "an object",
    "a number",
    "a string",
    "a boolean",
  ]);
});

Deno.test("nearest() finds what was meant, or nothing", () => {
  const names = ["lora_rank", "lora_alpha", "learning_rate", "seed"];
  assertEquals(nearest("lora_rnk", names), "lora_rank");
  assertEquals(nearest("LORA_ALPHA", names), "lora_alpha");
  assertEquals(nearest("learn", names), "learning_rate", "the only one that begins so");
  assertEquals(nearest("lora", ["lora_rank", "lora_alpha"]), null, "two begin so");
  assertEquals(nearest("temperature", names), null);
  assertEquals(nearest("le", names), null, "two letters begin too much");
  assertEquals(nearest("loxx_xxnk", names), null, "more than a third differs");
  assertEquals(nearest("loraa_b", ["lora_a", "lora_b"]), "lora_b", "not the first that would do");
  assertEquals(nearest("x".repeat(65), names), null);
});

Deno.test("isMisspelt() forgives case, space and two letters", () => {
  assertEquals(["text", " Text ", "txet", "tex", "texture"].map((written) => isMisspelt(written, "text")), [
    true,
    true,
    true,
    true,
    false,
  ]);
});
