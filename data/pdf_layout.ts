/** Pages of a PDF as text in reading order, without what is not the text itself. */
import type { PdfPage, PdfRun } from "./pdf.ts";

/** Runs on one baseline with no wide gap between them: a line of a column, or a cell of a table. */
interface Line {
  readonly text: string;
  readonly left: number;
  readonly right: number;
  /** Of its baseline. */
  readonly y: number;
  readonly size: number;
  /** Of a program or the like: its line ends mean something. */
  readonly isCode: boolean;
}

/** What a document became. */
export interface PdfText {
  readonly text: string;
  readonly tables: number;
  /** Numbers of the pages that are images without text. */
  readonly scanned: readonly number[];
}

/** A gap within a line, in letter heights, from which on it is the gap between columns or cells. */
const COLUMN_GAP = 1.2;
/** A gap between words, in letter heights. */
const WORD_GAP = 0.16;
/** Space above a line, in letter heights beyond the usual, that begins a paragraph; where a sentence ends, the less. */
const PARAGRAPH_GAP = 0.45;
const SENTENCE_GAP = 0.2;
/** How much smaller and how far off the baseline, in letter heights, a superscript or subscript is. */
const SCRIPT = { size: 0.85, rise: 0.6 };
/** Least usual width of a column's lines, in letter heights. */
const COLUMN_WIDTH = 8;
/** How much larger letters of a heading are. */
const HEADING = 1.12;
/** Height of the strips at top and bottom, as a share of the page, where running heads may stand. */
const MARGIN = 0.2;
/** And where a number that stands alone is the page's. */
const NUMBER_MARGIN = 0.09;
/** Fewest numbers one under the other that are taken for those of lines. */
const LINE_NUMBERS = 5;

/**
 * The text of all pages: columns after each other, paragraphs on one line each, hyphens at line ends joined, headings
 * apart, tables as `[table]`; running heads and page numbers are left out.
 */
export function layOutText(pages: readonly PdfPage[]): PdfText {
  const lined = pages.map((page) => ({ page, lines: withoutLineNumbers(linesOf(page)) }));
  const bare = withoutRunningHeads(lined);
  const usual = usualSize(bare.flatMap(({ lines }) => lines));
  const words = new Set(
    bare.flatMap(({ lines }) => lines.flatMap(({ text }) => text.toLowerCase().match(/[\p{L}-]+/gu) ?? [])),
  );
  const writer = new ParagraphWriter(usual, words);
  for (const { lines } of bare) {
    for (const block of readingOrder(lines)) writer.addBlock(block);
  }
  return {
    text: writer.finish(),
    tables: writer.tables,
    scanned: pages.filter(({ runs, hasImage }) => runs.length === 0 && hasImage).map(({ number }) => number),
  };
}

/** A page and what of it is read. */
interface LinedPage {
  readonly page: PdfPage;
  readonly lines: readonly Line[];
}

/** Runs joined to lines, from the top of the page. */
function linesOf({ runs }: PdfPage): Line[] {
  const rows: PdfRun[][] = [];
  // The larger first, so that scripts find what they belong to.
  for (const run of [...runs].sort((a, b) => b.size - a.size || b.y - a.y || a.x - b.x)) {
    const row = rows.find(([first]) => Math.abs(first!.y - run.y) < 0.4 * Math.min(first!.size, run.size)) ??
      rows.find((row) => isScript(run, row));
    if (row) row.push(run);
    else rows.push([run]);
  }
  return rows
    .sort(([a], [b]) => b!.y - a!.y)
    .flatMap((row) => splitRow(row.sort((a, b) => a.x - b.x)));
}

/** Whether a run is smaller than those of the row and stands a little above or below, right after or before one. */
function isScript(run: PdfRun, row: readonly PdfRun[]): boolean {
  const { size, y } = row[0]!;
  return run.size < SCRIPT.size * size && Math.abs(run.y - y) < SCRIPT.rise * size &&
    row.some(({ x, width }) =>
      Math.min(Math.abs(run.x - (x + width)), Math.abs(run.x + run.width - x)) < 0.3 * size
    );
}

/** A baseline cut at wide gaps. */
function splitRow(row: readonly PdfRun[]): Line[] {
  const lines: PdfRun[][] = [];
  let end = -Infinity;
  for (const run of row) {
    if (run.x - end > COLUMN_GAP * run.size) lines.push([]);
    lines.at(-1)!.push(run);
    end = Math.max(end, run.x + run.width);
  }
  return lines.map((runs) => {
    const largest = runs.reduce((most, run) => run.text.length > most.text.length ? run : most);
    return {
      text: joinRuns(runs),
      left: runs[0]!.x,
      right: Math.max(...runs.map(({ x, width }) => x + width)),
      y: largest.y,
      size: largest.size,
      isCode: largest.isMonospaced,
    };
  });
}

function joinRuns(runs: readonly PdfRun[]): string {
  let text = "";
  let end = -Infinity;
  for (const [i, run] of runs.entries()) {
    // The mark of a footnote stands close to it.
    const isAfterMark = i === 1 && runs[0]!.size < SCRIPT.size * run.size;
    const isWord = run.x - end > WORD_GAP * run.size || isAfterMark;
    if (text !== "" && isWord && !text.endsWith(" ")) text += " ";
    text += run.text;
    end = run.x + run.width;
  }
  return text.replace(/\s+/g, " ").trim();
}

/** Lines without the numbers that drafts have beside them. */
function withoutLineNumbers(lines: readonly Line[]): readonly Line[] {
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
function withoutRunningHeads(pages: readonly LinedPage[]): readonly LinedPage[] {
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

/** The size that most letters have. */
function usualSize(lines: readonly Line[]): number {
  const letters = new Map<number, number>();
  for (const { size, text } of lines) {
    const rounded = Math.round(2 * size) / 2;
    letters.set(rounded, (letters.get(rounded) ?? 0) + text.length);
  }
  return [...letters].reduce((most, entry) => entry[1] > most[1] ? entry : most, [10, 0])[0];
}

/**
 * Blocks of lines in reading order, by cutting the page again and again: across at the widest empty strip that runs from
 * top to bottom (columns, the left one first), else down at the widest empty strip from side to side (XY-cut, Nagy and
 * Seth 1984).
 */
function readingOrder(lines: readonly Line[]): Line[][] {
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
function isTable(lines: readonly Line[]): boolean {
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

function split(lines: readonly Line[], isFirst: (line: Line) => boolean): [Line[], Line[]] {
  return [lines.filter(isFirst), lines.filter((line) => !isFirst(line))];
}

/** What the items of lists begin with. */
const ITEM = /^([•◦‣▪*–—-]|\(?\d{1,2}[.)]) /;
/** How far the lines of an item are set in from its mark at most, in letter heights. */
const ITEM_INDENT = 3;

/** Joins lines to paragraphs, over columns and pages too. */
class ParagraphWriter {
  tables = 0;
  readonly #paragraphs: string[] = [];
  #open = "";
  #last: Line | undefined;

  /** @param words the words of the document, by which a hyphen at a line end is judged */
  constructor(readonly usualSize: number, readonly words: ReadonlySet<string>) {}

  addBlock(block: readonly Line[]): void {
    if (isTable(block)) {
      this.#close();
      this.#paragraphs.push("[table]");
      this.tables++;
      return;
    }
    const left = Math.min(...block.map((line) => line.left));
    const leading = usualLeading(block);
    let above: Line | undefined;
    for (const line of block) {
      if (above && above.y - line.y < 0.4 * line.size) this.#addCell(line);
      else {
        this.#addLine(line, above, { left, leading });
        above = line;
      }
    }
  }

  finish(): string {
    this.#close();
    return this.#paragraphs.length === 0 ? "" : this.#paragraphs.join("\n\n") + "\n";
  }

  #addLine(
    line: Line,
    above: Line | undefined,
    { left, leading }: { readonly left: number; readonly leading: number },
  ): void {
    const isHeading = line.size > HEADING * this.usualSize;
    const wasHeading = this.#isHeading;
    const endsSentence = /[.!?:]["'”’)\]]*$/.test(this.#open);
    const isApart = above
      ? above.y - line.y > leading + (endsSentence ? SENTENCE_GAP : PARAGRAPH_GAP) * line.size
      // A paragraph that goes on in the next column or on the next page has no end yet.
      : endsSentence || Math.abs((this.#last?.size ?? line.size) - line.size) > 0.3;
    const isIndented = line.left > left + 0.8 * line.size &&
      (above === undefined || above.left <= left + 0.8 * line.size) && !this.#hangs(line);
    const isSame = isHeading && this.#last !== undefined && Math.abs(this.#last.size - line.size) < 0.5 &&
      !isApart;
    const isItem = ITEM.test(line.text);
    const wasCode = this.#last?.isCode ?? line.isCode;
    if (line.isCode && wasCode && !isApart) {
      this.#open += (this.#open === "" ? "" : "\n") + line.text;
      this.#last = line;
      return;
    }
    if (!isSame && (isHeading || wasHeading || isApart || isIndented || isItem || line.isCode !== wasCode)) {
      this.#close();
    }
    this.#append(line.text);
    this.#last = line;
  }

  /** Adds what stands on the baseline of the line before, with a gap between them. */
  #addCell({ text, isCode }: Line): void {
    this.#open += ` ${text}`;
    // The number of a formula, or of a page in the contents.
    if (!isCode && /^\(?[\dA-Z.]+\)?$/.test(text)) this.#close();
  }

  /** Whether what is open is a heading. */
  get #isHeading(): boolean {
    return this.#last !== undefined && this.#last.size > HEADING * this.usualSize;
  }

  /** Whether a line goes on with the item above it, whose mark stands out to the left. */
  #hangs(line: Line): boolean {
    return this.#last !== undefined && ITEM.test(this.#last.text) &&
      line.left - this.#last.left < ITEM_INDENT * line.size;
  }

  #append(text: string): void {
    const word = /(\p{L}+)[-\u00ad]$/u.exec(this.#open)?.[1];
    const next = /^\p{Ll}+/u.exec(text)?.[0];
    if (this.#open === "") this.#open = text;
    else if (word !== undefined && next !== undefined) {
      const keeps = this.words.has(`${word}-${next}`.toLowerCase()) &&
        !this.words.has((word + next).toLowerCase());
      this.#open = keeps ? this.#open + text : this.#open.slice(0, -1) + text;
    } else this.#open += ` ${text}`;
  }

  #close(): void {
    // Numbers alone are labels of a plot, or what a formula is taken apart to.
    const isText = /\p{L}/u.test(this.#open) || this.#last?.isCode || this.#isHeading;
    if (this.#open !== "" && isText) this.#paragraphs.push(this.#open);
    this.#open = "";
    this.#last = undefined;
  }
}

/** The distance from line to line that a block has most often. */
function usualLeading(block: readonly Line[]): number {
  const distances = block.slice(1).map((line, i) => block[i]!.y - line.y).filter((distance) => distance > 0);
  distances.sort((a, b) => a - b);
  return distances[distances.length >> 1] ?? 0;
}
