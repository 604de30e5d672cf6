/** A grid of scores as an SVG picture: every cell has its number, so that no colour need be told from another. */
import { escape } from "./page.ts";
import { frame, WIDTH } from "./plot.ts";

/** Scores over two axes. */
export interface HeatMap {
  readonly title: string;
  /** Meaning of the numbers. */
  readonly caption: string;
  /** Columns, from the left. */
  readonly x: Axis;
  /** Rows, from the top. */
  readonly y: Axis;
  /** (rows, columns): from 0 to 1; null where nothing was measured. */
  readonly values: readonly (readonly (number | null)[])[];
  /** A value as its cell shows it: few characters. */
  write(value: number): string;
  /** Width of the picture at least; that of other pictures unless given. */
  readonly leastWidth?: number;
}

/** One axis: what it counts, and a label for each row or column. */
export interface Axis {
  readonly name: string;
  readonly labels: readonly string[];
}

/** Colours of 0, one half and 1, told apart with any kind of sight: orange, sand, blue. */
const STOPS = [[0xb3, 0x58, 0x06], [0xf2, 0xea, 0xd9], [0x21, 0x66, 0xac]] as const;
const CELL = { height: 26, width: 84, narrowest: 34 } as const;
/** Width of a letter of 13 units. */
const LETTER = 8;

/** Draws the grid; it is wider than other pictures where it has many columns. */
export function heatMap({ title, caption, x, y, values, write, leastWidth = WIDTH }: HeatMap): string {
  const left = 16 + LETTER * Math.max(y.name.length, ...y.labels.map(({ length }) => length));
  const top = 56;
  const columns = x.labels.length;
  const step = Math.min(CELL.width, Math.max(CELL.narrowest, Math.floor((WIDTH - left - 20) / columns)));
  const width = Math.max(leastWidth, left + columns * step + 20);
  const bottom = top + values.length * CELL.height;
  // Labels that do not fit beside each other: every second, third ...
  const longest = LETTER * (1 + Math.max(...x.labels.map(({ length }) => length)));
  const every = Math.ceil(longest / step);
  const cells = values.flatMap((row, i) =>
    row.map((value, j) => {
      const [cx, cy] = [left + j * step, top + i * CELL.height];
      const where = `${x.name} ${x.labels[j]}, ${y.name} ${y.labels[i]}`;
      const size = `width="${step - 2}" height="${CELL.height - 2}"`;
      if (value === null) {
        return `<g><title>${escape(`${where}: not measured`)}</title>` +
          `<rect x="${cx}" y="${cy}" ${size} fill="none" stroke="#888" stroke-dasharray="2 3"/></g>`;
      }
      const colour = colourOf(value);
      return `<g><title>${escape(`${where}: ${write(value)}`)}</title>` +
        `<rect x="${cx}" y="${cy}" ${size} fill="rgb(${colour.join()})"/>` +
        `<text x="${cx + step / 2 - 1}" y="${cy + 17}" text-anchor="middle" ` +
        `style="font-size:13px;fill:${isDark(colour) ? "#fff" : "#000"}">${escape(write(value))}</text></g>`;
    })
  );
  const label = (text: string, at: number, line: number, anchor: string) =>
    `<text x="${at}" y="${line}" text-anchor="${anchor}" style="font-size:13px">${escape(text)}</text>`;
  return frame(title, caption, bottom + 66, [
    label(y.name, left - 8, top - 10, "end"),
    ...y.labels.map((text, i) => label(text, left - 8, top + i * CELL.height + 17, "end")),
    ...cells,
    ...x.labels.flatMap((text, j) =>
      (columns - 1 - j) % every === 0
        ? [label(text, left + j * step + step / 2 - 1, bottom + 16, "middle")]
        : []
    ),
    label(x.name, left + columns * step / 2, bottom + 36, "middle"),
  ], width);
}

/** Between the two stops that a share lies between. */
function colourOf(share: number): readonly number[] {
  const at = 2 * Math.min(1, Math.max(0, share));
  const lower = Math.min(1, Math.floor(at));
  return STOPS[lower]!.map((value, i) => Math.round(value + (at - lower) * (STOPS[lower + 1]![i]! - value)));
}

/** Tells whether white reads better on a colour than black, by its luma (ITU-R BT.601). */
function isDark([red = 0, green = 0, blue = 0]: readonly number[]): boolean {
  return 0.299 * red + 0.587 * green + 0.114 * blue < 140;
}
