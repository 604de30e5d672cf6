import { PARQUET_CODECS } from "../../data/compression.ts";
import { readRows } from "../../data/rows.ts";
import { readText } from "../../data/jsonl.ts";
// deno-lint-ignore no-external-import
import { brotliCompressSync, gzipSync, zstdCompressSync } from "node:zlib";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";

const textsOf = async (path: string) =>
  (await Array.fromAsync(readRows(path))).map(({ row }) => row.kind === "text" ? row.text : row.kind);

// The files are DuckDB 1.5's: `copy (...) to 'zstd.parquet' (format parquet, codec 'zstd', row_group_size 2048)`.
for (const codec of ["snappy", "zstd", "gzip", "brotli"]) {
  Deno.test(`readRows() reads parquet in several row groups, compressed by ${codec}`, async () => {
    const texts = await textsOf(`${GOLDEN}/parquet/${codec}.parquet`);
    assertEquals(texts, Array.from({ length: 2500 }, (_, i) => `rów ${i % 100}`));
  });
}

Deno.test("readRows() reads nested parquet, and names the codec that it cannot read", async () => {
  const [first] = await Array.fromAsync(readRows(`${GOLDEN}/parquet/conversations.parquet`));
  assertEquals(first, {
    where: `${GOLDEN}/parquet/conversations.parquet:row 1`,
    row: { kind: "chat", messages: [{ role: "user", content: "q0" }, { role: "assistant", content: "a0" }] },
  });
  await assertThrows(() => textsOf(`${GOLDEN}/parquet/lz4.parquet`), "lz4.parquet", "as parquet", "LZ4_RAW");
});

Deno.test("a page of parquet of another size than told is an error, not a shorter text", async () => {
  const compressors = { GZIP: gzipSync, BROTLI: brotliCompressSync, ZSTD: zstdCompressSync };
  for (const codec of ["GZIP", "BROTLI", "ZSTD"] as const) {
    const page = compressors[codec](new TextEncoder().encode("one two three"));
    assertEquals(new TextDecoder().decode(PARQUET_CODECS[codec](page, 13)), "one two three", codec);
    for (const size of [12, 14]) {
      await assertThrows(() => PARQUET_CODECS[codec](page, size), `13 bytes where ${size}`);
    }
  }
});

Deno.test("readRows() reads .gz files as what they hold, and says so if they are damaged", async () => {
  await withFolder(async (folder) => {
    const rows = Array.from({ length: 30_000 }, (_, i) => `row ${i} ${i * 7919 % 1000}`);
    const lines = new TextEncoder().encode(rows.map((text) => JSON.stringify({ text })).join("\n"));
    const list = new TextEncoder().encode("\n\n" + JSON.stringify(rows.map((text) => ({ text })), null, 1));
    // Two members, as tools that compress in parallel write.
    const members = [lines.subarray(0, 9999), lines.subarray(9999)].map((part) => gzipSync(part));
    const files = {
      "a.jsonl.gz": new Uint8Array([...members[0]!, ...members[1]!]),
      "b.json.gz": gzipSync(list),
    };
    for (const [name, bytes] of Object.entries(files)) {
      await Deno.writeFile(`${folder}/${name}`, bytes);
      assertEquals(await textsOf(`${folder}/${name}`), rows, name);
      bytes[bytes.length >> 1]! ^= 0xff;
      await Deno.writeFile(`${folder}/${name}`, bytes);
      await assertThrows(() => textsOf(`${folder}/${name}`), `${folder}/${name}`);
      await Deno.writeFile(`${folder}/${name}`, bytes.subarray(0, 20));
      await assertThrows(
        () => textsOf(`${folder}/${name}`),
        `"${folder}/${name}": its compressed data is damaged`,
      );
      await Deno.remove(`${folder}/${name}`);
    }
    await assertThrows(() => textsOf(`${folder}/d.jsonl.zst`), "d.jsonl.zst", "only .gz can be read");
    await Deno.writeFile(`${folder}/c.txt.gz`, gzipSync("one\ntwo"));
    assertEquals([await readText(`${folder}/c.txt.gz`), ...await textsOf(folder)], ["one\ntwo", "one\ntwo"]);
  });
});
