/** PDFs that come as base64: their text goes back, and nothing is written or left running. */
import { assert, assertEquals } from "../support/assert_close.ts";
import { makePdf } from "../support/make_pdf.ts";
import { assertIncludes } from "../support/text.ts";
import { EchoModel, post, withServer } from "./support.ts";

const pdf = (text: string, image = false) =>
  makePdf(text === "" ? [[]] : [[{ x: 50, y: 700, text }]], { image }).toBase64();

Deno.test("a PDF comes back as text, and what is none is refused without a path", async () => {
  await withServer(new EchoModel(), async ({ url, problems }) => {
    const extract = async (data: unknown) => {
      const response = await post(`${url}/extract`, { data });
      return { status: response.status, ...await response.json() };
    };
    const { status, text, pages, scanned } = await extract(pdf("the old lamp"));
    assertEquals([status, text.trim(), pages, scanned], [200, "the old lamp", 1, []]);
    for (
      const [data, problem] of [
        [undefined, "base64"],
        [7, "base64"],
        ["!", "base64"],
        [btoa("no PDF at all"), "no PDF"],
        [btoa("%PDF-1.4 and nothing else"), "damaged"],
        [pdf("", true), "scanned"],
        [pdf(""), "no text"],
      ] as const
    ) {
      const { status, error } = await extract(data);
      assertEquals([status, error.param], [400, "data"], problem);
      assertIncludes(error.message, problem);
      assert(!/[/\\]|document"/.test(error.message), error.message);
    }
    assertEquals(problems, []);
  });
});

Deno.test("documents have a limit of their own", async () => {
  await withServer(new EchoModel(), async ({ url }) => {
    const response = await post(`${url}/extract`, { data: "A".repeat(3000) });
    assertEquals([response.status, (await response.json()).error.code], [413, "request_too_large"]);
  }, { maxDocumentBytes: 2000 });
});
