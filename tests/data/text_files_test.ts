/** Text in other encodings, other layouts of JSON, and files that are no text: read right, or refused with the place. */
import { readText } from "../../data/jsonl.ts";
import { readRows } from "../../data/rows.ts";
import { parseYaml, readYamlFile } from "../../data/yaml.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";

const TEXT = "The café on the quay\nopened at dawn: 🌅 \ufeff and so on.\n";

function utf16(text: string, littleEndian: boolean, mark = true): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(2 * text.length + (mark ? 2 : 0)));
  if (mark) view.setUint16(0, 0xfeff, littleEndian);
  [...text].join("").split("").forEach((unit, i) =>
    view.setUint16(2 * i + (mark ? 2 : 0), unit.charCodeAt(0), littleEndian)
  );
  return new Uint8Array(view.buffer);
}

const packed = (bytes: Uint8Array<ArrayBuffer>) =>
  new Response(new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"))).bytes();
const utf8 = (text: string) => new TextEncoder().encode(text);
const latin1 = (text: string) => Uint8Array.from(text, (char) => char.charCodeAt(0));
const textsOf = async (path: string) =>
  (await Array.fromAsync(readRows(path))).map(({ row }) => row.kind === "text" ? row.text : row.kind);

/** Checks what a file of these bytes under this name is read as. */
async function read(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<string[]> {
  return await withFolder(async (folder) => {
    await Deno.writeFile(`${folder}/${name}`, bytes);
    return await textsOf(`${folder}/${name}`);
  });
}

Deno.test("text in UTF-16 with its mark, and UTF-8 with one, is read as text, packed or not", async () => {
  const rows = ["one ü", TEXT, "🌅".repeat(300_000)];
  const jsonl = rows.map((text) => JSON.stringify({ text })).join("\r\n");
  for (
    const encode of [
      utf8,
      (text: string) => utf8(`\ufeff${text}`),
      (text: string) => utf16(text, true),
      (text: string) => utf16(text, false),
    ]
  ) {
    assertEquals(await read("a.txt", encode(TEXT)), [TEXT]);
    assertEquals(await read("a.txt.gz", await packed(encode(TEXT))), [TEXT]);
    assertEquals(await read("a.jsonl", encode(jsonl)), rows);
    assertEquals(await read("a.json.gz", await packed(encode(`[${jsonl.replaceAll("\r\n", ",")}]`))), rows);
  }
  await withFolder(async (folder) => {
    await Deno.writeFile(`${folder}/a.yaml`, utf16("seed: 3\n", true));
    const { entries } = await readYamlFile(`${folder}/a.yaml`);
    assertEquals(entries.map(({ key, value }) => [key, value]), [["seed", 3]]);
    assertEquals(parseYaml("\ufeffseed: 3", "a.yaml").entries.length, 1);
  });
});

Deno.test("what is of no encoding is refused with its line and byte", async () => {
  const refused = async (name: string, bytes: Uint8Array<ArrayBuffer>, ...parts: string[]) =>
    await assertThrows(() => read(name, bytes), ...parts);
  for (const name of ["a.txt", "a.jsonl", "a.md", "a.json"]) {
    await refused(
      name,
      latin1("The café"),
      `${name}:1: byte 8 of the line, 0xe9 (byte 7 of the file`,
      "UTF-8",
    );
    await refused(name, latin1("a\nbé c"), `${name}:2: byte 2 of the line, 0xe9 (byte 3 of`);
  }
  // At every distance from the borders of chunks, and within a character of several bytes.
  for (let before = 262_140; before < 262_148; before++) {
    const start = "x".repeat(before - 1) + "\n";
    await refused(
      "a.txt",
      new Uint8Array([...utf8(start), 0xf0, 0x9f, 0x41]),
      `:2: byte 1 of the line, 0xf0 (byte ${before} `,
    );
    assertEquals(await read("a.txt", utf8(start + "🌅é")), [start + "🌅é"]);
  }
  await refused("a.txt", Uint8Array.of(0x61, 0xc3), ":1: byte 2 of the line, 0xc3 (byte 1 of the file");
  await refused(
    "a.txt",
    utf16("ab\n\ud800x", true),
    ":2: byte 1 of the line, 0x00 (byte 8 of the file",
    "UTF-16LE",
  );
  await refused("a.txt", utf16("ab", true).subarray(0, 5), ":1: byte 3 of the line");
  await refused("a.txt", utf16("Without a mark", true, false), "byte 1 and many more are zero", "UTF-16");
  await refused("a.jsonl", utf16('{"text": "a"}', false, false), "many more are zero");
  await refused("a.txt", Uint8Array.of(0xff, 0xfe, 0, 0, 0x61, 0, 0, 0), "UTF-32");
  await refused("a.txt", Uint8Array.of(0, 0, 0xfe, 0xff, 0, 0, 0, 0x61), "UTF-32");
});

Deno.test("JSON laid out over lines is read, whatever stands before it", async () => {
  const rows = [{ text: 'a } ] " \\ {' }, { text: "b\n", more: [{ x: {} }] }];
  const spread = rows.map((row) => JSON.stringify(row, null, 2)).join("\n");
  const texts = rows.map(({ text }) => text);
  for (const before of ["", "\ufeff", "\n\n  \r\n", " ".repeat(600_000), "\n".repeat(600_000)]) {
    for (const layout of [spread, spread.replaceAll("\n", "\r\n"), JSON.stringify(rows), `${spread}\n\n`]) {
      assertEquals(await read("a.json", utf8(before + layout)), texts);
    }
  }
  await assertThrows(() => read("a.json", utf8(spread.slice(0, -3))), "ends too early");
  await assertThrows(() => read("a.json", utf8(spread.replace('"b', "b"))), "a.json:5:11: ", 'unexpected "b');
  await assertThrows(
    () => read("a.json", utf8('\n\n[{"text": "a"},\n\n {"text": oops}]')),
    "a.json:5:11: ",
  );
  await assertThrows(
    () => read("a.json", utf8('[{"text": "a"}]\n[{"text": "b"}]')),
    "a.json:2: something follows",
  );
});

Deno.test("JSON that says nothing certain is refused with its place", async () => {
  const refused = (row: string, ...parts: string[]) =>
    assertThrows(() => read("a.jsonl", utf8(`{"text": "one"}\n${row}\n`)), "a.jsonl:2:", ...parts);
  await refused('{"text": "a", "x": NaN}', ":2:20: ", "NaN and Infinity are not in JSON");
  await refused('{"text": "a \\ud83d\\ude05", "x": "\\ud83d"}', ":2:34: \\ud83d is one half of a character");
  await refused(`{"text": "a", "x": ${"[".repeat(5e6)}`, "nest more than 1000 levels deep");
  await refused(`{"text": "a", "x": [${"0,".repeat(5e6)}0]}`, "more than 4194304 values");
  await refused('{"text": "a", "x": -Infinity}', ":2:20: ", "NaN and Infinity");
  await refused('{"text": "a: \\"", "text": "b"}', ':2:19: the key "text" is there twice');
  await refused('{"text": "a", "x": {"y:": 1, "y\\u003a": 2}}', 'the key "y:" is there twice');
  assertEquals(await read("a.jsonl", utf8('{"text": "\\\\ud83d \\ud83d\\ude05"}')), ["\\ud83d \u{1f605}"]);
  const fine = { text: 'a:"\\', x: [{ y: 1 }, { y: 1 }], "\\": ":", z: { x: { y: "" } } };
  assertEquals(await read("a.jsonl", utf8(JSON.stringify(fine))), [fine.text]);
});

Deno.test("files of other formats are named, by ending and by content, with what to do", async () => {
  const names = {
    "a.csv": "separated values",
    "a.TSV": "separated values",
    "a.docx": "word processor",
    "a.html": "web page",
    "a.arrow": ".parquet or .jsonl",
    "a.pdf": "it is no PDF",
    "a.xlsx": "spreadsheet",
    "a.jsonl.zst": "only .gz",
    "a.zip": "only .gz",
  };
  for (const [name, part] of Object.entries(names)) {
    await assertThrows(() => read(name, utf8("a,b\n1,2\n")), name, part);
  }
  const zip = Uint8Array.of(0x50, 0x4b, 3, 4, 0, 0);
  for (
    const [bytes, part] of [
      [zip, "ZIP"],
      [utf8("%PDF-1.7"), "ends in .pdf"],
      [utf8("PAR1xxxx"), ".parquet"],
      [utf8("ARROW1xx"), "Arrow"],
      [await packed(utf8("a")), ".gz"],
      [utf8("{\\rtf1 a}"), "rich text"],
    ] as const
  ) {
    await assertThrows(() => read("a.txt", bytes), "a.txt", part);
    await assertThrows(() => read("a.jsonl", bytes), "a.jsonl", part);
  }
});

Deno.test("pipes and devices are refused, and what unpacks to more than a row may have", async () => {
  await withFolder(async (folder) => {
    await assertThrows(() => textsOf("/dev/zero"), "a pipe or a device");
    await Deno.symlink("/dev/zero", `${folder}/a.txt`);
    await Deno.symlink("/dev/zero", `${folder}/a.jsonl.gz`);
    for (const name of ["a.txt", "a.jsonl.gz"]) {
      await assertThrows(() => textsOf(`${folder}/${name}`), name, "a pipe or a device");
    }
    const bomb = await packed(new Uint8Array(200 * 2 ** 20).fill(0x61));
    await Deno.writeFile(`${folder}/b.txt.gz`, bomb);
    await Deno.writeFile(`${folder}/b.jsonl.gz`, bomb);
    await assertThrows(() => readText(`${folder}/b.txt.gz`), "b.txt.gz", "more than 128 Mi characters");
    await assertThrows(
      () => textsOf(`${folder}/b.jsonl.gz`),
      "b.jsonl.gz:1: the row has more than 128 Mi characters",
    );
    assert(bomb.length < 2 ** 21, "the file is small");
  });
});
