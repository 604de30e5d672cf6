import { jsonErrorPosition } from "../../data/json_position.ts";
import { readJsonl, readObjects } from "../../data/jsonl.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";

/** Runs with a file of the given content, then removes it. */
async function withFile(
  content: string | Uint8Array<ArrayBuffer>,
  run: (path: string) => Promise<void>,
): Promise<void> {
  const path = await Deno.makeTempFile({ suffix: ".jsonl" });
  try {
    await Deno.writeFile(path, typeof content === "string" ? new TextEncoder().encode(content) : content);
    await run(path);
  } finally {
    await Deno.remove(path);
  }
}

async function read(path: string, keys: readonly string[] = ["text"]) {
  return await Array.fromAsync(readJsonl(path, keys));
}

Deno.test("readJsonl() yields rows with their line numbers and skips blank lines", async () => {
  await withFile('\ufeff{"text": "one"}\r\n\n{"id": 7, "text": "zwei ü"}', async (path) => {
    assertEquals(await read(path), [
      { line: 1, values: { text: "one" } },
      { line: 3, values: { text: "zwei ü" } },
    ]);
  });
});

Deno.test("readJsonl() joins lines longer than its buffer", async () => {
  const long = "é".repeat(700_000);
  await withFile(`{"text": "${long}"}\n{"text": "b"}\n`, async (path) => {
    const rows = await read(path);
    assertEquals(rows.map(({ values }) => values.text!.length), [700_000, 1]);
    assertEquals(rows[0]!.values.text === long, true);
  });
});

Deno.test("readJsonl() shows line and column of what is not JSON", async () => {
  await withFile('{"text": "one"}\n{"text": oops}\n', async (path) => {
    await assertThrows(() => read(path), `${path}:2:10: `, "not valid JSON", "oops");
  });
  const mistakes: [string, number][] = [
    ['{"a": 1,}', 9],
    ['{"a" 1}', 6],
    ["{'a': 1}", 2],
    ['{"a": "x\\q"}', 9],
    ['{"a": "x\ty"}', 9],
    ['{"a": "x\\u00g0"}', 9],
    ['{"a": [1, {"b": tru}]}', 17],
    ['{"a": 01}', 8],
    ['{"a": 1} {"a": 2}', 10],
    ["plain text", 1],
    [`{"a": [${"[],".repeat(2000)} 1, $]}`, 6012],
    [`{"a": ${"[".repeat(500)}$`, 507],
  ];
  for (const [text, column] of mistakes) {
    await withFile(text, async (path) => {
      await assertThrows(() => read(path), `${path}:1:${column}: `, "not valid JSON");
    });
  }
  await withFile('{"text": "one"', async (path) => {
    await assertThrows(() => read(path), `${path}:1:15: `, "ends too early");
  });
  await withFile('{"text": "a"}\n[1]\n', async (path) => {
    await assertThrows(() => read(path), `${path}:2: `, "must be a JSON object, got a list");
  });
});

Deno.test("jsonErrorPosition() takes time that is linear in the text", () => {
  const words = "One sentence after the other, as texts have them. ";
  for (const length of [100_000, 10_000_000]) {
    const text = words.repeat(length / words.length);
    const endings: [string, number][] = [["", 0], ["\t", 0], ["\\x", 0], ['", 7 8', 3]];
    for (const [ending, skipped] of endings) {
      const start = `{"text": "${text}`;
      const wanted = start.length + (ending === "" ? 0 : skipped);
      assertEquals(jsonErrorPosition(start + ending), wanted, JSON.stringify(ending));
    }
  }
  for (const repeated of ["\\", '\\"', "\\u00e9", '"', "1", " ", "[", "{", '[""', "[1,", '{"a":']) {
    const many = repeated.repeat(1_000_000 / repeated.length);
    assert(jsonErrorPosition(many) <= many.length, repeated);
    assert(jsonErrorPosition(`{"a": "${many}`) <= many.length + 7, repeated);
  }
});

Deno.test("readJsonl() names keys wanted, keys found and the one that was meant", async () => {
  await withFile('{"Txt": "one", "id": 3}\n', async (path) => {
    await assertThrows(
      () => read(path),
      `${path}:1: it lacks "text"`,
      'found "Txt", "id"',
      'Is "Txt" meant?',
    );
  });
  await withFile('{"input": "one", "response": "a"}\n', async (path) => {
    const message = await assertThrows(
      () => read(path, ["input", "output"]),
      'lacks "output"',
      'Wanted "input", "output"',
      'found "input", "response"',
    );
    assertEquals(message.includes("meant"), false);
  });
  await withFile("{}\n", async (path) => {
    await assertThrows(() => read(path), "found no keys");
  });
});

Deno.test("readJsonl() refuses values that are not text", async () => {
  for (
    const [value, name] of [["3", "a number"], ["null", "null"], ['["a"]', "a list"], ["{}", "an object"]]
  ) {
    await withFile(`{"text": "a"}\n{"text": ${value}}\n`, async (path) => {
      await assertThrows(() => read(path), `${path}:2: "text" must be text, got ${name}`);
    });
  }
});

Deno.test("readJsonl() refuses files without rows, missing files, folders and bytes that are not UTF-8", async () => {
  await withFile("\n \n", async (path) => {
    await assertThrows(() => read(path), path, "it has no rows");
  });
  await assertThrows(() => read("/nowhere/train.jsonl"), '"/nowhere/train.jsonl"', "no such file");
  await assertThrows(() => read(import.meta.dirname!), "it is a folder");
  await withFile(Uint8Array.of(0x7b, 0x7d, 0x0a, 0x22, 0xff, 0x22), async (path) => {
    await assertThrows(() => read(path, []), `${path}:2: `, "not valid UTF-8");
  });
});

Deno.test("readObjects() reads a list of objects in any layout, across chunks", async () => {
  const long = 'é"\\ ]},[{'.repeat(60_000);
  const rows = [{ text: "a, [b] {c}" }, { text: long, more: [{ x: [1, 2] }] }, { text: "\n" }, {
    text: "end",
  }];
  for (
    const content of [
      JSON.stringify(rows),
      JSON.stringify(rows, null, 2),
      ` \n[\n${JSON.stringify(rows[0])}\n]\n`,
    ]
  ) {
    await withFile(content, async (path) => {
      const read = await Array.fromAsync(readObjects(path));
      assertEquals(read.map(({ value }) => value), rows.slice(0, read.length));
      assertEquals(read.length, content.startsWith(" ") ? 1 : 4);
    });
  }
  await withFile(JSON.stringify(rows, null, 2), async (path) => {
    const lines = (await Array.fromAsync(readObjects(path))).map(({ line }) => line);
    assertEquals(lines, [2, 5, 16, 19]);
  });
});

Deno.test("readObjects() says where a list is wrong", async () => {
  await withFile('[{"text": "a"},\n {"text": oops}]', async (path) => {
    await assertThrows(() => Array.fromAsync(readObjects(path)), `${path}:2:`, "not valid JSON", "oops");
  });
  await withFile('[{"text": "a"},\n 7]', async (path) => {
    await assertThrows(() => Array.fromAsync(readObjects(path)), "must be a JSON object, got a number");
  });
  await withFile('[{"text": "a"},\n {"text": "b', async (path) => {
    await assertThrows(() => Array.fromAsync(readObjects(path)), "ends too early");
  });
  await withFile("[]", async (path) => {
    await assertThrows(() => Array.fromAsync(readObjects(path)), "it has no rows");
  });
});
