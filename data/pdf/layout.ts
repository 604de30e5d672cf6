/** Pages of a PDF as text in reading order, without what is not the text itself. */
import { withoutLineNumbers, withoutRunningHeads } from "./furniture.ts";
import { type Line, linesOf } from "./lines.ts";
import { ParagraphWriter } from "./paragraphs.ts";
import type { PdfPage } from "./reader.ts";
import { readingOrder } from "./reading_order.ts";

/** A document as text. */
export interface PdfText {
  readonly text: string;
  readonly tables: number;
  /** Numbers of the pages that are images without text. */
  readonly scanned: readonly number[];
}

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

/** The size that most letters have. */
function usualSize(lines: readonly Line[]): number {
  const letters = new Map<number, number>();
  for (const { size, text } of lines) {
    const rounded = Math.round(2 * size) / 2;
    letters.set(rounded, (letters.get(rounded) ?? 0) + text.length);
  }
  return [...letters].reduce((most, entry) => entry[1] > most[1] ? entry : most, [10, 0])[0];
}
