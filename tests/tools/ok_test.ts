import { circles, dependents } from "../../tools/import_graph.ts";
import { secondsIn, selectTests, testsNaming } from "../../tools/ok.ts";
import { assertEquals } from "../support/assert_close.ts";

const GRAPH = new Map([
  ["a.ts", []],
  ["b.ts", ["a.ts", "b.wgsl"]],
  ["c.ts", ["b.ts"]],
  ["tests/a_test.ts", ["a.ts"]],
  ["tests/b_test.ts", ["b.ts"]],
  ["tests/c_test.ts", ["c.ts", "tests/support.ts"]],
  ["tests/support.ts", []],
]);

Deno.test("dependents() counts the steps to all that import a change, directly or not", () => {
  assertEquals(
    dependents(GRAPH, ["b.wgsl"]),
    new Map([["b.wgsl", 0], ["b.ts", 1], ["c.ts", 2], ["tests/b_test.ts", 2], ["tests/c_test.ts", 3]]),
  );
});

Deno.test("selectTests() takes the nearest tests first, then the quickest, and says what it leaves out", () => {
  const all = ["tests/a_test.ts", "tests/b_test.ts", "tests/c_test.ts"];
  assertEquals(selectTests(GRAPH, ["a.ts"]), { run: all, leftOut: [] });
  assertEquals(selectTests(GRAPH, ["b.ts"]), { run: all.slice(1), leftOut: [] });
  assertEquals(selectTests(GRAPH, ["README.md"]), { run: [], leftOut: [] });
  const times = { "tests/a_test.ts": 5, "tests/b_test.ts": 9, "tests/c_test.ts": 1 };
  assertEquals(selectTests(GRAPH, ["a.ts"], { times, budget: 6 }), {
    run: ["tests/a_test.ts", "tests/c_test.ts"],
    leftOut: ["tests/b_test.ts"],
  });
  // Some are known to be long before they have run.
  const long = new Map([["a.ts", []], ["tests/parity/golden_test.ts", ["a.ts"]], ["tests/a_test.ts", [
    "a.ts",
  ]]]);
  assertEquals(selectTests(long, ["a.ts"]), {
    run: ["tests/a_test.ts"],
    leftOut: ["tests/parity/golden_test.ts"],
  });
  // What changed itself runs whatever it takes.
  assertEquals(selectTests(GRAPH, ["tests/b_test.ts"], { times, budget: 6 }).run, ["tests/b_test.ts"]);
  assertEquals(selectTests(GRAPH, ["deno.json"], { named: ["tests/c_test.ts"] }).run, ["tests/c_test.ts"]);
  // A deleted test is in the change and not in the graph.
  assertEquals(selectTests(GRAPH, ["tests/gone_test.ts"]).run, []);
});

Deno.test("testsNaming() finds tests that read a file which nothing imports", () => {
  const sources = new Map([
    ["a_test.ts", 'new URL("../deno.json", import.meta.url)'],
    ["b_test.ts", "`${ROOT}README.md`"],
    ["c_test.ts", '"longreach tells more"'],
  ]);
  assertEquals(testsNaming(sources, ["deno.json", "longreach"]), ["a_test.ts"]);
  assertEquals(testsNaming(sources, ["README.md"]), ["b_test.ts"]);
});

Deno.test("secondsIn() adds up what deno test prints", () => {
  const output = "running 2 tests from ./tests/a_test.ts\none ... ok (1s)\ntwo ... FAILED (250ms)\n" +
    "running 1 test from ./tests/b_test.ts\nthree ... ok (1m5s)\nok | 3 passed | 0 failed (9s)\n";
  assertEquals(secondsIn(output), { "tests/a_test.ts": 1.25, "tests/b_test.ts": 65 });
});

Deno.test("circles() finds every group of files that import each other", () => {
  const graph = new Map([
    ["a.ts", ["b.ts"]],
    ["b.ts", ["c.ts", "d.ts"]],
    ["c.ts", ["a.ts"]],
    ["d.ts", ["e.ts"]],
    ["e.ts", []],
    ["self.ts", ["self.ts"]],
    ["x.ts", ["y.ts"]],
    ["y.ts", ["x.ts", "a.ts"]],
  ]);
  assertEquals(circles(graph), [["a.ts", "b.ts", "c.ts"], ["self.ts"], ["x.ts", "y.ts"]]);
});
