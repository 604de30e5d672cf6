/** `pdf2txt`: papers and books to text files. */
import { UserError } from "../errors.ts";
import { type BuiltCommand, newCommand, requiredPath } from "./flags.ts";
import { formatCount, formatTable } from "./format.ts";
import type { Io } from "./io.ts";
import { stagesOn } from "./stages.ts";

/** The command, with LongLoRA's flags. */
export function build(summary: string, io: Io): BuiltCommand {
  return newCommand("pdf2txt", summary, io)
    .addOption(requiredPath("pdf_path", "a PDF, or a folder of them"))
    .addOption(requiredPath("outputs_dir", "folder for the text files"))
    .action(async ({ json, pdf_path, outputs_dir }) => {
      const { convertPdf, pdfFiles } = await import("../data/pdf/convert.ts");
      const files = await pdfFiles(pdf_path);
      if (files.length === 0) throw new UserError(`Cannot use "${pdf_path}": the folder has no .pdf file`);
      const results = [];
      for (const file of files) {
        const result = await stagesOn(io).counting(
          "page",
          ({ onProgress }) => convertPdf(file, outputs_dir, (done, total) => onProgress?.(done, total, file)),
        );
        if (result.scanned.length > 0) {
          io.err(
            `${file}: ${formatCount(result.scanned.length)} of ${
              formatCount(result.pages)
            } pages are images ` +
              `without text (${result.scanned.slice(0, 5).join(", ")}${
                result.scanned.length > 5 ? ", ..." : ""
              })`,
          );
        }
        results.push(result);
      }
      const rows = results.map((
        { output, pages, characters },
      ) => [output, `${formatCount(pages)} pages`, `${formatCount(characters)} characters`]);
      io.out(json ? JSON.stringify(results) : formatTable(rows, "lrr"));
    });
}
