/**
 * Fills the tables of docs/performance.md and of the pages it links from bench/results/<device>/<kind>.json,
 * and from the last check of each GPU: `deno task bench:report`. A table is what stands between `<!-- table: NAME -->` and `<!-- end -->`.
 */
import { formatBytes, formatMs } from "../text.ts";
import { type Device, type DeviceResults, type Figure, GOALS, type Kind, type PeersResult } from "./goals.ts";
import { judge, number } from "./gpu/goals.ts";
import { type GpuReport, lastReport } from "./gpu/report.ts";
import type { Score } from "./peers/contest.ts";
import { LOAD_HEAD, loadRows } from "./loading.ts";
import { memoryTables } from "./memory.ts";
import type { AnyResult, BenchResult, LoadResult, MemoryResult, Surroundings } from "./result.ts";

const PAGES = ["performance.md", "performance/software.md", "performance/gpu.md"]
  .map((name) => new URL(`../docs/${name}`, import.meta.url));
const RESULTS = new URL("./results/", import.meta.url);

const DEVICES: readonly Device[] = ["software", "gpu"];
const KINDS: readonly Kind[] = ["kernels", "peers", "models", "s2", "step", "decode", "memory", "load"];
const NAMES: Record<Device, string> = { software: "software", gpu: "GPU" };
/** Makers of GPUs that are named where none of theirs was measured. */
const MAKERS = ["Apple", "AMD", "Intel"] as const;

/** All that was measured. */
interface Results extends Record<Device, DeviceResults> {
  /** The last check of each GPU. */
  readonly gpus: readonly GpuReport[];
}

/** The page with its tables made anew. @throws {Error} if a table has a name that nobody knows */
export function fill(page: string, results: Results): string {
  return page.replace(
    /(<!-- table: ([\w ]+) -->\n)[\s\S]*?(<!-- end -->)/g,
    (_, start, name, end) => `${start}\n${tableOf(name, results)}\n\n${end}`,
  );
}

function tableOf(name: string, results: Results): string {
  if (name === "goals") return goalsTable(results);
  if (name === "gpu goals") return gpuGoalsTable(results.gpus);
  if (name === "gpu figures") return gpuFiguresTable(results.gpus);
  const [kind, device] = name.split(" ") as [Kind, Device];
  const result = results[device]?.[kind];
  if (!KINDS.includes(kind) || !DEVICES.includes(device)) throw new Error(`No table is called "${name}"`);
  if (!result) return "Not measured.";
  return `${captionOf(result.surroundings)}\n\n${BODIES[kind](result as never)}`;
}

function captionOf(around: Surroundings): string {
  const threads = around.threads === null ? "" : `, LP_NUM_THREADS=${around.threads}`;
  return `\`${around.command}\`${threads}; ${around.adapter}; Deno ${around.deno}; commit ${around.commit}` +
    `${around.dirty ? " with changes" : ""}; ${around.date.slice(0, 16).replace("T", " ")} UTC`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const show = (cell: string) => cell === "missed" ? "**missed**" : cell.replaceAll("|", "\\|");
  const line = (cells: readonly string[]) => `| ${cells.map(show).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

/** A row for each goal, or for each shape of it. */
function goalsTable(results: Results): string {
  const rows = GOALS.flatMap(({ device, kind, what, goal, read }) => {
    const result = results[device][kind];
    const figures = result ? read(results[device] as Required<DeviceResults>) : [];
    if (!result || figures.length === 0) {
      return [[what, NAMES[device], goal, "not measured", "", "", "", "", ""]];
    }
    const { commit, date } = result.surroundings;
    return figures.map((figure: Figure) => [
      what,
      NAMES[device],
      goal,
      figure.ours,
      figure.peer ?? "",
      figure.ratio ?? "",
      figure.share === undefined ? "" : percent(figure.share),
      figure.isMet === null ? "" : figure.isMet ? "met" : "missed",
      `${commit}, ${date.slice(0, 10)}`,
    ]);
  });
  return table(["figure", "adapter", "goal", "ours", "peer", "ratio", "of peak", "", "commit, date"], rows);
}

/** The goals of each GPU that was measured, and which makers' were not. */
function gpuGoalsTable(gpus: readonly GpuReport[]): string {
  const rows = gpus.flatMap((report) =>
    judge(report.figures, report.adapter).map(({ what, goal, ours, verdict }) => [
      what,
      report.adapter,
      goal,
      ours,
      verdict,
      `${report.commit}, ${report.date.slice(0, 10)}`,
    ])
  );
  const unknown = MAKERS.filter((maker) => !gpus.some(({ adapter }) => new RegExp(maker, "i").test(adapter)));
  const missing = unknown.map((
    maker,
  ) => ["all of these", maker, "", "not measured", "", "`deno task gpu` there"]);
  return table(["figure", "adapter", "goal", "ours", "", "commit, date"], [...rows, ...missing]);
}

/** All figures of each GPU's last report. */
function gpuFiguresTable(gpus: readonly GpuReport[]): string {
  if (gpus.length === 0) return "Not measured.";
  return gpus.map((report) => {
    const { adapter, deno, commit, dirty, date, command, source, figures } = report;
    const rows = Object.entries(figures).map(([name, value]) => {
      const [webgpu, what, unit] = name.split(" | ");
      return [what!, webgpu === "dawn" ? "Dawn" : "Deno", `${number(value)} ${unit}`];
    });
    const origin = `\`${command}\`; ${adapter}; Deno ${deno}; commit ${commit}${
      dirty ? " with changes" : ""
    }; ${date.slice(0, 10)}${source === undefined ? "" : `; ${source}`}`;
    return `${origin}\n\n${table(["figure", "WebGPU", "value"], rows)}`;
  }).join("\n\n");
}

const BODIES: Record<Kind, (result: never) => string> = {
  kernels: timesTable,
  s2: timesTable,
  decode: timesTable,
  step: stepTable,
  peers: peersTable,
  models: modelsTable,
  memory: memoryTable,
  load: (report: LoadResult) => table(LOAD_HEAD, loadRows(report)),
};

function timesTable({ rows, peaks, surroundings }: BenchResult): string {
  const clock = surroundings.clock === "cpu" ? "processor time" : "pass timestamps";
  const lines = rows.map((row) => [
    row.op,
    row.shape,
    row.format,
    formatMs(row.bestMs),
    formatMs(row.medianMs),
    row.gflops?.toFixed(1) ?? "",
    row.gbps.toFixed(1),
    percent(row.share),
    row.compileMs === null ? "" : formatMs(row.compileMs),
  ]);
  const head = ["op", "shape", "format", "best", "median", "GFLOP/s", "GB/s", "of peak", "compile"];
  return `By ${clock}; the probes reach ${peaks.gflops.toFixed(1)} GFLOP/s and ${
    peaks.gbps.toFixed(1)
  } GB/s.\n\n` +
    table(head, lines);
}

function stepTable({ steps, peaks }: BenchResult): string {
  return steps.map((step) => {
    const facts = [
      ["time", `${formatMs(step.wallMs)}, median ${formatMs(step.medianMs)} of ${step.steps}`],
      ["first step longer by", `${formatMs(step.compileMs)}, for ${step.kernels} kernels`],
      ["products and attention", `${percent(step.productsAndAttention)} of the device's time`],
      ["on the device", `${percent(step.onDevice)} of the time on the clock`],
      [
        "arithmetic",
        `${step.gflops.toFixed(1)} GFLOP/s, ${percent(step.gflops / peaks.gflops)} of the probe`,
      ],
      ["memory", `${formatBytes(step.peakBytes)}, planned ${formatBytes(step.plannedBytes)}`],
    ];
    const kernels = step.byKernel.map(({ kernel, dispatches, ms }) => [
      kernel,
      String(dispatches),
      formatMs(ms),
      percent(ms / step.deviceMs),
    ]);
    return `${table([step.name, ""], facts)}\n\n${
      table(["kernel", "dispatches", "time", "of device"], kernels)
    }`;
  }).join("\n\n");
}

function peersTable(result: PeersResult): string {
  return contestsTable(result, "GFLOP/s", ({ gflops }) => gflops.toFixed(1));
}

function modelsTable(result: PeersResult): string {
  return contestsTable(result, "tokens/s", ({ tokensPerSecond }) => tokensPerSecond!.toFixed(1));
}

function contestsTable({ contests }: PeersResult, unit: string, rate: (score: Score) => string): string {
  const rows = contests.flatMap(({ op, shape, scores }) =>
    scores.map((score, i) => [
      i === 0 ? op : "",
      i === 0 ? shape : "",
      score.name,
      formatMs(score.bestMs),
      rate(score),
      score.error.toExponential(0),
      i === 0 ? "" : score.ratio === null ? "wrong values" : `${score.ratio.toFixed(1)}x`,
      score.goal === null ? "" : `${score.goal}x`,
    ])
  );
  return table(["contest", "shape", "by", "best", unit, "error", "ours is", "goal"], rows);
}

function memoryTable(result: MemoryResult): string {
  return Object.values(memoryTables(result)).map(([head, ...rows]) => table(head!, rows)).join("\n\n");
}

function percent(share: number): string {
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}

async function readResults(): Promise<Results> {
  const results: Record<Device, Partial<Record<Kind, AnyResult>>> = { software: {}, gpu: {} };
  for (const device of DEVICES) {
    for (const kind of KINDS) {
      try {
        results[device][kind] = JSON.parse(
          await Deno.readTextFile(new URL(`${device}/${kind}.json`, RESULTS)),
        );
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
  }
  const folders = (await Array.fromAsync(Deno.readDir(RESULTS))).filter(({ isDirectory }) => isDirectory)
    .map(({ name }) => name).sort();
  const last = await Promise.all(
    folders.map((name) => lastReport(decodeURI(new URL(name, RESULTS).pathname))),
  );
  const gpus = last.filter((report) => report !== undefined && !report.isSoftware);
  return { ...results as Record<Device, DeviceResults>, gpus: gpus as GpuReport[] };
}

if (import.meta.main) {
  const results = await readResults();
  for (const page of PAGES) await Deno.writeTextFile(page, fill(await Deno.readTextFile(page), results));
}
