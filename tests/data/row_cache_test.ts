import { type Dataset, loadDataset } from "../../data/dataset.ts";
import type { EncodedRow } from "../../data/encode.ts";
import { cachedRows, rowsKey } from "../../data/row_cache.ts";
import { parseSources } from "../../data/sources.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { UnusedKeys } from "../../data/unused_keys.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { integers } from "../support/random.ts";

const tokenizer = await Tokenizer.load(`${GOLDEN}/mha`);

/** Runs `use` where no worker can be started, which is what tokenizes. */
async function withoutTokenizing<T>(use: () => Promise<T>): Promise<T> {
  const { Worker } = globalThis;
  globalThis.Worker = class {
    constructor() {
      throw new Error("it was tokenized again");
    }
  } as unknown as typeof Worker;
  try {
    return await use();
  } finally {
    globalThis.Worker = Worker;
  }
}

const plain = ({ samples, report }: Dataset) => ({
  report,
  samples: samples.map(({ inputIds, labels }) => [[...inputIds], [...labels]]),
});

const ROWS = [
  { text: "a whole text" },
  { text: "" },
  { input: "a question", output: "an answer" },
  { instruction: "do", output: "done" },
  {
    conversations: [
      { role: "user", content: "one" },
      { role: "assistant", content: "two" },
      { role: "user", content: "three" },
      { role: "assistant", content: "four" },
    ],
  },
];

async function writeRows(path: string, rows: readonly unknown[] = ROWS): Promise<void> {
  await Deno.writeTextFile(path, rows.map((row) => JSON.stringify(row)).join("\n"));
}

function load(path: string, folder: string, notes: string[] = []): Promise<Dataset> {
  return loadDataset(parseSources([path]), tokenizer, {
    maxSeqLength: 200,
    chatTemplate: "vicuna",
    cache: { folder, note: (line) => notes.push(line) },
  });
}

Deno.test("data that was tokenized once is not tokenized again, and gives the same samples", async () => {
  await withFolder(async (folder) => {
    await writeRows(`${folder}/rows.jsonl`);
    const cache = `${folder}/deep/cache`;
    const first = await load(`${folder}/rows.jsonl`, cache);
    assertEquals([first.report.rows, first.samples.length], [5, 4]);
    assertEquals((namesIn(cache)).length, 1);
    const notes: string[] = [];
    const second = await withoutTokenizing(() => load(`${folder}/rows.jsonl`, cache, notes));
    assertEquals(plain(second), plain(first));
    assertEquals(notes, []);
    // Text keeps its labels in the memory of its ids.
    assert(second.samples[0]!.labels.buffer === second.samples[0]!.inputIds.buffer, "shared memory");
    // A copy under another name is the same data.
    await Deno.copyFile(`${folder}/rows.jsonl`, `${folder}/copy.jsonl`);
    assertEquals(plain(await withoutTokenizing(() => load(`${folder}/copy.jsonl`, cache))), plain(first));
  });
});

Deno.test("a change of data, tokenizer, template or sft is another key; so is another file of a folder", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/rows.jsonl`;
    await writeRows(path);
    const [json, config] = tokenizer.files;
    const other = new Tokenizer(json, { ...config, eos_token: "<unk>" });
    const choice = { template: null, sft: null };
    const keys = [
      await rowsKey(path, tokenizer, choice),
      await rowsKey(path, other, choice),
      await rowsKey(path, tokenizer, { ...choice, template: "vicuna" }),
      await rowsKey(path, tokenizer, { ...choice, sft: true }),
      await rowsKey(folder, tokenizer, choice),
    ];
    // A folder of one file gives the rows of that file.
    assertEquals(keys.pop(), keys[0]);
    await writeRows(`${folder}/more.jsonl`);
    keys.push(await rowsKey(folder, tokenizer, choice));
    await writeRows(path, ROWS.slice(1));
    keys.push(await rowsKey(path, tokenizer, choice));
    await Deno.rename(path, `${folder}/rows.txt`);
    keys.push(await rowsKey(`${folder}/rows.txt`, tokenizer, choice));
    assertEquals(new Set(keys).size, 7, "different keys");
    await assertThrows(() => rowsKey(`${folder}/none.jsonl`, tokenizer, choice), "no such file");
  });
});

Deno.test("a damaged cache is passed over with a note and made again", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/rows.jsonl`;
    await writeRows(path);
    const cache = `${folder}/cache`;
    const wanted = plain(await load(path, cache));
    const file = `${cache}/${(namesIn(cache))[0]}`;
    const good = await Deno.readFile(file);
    const flipped = good.slice();
    flipped[good.length >> 1]! ^= 4;
    for (const bad of [flipped, good.subarray(0, good.length - 4), new Uint8Array(), new Uint8Array(64)]) {
      await Deno.writeFile(file, bad);
      const notes: string[] = [];
      assertEquals(plain(await load(path, cache, notes)), wanted);
      assertEquals(notes.length, 1);
      assert(notes[0]!.includes("is damaged") && notes[0]!.includes(file), notes[0]!);
      assertEquals([...await Deno.readFile(file)], [...good], "the file made again");
    }
    assertEquals((namesIn(cache)).length, 1);
  });
});

Deno.test("a cache that cannot be written costs a note, and nothing is kept of rows that fail", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/rows.jsonl`;
    await writeRows(path);
    const notes: string[] = [];
    assertEquals((await load(path, path, notes)).samples.length, 4);
    assert(notes.length > 0 && notes.every((line) => line.includes("annot be")), notes.join());
    await writeRows(path, [...ROWS, { text: 3 }]);
    await assertThrows(() => load(path, `${folder}/cache`), "rows.jsonl:6");
    assertEquals(namesIn(`${folder}/cache`), []);
  });
});

Deno.test("rows of any length and any labels come back over many blocks", async () => {
  const lengths = integers(5, 40, 100_000);
  const rows = Array.from(lengths, (length, i): EncodedRow => {
    const ids = Uint32Array.from(integers(i, length, 50_000));
    if (i % 3 === 0) return { kind: "text", ids, labels: new Int32Array(ids.buffer) };
    const isTarget = integers(100 + i, length, i % 3 + 1);
    return { kind: "answers", ids, labels: Int32Array.from(ids, (id, t) => isTarget[t] ? id : -100) };
  });
  await withFolder(async (folder) => {
    const encode = async function* () {
      yield* rows;
    };
    const cache = { folder, note: (line: string) => assert(false, line) };
    const [counted, known] = [new UnusedKeys(), new UnusedKeys()];
    counted.addAll([["id", 39], ["é", 1]]);
    await Array.fromAsync(cachedRows(cache, "key", encode, counted));
    const back = await Array.fromAsync(
      cachedRows(cache, "key", () => assert(false, "encoded again") as never, known),
    );
    assertEquals(known.describe("f"), "2 keys of f are not used: id (39 rows), é (1 row)");
    assertEquals(back.length, rows.length);
    rows.forEach(({ kind, ids, labels }, i) => {
      assertEquals([back[i]!.kind, back[i]!.ids.length], [kind, ids.length], `row ${i}`);
      assert(ids.every((id, t) => id === back[i]!.ids[t]), `ids of row ${i}`);
      assert(labels.every((label, t) => label === back[i]!.labels[t]), `labels of row ${i}`);
    });
  });
});

Deno.test("what killed runs left half-written in the cache is removed, what another is writing stays", async () => {
  await withFolder(async (folder) => {
    await writeRows(`${folder}/data.jsonl`);
    const cache = `${folder}/cache`;
    await Deno.mkdir(cache);
    for (
      const name of [
        "a.rows.tmp-0123abcd",
        "b.rows.tmp-0123abcd",
        "c.rows.tmp-0123abcd",
        "notes.tmp-0123abcd",
      ]
    ) {
      await Deno.writeTextFile(`${cache}/${name}`, "half");
    }
    using living = await Deno.open(`${cache}/b.rows.tmp-0123abcd`, { read: true, write: true });
    await living.lock(true);
    const notes: string[] = [];
    await load(`${folder}/data.jsonl`, cache, notes);
    const left = namesIn(cache).filter((name) => !/^[0-9a-f]{64}\.rows$/.test(name));
    assertEquals(left, ["b.rows.tmp-0123abcd", "notes.tmp-0123abcd"]);
    assertEquals(notes, [`Removed 2 unfinished files that interrupted runs left in "${cache}"`]);
  });
});
