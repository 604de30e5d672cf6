/** Lines in reading order to paragraphs. */
import type { Line } from "./lines.ts";
import { isTable } from "./reading_order.ts";

/** Space above a line, in letter heights beyond the usual, that begins a paragraph; where a sentence ends, the less. */
const PARAGRAPH_GAP = 0.45;
const SENTENCE_GAP = 0.2;
/** Least size of a heading's letters over the text's. */
const HEADING = 1.12;

/** Marks that items of lists begin with. */
const ITEM = /^([•◦‣▪*–—-]|\(?\d{1,2}[.)]) /;
/** Deepest indent of an item's lines from its mark, in letter heights. */
const ITEM_INDENT = 3;

/** Characters of a paragraph's end that are looked at: each line looks again. */
const LONGEST_WORD = 100;

/** Joins lines to paragraphs, over columns and pages too. */
export class ParagraphWriter {
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
    const endsSentence = /[.!?:]["'”’)\]]*$/.test(this.#open.slice(-LONGEST_WORD));
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
    const word = /(?<!\p{L})(\p{L}+)[-\u00ad]$/u.exec(this.#open.slice(-LONGEST_WORD))?.[1];
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
