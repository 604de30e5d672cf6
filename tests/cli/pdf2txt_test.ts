import { runCli } from "../../cli/main.ts";
import { assertEquals } from "../support/assert_close.ts";
import { namesIn, withFolder } from "../support/files.ts";
import { makePdf } from "../support/make_pdf.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "./memory_io.ts";

Deno.test("pdf2txt converts a folder, and what cannot be converted keeps nothing else from it", async () => {
  await withFolder(async (folder) => {
    const run = async (path: string, ...flags: string[]) => {
      const io = new MemoryIo();
      const code = await runCli(
        ["pdf2txt", "--pdf_path", path, "--outputs_dir", `${folder}/out`, ...flags],
        io,
      );
      return { code, io };
    };
    await Deno.mkdir(`${folder}/in`);
    const page = (text: string) => [{ text, x: 72, y: 600 }];
    await Deno.writeFile(`${folder}/in/a.pdf`, makePdf([page("The first.")]));
    await Deno.writeTextFile(`${folder}/in/b.pdf`, "no PDF");
    await Deno.writeFile(`${folder}/in/c.pdf`, makePdf([page("The last."), []], { image: true }));

    const all = await run(`${folder}/in`, "--json");
    assertEquals(all.code, 1);
    assertEquals(namesIn(`${folder}/out`), ["a.txt", "c.txt"]);
    const { converted, failed } = JSON.parse(all.io.stdout);
    assertEquals(converted.map(({ pages, scanned }: Record<string, unknown>) => [pages, scanned]), [
      [1, []],
      [2, [2]],
    ]);
    assertEquals(failed, [{
      input: `${folder}/in/b.pdf`,
      error: `Cannot read "${folder}/in/b.pdf": it is no PDF`,
    }]);
    assertIncludes(all.io.stderr, "c.pdf: 1 of 2 pages are images without text (2)");
    assertIncludes(all.io.stderr, "1 of 3 files were not converted");

    await Deno.writeTextFile(`${folder}/out/a.txt.tmp-0123abcd`, "half of what a killed run wrote");
    const one = await run(`${folder}/in/a.pdf`);
    assertEquals(namesIn(`${folder}/out`), ["a.txt", "c.txt"]);
    assertEquals([one.code, one.io.stdout.trim()], [0, `${folder}/out/a.txt  1 pages  11 characters`]);
    const bad = await run(`${folder}/in/b.pdf`);
    assertEquals([bad.code, bad.io.stdout], [1, ""]);
  });
});
