import { compareFigures, figuresOfBench, figuresOfFit, nameOf, nameOfRow } from "../../bench/gpu/figures.ts";
import { GPU_GOALS, judge } from "../../bench/gpu/goals.ts";
import { readGpuOptions } from "../../bench/gpu/main.ts";
import { PARTS, TOPICS, USUAL } from "../../bench/gpu/parts.ts";
import { describeReport, folderOf, type GpuReport, lastReport } from "../../bench/gpu/report.ts";
import { suspectsOf } from "../../bench/gpu/suspects.ts";
import type { UnitsResult } from "../../bench/gpu/units.ts";
import type { BenchResult } from "../../bench/result.ts";
import { selectCases } from "../../bench/run_cases.ts";
import { attentionCases } from "../../bench/suites/attention.ts";
import { productCases } from "../../bench/suites/products.ts";
import { s2Cases } from "../../bench/suites/s2.ts";
import { Gpu } from "../../kernels/gpu.ts";
import type { Verdict } from "../../kernels/refusal.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";

/** Asserts that every one of the pieces is there. */
function assertHas(text: string, ...pieces: string[]): void {
  for (const piece of pieces) assertIncludes(text, piece);
}

const ROOT = decodeURI(new URL("../../", import.meta.url).pathname);

const REPORT: GpuReport = {
  version: 1,
  kind: "gpu",
  adapter: "NVIDIA H100 80GB HBM3 (driver 1)",
  isSoftware: false,
  platform: "linux x86_64",
  deno: "2.9.6",
  commit: "0123456789",
  dirty: false,
  date: "2026-11-26T12:30:00.000Z",
  command: "deno task gpu",
  parts: [{
    name: "tests",
    topic: "tests",
    webgpu: "dawn",
    command: "",
    status: "ok",
    seconds: 3,
    output: "",
  }],
  units: [],
  suspects: ["no suspect"],
  figures: { "deno | f32 probe | TFLOP/s": 64, "deno | step of 8192 tokens | s": 12.7 },
  goals: [],
};

Deno.test("the command takes parts and seconds, and refuses what it does not know by name", async () => {
  assertEquals(readGpuOptions([]), { topics: USUAL, seconds: 240, json: undefined });
  assert(!USUAL.includes("toggles"), "experiments are asked for by name");
  assertEquals(readGpuOptions(["--parts", "doctor,toggles", "--seconds", "9", "--json", "f"]), {
    topics: ["doctor", "toggles"],
    seconds: 9,
    json: "f",
  });
  assertEquals(readGpuOptions(["--help"]), null);
  await assertThrows(() => readGpuOptions(["--parts", "doctor,all"]), "--parts: must be of doctor", '"all"');
  await assertThrows(() => readGpuOptions(["--seconds", "0"]), "--seconds", '"0"');
  await assertThrows(() => readGpuOptions(["--all"]), "--all");
});

Deno.test("every part has a name of its own on its WebGPU, a topic that can be asked for, and a script", async () => {
  const names = PARTS.map(({ name, webgpu }) => `${name} ${webgpu}`);
  assertEquals(new Set(names).size, names.length);
  assertEquals(new Set(PARTS.map(({ topic }) => topic)), new Set(TOPICS));
  for (const { script } of PARTS) assert((await Deno.stat(ROOT + script)).isFile, script);
  // Doctor comes first: it says whether there is an adapter.
  assertEquals(PARTS.slice(0, 2).map(({ topic }) => topic), ["doctor", "doctor"]);
});

Deno.test("figures of a bench are held against the goals; those of another adapter are left out", () => {
  const row = {
    suite: "",
    sharing: "workgroup",
    runs: 3,
    medianMs: 1,
    bestMs: 1,
    compileMs: null,
    share: 0,
  } as const;
  const bench = (gflops: number): Pick<BenchResult, "peaks" | "rows" | "steps"> => ({
    peaks: { gflops: 64_000, gbps: 3000 },
    rows: [
      { ...row, op: "x W^T", shape: "M8192 N4096 K4096", format: "bf16", gflops, gbps: 10 },
      {
        ...row,
        op: "x W^T",
        shape: "M8192 N4096 K4096",
        format: "nf4, x bf16",
        gflops: 0.93 * gflops,
        gbps: 10,
      },
      { ...row, op: "x W^T", shape: "M8192 N64 K4096", format: "LoRA, x bf16", gflops: 1, gbps: 1600 },
    ],
    steps: [],
  });
  const figures = {
    ...figuresOfBench("deno", bench(50_000) as BenchResult),
    ...figuresOfBench("dawn", bench(299_000) as BenchResult),
    [nameOf("deno", "step of 8192 tokens", "s")]: 8,
  };
  const judged = judge(figures, REPORT.adapter);
  assertEquals(judged.length, GPU_GOALS.length);
  const of = (what: string) => {
    const { ours, verdict } = judged.find((each) => each.what === what)!;
    return [ours, verdict];
  };
  assertEquals(of("x W^T, bf16, M8192 N4096 K4096"), ["78.1 %", "met"]);
  assertEquals(of("x W^T, NF4 with bf16 x, of bf16 weights' rate"), ["93.0 %", "missed"]);
  assertEquals(of("NF4 on matrix units, of bf16 weights' rate"), ["93.0 %", "met"]);
  assertEquals(of("LoRA's x W^T M8192 N64 K4096"), ["53.3 %", "met"]);
  assertEquals(of("x W^T, bf16, matrix units"), ["299 TFLOP/s", "missed"]);
  assertEquals(
    judged.filter(({ what }) => what === "Llama-2-7B step, 8192 tokens").map(({ verdict }) => verdict),
    ["", "met"],
  );
  assertEquals(of("dispatches of that step"), ["not measured", ""]);
  const others = judge(figures, "another");
  assert(
    others.length < judged.length && !others.some(({ goal }) => /TFLOP\/s or more/.test(goal)),
    JSON.stringify(others),
  );
});

Deno.test("goals read rows that the bench has, and that the parts ask for", () => {
  const cases = [...productCases("all"), ...attentionCases("all"), ...s2Cases("all")];
  const filterOf = (topic: string) => {
    const { words } = PARTS.find((part) => part.topic === topic)!;
    return new RegExp(words[words.indexOf("--filter") + 1]!, "i");
  };
  const measured = new Set(
    (["kernels", "s2"] as const).flatMap((topic) => selectCases(cases, filterOf(topic))).map(nameOfRow),
  );
  const others =
    /^(step of (8192|2048) tokens|f32 probe$|memory probe$|an answer, |one token llama2-7b, after 1024 nf4, x bf16, cache bf16$)/;
  const rows: string[] = [];
  for (const { read } of GPU_GOALS) {
    read((_, what) => {
      if (!others.test(what)) rows.push(what);
      return 1;
    });
  }
  assert(rows.length > 10, `${rows.length} rows`);
  assertEquals(rows.filter((row) => !measured.has(row)), []);
});

Deno.test("figures are compared so that more is better, whatever the unit", () => {
  const before = { "a | x | s": 2, "a | y | TFLOP/s": 10, "a | z | GiB": 1, "a | gone | s": 1 };
  const changes = compareFigures(before, {
    "a | x | s": 1,
    "a | y | TFLOP/s": 5,
    "a | z | GiB": 2,
    "a | new | s": 1,
  });
  assertEquals(changes.map(({ name, ratio }) => [name, ratio]), [["a | x | s", 2], ["a | y | TFLOP/s", 0.5], [
    "a | z | GiB",
    0.5,
  ]]);
  assertEquals(
    figuresOfFit("deno", {
      kind: "fit",
      plans: [
        { shape: "a", tokens: 8, plannedBytes: 2 ** 30, fits: true },
        { shape: "b", tokens: 8, plannedBytes: 2 ** 31, fits: false },
      ],
    }),
    { "deno | largest plan that fits: a, 8 tokens | GiB given": 1 },
  );
});

const verdict = (kernel: string, ...parts: string[]): Verdict => ({
  kernel,
  risks: ["attention by matrices"],
  ok: parts.length === 0,
  error: parts.length === 0 ? 0 : 1,
  tolerance: 0,
  failure: null,
  wrong: parts.map((part) => ({ part, count: 1, of: 4, first: 2 })),
});
const unitsOf = (...verdicts: Verdict[]): UnitsResult => ({
  kind: "units",
  adapter: "a",
  unit: "16x16x16 on 32 lanes",
  verdicts,
});

Deno.test("what is wrong with matrix units is named by the trials, and by the toggles that help", () => {
  const suspects = (...verdicts: Verdict[]) => suspectsOf([{ toggles: "", units: unitsOf(...verdicts) }]);
  assertHas(suspects(verdict("matrix units, reset"))[0]!, "no suspect");
  assertHas(suspectsOf([])[0]!, "not tried");
  assertHas(suspectsOf([{ toggles: "", units: { ...unitsOf(), unit: null } }])[0]!, "no matrix units");
  const loads = "matrix units, loads, f16 in workgroup memory, places known at run time";
  const known = "matrix units, loads, f16 in workgroup memory, places known to the compiler";
  const [only] = suspects(verdict(loads, "Right by rows, lines of 16", "Right by rows, lines of 24"));
  assertHas(only!, "(a) Right loaded by rows", "run time alone");
  const [both] = suspects(
    verdict(loads, "Right by rows, lines of 16"),
    verdict(known, "Right by rows, lines of 16"),
  );
  assert(!both!.includes("run time alone"), both!);
  assertHas(suspects(verdict(loads, "Left by rows, lines of 24"))[0]!, "(e)", "lines of 24");
  for (
    const [topic, letter] of [["overwrite", "b"], ["f16 stores", "c'"], ["reset", "d"], ["sums", "f"], [
      "lanes",
      "g",
    ]]
  ) {
    assertEquals(suspects(verdict(`matrix units, ${topic}`, "x")).map((line) => line.split(" ")[0]), [
      `(${letter})`,
    ]);
  }
  const wrong = verdict("attention forward 64 16-bit matrix 64x32", "");
  const right = { ...wrong, ok: true, wrong: [] };
  assertHas(suspects(wrong)[0]!, "none of (a) to (f)");
  const lines = suspectsOf([
    { toggles: "", units: unitsOf(wrong) },
    { toggles: "-use_spirv_reconvergence_mode", units: unitsOf(right) },
    { toggles: "disable_robustness", units: unitsOf(wrong) },
  ]);
  assertHas(lines.join("\n"), "(c)", "-use_spirv_reconvergence_mode");
  assert(!lines.join("\n").includes("disable_robustness"), lines.join("\n"));
});

Deno.test("reports are kept by adapter, and the last one is found", async () => {
  assert(folderOf(REPORT).endsWith("/bench/results/nvidia-h100-80gb-hbm3"), folderOf(REPORT));
  assert(folderOf({ adapter: "llvmpipe (LLVM 15)", isSoftware: true }).endsWith("/software"), "software");
  assert(folderOf({ adapter: "../..", isSoftware: false }).endsWith("/unnamed"), "no path of its own");
  await withFolder(async (folder) => {
    assertEquals(await lastReport(`${folder}/none`), undefined);
    for (const [date, name] of [["2026-11-25", "old"], ["2026-11-26", "new"]]) {
      await Deno.writeTextFile(
        `${folder}/${date}T10-00-0123456789.json`,
        JSON.stringify({ ...REPORT, command: name }),
      );
    }
    await Deno.writeTextFile(`${folder}/kernels.json`, "{}");
    assertEquals((await lastReport(folder))!.command, "new");
  });
  const now = { ...REPORT, figures: { "deno | step of 8192 tokens | s": 6.35 } };
  assertHas(
    describeReport(now, REPORT),
    "against 2026-11-26, 0123456789",
    "2.00x",
    "no suspect",
    "tests",
  );
});

Deno.test("the command runs a part with what time it has, names what it left out, and writes the report", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/gpu.json`;
    const run = async (...words: string[]) => {
      const { code, stdout, stderr } = await new Deno.Command("deno", {
        args: ["run", "--allow-all", "--no-check", `${ROOT}bench/gpu/main.ts`, ...words, "--json", file],
        env: { NO_COLOR: "1" },
      }).output();
      const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
      const report: GpuReport = JSON.parse(await Deno.readTextFile(file));
      return { code, out: out!, err: err!, report };
    };
    const { code, out, err, report } = await run("--parts", "memory", "--seconds", "120");
    assertEquals([code, report.parts.map(({ topic, status }) => `${topic} ${status}`)], [0, [
      "doctor ok",
      "memory ok",
    ]], err);
    assert(
      Object.keys(report.figures).some((name) => name.includes("largest plan that fits")),
      JSON.stringify(report),
    );
    using gpu = await Gpu.open();
    assertEquals([report.adapter, report.isSoftware], [gpu.info.description, gpu.info.isSoftware]);
    assertHas(out, "not measured", file);
    const hurried = await run("--parts", "memory", "--seconds", "1");
    assertEquals(hurried.report.parts.map(({ status, output }) => [status, output]), [
      ["left out", "no time was left"],
      ["left out", "no time was left"],
    ]);
  });
});
