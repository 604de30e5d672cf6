/** Runs of a page joined to lines. */
import type { PdfPage, PdfRun } from "./reader.ts";

/** Runs on one baseline with no wide gap between them: a line of a column, or a cell of a table. */
export interface Line {
  readonly text: string;
  readonly left: number;
  readonly right: number;
  /** Height of its baseline. */
  readonly y: number;
  readonly size: number;
  /** Whether it is of a program or the like, whose line ends mean something. */
  readonly isCode: boolean;
}

/** A page and what of it is read. */
export interface LinedPage {
  readonly page: PdfPage;
  readonly lines: readonly Line[];
}

/** A gap within a line, in letter heights, from which on it is the gap between columns or cells. */
const COLUMN_GAP = 1.2;
/** A gap between words, in letter heights. */
const WORD_GAP = 0.16;
/** Bounds of superscripts and subscripts, in letter heights: how much smaller, and how far off the baseline. */
const SCRIPT = { size: 0.85, rise: 0.6 };

/** Runs joined to lines, from the top of the page. */
export function linesOf({ runs }: PdfPage): Line[] {
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

/** The lines that are so, and the others. */
export function split(lines: readonly Line[], isFirst: (line: Line) => boolean): [Line[], Line[]] {
  return [lines.filter(isFirst), lines.filter((line) => !isFirst(line))];
}
