import { readTokenBin, writeTokenBin } from "../../data/bin.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { integers } from "../support/random.ts";

Deno.test("readTokenBin() reads uint16 without a sidecar", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/a.bin`;
    await Deno.writeFile(path, Uint8Array.of(1, 0, 0x34, 0x12, 0xff, 0xff));
    assertEquals([...await readTokenBin(path)], [1, 0x1234, 0xffff]);
    assertEquals([...await readTokenBin(path, { vocabSize: 65536 })], [1, 0x1234, 0xffff]);
  });
  assertEquals((await readTokenBin(`${GOLDEN}/data.bin`, { vocabSize: 260 })).length, 1500);
});

Deno.test("readTokenBin() reads uint32 by sidecar or by option", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/a.bin`;
    await Deno.writeFile(path, Uint8Array.of(0x01, 0xf4, 0x01, 0, 2, 0, 0, 0));
    assertEquals([...await readTokenBin(path, { dtype: "uint32" })], [128_001, 2]);
    await Deno.writeTextFile(`${path}.json`, '{"dtype": "uint32"}');
    assertEquals([...await readTokenBin(path)], [128_001, 2]);
    await Deno.writeTextFile(`${path}.json`, '{"dtype": "int8"}');
    await assertThrows(() => readTokenBin(path), `${path}.json`, 'got "int8"');
    await Deno.writeTextFile(`${path}.json`, "{");
    await assertThrows(() => readTokenBin(path), `${path}.json`, "not valid JSON");
  });
});

Deno.test("writeTokenBin() and readTokenBin() give back what was written, across chunks", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/a.bin`;
    for (const [limit, dtype] of [[65_536, "uint16"], [128_256, "uint32"]] as const) {
      const tokens = integers(3, 600_001, limit);
      tokens[0] = limit - 1;
      assertEquals(await writeTokenBin(path, tokens), dtype);
      const back = await readTokenBin(path, { vocabSize: limit });
      assertEquals(back.length, tokens.length);
      assertEquals(back.findIndex((id, i) => id !== tokens[i]), -1, "first difference");
    }
    assertEquals(namesIn(folder), ["a.bin", "a.bin.json"]);
    assertEquals(await writeTokenBin(path, [65_535]), "uint16");
    assertEquals(await writeTokenBin(path, [65_536]), "uint32");
  });
});

Deno.test("readTokenBin() refuses odd sizes, empty files and ids outside the vocabulary", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/a.bin`;
    await Deno.writeFile(path, new Uint8Array(7));
    await assertThrows(() => readTokenBin(path), path, "7 bytes are not a multiple of 2");
    await assertThrows(() => readTokenBin(path, { dtype: "uint32" }), "not a multiple of 4");
    await Deno.writeFile(path, new Uint8Array());
    await assertThrows(() => readTokenBin(path), path, "has no tokens");
    const made = `${folder}/b.bin`;
    await writeTokenBin(made, [5, 6, 300, 301]);
    await assertThrows(
      () => readTokenBin(made, { vocabSize: 300 }),
      "token 2 (byte 4) has id 300",
      "has 300 tokens",
    );
    await assertThrows(() => readTokenBin(`${folder}/none.bin`), "no such file");
  });
});

Deno.test("writeTokenBin() replaces what it wrote, and never another file, nor one where its sidecar goes", async () => {
  await withFolder(async (folder) => {
    await writeTokenBin(`${folder}/a.bin`, [1, 2]);
    await writeTokenBin(`${folder}/a.bin`, [3]);
    assertEquals([...await readTokenBin(`${folder}/a.bin`)], [3]);
    for (const [there, asked] of [["t.txt", "t.txt"], ["w.bin", "w.bin"], ["rows.json", "rows"]]) {
      await Deno.writeTextFile(`${folder}/${there}`, "precious");
      const write = () => writeTokenBin(`${folder}/${asked}`, [1]);
      await assertThrows(write, "Cannot write", there!, "was not made by tokenize");
      assertEquals(await Deno.readTextFile(`${folder}/${there}`), "precious");
    }
    assertEquals(namesIn(folder), ["a.bin", "a.bin.json", "rows.json", "t.txt", "w.bin"]);
  });
});

Deno.test("readTokenBin() tells the width of ids by content, or refuses and says what decides", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/a.bin`;
    const write = async (ids: number[], dtype: "uint16" | "uint32", header: number[] = []) => {
      const array = dtype === "uint16" ? Uint16Array.from(ids) : Uint32Array.from(ids);
      const start = new Uint8Array(Int32Array.from(header).buffer);
      await Deno.writeFile(path, new Uint8Array([...start, ...new Uint8Array(array.buffer)]));
    };
    const refused = (vocabSize: number, ...parts: string[]) =>
      assertThrows(() => readTokenBin(path, { vocabSize }), path, ...parts);
    const few = [...integers(5, 40, 250)].map((id) => id + 5);
    await write(few, "uint16");
    assertEquals([...await readTokenBin(path, { vocabSize: 260 })], few);
    await refused(128_256, "needs ids of 32 bits, but these are none", '{"dtype": "uint16"}');
    await write(few, "uint32");
    await refused(
      260,
      "as uint16: every second one is 0, so its ids are 32 bits wide",
      '{"dtype": "uint32"}',
    );
    assertEquals([...await readTokenBin(path, { vocabSize: 128_256 })], few);
    await Deno.writeTextFile(`${path}.json`, '{"dtype": "uint32", "tokens": 40}');
    assertEquals([...await readTokenBin(path, { vocabSize: 260 })], few);
    await Deno.writeTextFile(`${path}.json`, '{"dtype": "uint32", "tokens": 41}');
    await refused(260, "160 bytes", "says 41 ids of uint32");
    await Deno.remove(`${path}.json`);
    const many = [...integers(6, 700_000, 128_000)];
    await write(many, "uint32");
    assertEquals(await readTokenBin(path, { vocabSize: 128_256 }), Uint32Array.from(many));
    await refused(32_000, "has id");
    await write(few.slice(0, 15), "uint32");
    await refused(128_256, "too few to tell");
    await write(few.slice(0, 16), "uint32");
    assertEquals([...await readTokenBin(path, { vocabSize: 128_256 })], few.slice(0, 16));

    for (const [magic, dtype] of [[20240520, "uint16"], [20240801, "uint32"]] as const) {
      const header = new Array<number>(256).fill(0);
      [header[0], header[1], header[2]] = [magic, 1, few.length];
      await write(few, dtype, header);
      assertEquals([...await readTokenBin(path, { vocabSize: 260 })], few);
      await write(few.slice(1), dtype, header);
      await refused(260, "llm.c", "tells 40 ids, but 39 follow");
    }
    await Deno.writeFile(path, Uint8Array.of(0x93, ...new TextEncoder().encode("NUMPY"), 1, 0));
    await refused(260, "NumPy");
    await Deno.writeFile(path, Uint8Array.of(0x50, 0x4b, 3, 4, 0, 0));
    await refused(260, "ZIP");
  });
});

Deno.test("writeTokenBin() leaves nothing behind when an id does not fit", async () => {
  await withFolder(async (folder) => {
    await assertThrows(
      () => writeTokenBin(`${folder}/a.bin`, [1, 70_000], { dtype: "uint16" }),
      "token id 70000 does not fit uint16",
    );
    assertEquals(namesIn(folder), []);
    await assertThrows(() => writeTokenBin(`${folder}/none/a.bin`, [1]), "Cannot write", "none/a.bin");
  });
});
