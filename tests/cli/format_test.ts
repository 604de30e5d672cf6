import { formatBytes, formatCount, formatRate, formatSeconds, formatTable } from "../../text.ts";
import { formatJson, shellWord } from "../../cli/format.ts";
import { formatRecord, formatResult, paint } from "../../cli/format.ts";
import { visible } from "../../cli/visible.ts";
import { assertEquals } from "../support/assert_close.ts";

Deno.test("shellWord() quotes what a shell would take apart", () => {
  assertEquals(["out/a-1", "", "a b", "it's", "-x", "$(rm)"].map(shellWord), [
    "out/a-1",
    "''",
    "'a b'",
    "'it'\\''s'",
    "./-x",
    "'$(rm)'",
  ]);
});

Deno.test("sizes, times, counts and rates read as people write them", () => {
  assertEquals([0, 512, 1536, 2 ** 30 * 23.4].map(formatBytes), ["0 B", "512 B", "1.5 KiB", "23.4 GiB"]);
  assertEquals(
    [0.42, 9.96, 59.4, 185, 7620, 97 * 3600, NaN, -1].map(formatSeconds),
    ["0.4s", "10s", "59s", "3m 05s", "2h 07m", "4d 01h", "?", "?"],
  );
  assertEquals([formatCount(1234567), formatCount(12)], ["1,234,567", "12"]);
  assertEquals([0.523, 87.31, 1234.5, NaN].map(formatRate), ["0.52", "87.3", "1,235", "?"]);
});

Deno.test("tables line up", () => {
  assertEquals(
    formatTable([["model", "256", "1024"], ["base", "4.50", "19.9"]], "lrr", " "),
    " model   256  1024\n base   4.50  19.9",
  );
});

Deno.test("results are one JSON object, or names and values", () => {
  const result = { val_loss: 1.23456789012345, num_windows: 1358, peft_model: null };
  assertEquals(JSON.parse(formatResult(result, true)), result);
  assertEquals(formatRecord(result), "val_loss     1.23456789\nnum_windows  1,358\npeft_model   -");
});

Deno.test("colours appear only where they are wanted", () => {
  assertEquals(paint("x", "red", false), "x");
  assertEquals(visible(paint("x", "red", true), "colours"), "\u001b[31mx\u001b[39m");
});

Deno.test("JSON has one way to write names: snake_case, keys that are no names as they are", () => {
  const result = { outputDir: "o", maxS2Flops: 2, by: [{ evalLoss: 1 }], "model.norm.W": 3, none: null };
  const json = '{"output_dir":"o","max_s2_flops":2,"by":[{"eval_loss":1}],"model.norm.W":3,"none":null}';
  assertEquals(formatJson(result), json);
});
