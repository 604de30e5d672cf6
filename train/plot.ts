/** Small SVG plots that read on light and dark pages. */

/** A value with its spread. */
export interface PlotValue {
  readonly mean: number;
  readonly deviation: number;
}

const WIDTH = 720;
const STYLE =
  "<style>text{font:13px sans-serif;fill:#888}.t{font-weight:bold}.l{stroke:#888}.b{fill:#4a90d9}" +
  ".p{fill:none;stroke:#4a90d9;stroke-width:2}.e{stroke:#d9534f;stroke-width:2}.g{stroke:#888;opacity:.25}</style>";

/** Horizontal bars from zero to each mean, with the deviation on their ends. */
export function barPlot(
  title: string,
  unit: string,
  bars: readonly (PlotValue & { readonly name: string })[],
): string {
  const [left, top, step] = [250, 40, 26];
  const most = 1.1 * Math.max(...bars.map(({ mean, deviation }) => mean + deviation));
  const x = (value: number) => left + (WIDTH - left - 60) * value / most;
  const body = bars.map(({ name, mean, deviation }, i) => {
    const y = top + i * step;
    return `<text x="${left - 8}" y="${y + 14}" text-anchor="end">${escape(name)}</text>` +
      `<rect class="b" x="${left}" y="${y + 2}" width="${(x(mean) - left).toFixed(1)}" height="${
        step - 8
      }"/>` +
      errorBar(x(mean - deviation), x(mean + deviation), y + step / 2 - 2, true) +
      `<text x="${(x(mean + deviation) + 6).toFixed(1)}" y="${y + 14}">${mean.toFixed(2)}</text>`;
  });
  return frame(title, `${unit}, mean and deviation over seeds`, top + bars.length * step + 20, body);
}

/** One line through the means over x. */
export function linePlot(
  title: string,
  axes: { readonly x: string; readonly y: string },
  points: readonly (PlotValue & { readonly x: number })[],
): string {
  const [left, top, height] = [60, 50, 240];
  const most = Math.max(...points.map((point) => point.x));
  const high = Math.max(...points.map(({ mean, deviation }) => mean + deviation));
  const low = Math.min(...points.map(({ mean, deviation }) => mean - deviation));
  const x = (value: number) => left + (WIDTH - left - 40) * value / most;
  const y = (value: number) => top + height * (high - value) / (high - low || 1);
  const path = points.map((point, i) =>
    `${i === 0 ? "M" : "L"}${x(point.x).toFixed(1)} ${y(point.mean).toFixed(1)}`
  );
  const marks = points.map((point) =>
    errorBar(y(point.mean - point.deviation), y(point.mean + point.deviation), x(point.x), false) +
    `<circle class="b" cx="${x(point.x).toFixed(1)}" cy="${y(point.mean).toFixed(1)}" r="4"/>` +
    `<text x="${x(point.x).toFixed(1)}" y="${top + height + 20}" text-anchor="middle">${point.x}</text>` +
    `<text x="${(x(point.x) + 6).toFixed(1)}" y="${(y(point.mean) - 8).toFixed(1)}">${
      point.mean.toFixed(2)
    }</text>`
  );
  const axis = `<path class="l" fill="none" d="M${left} ${top}V${top + height}H${WIDTH - 40}"/>`;
  return frame(title, `${axes.y} over ${axes.x}, mean and deviation over seeds`, top + height + 40, [
    axis,
    `<path class="p" d="${path.join("")}"/>`,
    ...marks,
  ]);
}

function errorBar(from: number, to: number, at: number, isAcross: boolean): string {
  const [a, b, c] = [from, to, at].map((value) => value.toFixed(1));
  return isAcross
    ? `<line class="e" x1="${a}" x2="${b}" y1="${c}" y2="${c}"/>`
    : `<line class="e" x1="${c}" x2="${c}" y1="${a}" y2="${b}"/>`;
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
const COLOURS = ["#4a90d9", "#d9534f"];

/** Up to two curves over the same axes. Values that are not finite are left out. */
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
  const range = (values: readonly number[]) => ({ low: Math.min(...values), high: Math.max(...values) });
  const [across, up] = [range(all.map(({ x }) => x)), range(all.map(({ y }) => y))];
  const x = (value: number) =>
    left + (WIDTH - left - 40) * (value - across.low) / (across.high - across.low || 1);
  const y = (value: number) => top + height * (up.high - value) / (up.high - up.low || 1);
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
    return `<path fill="none" stroke="${COLOURS[i]}" stroke-width="2" stroke-linecap="round" d="M${path}${
      points.length === 1 ? "h0" : ""
    }"/>`;
  });
  const names = drawn.map(({ name }, i) =>
    `<text x="${left + 120 * i}" y="${top - 6}" style="fill:${COLOURS[i]}">${escape(name)}</text>`
  );
  return frame(title, `${axes.y} over ${axes.x}`, top + height + 50, [
    ...rows,
    ...columns,
    `<path class="l" fill="none" d="M${left} ${top}V${top + height}H${WIDTH - 40}"/>`,
    ...lines.filter((_, i) => drawn[i]!.points.length > 0),
    ...names,
  ]);
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
