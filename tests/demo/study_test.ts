import { studyReport } from "../../demo/study/report.ts";
import { type StudyRow, UNTRAINED } from "../../demo/study/study.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";

function row(variant: string, seed: number, perplexity: number): StudyRow {
  return {
    variant,
    options: {},
    seed,
    steps: 4,
    perplexity: { 256: perplexity, 512: perplexity, 1024: perplexity },
    trainable_parameters: 1234,
    seconds: 1,
    device: "a device",
  };
}

const UNTRAINED_ROW = row(UNTRAINED.name, 1, 9);
const precision = (seed: number, nf4: number, full: number) => [
  row("NF4 base", seed, nf4),
  row("base not quantised", seed, full),
];

Deno.test("a study's table has means and deviations over seeds, and the claim is judged by the means", () => {
  const rows = [UNTRAINED_ROW, ...precision(1, 5, 5), ...precision(2, 7, 6), ...precision(3, 6, 7)];
  const { markdown, plots } = studyReport(rows, "study", "deno task study --seeds 3");
  assertIncludes(markdown, "in 3 runs of each way, seeds 1 to 3");
  assertIncludes(markdown, "| NF4 base | 1,234 | 4 | 6.000 ± 1.000 |");
  assertIncludes(markdown, "within 2 %: **holds**");
  assertIncludes(
    markdown,
    "`deno task study --seeds 3` on a device. Untrained, positions interpolated: 9.00 at 256",
  );
  // An experiment without runs is left out.
  assertEquals([...plots.keys()], ["precision.svg"]);
  assert(!markdown.includes("size of the groups"), markdown);

  const worse = [UNTRAINED_ROW, ...precision(1, 5, 5), ...precision(2, 7, 6), ...precision(3, 7, 7)];
  assertIncludes(studyReport(worse, "study", "c").markdown, "within 2 %: **does not hold**");
});

Deno.test("a study with one seed claims no spread", () => {
  const { markdown } = studyReport([UNTRAINED_ROW, ...precision(1, 5, 5)], "study", "c");
  assertIncludes(markdown, "once in each way, so that no spread is known");
  assert(!markdown.includes("±"), markdown);
});
