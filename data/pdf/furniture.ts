/** Removing what stands on pages and is no text: running heads, page numbers, the numbers of lines. */
import { type Line, type LinedPage, split } from "./lines.ts";
import type { PdfPage } from "./reader.ts";

/** Height of the strips at top and bottom, as a share of the page, where running heads may stand. */
const MARGIN = 0.2;
/** And where a number that stands alone is the page's. */
const NUMBER_MARGIN = 0.09;
/** Fewest numbers one under the other that are taken for those of lines. */
const LINE_NUMBERS = 5;

/** Lines without the numbers that drafts have beside them. */
export function withoutLineNumbers(lines: readonly Line[]): readonly Line[] {
  const [numbers, others] = split(lines, ({ text }) => /^\d{1,5}$/.test(text));
  const from = Math.min(...others.map(({ left }) => left));
  const to = Math.max(...others.map(({ right }) => right));
  const outside = numbers.filter(({ left, right }) => right < from || left > to);
  const values = outside.sort((a, b) => b.y - a.y).map(({ text }) => Number(text));
  const ascending = values.filter((value, i) => i > 0 && value > values[i - 1]!).length;
  const isNumbering = values.length >= LINE_NUMBERS && ascending >= 0.8 * (values.length - 1);
  return isNumbering ? lines.filter((line) => !outside.includes(line)) : lines;
}

const ENDS = ["top", "bottom"] as const;
type End = typeof ENDS[number];

/** Pages without running heads and page numbers, which may take two baselines at each end. */
export function withoutRunningHeads(pages: readonly LinedPage[]): readonly LinedPage[] {
  return peel(peel(pages));
}

/**
 * Takes away what stands outermost on pages at one height and in one size, if half of it or more comes back on other
 * pages, whatever its numbers; and page numbers.
 */
function peel(pages: readonly LinedPage[]): readonly LinedPage[] {
  const outer = pages.flatMap((lined) =>
    ENDS.flatMap((end) => outermost(lined, end).map((line) => ({ page: lined.page, end, line })))
  );
  const places = Map.groupBy(
    outer,
    ({ end, line: { y, size } }) => `${end} ${Math.round(y / 3)} ${Math.round(size)}`,
  );
  const heads = new Set(outer.filter(({ page, line }) => isPageNumber(line, page)).map(({ line }) => line));
  for (const found of places.values()) {
    const texts = Map.groupBy(found, ({ line }) => line.text.replace(/\d+|\b[ivxlc]+\b/gi, "#"));
    const repeated = [...texts.values()].filter((same) => new Set(same.map(({ page }) => page)).size >= 2);
    if (repeated.flat().length >= found.length / 2) found.forEach(({ line }) => heads.add(line));
  }
  return pages.map(({ page, lines }) => ({ page, lines: lines.filter((line) => !heads.has(line)) }));
}

/** The lines on the first or last baseline of a page, if that is in the margin. */
function outermost({ page: { height }, lines }: LinedPage, end: End): Line[] {
  const distance = ({ y }: Line) => end === "top" ? height - y : y;
  const least = Math.min(...lines.map(distance));
  if (least > MARGIN * height) return [];
  return lines.filter((line) => distance(line) - least < 0.4 * line.size);
}

function isPageNumber({ text, y }: Line, { height }: PdfPage): boolean {
  return (y > (1 - NUMBER_MARGIN) * height || y < NUMBER_MARGIN * height) &&
    /^(page\s*)?[-–—\s]*(\d{1,4}|[ivxlc]{1,7})[-–—\s]*(of\s*\d+)?$/i.test(text);
}
