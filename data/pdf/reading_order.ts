/** Lines of a page in the order in which they are read. */
import { type Line, split } from "./lines.ts";

/** Least usual width of a column's lines, in letter heights. */
const COLUMN_WIDTH = 8;

/**
 * Blocks of lines in reading order, by cutting the page again and again: across at the widest empty strip that runs from
 * top to bottom (columns, the left one first), else down at the widest empty strip from side to side (XY-cut, Nagy and
 * Seth 1984).
 */
export function readingOrder(lines: readonly Line[]): Line[][] {
  if (lines.length <= 1) return lines.length === 0 ? [] : [[...lines]];
  const size = lines.reduce((sum, line) => sum + line.size, 0) / lines.length;
  const table = tableCut(lines, size);
  if (table !== undefined) {
    const [above, below] = split(lines, (line) => line.y > table);
    return [...readingOrder(above), ...readingOrder(below)];
  }
  const across = widestGap(lines.map(({ left, right }) => [left, right]));
  if (across.width >= 0.8 * size && !isTable(lines)) {
    const [left, right] = split(lines, (line) => line.right <= across.middle);
    if (isColumn(left) && isColumn(right)) return [...readingOrder(left), ...readingOrder(right)];
  }
  const down = widestGap(lines.map(({ y, size }) => [y - 0.25 * size, y + 0.75 * size]));
  if (down.width > 0.1 * size && !isTable(lines) && needsCut(lines)) {
    const [above, below] = split(lines, (line) => line.y > down.middle);
    return [...readingOrder(above), ...readingOrder(below)];
  }
  return [[...lines].sort((a, b) => b.y - a.y || a.left - b.left)];
}

/** The height of a wide gap that has a table above or below it. */
function tableCut(lines: readonly Line[], size: number): number | undefined {
  const sorted = [...lines].sort((a, b) => b.y - a.y);
  for (let i = 1; i < sorted.length; i++) {
    const [above, below] = [sorted[i - 1]!.y, sorted[i]!.y];
    if (above - below < 2 * size) continue;
    const middle = (above + below) / 2;
    if (split(lines, (line) => line.y > middle).some((part) => isTable(part))) return middle;
  }
  return undefined;
}

/** A column has more than one line, and most are long: labels beside lines are none. */
function isColumn(lines: readonly Line[]): boolean {
  const widths = lines.map(({ left, right, size }) => (right - left) / size).sort((a, b) => a - b);
  return new Set(lines.map(({ y }) => Math.round(y))).size >= 2 &&
    widths[widths.length >> 1]! >= COLUMN_WIDTH;
}

/** Whether some lines stand beside each other: only then does a cut from side to side help. */
function needsCut(lines: readonly Line[]): boolean {
  const sorted = [...lines].sort((a, b) => b.y - a.y);
  return sorted.some((line, i) => {
    const next = sorted[i + 1];
    return next !== undefined && line.y - next.y < 0.5 * line.size &&
      (line.right <= next.left || next.right <= line.left);
  });
}

/** Rows of three or more short cells, most of them beginning where cells of other rows do. */
export function isTable(lines: readonly Line[]): boolean {
  const rows = Map.groupBy(lines, ({ y }) => Math.round(y / 2));
  const wide = [...rows.values()].filter((row) => row.length >= 3);
  if (wide.length < 2 || wide.length < 0.6 * rows.size) return false;
  const starts = Map.groupBy(wide.flat(), ({ left }) => Math.round(left / 6));
  const aligned = [...starts.values()].filter((cells) => cells.length >= 2).flat().length;
  return aligned >= 0.5 * wide.flat().length && lines.every(({ text }) => text.length < 60);
}

/** The widest gap between intervals that cover a line. */
function widestGap(intervals: readonly (readonly [number, number])[]): { width: number; middle: number } {
  let best = { width: 0, middle: 0 };
  let end = -Infinity;
  for (const [from, to] of [...intervals].sort((a, b) => a[0] - b[0])) {
    if (end !== -Infinity && from - end > best.width) best = { width: from - end, middle: (from + end) / 2 };
    end = Math.max(end, to);
  }
  return best;
}
