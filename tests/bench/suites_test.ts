import { probe } from "../../bench/probe.ts";
import { attentionCases, attentionPair } from "../../bench/suites/attention.ts";
import type { Case } from "../../bench/suites/case.ts";
import { productCases } from "../../bench/suites/products.ts";
import { judgeS2, s2Cases } from "../../bench/suites/s2.ts";
import { smallOpCases } from "../../bench/suites/small_ops.ts";
import { rowName, rowOf } from "../../bench/result.ts";
import { selectCases } from "../../bench/run_cases.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";

const SAMPLE = { runs: 3, bestMs: 1, medianMs: 1, compileMs: null };
const PEAKS = { gflops: 1, gbps: 1 };

Deno.test("every case of every suite has a name of its own", () => {
  for (const extent of ["quick", "all"] as const) {
    const cases = [
      ...productCases(extent),
      ...attentionCases(extent),
      ...smallOpCases(extent),
      ...s2Cases(extent),
    ];
    const names = cases.map((each) => rowName(rowOf(each, "subgroup", SAMPLE, PEAKS)));
    assertEquals(names.filter((name, i) => names.indexOf(name) !== i), []);
    for (const { op, bytes, flops, memory } of cases) {
      assert(bytes > 0 && flops >= 0 && memory > 0 && Number.isFinite(flops + bytes + memory), op);
    }
  }
});

Deno.test("the shapes that goals name are there", () => {
  const shapes = new Set(productCases("all").map(({ shape }) => shape));
  for (const [N, K] of [[4096, 4096], [11008, 4096], [14336, 4096], [32000, 4096]]) {
    for (const M of [1, 32, 512, 8192]) assert(shapes.has(`M${M} N${N} K${K}`), `${M} ${N} ${K}`);
  }
  const lengths = new Set(attentionCases("all").map(({ shape }) => /T\d+/.exec(shape)![0]));
  assertEquals([...lengths], ["T1024", "T4096", "T8192", "T16384", "T32768", "T65536"]);
});

Deno.test("attention's operations are those of the pairs that see each other", () => {
  const shape = { heads: 4, kvHeads: 2, headDim: 32, tokens: 64, format: "f32" } as const;
  const flops = (groupSize?: number) =>
    attentionPair({ ...shape, ...(groupSize ? { groupSize } : {}) }).map((each) => each.flops);
  const pairs = 64 * 65 / 2;
  assertEquals(flops(), [4 * 32 * 4 * pairs, 10 * 32 * 4 * pairs]);
  // Two heads in four groups of 16; two shifted by 8: half a group, three whole ones, half a group.
  const plain = 4 * 16 * 17 / 2;
  const shifted = 3 * 16 * 17 / 2 + 2 * 8 * 9 / 2;
  assertEquals(flops(16)[0], 4 * 32 * 2 * (plain + shifted));
});

Deno.test("small cases of every op run, and give all their memory back", async () => {
  using gpu = await Gpu.open({ poison: true });
  const isSmall = ({ op, shape, format, suite }: Case) =>
    suite === "matmul"
      ? /^M32 N(1024|32) K(1024|32)$/.test(shape) && !format.endsWith("bf16")
      : suite === "attention"
      ? /D64 T1024 G/.test(shape)
      : format === "f32" || op === "cast to f32";
  const cases = [...productCases("quick"), ...attentionCases("quick"), ...smallOpCases("quick")].filter(
    isSmall,
  );
  assert(cases.length > 20, `${cases.length} cases`);
  for (const each of cases) {
    const before = gpu.memory.liveBytes;
    const work = each.prepare(gpu);
    work.run();
    work.run();
    work.free();
    assertEquals(gpu.memory.liveBytes, before, `${each.op} ${each.shape} ${each.format}`);
    gpu.memory.trim();
  }
  await gpu.settle();
});

Deno.test("the probes reach something, by either clock", async () => {
  for (const clock of ["device", "cpu"] as const) {
    using gpu = await Gpu.open({ profile: true });
    const before = gpu.memory.liveBytes;
    const { gflops, gbps } = await probe(gpu, { clock, budgetMs: 1 });
    assert(gflops > 1 && gflops < 1e6 && gbps > 0.1 && gbps < 1e5, `${gflops} GFLOP/s, ${gbps} GB/s`);
    assertEquals(gpu.memory.liveBytes, before);
  }
});

Deno.test("S2 is judged by time per token and against full attention", () => {
  const rows = s2Cases("quick").map((each) => {
    const tokens = Number(/T(\d+)/.exec(each.shape)![1]);
    const ms = each.suite === "full and s2" ? (each.shape.includes("G") ? 25 : 100) : tokens / 1000;
    return rowOf(each, "subgroup", { ...SAMPLE, bestMs: ms }, PEAKS);
  });
  const flat = judgeS2(rows).join("\n");
  assertIncludes(flat, "0.0 % apart (goal at most 10 %: met)");
  assertIncludes(flat, "25.0 % of the time (goal at most 30 %: met)");
  const steep = rows.map((row) => row.shape.includes("T65536") ? { ...row, bestMs: 100 } : row);
  assertIncludes(judgeS2(steep).join("\n"), "missed");
});

Deno.test("a filter finds suite, op, shape and format", () => {
  const cases = [...productCases("quick"), ...attentionCases("quick"), ...smallOpCases("quick")];
  assertEquals(selectCases(cases, undefined).length, cases.length);
  const filters: [RegExp, (each: Case) => boolean][] = [
    [/^attention /, ({ suite }) => suite === "attention"],
    [/ dy W /, ({ op }) => op === "dy W"],
    [/M32 N1024/, ({ shape }) => shape.startsWith("M32 N1024")],
    [/ BF16$/i, ({ format }) => format.endsWith("bf16")],
  ];
  for (const [filter, isWanted] of filters) {
    const [found, wanted] = [selectCases(cases, filter), cases.filter(isWanted)];
    assert(wanted.length > 0 && wanted.length < cases.length, `${filter} tells nothing apart`);
    assert(found.length === wanted.length && found.every((each, i) => each === wanted[i]), `${filter}`);
  }
  assertEquals(selectCases(cases, /nothing/), []);
});
