/** A grid of trials for people: heat map, page. */
import config from "../deno.json" with { type: "json" };
import { dateText, escape, grid, page, type Row, table } from "../report/page.ts";
import { type HeatMap, heatMap } from "../report/heat_map.ts";
import { formatCount, formatSeconds } from "../text.ts";
import type { Cell, GridResult } from "./trials.ts";

/** Wrong answers that a page shows. */
const MOST_SHOWN = 12;

/** A score of the grid, in words. */
export interface Measure {
  /** A heading: `Passkey retrieval`. */
  readonly title: string;
  /** Name of a cell's number: `keys found`. */
  readonly score: string;
  readonly value: "accuracy" | "similarity";
}

/** The cells of a grid as a picture: lengths from left to right, depths from top to bottom. */
export function gridPicture(
  result: GridResult,
  { title, score, value }: Measure,
  size: Pick<HeatMap, "leastWidth"> = {},
): string {
  const { lengths, depths, cells } = result;
  const valueAt = (length: number, depth: number | null) =>
    cells.find((cell) => cell.length === length && cell.depth === depth)?.[value] ?? null;
  return heatMap({
    title: `${title}: ${score}`,
    caption: `in percent; ${result.trials} ${result.trials === 1 ? "trial" : "trials"} a cell`,
    x: { name: "tokens", labels: lengths.map(formatCount) },
    y: { name: "depth", labels: (depths ?? [null]).map((depth) => depth === null ? "drawn" : `${depth} %`) },
    values: (depths ?? [null]).map((depth) => lengths.map((length) => valueAt(length, depth))),
    write: (share) => String(Math.round(100 * share)),
    ...size,
  });
}

/** A page with the pictures, the settings, a table per length and depth, and some answers that were wrong. */
export function gridPage(result: GridResult, measures: readonly Measure[]): string {
  const [first] = measures;
  const row = (name: string, cell: Cell) => [
    name,
    ...measures.map(({ value }) => percent(cell[value])),
    formatCount(cell.trials),
    formatCount(cell.promptTokens),
  ];
  const names = [...measures.map(({ score }) => score), "trials", "tokens of the prompts"];
  const wrong = result.rows.filter(({ score }) => score < 1);
  return page(first!.title, [
    ...measures.map((measure) => `<div class="scroll">${gridPicture(result, measure)}</div>`),
    "<h2>By length</h2>",
    grid(["tokens", ...names], result.byLength.map((cell) => row(formatCount(cell.length), cell))),
    ...(result.byDepth.length > 0
      ? [
        "<h2>By depth</h2>",
        grid(["depth", ...names], result.byDepth.map((cell) => row(`${cell.depth} %`, cell))),
      ]
      : []),
    "<h2>How it was measured</h2>",
    table([
      ...measures.map(({ score, value }): Row => [score, percent(result[value])]),
      ["trials", formatCount(result.rows.length)],
      ["time", formatSeconds(result.seconds)],
      ...Object.entries(result.settings).map(([name, value]): Row => [name, textOf(value)]),
      ["versions", `Longreach ${config.version}, Deno ${Deno.version.deno}`],
      ["written", dateText(new Date().toISOString())],
    ]),
    ...(wrong.length === 0 ? [] : [
      `<h2>Answers that were not right</h2><p>${
        escape(
          wrong.length > MOST_SHOWN
            ? `${MOST_SHOWN} of ${formatCount(wrong.length)}; all are in results.jsonl.`
            : `All ${formatCount(wrong.length)}.`,
        )
      }</p>`,
      grid(
        ["tokens", "depth", "wanted", "answer"],
        wrong.slice(0, MOST_SHOWN).map(({ length, depth_found, target, prediction }) => [
          formatCount(length),
          `${Math.round(depth_found)} %`,
          target,
          prediction.trim(),
        ]),
      ),
    ]),
  ]);
}

/** `87.5 %` */
export function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : value === null ? "none" : JSON.stringify(value) ?? "";
}
