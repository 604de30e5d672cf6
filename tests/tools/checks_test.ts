import { summaryOf, testFiles } from "../../tools/checks.ts";
import { assert, assertEquals } from "../support/assert_close.ts";

Deno.test("the summary of a process of tests is its last line, not what a test printed", () => {
  const read = (line: string) => summaryOf(`a test of 5 passed | 6 failed ... ok (1ms)\n\n${line}\n\n`);
  assertEquals(read("ok | 72 passed | 0 failed (1m0s)"), { passed: 72, failed: 0, ignored: 0 });
  assertEquals(read("ok | 12 passed (3 steps) | 0 failed | 4 ignored (2s)"), {
    passed: 12,
    failed: 0,
    ignored: 4,
  });
  assertEquals(read("FAILED | 1 passed | 2 failed (8ms)"), { passed: 1, failed: 2, ignored: 0 });
  assertEquals(read("error: Module not found"), undefined);
});

Deno.test("the files of tests are those of folders and below them", async () => {
  const files = await testFiles(["tests/tools", "tests/bench/"]);
  assertEquals(files, files.toSorted());
  assert(files.includes("tests/tools/checks_test.ts") && files.includes("tests/bench/gpu_test.ts"), "both");
  assert(files.every((path) => path.endsWith("_test.ts")), "tests alone");
});
