/** The report of a check: its form as JSON, where reports are kept, and the tables that it shows. */
import { formatTable } from "../../text.ts";
import type { WebGpu } from "../../kernels/device.ts";
import { compareFigures, type Figures } from "./figures.ts";
import { type Judged, number } from "./goals.ts";
import type { UnitsRun } from "./suspects.ts";
import type { Topic } from "./parts.ts";

const RESULTS = decodeURI(new URL("../results/", import.meta.url).pathname);

/** How a part ended. */
export interface PartReport {
  readonly name: string;
  readonly topic: Topic;
  readonly webgpu: WebGpu;
  readonly command: string;
  readonly status: "ok" | "failed" | "out of time" | "left out";
  readonly seconds: number;
  /** The end of its output. */
  readonly output: string;
}

/** The file that a check writes. */
export interface GpuReport {
  readonly version: 1;
  readonly kind: "gpu";
  readonly adapter: string;
  readonly isSoftware: boolean;
  readonly platform: string;
  readonly deno: string;
  readonly commit: string;
  readonly dirty: boolean | null;
  /** ISO 8601, UTC. */
  readonly date: string;
  readonly command: string;
  /** Where figures come from that this command did not measure. */
  readonly source?: string;
  readonly parts: readonly PartReport[];
  readonly units: readonly UnitsRun[];
  readonly suspects: readonly string[];
  readonly figures: Figures;
  readonly goals: readonly Judged[];
}

/** Folder of an adapter's reports. */
export function folderOf({ adapter, isSoftware }: Pick<GpuReport, "adapter" | "isSoftware">): string {
  const name = isSoftware
    ? "software"
    : adapter.split(/[(:;]/)[0]!.trim().toLowerCase().replaceAll(/[^a-z0-9]+/g, "-");
  return `${RESULTS}${name.replaceAll(/^-|-$/g, "") || "unnamed"}`;
}

/** Name of a report's file: they sort by date. */
export function fileNameOf({ date, commit }: Pick<GpuReport, "date" | "commit">): string {
  return `${date.slice(0, 16).replaceAll(":", "-")}-${commit.slice(0, 10)}.json`;
}

/** The last report kept of an adapter; `undefined` if there is none. */
export async function lastReport(folder: string): Promise<GpuReport | undefined> {
  const names: string[] = [];
  try {
    for await (const { name } of Deno.readDir(folder)) {
      if (/^\d{4}-\d\d-\d\d.*\.json$/.test(name)) names.push(name);
    }
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  const last = names.sort().at(-1);
  return last === undefined ? undefined : JSON.parse(await Deno.readTextFile(`${folder}/${last}`));
}

/** Parts, suspects, goals and changes, as text. */
export function describeReport(report: GpuReport, last: GpuReport | undefined): string {
  const { adapter, parts, suspects, goals, figures, commit, date } = report;
  const tables = [
    formatTable([
      ["part", "on", "", "seconds"],
      ...parts.map(({ name, webgpu, status, seconds }) => [name, webgpu, status, seconds.toFixed(0)]),
    ], "lllr"),
    ["Matrix units:", ...suspects].join("\n"),
    formatTable([
      ["goal", "", "here", ""],
      ...goals.map(({ what, goal, ours, verdict }) => [what, goal, ours, verdict]),
    ], "llrl"),
  ];
  if (last) {
    const changes = compareFigures(last.figures, figures);
    tables.push(
      changes.length === 0
        ? `No figure is in the last report (${last.date.slice(0, 10)}, ${last.commit}) too`
        : formatTable([
          [`against ${last.date.slice(0, 10)}, ${last.commit}`, "before", "now", "as good"],
          ...changes.map((
            { name, before, now, ratio },
          ) => [name, number(before), number(now), `${ratio.toFixed(2)}x`]),
        ], "lrrr"),
    );
  }
  return [...tables, `${adapter}; commit ${commit}; ${date}`].join("\n\n");
}
