import { readTokenBin } from "../../data/bin.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { tokenizeFiles } from "../../data/tokenize.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";

Deno.test("tokenizeFiles() joins documents of jsonl and text files", async () => {
  const tokenizer = await Tokenizer.load(`${GOLDEN}/mha`);
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/a.jsonl`, '{"text": "ab"}\n{"text": "c"}\n');
    await Deno.writeTextFile(`${folder}/b.txt`, "d\ne");
    const inputs = [`${folder}/a.jsonl`, `${folder}/b.txt`];
    const seen: number[] = [];
    const report = await tokenizeFiles(inputs, `${folder}/out.bin`, tokenizer, {
      onDocument: (documents, tokens) => seen.push(documents, tokens),
    });
    assertEquals(report, { documents: 3, tokens: 12, dtype: "uint16" });
    assertEquals(seen, [1, 4, 2, 7, 3, 12]);
    assertEquals([...await readTokenBin(`${folder}/out.bin`)], [
      ...[257, 97, 98, 258],
      ...[257, 99, 258],
      ...[257, 100, 10, 101, 258],
    ]);
    await tokenizeFiles(inputs, `${folder}/out.bin`, tokenizer, { bos: false, eos: false, dtype: "uint32" });
    assertEquals([...await readTokenBin(`${folder}/out.bin`)], [97, 98, 99, 100, 10, 101]);
  });
});

Deno.test("tokenizeFiles() leaves no output when an input is missing", async () => {
  const tokenizer = await Tokenizer.load(`${GOLDEN}/mha`);
  await withFolder(async (folder) => {
    await assertThrows(
      () => tokenizeFiles([`${folder}/no.jsonl`], `${folder}/out.bin`, tokenizer),
      "no such file",
    );
    assertEquals(namesIn(folder), []);
  });
});

Deno.test("tokenizeFiles() keeps the order of documents that several workers encode, and passes over empty ones", async () => {
  const tokenizer = await Tokenizer.load(`${GOLDEN}/mha`);
  const texts = Array.from({ length: 40 }, (_, i) => `t${i} `.repeat(i === 7 ? 0 : 200 * (40 - i)));
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/a.jsonl`, texts.map((text) => JSON.stringify({ text })).join("\n"));
    await tokenizeFiles([`${folder}/a.jsonl`], `${folder}/out.bin`, tokenizer, { eos: false });
    const wanted = texts.flatMap((text) =>
      text === "" ? [] : tokenizer.encode(text, { bos: true, eos: false })
    );
    assertEquals([...await readTokenBin(`${folder}/out.bin`)], wanted);
  });
});

Deno.test("tokenizeFiles() gives UTF-16 the ids of the same text, and names the keys of rows that it does not use", async () => {
  const tokenizer = await Tokenizer.load(`${GOLDEN}/mha`);
  await withFolder(async (folder) => {
    const text = "The café on the quay opened at dawn.\n";
    const units = Uint16Array.from(`\ufeff${text}`, (char) => char.charCodeAt(0));
    await Deno.writeFile(`${folder}/utf16.txt`, new Uint8Array(units.buffer));
    await Deno.writeTextFile(`${folder}/rows.jsonl`, JSON.stringify({ text, id: 3, label: null, meta: {} }));
    const notes: string[] = [];
    const ids = async (name: string) => {
      const note = (line: string) => notes.push(line);
      await tokenizeFiles([`${folder}/${name}`], `${folder}/out.bin`, tokenizer, { note });
      return [...await readTokenBin(`${folder}/out.bin`)];
    };
    assertEquals(await ids("utf16.txt"), tokenizer.encode(text, { bos: true, eos: true }));
    assertEquals(await ids("rows.jsonl"), await ids("utf16.txt"));
    assertEquals(notes, [`2 keys of ${folder}/rows.jsonl are not used: id (1 row), meta (1 row)`]);
  });
});

Deno.test("tokenizeFiles() says that a document is larger than a text can be", async () => {
  const tokenizer = await Tokenizer.load(`${GOLDEN}/mha`);
  await withFolder(async (folder) => {
    const path = `${folder}/large.txt`;
    await Deno.writeTextFile(path, "a".repeat(2000));
    await Deno.truncate(path, 2 ** 28);
    await assertThrows(
      () => tokenizeFiles([path], `${folder}/out.bin`, tokenizer),
      `Cannot read "${path}" as one document: it has more than 128 Mi characters`,
      "rows of a .jsonl file",
    );
    assertEquals(namesIn(folder), ["large.txt"]);
  });
});
