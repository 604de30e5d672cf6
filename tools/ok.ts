/**
 * The loop while working: `deno task ok` checks format, lint and types, and runs the tests that a change concerns, in
 * about half a minute. A change is what is not committed, or, where all is, what this branch has that `main` has not.
 * Tests are found by imports, nearest first; those that would take too long are named and left to
 * `deno task test`. How long each took the last time is kept in `.deno/test_seconds.json`.
 */
import { check, CHECKS, conclude, print, tests } from "./checks.ts";
import { dependents, type ImportGraph, importGraph } from "./import_graph.ts";

const ROOT = decodeURI(new URL("..", import.meta.url).pathname);
const TIMES = `${ROOT}.deno/test_seconds.json`;

/** Seconds for all tests, beside about ten for the checks. */
const BUDGET = 15;
/** Test files that are named of those left out. */
const MOST_NAMED = 12;
/** Seconds by test file. */
type Times = Readonly<Record<string, number>>;

/** Seconds that a test file counts for until it has run once: some on two cores, all others. */
const FIRST_TIMES: Times = {
  "tests/parity/golden_test.ts": 180,
  "tests/fuzz/readers_test.ts": 60,
  "tests/model/layer_test.ts": 70,
  "tests/train/run_test.ts": 55,
  "tests/train/plan_test.ts": 55,
  "tests/train/resume_test.ts": 55,
  "tests/train/trainer_test.ts": 45,
  "tests/cli/bad_input_test.ts": 35,
  "tests/kernels/attention_test.ts": 25,
  "tests/model/generate_test.ts": 25,
  "tests/readme_test.ts": 25,
  "tests/demo/model_test.ts": 20,
  "tests/serve/openai_test.ts": 12,
};
const USUAL_TIME = 2;

/** Test files in the order in which they run, and those that there is no time for. */
export interface Selection {
  readonly run: readonly string[];
  readonly leftOut: readonly string[];
}

/**
 * Chooses tests for a change: nearest first by imports, of equally near ones the quickest, until the budget is spent. A
 * test that changed itself always runs.
 *
 * @param named tests that name a changed file which nothing imports, as `deno.json`
 */
export function selectTests(
  graph: ImportGraph,
  changed: readonly string[],
  { named = [], times = {}, budget = BUDGET }: {
    readonly named?: readonly string[];
    readonly times?: Times;
    readonly budget?: number;
  } = {},
): Selection {
  const steps = dependents(graph, changed);
  for (const path of named) if (!steps.has(path)) steps.set(path, 1);
  const secondsOf = (path: string) => times[path] ?? FIRST_TIMES[path] ?? USUAL_TIME;
  const found = [...steps].filter(([path]) => path.endsWith("_test.ts") && graph.has(path))
    .sort(([a, near], [b, far]) => near - far || secondsOf(a) - secondsOf(b) || (a < b ? -1 : 1));
  const [run, leftOut]: [string[], string[]] = [[], []];
  let spent = 0;
  for (const [path, step] of found) {
    const seconds = secondsOf(path);
    if (step > 0 && spent + seconds > budget) leftOut.push(path);
    else {
      run.push(path);
      spent += seconds;
    }
  }
  return { run, leftOut };
}

/** Tests that name a file in quotes, by its path from the root or as `../name`. */
export function testsNaming(sources: ReadonlyMap<string, string>, files: readonly string[]): string[] {
  return [...sources].filter(([, source]) =>
    files.some((file) => ['"', "'", "`"].some((mark) => source.includes(`${file}${mark}`)))
  ).map(([path]) => path);
}

/** Seconds of each test file, from what `deno test` printed about its tests. */
export function secondsIn(output: string): Record<string, number> {
  const seconds: Record<string, number> = {};
  let file = "";
  for (const line of output.split("\n")) {
    file = /^running \d+ tests? from (?:\.\/)?(\S+)$/.exec(line)?.[1] ?? file;
    const [, text = ""] = /\.\.\. (?:ok|FAILED) \(([\dhmsµ]+)\)$/.exec(line) ?? [];
    const parts = [...text.matchAll(/(\d+)(h|ms|m|s|µs)/g)];
    const units: Readonly<Record<string, number>> = { h: 3600, m: 60, s: 1, ms: 0.001, "µs": 0.000_001 };
    const taken = parts.reduce((sum, [, count, unit]) => sum + Number(count) * units[unit!]!, 0);
    if (file !== "" && parts.length > 0) seconds[file] = (seconds[file] ?? 0) + taken;
  }
  return seconds;
}

async function git(...words: string[]): Promise<string[]> {
  const { success, stdout } = await new Deno.Command("git", { args: words, cwd: ROOT, stderr: "null" })
    .output();
  return success ? new TextDecoder().decode(stdout).split("\n").filter((line) => line !== "") : [];
}

/** Files that are not committed, new ones included; without any, those that differ from where this branch left `main`. */
async function changedFiles(): Promise<string[]> {
  const differing = (from: string) => git("diff", "--name-only", "--no-renames", from);
  const open = [...await differing("HEAD"), ...await git("ls-files", "--others", "--exclude-standard")];
  if (open.length > 0) return open;
  const [base = "HEAD"] = await git("merge-base", "HEAD", "main");
  return await differing(base);
}

async function readTimes(): Promise<Times> {
  try {
    return JSON.parse(await Deno.readTextFile(TIMES));
  } catch {
    return {};
  }
}

if (import.meta.main) {
  Deno.chdir(ROOT);
  const changed = await changedFiles();
  print(`${changed.length} files changed\n`);
  const counts = [];
  for (const [label, words] of CHECKS) counts.push(await check(label, words));

  const graph = await importGraph(ROOT);
  const sources = new Map<string, string>();
  for (const path of graph.keys()) {
    if (path.endsWith("_test.ts")) sources.set(path, await Deno.readTextFile(`${ROOT}${path}`));
  }
  const times = await readTimes();
  const named = testsNaming(sources, changed.filter((path) => !path.endsWith(".ts")));
  const { run, leftOut } = selectTests(graph, changed, { named, times });
  if (run.length > 0) {
    const result = await tests(run);
    counts.push(result);
    const measured = { ...times, ...secondsIn(result.output) };
    await Deno.mkdir(`${ROOT}.deno`, { recursive: true });
    await Deno.writeTextFile(TIMES, JSON.stringify(measured, null, 1));
  }
  if (leftOut.length > 0) {
    const more = leftOut.length > MOST_NAMED ? ` and ${leftOut.length - MOST_NAMED} more` : "";
    print(
      `\nLeft out for time, and run by "deno task test": ${leftOut.slice(0, MOST_NAMED).join(" ")}${more}\n`,
    );
  }
  conclude(counts);
}
