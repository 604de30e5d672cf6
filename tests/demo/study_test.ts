import { runCli } from "../../cli/main.ts";
import { studyReport } from "../../demo/study/report.ts";
import { BASE, UNTRAINED } from "../../demo/study/experiments.ts";
import { LENGTHS, type StudyRow } from "../../demo/study/study.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "../cli/memory_io.ts";

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

const UNTRAINED_ROWS = [row(BASE.name, 1, 6), row(UNTRAINED.name, 1, 9)];
const precision = (seed: number, nf4: number, full: number) => [
  row("NF4 base", seed, nf4),
  row("base not quantised", seed, full),
];

Deno.test("a study's table has means and deviations over seeds, and a claim is asked of each seed", () => {
  const rows = [...UNTRAINED_ROWS, ...precision(1, 5, 5), ...precision(2, 7, 6.9), ...precision(3, 6, 7)];
  const { markdown, plots } = studyReport(rows, "study", "deno task study --seeds 3");
  assertIncludes(markdown, "with 3 seeds");
  assertIncludes(markdown, "| NF4 base | 1,234 | 4 | 6.000 ± 1.000 |");
  assertIncludes(markdown, "(#a-base-in-4-bits) | **holds** (3 of 3 seeds) |");
  assertIncludes(markdown, "`deno task study --seeds 3` on a device.");
  assertIncludes(markdown, "| base, as it is | 1,234 | 4 | 6.000 | 6.000 | 6.000 |");
  assertIncludes(markdown, "| interpolated, not trained | 1,234 | 4 | 9.000 |");
  // An experiment without runs is left out.
  assertEquals([...plots.keys()], ["precision.svg"]);
  assert(!markdown.includes("size of the groups"), markdown);

  const verdict = (...others: StudyRow[]) =>
    /\*\*.*seeds\)/.exec(studyReport([...UNTRAINED_ROWS, ...others], "study", "c").markdown)?.[0];
  // Worse on the mean of these two, and yet better with one of the seeds.
  assertEquals(verdict(...precision(1, 5, 6), ...precision(2, 9, 6)), "**cannot be told** (1 of 2 seeds)");
  assertEquals(verdict(...precision(1, 7, 6), ...precision(2, 9, 6)), "**does not hold** (0 of 2 seeds)");
});

Deno.test("a study with one seed claims no spread", () => {
  const { markdown } = studyReport([...UNTRAINED_ROWS, ...precision(1, 5, 5)], "study", "c");
  assertIncludes(markdown, "once, so that no spread is known");
  assert(!markdown.includes("±"), markdown);
});

Deno.test("the study's plots have a dot for every run, and a curve over steps for every seed", () => {
  const steps = (seed: number) =>
    [0.25, 0.5, 1, 2].map((share) => ({ ...row(`${share} x`, seed, 9 - share), steps: 4 * share }));
  const rows = [...UNTRAINED_ROWS, ...precision(1, 5, 5), ...precision(2, 7, 6), ...steps(1), ...steps(2)];
  const { plots } = studyReport(rows, "study", "c");
  const dots = plots.get("precision.svg")!;
  const [circles, squares, triangles] = ["a4 4 0 1 0 8 0", "h8v8h-8z", "l5 9h-10z"].map((shape) =>
    dots.split(shape).length - 1
  );
  // Each length has a mark of its own: two seeds of two variants, the two untrained ones, and the legend.
  assertEquals([circles, squares, triangles], [7, 7, 7]);
  assertEquals(dots.split("<title>base, as it is").length - 1, LENGTHS.length, "lines at the base's values");
  const curves = [...plots.get("steps.svg")!.matchAll(/stroke-linecap="round" d="M([^"]*)"/g)];
  assertEquals(curves.map(([, path]) => path!.split("L").length), [5, 5, 2]);
  assertEquals(curves[0]![1], curves[1]![1], "the same values, the same curve, the first point too");
});

Deno.test("study refuses experiments that there are not, before anything runs", async () => {
  const io = new MemoryIo();
  assertEquals(await runCli(["study", "--only", "groups,atention"], io), 2);
  assertEquals(io.stderr, '--only: there is no experiment "atention": did you mean attention?\n');
});
