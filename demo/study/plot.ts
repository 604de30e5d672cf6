/** Small SVG plots that read on light and dark pages. */

/** A value with its spread. */
export interface PlotValue {
  readonly mean: number;
  readonly deviation: number;
}

const WIDTH = 720;
const STYLE =
  "<style>text{font:13px sans-serif;fill:#888}.t{font-weight:bold}.l{stroke:#888}.b{fill:#4a90d9}" +
  ".p{fill:none;stroke:#4a90d9;stroke-width:2}.e{stroke:#d9534f;stroke-width:2}</style>";

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

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
