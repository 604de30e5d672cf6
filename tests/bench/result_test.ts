import { measure, median } from "../../bench/measure.ts";
import { describeChanges, describeRows } from "../../bench/describe.ts";
import { formatMs } from "../../text.ts";
import { compareRows, lookAround, readResult, type Row, rowOf } from "../../bench/result.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { addInto } from "../../kernels/elementwise/elementwise.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";

const ROW: Row = {
  suite: "matmul",
  op: "x W^T",
  shape: "M1",
  format: "f32",
  sharing: "subgroup",
  runs: 5,
  bestMs: 10,
  medianMs: 10.1,
  compileMs: null,
  gflops: 50,
  gbps: 1,
  share: 0.5,
};

Deno.test("a row's rates and its share of the roofline follow from its best run", () => {
  const work = { suite: "s", op: "o", shape: "1", format: "f32", memory: 0, prepare: () => null as never };
  const sample = { runs: 3, bestMs: 2, medianMs: 3, compileMs: 7 };
  const peaks = { gflops: 100, gbps: 10 };
  const byFlops = rowOf({ ...work, flops: 1e8, bytes: 1e6 }, "subgroup", sample, peaks);
  assertEquals([byFlops.gflops, byFlops.gbps, byFlops.share], [50, 0.5, 0.5]);
  const byBytes = rowOf({ ...work, flops: 0, bytes: 1e7 }, "subgroup", sample, peaks);
  assertEquals([byBytes.gflops, byBytes.gbps, byBytes.share], [null, 5, 0.5]);
});

Deno.test("a change counts only past the spread of both runs", () => {
  const verdict = (before: Partial<Row>, now: Partial<Row>) =>
    compareRows([{ ...ROW, ...before }], [{ ...ROW, ...now }])[0]!.verdict;
  assertEquals(verdict({}, { bestMs: 9.8, medianMs: 9.9 }), "same");
  assertEquals(verdict({}, { bestMs: 9, medianMs: 9.1 }), "faster");
  assertEquals(verdict({}, { bestMs: 11, medianMs: 11.1 }), "slower");
  assertEquals(verdict({}, { bestMs: 10.3, medianMs: 10.4 }), "same");
  assertEquals(verdict({ medianMs: 14 }, { bestMs: 8, medianMs: 8.1 }), "same");
  assertEquals(verdict({}, { bestMs: 8, medianMs: 12 }), "same");
});

Deno.test("only the same work is compared: op, shape, format and sharing", () => {
  for (
    const other of [{ op: "dy W" }, { shape: "M2" }, { format: "bf16" }, { sharing: "workgroup" as const }]
  ) {
    assertEquals(compareRows([ROW], [{ ...ROW, ...other }]), []);
  }
  const [change] = compareRows([ROW], [{ ...ROW, bestMs: 5, medianMs: 5 }]);
  assertEquals(change!.ratio, 2);
  assertIncludes(describeChanges([change!], "old.json"), "2.00x");
  assertIncludes(describeChanges([change!], "old.json"), "1 faster, 0 slower, 0 within");
  assertIncludes(describeChanges([], "old.json"), "No row of this run is in old.json");
});

Deno.test("tables line up, and name the sharing mode only where there are several", () => {
  const lines = describeRows([ROW, { ...ROW, op: "a longer name", bestMs: 1234, gflops: null }]).split("\n");
  assertEquals(new Set(lines.map((line) => line.indexOf("M1"))).size, 2, "all rows but the head");
  assertIncludes(lines[2]!, "1.23 s");
  assert(!lines[0]!.includes("sharing"), "one mode");
  assertIncludes(describeRows([ROW, { ...ROW, sharing: "workgroup" }]), "workgroup");
});

Deno.test("formatMs() and median()", () => {
  assertEquals([0.01234, 3.456, 123.4, 1234].map(formatMs), ["0.012 ms", "3.46 ms", "123 ms", "1.23 s"]);
  assertEquals([median([3]), median([3, 1]), median([9, 1, 2])], [3, 2, 2]);
});

Deno.test("measure() leaves out the run that compiles, and runs three times at least", async () => {
  for (const clock of ["device", "cpu"] as const) {
    using gpu = await Gpu.open({ profile: clock === "device" });
    const [x, y] = [gpu.zeros([64, 64]), gpu.zeros([64, 64])];
    let runs = 0;
    const work = () => {
      runs++;
      addInto(gpu, x, y);
    };
    const first = await measure(gpu, work, { clock, budgetMs: 50 });
    assert(first.runs >= 3 && first.runs < runs, `${first.runs} of ${runs}`);
    assert(first.bestMs > 0 && first.bestMs <= first.medianMs, JSON.stringify(first));
    assert(first.compileMs !== null, "its kernel was new");
    const second = await measure(gpu, work, { clock, budgetMs: 50 });
    assertEquals(second.compileMs, null);
  }
});

Deno.test("what --json writes can be read, other files are refused", async () => {
  const file = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(file, JSON.stringify({ version: 1, rows: [ROW] }));
    assertEquals((await readResult(file)).rows, [ROW]);
    await Deno.writeTextFile(file, "{}");
    await assertThrows(() => readResult(file), "Cannot compare with", "bench --json");
    await Deno.writeTextFile(file, "no");
    await assertThrows(() => readResult(file), "Cannot compare with", file);
  } finally {
    await Deno.remove(file);
  }
  await assertThrows(() => readResult(file), "Cannot compare with", file);
});

Deno.test("lookAround() names commit, adapter and Deno, and goes on where git may not run", async () => {
  using gpu = await Gpu.open();
  const around = await lookAround(gpu.info, "cpu", ["--quick"]);
  assertEquals([around.adapter, around.deno, around.clock], [gpu.info.description, Deno.version.deno, "cpu"]);
  assertEquals(around.command, "deno task bench --quick");
  assert(/^([0-9a-f]{10,}|unknown)$/.test(around.commit), around.commit);
});
