/** PDF files to text files. */
import { UserError } from "../../errors.ts";
import { ifThere, readWhole } from "../file_bytes.ts";
import { settle, temporaryName } from "../temporary.ts";
import { layOutText } from "./layout.ts";
import { openPdf, type Pdf, type PdfPage } from "./reader.ts";

/** Bytes of a text that is there already. */
const LARGEST_TEXT = 2 ** 29;

/** The text of a PDF. */
export interface PdfText {
  readonly text: string;
  readonly pages: number;
  readonly tables: number;
  /** Numbers of the pages that are images without text. */
  readonly scanned: readonly number[];
}

/** Result of {@linkcode convertPdf}. */
export interface ConvertedPdf extends Omit<PdfText, "text"> {
  readonly input: string;
  readonly output: string;
  readonly characters: number;
}

/** The PDFs of a folder by their names, or the file itself. */
export async function pdfFiles(path: string): Promise<string[]> {
  const info = await Deno.stat(path).catch(() => undefined);
  if (!info?.isDirectory) return [path];
  const names = (await Array.fromAsync(Deno.readDir(path))).map(({ name }) => name);
  return names.filter((name) => /\.pdf$/i.test(name)).sort().map((name) => `${path}/${name}`);
}

/**
 * Reads the text of a PDF, in reading order.
 * @throws {UserError} if the file is no PDF, or all of it was scanned
 */
export async function readPdf(
  input: string,
  onProgress?: (done: number, total: number) => void,
): Promise<PdfText> {
  return await textOfPdf(await openPdf(input), input, onProgress);
}

/**
 * The text of an opened PDF, in reading order.
 * @param name what errors call it
 * @throws {UserError} if all of it was scanned, or there is none
 */
export async function textOfPdf(
  pdf: Pdf,
  name: string,
  onProgress?: (done: number, total: number) => void,
): Promise<PdfText> {
  const pages: PdfPage[] = [];
  for await (const page of pdf.pages()) {
    pages.push(page);
    onProgress?.(page.number, pdf.pageCount);
  }
  const { text, tables, scanned } = layOutText(pages);
  if (text === "") {
    throw new UserError(
      scanned.length > 0
        ? `Cannot convert "${name}": all its pages are scanned images. Run it through text recognition (OCR) first`
        : `Cannot convert "${name}": it has no text`,
    );
  }
  return { text, pages: pages.length, tables, scanned };
}

/**
 * Writes `outputs_dir/NAME.txt`.
 * @throws {UserError} if the file is no PDF, all of it was scanned, or the text cannot be written
 */
export async function convertPdf(
  input: string,
  outputsDir: string,
  onProgress?: (done: number, total: number) => void,
): Promise<ConvertedPdf> {
  const { text, ...counts } = await readPdf(input, onProgress);
  const output = `${outputsDir}/${input.split(/[\\/]/).at(-1)!.replace(/\.pdf$/i, "")}.txt`;
  const before = await ifThere(
    readWhole(output, LARGEST_TEXT).then((bytes) => new TextDecoder().decode(bytes)),
  );
  if (before === text) return { input, output, characters: text.length, ...counts };
  if (before !== undefined) {
    throw new UserError(
      `Cannot write "${output}": it is there already with another text. Remove it, or choose another folder`,
    );
  }
  const staged = temporaryName(output);
  try {
    await Deno.mkdir(outputsDir, { recursive: true });
    await Deno.writeTextFile(staged, text, { createNew: true });
    await Deno.rename(staged, output);
  } catch (cause) {
    await Deno.remove(staged).catch(() => {});
    throw new UserError(`Cannot write "${output}": ${(cause as Error).message}`, { cause });
  } finally {
    settle(staged);
  }
  return { input, output, characters: text.length, ...counts };
}
