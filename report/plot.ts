/** Small SVG plots that read on light and dark pages, and without colours: marks and dashes differ too. */
import { escape } from "./page.ts";

/** Width of a picture, in its own units. */
export const WIDTH = 720;
const COLOURS = ["#4a90d9", "#d9534f", "#5a9e4b", "#b07cc6"];
const DASHES = ["none", "8 4", "2 4", "10 3 2 3"];
/** Width of a letter, where a narrow page shows text larger. */
const WIDEST_LETTER = 11;
const STYLE = "<style>text{font:13px sans-serif;fill:#888}.t{font-weight:bold}.l{stroke:#888}" +
  ".g{stroke:#888;opacity:.25}</style>";

/** One line of a dot plot. */
export interface DotRow {
  readonly name: string;
  /** The values of every series, by its place. */
  readonly values: readonly (readonly number[])[];
}

/** A value of every series that all rows are to be seen against: a line from top to bottom in the series' dashes. */
export interface Reference {
  readonly name: string;
  readonly values: readonly number[];
}

/**
 * A line of marks for each row: a mark a value, a stroke at the mean of each series, which has its colour and its mark.
 * Values far above the rest are drawn at the edge with an arrow, so that one of them does not squeeze the others.
 */
export function dotPlot(
  title: string,
  unit: string,
  series: readonly string[],
  rows: readonly DotRow[],
  references: readonly Reference[] = [],
): string {
  const [left, top, step] = [250, 62, 26];
  const bottom = top + rows.length * step;
  const values = [...rows, ...references].flatMap((row) => row.values.flat());
  const range = widened(rangeOf(withoutOutliers(values)));
  const x = (value: number) => left + 10 + (WIDTH - left - 50) * shareOf(value, range);
  const columns = ticks(range.low, range.high).map((value) =>
    `<path class="g" d="M${x(value).toFixed(1)} ${top - 4}V${bottom}"/>` +
    `<text x="${x(value).toFixed(1)}" y="${bottom + 18}" text-anchor="middle">${value}</text>`
  );
  const lines = rows.map(({ name, values }, i) => {
    const y = top + i * step + 11;
    const marks = values.map((own, place) => {
      const fill = colourOf(place);
      const dots = own.map((value) =>
        value > range.high ? arrow(x(range.high), y, value) : mark(place, x(value), y)
      );
      const mean = own.reduce((sum, value) => sum + value, 0) / own.length;
      const stroke = mean > range.high
        ? ""
        : `<path stroke-width="2" d="M${x(mean).toFixed(1)} ${y - 9}v18"/>`;
      return `<g fill="${fill}" stroke="${fill}" fill-opacity=".5">${stroke}${dots.join("")}</g>`;
    });
    return `<text x="${left - 8}" y="${y + 4}" text-anchor="end">${escape(name)}</text>${marks.join("")}`;
  });
  const across = references.flatMap(({ name, values }) =>
    values.map((value, place) =>
      value > range.high
        ? ""
        : `<path fill="none" stroke="${colourOf(place)}" stroke-dasharray="${
          DASHES[1 + place % (DASHES.length - 1)]
        }" d="M${x(value).toFixed(1)} ${top - 4}V${bottom}"><title>${
          escape(`${name}, ${series[place]}: ${value}`)
        }` +
          `</title></path>`
    )
  );
  const caption = references.length === 0
    ? unit
    : `${unit}; dashed: ${references.map(({ name }) => name).join(", ")}`;
  return frame(title, caption, bottom + 46, [
    ...columns,
    ...across,
    ...lines,
    legend(series, left + 10, top - 16, { marks: true }),
  ]);
}

/** The mark of a series: a circle, a square, a triangle, a diamond. */
function mark(place: number, x: number, y: number): string {
  const at = `${x.toFixed(1)} ${y}`;
  const shapes = [
    "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0",
    "m-4 -4h8v8h-8z",
    "m0 -5l5 9h-10z",
    "m0 -5l5 5l-5 5l-5 -5z",
  ];
  return `<path d="M${at}${shapes[place % shapes.length]}"/>`;
}

function arrow(x: number, y: number, value: number): string {
  return `<path d="M${x.toFixed(1)} ${y - 4}l7 4l-7 4z"><title>${value}</title></path>`;
}

/** A picture of so many units, with a title above and a caption below. */
export function frame(
  title: string,
  caption: string,
  height: number,
  body: readonly string[],
  width: number = WIDTH,
): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">` +
    `${STYLE}<text class="t" x="10" y="18">${escape(title)}</text>` +
    `<text x="10" y="${height - 6}">${escape(caption)}</text>${body.join("")}</svg>\n`;
}

/** A curve of one quantity. */
export interface Curve {
  readonly name: string;
  readonly points: readonly { readonly x: number; readonly y: number }[];
  /** Drawn faint, behind the curve that comes after it and in its colour, without a name of its own. */
  readonly isRaw?: boolean;
}

/** Points of a curve that are drawn at most: more cannot be told apart. */
const MAX_POINTS = 1000;

/**
 * Curves over the same axes. Values that are not finite are left out.
 *
 * @param axes.across the x axis's two ends, for plots that stand below one another; the curves' own unless given
 * @param axes.min a value that the y axis shows in any case
 */
export function curvePlot(
  title: string,
  axes: {
    readonly x: string;
    readonly y: string;
    readonly across?: readonly [number, number];
    readonly min?: number;
  },
  curves: readonly Curve[],
): string {
  const [left, top, height] = [70, 56, 240];
  const drawn = curves.map((curve) => ({
    ...curve,
    points: thinned(curve.points.filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y))),
  }));
  const all = drawn.flatMap(({ points }) => points);
  if (all.length === 0) return "";
  const across = rangeOf(axes.across ?? all.map(({ x }) => x));
  const up = widened(rangeOf([...all.map(({ y }) => y), ...(axes.min === undefined ? [] : [axes.min])]));
  const named = drawn.filter(({ isRaw }) => !isRaw);
  const x = (value: number) => left + (WIDTH - left - 40) * shareOf(value, across);
  const y = (value: number) => top + height * (1 - shareOf(value, up));
  const columns = ticks(across.low, across.high).map((value) =>
    `<text x="${x(value).toFixed(1)}" y="${top + height + 20}" text-anchor="middle">${label(value)}</text>`
  );
  const rows = ticks(up.low, up.high).map((value) =>
    `<path class="g" d="M${left} ${y(value).toFixed(1)}H${WIDTH - 40}"/>` +
    `<text x="${left - 8}" y="${(y(value) + 4).toFixed(1)}" text-anchor="end">${label(value)}</text>`
  );
  const lines = drawn.map(({ points, isRaw }, i) => {
    const place = drawn.slice(0, i).filter((curve) => !curve.isRaw).length;
    const path = points.map((point) => `${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`).join("L");
    const dash = isRaw || place === 0 ? "" : ` stroke-dasharray="${DASHES[place % DASHES.length]}"`;
    // A line through a single point needs round ends to be seen.
    return `<path fill="none" stroke="${colourOf(place)}"${isRaw ? ' stroke-opacity=".3"' : ""}${dash} ` +
      `stroke-width="2" stroke-linecap="round" d="M${path}${points.length === 1 ? "h0" : ""}"/>`;
  });
  return frame(title, `${axes.y} over ${axes.x}`, top + height + 50, [
    ...rows,
    ...columns,
    `<path class="l" fill="none" d="M${left} ${top}V${top + height}H${WIDTH - 40}"/>`,
    ...lines.filter((_, i) => drawn[i]!.points.length > 0),
    legend(named.map(({ name }) => name), left, top - 6, { marks: false }),
  ]);
}

/** Names beside each other, each behind the mark or the line of what it names. */
function legend(names: readonly string[], left: number, y: number, { marks }: { marks: boolean }): string {
  let at = left;
  return names.map((name, i) => {
    const colour = colourOf(i);
    const sign = marks
      ? `<g fill="${colour}" stroke="${colour}" fill-opacity=".5">${mark(i, at + 6, y - 4)}</g>`
      : `<path stroke="${colour}" stroke-width="2" stroke-dasharray="${
        DASHES[i % DASHES.length]
      }" d="M${at} ${y - 4}h18"/>`;
    const text = `<text x="${at + (marks ? 16 : 24)}" y="${y}" style="fill:${colour}">${escape(name)}</text>`;
    at += 44 + WIDEST_LETTER * name.length;
    return sign + text;
  }).join("");
}

/** Half the points of a window that smooths, as a share of all. */
const SMOOTHING = 1 / 25;

/** The mean of each point and as many on both sides: a curve without its noise that lags behind nowhere. */
export function smoothed(points: Curve["points"]): Curve["points"] {
  const known = points.filter(({ y }) => Number.isFinite(y));
  const sums = [0];
  for (const { y } of known) sums.push(sums.at(-1)! + y);
  const maxHalf = Math.ceil(known.length * SMOOTHING);
  return known.map(({ x }, i) => {
    const half = Math.min(maxHalf, i, known.length - 1 - i);
    return { x, y: (sums[i + half + 1]! - sums[i - half]!) / (2 * half + 1) };
  });
}

function colourOf(place: number): string {
  return COLOURS[place % COLOURS.length]!;
}

interface Range {
  readonly low: number;
  readonly high: number;
}

function rangeOf(values: readonly number[]): Range {
  return { low: Math.min(...values), high: Math.max(...values) };
}

/** A range with some room at both ends, so that marks are not cut. */
function widened({ low, high }: Range): Range {
  const room = 0.04 * (high - low);
  return { low: low - room, high: high + room };
}

/** Values but for those more than four times as far above the median as the upper quartile is. */
function withoutOutliers(values: readonly number[]): number[] {
  const sorted = values.toSorted((a, b) => a - b);
  const [median, upper] = [0.5, 0.75].map((share) => sorted[Math.floor(share * (sorted.length - 1))]!);
  return sorted.filter((value) => value <= median! + 4 * (upper! - median! || Infinity));
}

/** Share of a range below a value: 0 at its low end, 1 at its high end; 0 where the range is one value. */
function shareOf(value: number, { low, high }: Range): number {
  return (value - low) / (high - low || 1);
}

/** Means of neighbours, where there are more points than can be drawn. */
function thinned(points: Curve["points"]): Curve["points"] {
  const size = Math.ceil(points.length / MAX_POINTS);
  if (size <= 1) return points;
  return Array.from({ length: Math.ceil(points.length / size) }, (_, i) => {
    const group = points.slice(i * size, (i + 1) * size);
    return {
      x: group.at(-1)!.x,
      y: group.reduce((sum, { y }) => sum + y, 0) / group.length,
    };
  });
}

/** A tick's number, short: `2e-5`, `0.004`, `1500`, `150K`. */
function label(value: number): string {
  if (Math.abs(value) >= 1e5) {
    return value.toLocaleString("en-US", { notation: "compact", maximumSignificantDigits: 4 });
  }
  return value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential() : String(value);
}

/** About five round numbers from `low` to `high`. */
function ticks(low: number, high: number): number[] {
  if (high <= low) return [low];
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
  const first = Math.ceil(low / step);
  const count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}
