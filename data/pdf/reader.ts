/** The words of a PDF and where they stand: `unpdf` reads the file and is used nowhere else. */
import { getDocumentProxy } from "unpdf";
import { UserError } from "../../errors.ts";
import { type Bytes, FILE_LIMITS, readWhole } from "../file_bytes.ts";

/** A run of text as the file has it. */
export interface PdfRun {
  readonly text: string;
  /** Left end of its baseline, in points from the lower left corner. */
  readonly x: number;
  readonly y: number;
  readonly width: number;
  /** Height of its letters, in points. */
  readonly size: number;
  /** Whether all letters are equally wide, as in programs. */
  readonly isMonospaced: boolean;
}

export interface PdfPage {
  /** Counts from 1. */
  readonly number: number;
  readonly width: number;
  readonly height: number;
  /** In the order of the file; turned text is left out. */
  readonly runs: readonly PdfRun[];
  /** Whether it shows an image: a page of images alone was scanned. */
  readonly hasImage: boolean;
}

/** A PDF that is read page by page. */
export interface Pdf {
  readonly pageCount: number;
  pages(): AsyncGenerator<PdfPage>;
}

/** pdf.js' numbers of the operators that paint images. */
const PAINTS_IMAGE = new Set([83, 84, 85, 86, 88]);

/** @throws {UserError} if the file is missing, is no PDF, or wants a password */
export async function openPdf(path: string): Promise<Pdf> {
  return await parsePdf(await readWhole(path, FILE_LIMITS.document), path);
}

/**
 * A PDF in memory.
 * @param name what errors call it
 * @throws {UserError} if it is no PDF, or wants a password
 */
export async function parsePdf(bytes: Bytes, name: string): Promise<Pdf> {
  // Readers look for it in the first kilobyte (PDF 1.7, appendix H).
  if (!new TextDecoder("latin1").decode(bytes.subarray(0, 1024)).includes("%PDF-")) {
    throw new UserError(`Cannot read "${name}": it is no PDF`);
  }
  let document: Awaited<ReturnType<typeof getDocumentProxy>>;
  try {
    document = await getDocumentProxy(bytes, { verbosity: 0 });
  } catch (cause) {
    const { name: kind, message } = cause as Error;
    const problem = kind === "PasswordException" ? "it wants a password" : `it is damaged (${message})`;
    throw new UserError(`Cannot read "${name}": ${problem}`, { cause });
  }
  return {
    pageCount: document.numPages,
    async *pages() {
      for (let number = 1; number <= document.numPages; number++) yield await readPage(document, number);
      await document.cleanup();
    },
  };
}

async function readPage(
  document: Awaited<ReturnType<typeof getDocumentProxy>>,
  number: number,
): Promise<PdfPage> {
  const page = await document.getPage(number);
  const [left = 0, bottom = 0, right = 0, top = 0] = page.view;
  const { items, styles } = await page.getTextContent();
  const runs: PdfRun[] = [];
  for (const item of items) {
    if (!("str" in item) || item.str.trim() === "") continue;
    const [a = 0, b = 0, , , x = 0, y = 0] = item.transform as number[];
    // Text that is turned belongs to figures or margins.
    if (Math.abs(b) > 0.1 * Math.abs(a)) continue;
    runs.push({
      text: item.str,
      x: x - left,
      y: y - bottom,
      width: item.width,
      size: item.height || Math.abs(a),
      isMonospaced: styles[item.fontName]?.fontFamily === "monospace",
    });
  }
  const hasImage = runs.length === 0 &&
    (await page.getOperatorList()).fnArray.some((operator) => PAINTS_IMAGE.has(operator));
  page.cleanup();
  return { number, width: right - left, height: top - bottom, runs, hasImage };
}
