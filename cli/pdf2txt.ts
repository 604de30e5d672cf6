/** `pdf2txt`: papers and books to text files. */
import { formatCount, formatTable } from "../text.ts";
import type { ConvertedPdf } from "../data/pdf/convert.ts";
import { UserError } from "../errors.ts";
import { CommandError } from "./exit.ts";
import { type BuiltCommand, newCommand, requiredPath } from "./flags.ts";
import { formatJson } from "./format.ts";
import type { Io } from "./io.ts";
import { stagesOn } from "./stages.ts";

/** The command, with LongLoRA's flags. A file that cannot be converted keeps no other one from it. */
export function build(summary: string, io: Io): BuiltCommand {
  return newCommand("pdf2txt", summary, io, {
    examples: ["pdf2txt --pdf_path papers/ --outputs_dir text/"],
    usesGpu: false,
  })
    .addOption(requiredPath("pdf_path", "a PDF, or a folder of them"))
    .addOption(requiredPath("outputs_dir", "folder for the text files"))
    .action(async ({ json, pdf_path, outputs_dir }) => {
      const { convertPdf, pdfFiles } = await import("../data/pdf/convert.ts");
      const files = await pdfFiles(pdf_path);
      if (files.length === 0) throw new UserError(`Cannot use "${pdf_path}": the folder has no .pdf file`);
      const { exists } = await import("../checkpoint/files.ts");
      const { lockTarget, removeLeftovers } = await import("../checkpoint/store.ts");
      const note = (line: string) => io.err(line);
      // A folder that is still to be made holds nothing that is to go.
      using _lock = await exists(outputs_dir)
        ? await lockTarget(`${outputs_dir}/pdf2txt`, { note })
        : undefined;
      await removeLeftovers(outputs_dir, { isLeftover: (name) => name.endsWith(".txt"), note });
      const converted: ConvertedPdf[] = [];
      const failed: { input: string; error: string }[] = [];
      for (const file of files) {
        try {
          const result = await stagesOn(io).counting(
            "page",
            ({ onProgress }) =>
              convertPdf(file, outputs_dir, (done, total) => onProgress?.(done, total, file)),
          );
          noteScanned(result, io);
          converted.push(result);
        } catch (error) {
          if (!(error instanceof UserError) || files.length === 1) throw error;
          io.err(error.message);
          failed.push({ input: file, error: error.message });
        }
      }
      const rows = converted.map((
        { output, pages, characters },
      ) => [output, `${formatCount(pages)} pages`, `${formatCount(characters)} characters`]);
      if (json) io.out(formatJson({ converted, failed }));
      else if (rows.length > 0) io.out(formatTable(rows, "lrr"));
      if (failed.length === 0) return;
      throw new CommandError(`${failed.length} of ${files.length} files were not converted, as said above`, {
        isTold: true,
      });
    });
}

function noteScanned({ input, pages, scanned }: ConvertedPdf, io: Io): void {
  if (scanned.length === 0) return;
  const numbers = scanned.slice(0, 5).join(", ") + (scanned.length > 5 ? ", ..." : "");
  io.err(
    `${input}: ${formatCount(scanned.length)} of ${
      formatCount(pages)
    } pages are images without text (${numbers})`,
  );
}
