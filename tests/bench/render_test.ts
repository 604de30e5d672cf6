import { type DeviceResults, GOALS } from "../../bench/goals.ts";
import type { GpuReport } from "../../bench/gpu/report.ts";
import { fill } from "../../bench/render.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";

const SURROUNDINGS = {
  commit: "0123456789",
  dirty: false,
  date: "2026-11-20T15:00:00.000Z",
  webgpu: "deno",
  adapter: "an adapter",
  vendor: "1",
  isSoftware: true,
  deno: "2.9.6",
  clock: "cpu",
  threads: "1",
  command: "deno task bench --quick",
};
const ROW = {
  suite: "matmul",
  op: "x W^T",
  shape: "M8192 N4096 K4096",
  sharing: "subgroup",
  runs: 3,
  medianMs: 10,
};
const KERNELS = {
  version: 1,
  kind: "kernels",
  surroundings: SURROUNDINGS,
  peaks: { gflops: 100, gbps: 10 },
  rows: [
    { ...ROW, format: "f32", bestMs: 9, gflops: 50, gbps: 1, share: 0.5, compileMs: null },
    { ...ROW, format: "nf4, x f32", bestMs: 6, gflops: 75, gbps: 1, share: 0.75, compileMs: 3 },
  ],
  steps: [],
};
const PEERS = {
  version: 1,
  kind: "peers",
  surroundings: SURROUNDINGS,
  contests: [{
    op: "matmul f32, x W^T",
    shape: "M1",
    scores: [
      { name: "longreach", bestMs: 1, medianMs: 1, gflops: 40, error: 0, ratio: 1, goal: null },
      { name: "jax-js 0.1.25", bestMs: 2.5, medianMs: 3, gflops: 16, error: 1e-7, ratio: 2.5, goal: 3 },
    ],
  }, {
    op: "matmul 4-bit, x W^T",
    shape: "M1",
    scores: [
      { name: "longreach", bestMs: 1, medianMs: 1, gflops: 40, error: 0, ratio: 1, goal: null },
      { name: "longreach, f32", bestMs: 2, medianMs: 2, gflops: 20, error: 0, ratio: 2, goal: 0.97 },
    ],
  }],
};

const score = { medianMs: 1, gflops: 1, error: 0 };
const MODELS = {
  version: 1,
  kind: "models",
  surroundings: SURROUNDINGS,
  contests: [{
    op: "prefill f32",
    shape: "demo, 256",
    scores: [
      { ...score, name: "longreach", bestMs: 10, tokensPerSecond: 25_600, ratio: 1, goal: null },
      { ...score, name: "onnxruntime-web 1", bestMs: 25, tokensPerSecond: 10_240, ratio: 2.5, goal: 2 },
    ],
  }, {
    op: "decode 4-bit",
    shape: "demo, after 256",
    scores: [
      { ...score, name: "longreach", bestMs: 10, tokensPerSecond: 1600, ratio: 1, goal: null },
      { ...score, name: "onnxruntime-web 1", bestMs: 15, tokensPerSecond: 1066.7, ratio: 1.5, goal: 2 },
    ],
  }],
};

function withResults(software: object) {
  return { software: software as DeviceResults, gpu: {}, gpus: [] as GpuReport[] };
}

Deno.test("every goal is a row, and says where it was not measured", () => {
  const page = fill("<!-- table: goals -->\nold\n<!-- end -->", withResults({}));
  const rows = page.split("\n").filter((line) => line.startsWith("| ")).slice(2);
  assertEquals(rows.length, GOALS.length);
  assert(rows.every((row) => row.includes("not measured")), page);
  assert(!page.includes("old"), page);
});

Deno.test("figures come from the results, and are held against the goals", () => {
  const results = withResults({ peers: PEERS });
  const page = fill("<!-- table: goals -->\n<!-- end -->", results);
  const line = (text: string) => page.split("\n").find((each) => each.includes(text))!;
  assertIncludes(line("NF4 matmul against our f32 |"), "M1: 40.0 GFLOP/s | 20.0 GFLOP/s | 2.0x |  | met");
  assertIncludes(
    line("against jax-js | software | 3x"),
    "M1: 40.0 GFLOP/s | 16.0 GFLOP/s | 2.5x |  | **missed**",
  );
  assertIncludes(line("NF4 matmul against our f32 |"), "0123456789, 2026-11-20");
});

Deno.test("models are held against the peer by tokens a second, reading and writing", () => {
  const page = fill(
    "<!-- table: goals -->\n<!-- end -->\n<!-- table: models software -->\n<!-- end -->",
    withResults({ models: MODELS }),
  );
  const line = (text: string) => page.split("\n").find((each) => each.includes(text))!;
  assertIncludes(line("(prefill)"), "2x or more | demo, 256, f32: 25600.0 | 10240.0 | 2.5x |  | met");
  assertIncludes(line("(decode)"), "demo, after 256, 4-bit: 1600.0 | 1066.7 | 1.5x |  | **missed**");
  assertIncludes(page, "| by | best | tokens/s | error |");
  assertIncludes(line("| decode 4-bit"), "| demo, after 256 | longreach | 10.00 ms | 1600.0 | 0e+0 |  |  |");
});

Deno.test("a table says how it was made, one without results that it was not, others stay", () => {
  const text = "before\n<!-- table: kernels software -->\n<!-- end -->\nbetween\n" +
    "<!-- table: step software -->\n<!-- end -->\nafter\n";
  const page = fill(text, withResults({ kernels: KERNELS }));
  assertIncludes(
    page,
    "`deno task bench --quick`, LP_NUM_THREADS=1; an adapter; Deno 2.9.6; commit 0123456789;",
  );
  assertIncludes(page, "| x W^T | M8192 N4096 K4096 | nf4, x f32 | 6.00 ms |");
  assertIncludes(page, "<!-- table: step software -->\n\nNot measured.");
  assert(/^before\n[\s\S]*\nbetween\n[\s\S]*\nafter\n$/.test(page), page);
  assertEquals(fill(page, withResults({ kernels: KERNELS })), page);
});

Deno.test("every GPU's last report is held against the goals, and makers without one are named", () => {
  const report = {
    adapter: "NVIDIA X",
    commit: "0123456789",
    date: "2026-11-26T00:00:00.000Z",
    deno: "2.9.6",
    command: "deno task gpu",
    figures: {
      "deno | f32 probe | TFLOP/s": 10,
      "deno | x W^T M8192 N4096 K4096 bf16 | TFLOP/s": 8,
    },
  } as unknown as GpuReport;
  const results = { ...withResults({}), gpus: [report] };
  const goals = fill("<!-- table: gpu goals -->\n<!-- end -->", results);
  assertIncludes(
    goals,
    "| x W^T, bf16, M8192 N4096 K4096 | NVIDIA X | 75 % or more of the f32 probe | 80.0 % | met | 0123456789, 2026-11-26 |",
  );
  for (const maker of ["Apple", "AMD", "Intel"]) {
    assertIncludes(goals, `| all of these | ${maker} |  | not measured |  | \`deno task gpu\` there |`);
  }
  const figures = fill("<!-- table: gpu figures -->\n<!-- end -->", results);
  assertIncludes(figures, "| x W^T M8192 N4096 K4096 bf16 | Deno | 8 TFLOP/s |");
  assertIncludes(fill("<!-- table: gpu figures -->\n<!-- end -->", withResults({})), "Not measured.");
});

Deno.test("a table that nobody knows is refused", async () => {
  await assertThrows(
    () => fill("<!-- table: kernel software -->\n<!-- end -->", withResults({})),
    "kernel software",
  );
});
