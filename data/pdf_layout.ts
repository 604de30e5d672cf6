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
/** Space above a line, in letter heights beyond the usual, that begins a paragraph. */
const PARAGRAPH_GAP = 0.45;
/** Least usual width of a column's lines, in letter heights. */
const COLUMN_WIDTH = 8;
/** How much larger letters of a heading are. */
const HEADING = 1.12;
/** Height of the strips at top and bottom, as a share of the page, where running heads stand. */
const MARGIN = 0.09;

/**
 * The text of all pages: columns after each other, paragraphs on one line each, hyphens at line ends joined, headings
 * apart, tables as `[table]`; running heads and page numbers are left out.
 */
export function layOutText(pages: readonly PdfPage[]): PdfText {
  const lined = pages.map((page) => ({ page, lines: linesOf(page) }));
  const running = runningHeads(lined);
  const usual = usualSize(lined.flatMap(({ lines }) => lines));
  const words = new Set(
    lined.flatMap(({ lines }) => lines.flatMap(({ text }) => text.toLowerCase().match(/[\p{L}-]+/gu) ?? [])),
  );
  const writer = new ParagraphWriter(usual, words);
  for (const { page, lines } of lined) {
    const kept = lines.filter((line) => !running.has(headKey(line, page)) && !isPageNumber(line, page));
    for (const block of readingOrder(kept)) writer.addBlock(block);
  }
  return {
    text: writer.finish(),
    tables: writer.tables,
    scanned: pages.filter(({ runs, hasImage }) => runs.length === 0 && hasImage).map(({ number }) => number),
  };
}

/** Runs joined to lines, from the top of the page. */
function linesOf({ runs }: PdfPage): Line[] {
  const rows: PdfRun[][] = [];
  for (const run of [...runs].sort((a, b) => b.y - a.y || a.x - b.x)) {
    const row = rows.findLast(([first]) =>
      Math.abs(first!.y - run.y) < 0.4 * Math.min(first!.size, run.size)
    );
    if (row) row.push(run);
    else rows.push([run]);
  }
  return rows.flatMap((row) => splitRow(row.sort((a, b) => a.x - b.x)));
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
  for (const run of runs) {
    if (text !== "" && run.x - end > WORD_GAP * run.size && !text.endsWith(" ")) text += " ";
    text += run.text;
    end = run.x + run.width;
  }
  return text.replace(/\s+/g, " ").trim();
}

/** Lines in the margins that come back on other pages, whatever their numbers. */
function runningHeads(pages: readonly { page: PdfPage; lines: readonly Line[] }[]): Set<string> {
  const counts = new Map<string, number>();
  for (const { page, lines } of pages) {
    const keys = new Set(lines.filter((line) => isInMargin(line, page)).map((line) => headKey(line, page)));
    for (const key of keys) counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return new Set([...counts].filter(([, count]) => count >= 2).map(([key]) => key));
}

function headKey(line: Line, page: PdfPage): string {
  const place = isInMargin(line, page) ? line.y > page.height / 2 ? "top" : "bottom" : `inside ${line.y}`;
  return `${place} ${line.text.replace(/\d+|\b[ivxlc]+\b/gi, "#")}`;
}

function isInMargin({ y }: Line, { height }: PdfPage): boolean {
  return y > (1 - MARGIN) * height || y < MARGIN * height;
}

function isPageNumber(line: Line, page: PdfPage): boolean {
  return isInMargin(line, page) &&
    /^(page\s*)?[-–—\s]*(\d{1,4}|[ivxlc]{1,7})[-–—\s]*(of\s*\d+)?$/i.test(line.text);
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
    for (const [i, line] of block.entries()) this.#addLine(line, block[i - 1], { left, leading });
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
    const wasHeading = this.#last !== undefined && this.#last.size > HEADING * this.usualSize;
    const isApart = above
      ? above.y - line.y > leading + PARAGRAPH_GAP * line.size
      // A paragraph that goes on in the next column or on the next page has no end yet.
      : /[.!?:]["'”’)\]]*$/.test(this.#open) || Math.abs((this.#last?.size ?? line.size) - line.size) > 0.3;
    const isIndented = line.left > left + 0.8 * line.size &&
      (above === undefined || above.left <= left + 0.8 * line.size);
    const isSame = isHeading && this.#last !== undefined && Math.abs(this.#last.size - line.size) < 0.5 &&
      !isApart;
    const isItem = /^([•◦‣▪*–—-]|\(?\d{1,2}[.)]) /.test(line.text);
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
    if (this.#open !== "") this.#paragraphs.push(this.#open);
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
