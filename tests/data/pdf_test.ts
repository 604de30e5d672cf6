import { convertPdf, pdfFiles } from "../../data/pdf/convert.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { makePdf, type PlacedText } from "../support/make_pdf.ts";

/** The text of a PDF with these pages. */
async function textOf(pages: PlacedText[][]): Promise<string> {
  let text = "";
  await withFolder(async (folder) => {
    await Deno.writeFile(`${folder}/a.pdf`, makePdf(pages));
    const { output } = await convertPdf(`${folder}/a.pdf`, `${folder}/out`);
    text = await Deno.readTextFile(output);
  });
  return text;
}

/** Lines under each other; two spaces before one set it in. */
function column(lines: readonly string[], x: number, y: number): PlacedText[] {
  return lines.map((line, i) => ({
    text: line.trim(),
    x: x + (line.startsWith("  ") ? 14 : 0),
    y: y - 12 * i,
  }));
}

const LEFT = [
  "This column stands on the left side of a page with",
  "two of them. The word at the end of this line is hy-",
  "phenated, and here stands one that is well-",
  "known for its hyphen, as well-known things are.",
  "  A second paragraph begins with an indent, and",
  "goes on",
];
const RIGHT = [
  "at the top of the right column, where it ends at last.",
  "  The third is on the right side alone, and short.",
];

Deno.test("columns are read one after the other, under a title over both, hyphens joined where they were added", async () => {
  const text = await textOf([[
    { text: "A Title Over Both Columns", x: 150, y: 730, size: 18 },
    ...column(RIGHT, 320, 660),
    ...column(LEFT, 60, 660),
  ]]);
  assertEquals(text.split("\n\n"), [
    "A Title Over Both Columns",
    "This column stands on the left side of a page with two of them. The word at the end of this line is hyphenated, " +
    "and here stands one that is well-known for its hyphen, as well-known things are.",
    "A second paragraph begins with an indent, and goes on at the top of the right column, where it ends at last.",
    "The third is on the right side alone, and short.\n",
  ]);
});

Deno.test("running heads and page numbers are left out, and a sentence goes on over the page", async () => {
  const page = (number: number, body: string): PlacedText[] => [
    { text: `Chapter 2. ${number} Of Trees`, x: 250, y: 765, size: 8 },
    { text: body, x: 72, y: 600 },
    { text: `- ${number} -`, x: 300, y: 30, size: 9 },
  ];
  const text = await textOf([
    page(11, "The sentence does not end on"),
    page(12, "the page where it began."),
    page(13, "In 1999"),
  ]);
  assertEquals(text, "The sentence does not end on the page where it began.\n\nIn 1999\n");
});

Deno.test("heads of left and right pages are left out wherever they stand, a title at their height is not", async () => {
  const body = (y: number, ...lines: string[]) => column(lines, 72, y);
  const pages = [
    [{ text: "A Title", x: 250, y: 712, size: 18 }, ...body(660, "This is where it")],
    [
      { text: "2", x: 72, y: 712 },
      { text: "On Trees", x: 300, y: 712 },
      ...body(680, "begins.", "Mark this:"),
    ],
    [
      { text: "A. Author", x: 250, y: 712 },
      { text: "3", x: 540, y: 712 },
      ...body(680, "Oaks grow.", "And so"),
    ],
    [
      { text: "4", x: 72, y: 712 },
      { text: "On Trees", x: 300, y: 712 },
      ...body(680, "do elms.", "Mark this:"),
    ],
    [{ text: "A. Author", x: 250, y: 712 }, { text: "5", x: 540, y: 712 }, ...body(680, "Beeches.")],
    // Two of the last lines are alike, as may be in any text.
  ].map((
    lines,
    i,
  ) => [...lines, ...body(100, `The last line${[" of page a", "", " of page c", "", " of page e"][i]}.`)]);
  assertEquals(
    (await textOf(pages)).replace(/\s+/g, " "),
    "A Title This is where it The last line of page a. begins. Mark this: The last line. Oaks grow. And so " +
      "The last line of page c. do elms. Mark this: The last line. Beeches. The last line of page e. ",
  );
});

Deno.test("the line numbers of drafts and the numbers of plots are left out", async () => {
  const lines = [
    "A draft has numbers",
    "beside its lines, one",
    "for each of them.",
    "They are no",
    "part of it.",
    "End.",
  ];
  const numbers = lines.map((_, i) => ({ text: String(i + 98), x: 40, y: 600 - 12 * i, size: 6 }));
  const plot = [0, 20, 40].map((value) => ({ text: String(value), x: 100 + 4 * value, y: 400 }));
  const text = await textOf([[...numbers, ...column(lines, 72, 600), ...plot]]);
  assertEquals(
    text,
    "A draft has numbers beside its lines, one for each of them. They are no part of it. End.\n",
  );
});

Deno.test("scripts stay with their letters, items with their lines, page numbers with their entries", async () => {
  const text = await textOf([[
    ...column(["The norm of a vector, written as", "x"], 72, 660),
    { text: "2", x: 77.2, y: 652, size: 7 },
    { text: "i", x: 77.2, y: 645.5, size: 7 },
    { text: "and no other way, is what", x: 84, y: 648 },
    ...column(["it is. A new one begins."], 72, 636),
    ...column(["Only a little space is above this line, which", "goes on."], 72, 621),
    { text: "- An item of a list goes on in", x: 80, y: 590 },
    { text: "the next line, set in a little.", x: 90, y: 578 },
    { text: "Contents of a book have a page", x: 72, y: 550 },
    { text: "7", x: 400, y: 550 },
    { text: "Each entry has its own", x: 72, y: 538 },
    { text: "19", x: 400, y: 538 },
    { text: "1", x: 82, y: 513, size: 6 },
    { text: "A footnote begins with its number, set in, and", x: 86, y: 510, size: 8 },
    { text: "goes on.", x: 72, y: 500.5, size: 8 },
  ]]);
  assertEquals(text.split("\n\n"), [
    "The norm of a vector, written as x2i and no other way, is what it is. A new one begins.",
    "Only a little space is above this line, which goes on.",
    "- An item of a list goes on in the next line, set in a little.",
    "Contents of a book have a page 7",
    "Each entry has its own 19",
    "1 A footnote begins with its number, set in, and goes on.\n",
  ]);
});

Deno.test("tables are marked, lists and programs keep their lines", async () => {
  const rows = [["Model", "Size", "Score"], ["A", "7B", "1.0"], ["B", "13B", "2.0"], ["C", "70B", "3.0"]];
  const cells = rows.flatMap((row, r) => row.map((text, c) => ({ text, x: 100 + 120 * c, y: 500 - 14 * r })));
  const text = await textOf([[
    ...column(
      ["Some words stand above the table and say what it is.", "- one thing", "- another thing"],
      72,
      660,
    ),
    ...cells,
    { text: "let x = 1", x: 72, y: 380, font: "F3" },
    { text: "print(x)", x: 72, y: 368, font: "F3" },
  ]]);
  assertEquals(text.split("\n\n"), [
    "Some words stand above the table and say what it is.",
    "- one thing",
    "- another thing",
    "[table]",
    "let x = 1\nprint(x)\n",
  ]);
});

Deno.test("a file that is no PDF, a damaged one and one without text are refused, and nothing is written", async () => {
  await withFolder(async (folder) => {
    const file = async (name: string, bytes: Uint8Array<ArrayBuffer>) => {
      await Deno.writeFile(`${folder}/${name}`, bytes);
      return `${folder}/${name}`;
    };
    const out = `${folder}/out`;
    await assertThrows(() => convertPdf(`${folder}/none.pdf`, out), "Cannot read", "none.pdf");
    const text = await file("text.pdf", new TextEncoder().encode("plain text"));
    await assertThrows(() => convertPdf(text, out), '"', "it is no PDF");
    const cut = await file("cut.pdf", new TextEncoder().encode("%PDF-1.4\n1 0 obj\n"));
    await assertThrows(() => convertPdf(cut, out), "it is damaged");
    const empty = await file("empty.pdf", makePdf([[]]));
    await assertThrows(() => convertPdf(empty, out), "it has no text");
    const scanned = await file("scanned.pdf", makePdf([[]], { image: true }));
    await assertThrows(() => convertPdf(scanned, out), "scanned images", "OCR");
    assertEquals(await Deno.stat(out).catch(() => "none"), "none");
    assertEquals((await pdfFiles(folder)).map((path) => path.split("/").at(-1)), [
      "cut.pdf",
      "empty.pdf",
      "scanned.pdf",
      "text.pdf",
    ]);
    // A text of another file's, or that somebody wrote on in, stays.
    const first = await convertPdf(await file("a.pdf", makePdf([[{ x: 50, y: 700, text: "Once" }]])), out);
    await convertPdf(`${folder}/a.pdf`, out);
    const other = await file("a.PDF", makePdf([[{ x: 50, y: 700, text: "Twice" }]]));
    await assertThrows(() => convertPdf(other, out), first.output, "already with another text");
    assert((await Deno.readTextFile(first.output)).includes("Once"), "the text stays");
  });
});
