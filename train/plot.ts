/** Small SVG plots that read on light and dark pages. */

const WIDTH = 720;
const COLOURS = ["#4a90d9", "#d9534f", "#5a9e4b", "#b07cc6"];
const STYLE = "<style>text{font:13px sans-serif;fill:#888}.t{font-weight:bold}.l{stroke:#888}" +
  ".g{stroke:#888;opacity:.25}</style>";

/** One line of a dot plot. */
export interface DotRow {
  readonly name: string;
  /** The values of every series, by its place. */
  readonly values: readonly (readonly number[])[];
}

/** A line of dots for each row: a dot a value, a stroke at the mean of each series, which has its colour. */
export function dotPlot(
  title: string,
  unit: string,
  series: readonly string[],
  rows: readonly DotRow[],
): string {
  const [left, top, step] = [250, 56, 26];
  const bottom = top + rows.length * step;
  const range = rangeOf(rows.flatMap(({ values }) => values.flat()));
  const x = (value: number) => left + 10 + (WIDTH - left - 50) * shareOf(value, range);
  const columns = ticks(range.low, range.high).map((value) =>
    `<path class="g" d="M${x(value).toFixed(1)} ${top - 4}V${bottom}"/>` +
    `<text x="${x(value).toFixed(1)}" y="${bottom + 18}" text-anchor="middle">${value}</text>`
  );
  const lines = rows.map(({ name, values }, i) => {
    const y = top + i * step + 11;
    const marks = values.map((own, place) => {
      const fill = colourOf(place);
      const dots = own.map((value) => `<circle cx="${x(value).toFixed(1)}" cy="${y}" r="4"/>`).join("");
      const at = x(own.reduce((sum, value) => sum + value, 0) / own.length).toFixed(1);
      return `<g fill="${fill}" stroke="${fill}" fill-opacity=".5"><path stroke-width="2" d="M${at} ${
        y - 9
      }v18"/>` +
        `${dots}</g>`;
    });
    return `<text x="${left - 8}" y="${y + 4}" text-anchor="end">${escape(name)}</text>${marks.join("")}`;
  });
  return frame(title, unit, bottom + 46, [...columns, ...lines, legend(series, left + 10, top - 16)]);
}

function frame(title: string, caption: string, height: number, body: readonly string[]): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}">` +
    `${STYLE}<text class="t" x="10" y="18">${escape(title)}</text>` +
    `<text x="10" y="${height - 6}">${escape(caption)}</text>${body.join("")}</svg>\n`;
}

/** Text as it stands in HTML and SVG, attributes included. */
export function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll(
    `"`,
    "&quot;",
  );
}

/** A curve of one quantity. */
export interface Curve {
  readonly name: string;
  readonly points: readonly { readonly x: number; readonly y: number }[];
}

/** Points of a curve that are drawn at most: more cannot be told apart. */
const MOST_POINTS = 1000;

/** Curves over the same axes. Values that are not finite are left out. */
export function curvePlot(
  title: string,
  axes: { readonly x: string; readonly y: string },
  curves: readonly Curve[],
): string {
  const [left, top, height] = [70, 40, 240];
  const drawn = curves.map(({ name, points }) => ({
    name,
    points: thinned(points.filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y))),
  }));
  const all = drawn.flatMap(({ points }) => points);
  if (all.length === 0) return "";
  const [across, up] = [rangeOf(all.map(({ x }) => x)), rangeOf(all.map(({ y }) => y))];
  const x = (value: number) => left + (WIDTH - left - 40) * shareOf(value, across);
  const y = (value: number) => top + height * (1 - shareOf(value, up));
  const columns = ticks(across.low, across.high).map((value) =>
    `<text x="${x(value).toFixed(1)}" y="${top + height + 20}" text-anchor="middle">${value}</text>`
  );
  const rows = ticks(up.low, up.high).map((value) =>
    `<path class="g" d="M${left} ${y(value).toFixed(1)}H${WIDTH - 40}"/>` +
    `<text x="${left - 8}" y="${(y(value) + 4).toFixed(1)}" text-anchor="end">${value}</text>`
  );
  const lines = drawn.map(({ points }, i) => {
    const path = points.map((point) => `${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`).join("L");
    // A line through a single point needs round ends to be seen.
    return `<path fill="none" stroke="${colourOf(i)}" stroke-width="2" stroke-linecap="round" d="M${path}${
      points.length === 1 ? "h0" : ""
    }"/>`;
  });
  return frame(title, `${axes.y} over ${axes.x}`, top + height + 50, [
    ...rows,
    ...columns,
    `<path class="l" fill="none" d="M${left} ${top}V${top + height}H${WIDTH - 40}"/>`,
    ...lines.filter((_, i) => drawn[i]!.points.length > 0),
    legend(drawn.map(({ name }) => name), left, top - 6),
  ]);
}

/** Names in the colours of what they name, beside each other. */
function legend(names: readonly string[], left: number, y: number): string {
  return names.map((name, i) =>
    `<text x="${left + 120 * i}" y="${y}" style="fill:${colourOf(i)}">${escape(name)}</text>`
  ).join("");
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

/** Where a value lies in a range: 0 at its low end, 1 at its high end; 0 where the range is one value. */
function shareOf(value: number, { low, high }: Range): number {
  return (value - low) / (high - low || 1);
}

/** Means of neighbours, where there are more points than can be drawn. */
function thinned(points: Curve["points"]): Curve["points"] {
  const size = Math.ceil(points.length / MOST_POINTS);
  if (size <= 1) return points;
  return Array.from({ length: Math.ceil(points.length / size) }, (_, i) => {
    const group = points.slice(i * size, (i + 1) * size);
    return {
      x: group.at(-1)!.x,
      y: group.reduce((sum, { y }) => sum + y, 0) / group.length,
    };
  });
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
