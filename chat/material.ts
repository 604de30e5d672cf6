/** Long documents that questions are about. */
import { decodeText } from "../data/encoding.ts";
import { readWhole } from "../data/file_bytes.ts";
import { readPdf } from "../data/pdf/convert.ts";

/** Bytes of a text: more than any context holds. */
const LARGEST_TEXT = 2 ** 28;

/** Kinds of documents in prompts, as LongLoRA's demo has them. */
export const MATERIAL_TYPES = ["none", "book", "paper", "material"] as const;
export type MaterialType = (typeof MATERIAL_TYPES)[number];

/**
 * Reads a document: a PDF, or text in UTF-8 or UTF-16.
 * @throws {UserError} if it cannot be read or is neither
 */
export async function readMaterial(
  path: string,
  onProgress?: (done: number, total: number) => void,
): Promise<string> {
  if (/\.pdf$/i.test(path)) return (await readPdf(path, onProgress)).text;
  return decodeText(await readWhole(path, LARGEST_TEXT), path);
}

/** A document and a question about it as one turn. `none` is LongLoRA's `inference.py`, the others its older prompts. */
export function askAbout(
  material: string,
  question: string,
  { type = "none", title = "" }: { readonly type?: MaterialType; readonly title?: string } = {},
): string {
  if (type === "none") return `${material}\n${question}`;
  const opening = {
    book:
      `Below is some paragraphs in the book${
        title && `, ${title}`
      }. Memorize the content and answer my question ` +
      "after the book.",
    paper: "Below is a paper. Memorize the material and answer my question after the paper.",
    material: "Below is a material. Memorize the material and answer my question after the material.",
  }[type];
  return `${opening}\n ${material} \n Now the material ends. ${question}`;
}
