import { FILE_LIMITS, ifThere, readWhole, readWholeText } from "../../data/file_bytes.ts";
import { parseJson } from "../../data/json.ts";
import { readConfig } from "../../model/config.ts";
import { readTrainArgs } from "../../checkpoint/train_args_file.ts";
import { readAdapterConfig } from "../../checkpoint/peft_config.ts";
import { openWeights } from "../../checkpoint/weights.ts";
import { readTokenBin } from "../../data/bin.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { loadTrainArgs } from "../../train_args/load.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";

async function makePipe(path: string): Promise<void> {
  const { success } = await new Deno.Command("sh", { args: ["-c", 'mkfifo "$0"', path] }).output();
  assert(success, `cannot make a pipe at ${path}`);
}

Deno.test("readWhole() gives a file of any size up to its limit, and refuses one byte more", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/x`;
    const bytes = crypto.getRandomValues(new Uint8Array(60_000));
    await Deno.writeFile(path, bytes);
    assertEquals([...await readWhole(path, bytes.length)], [...bytes]);
    await assertThrows(() => readWhole(path, bytes.length - 1), path, "60000 bytes", "at most 59999");
    await Deno.writeFile(path, new Uint8Array());
    assertEquals((await readWhole(path, 0)).length, 0);
    assertEquals(await ifThere(readWhole(`${folder}/none`, 1)), undefined);
    assertEquals(await ifThere(readWhole(`${path}/none`, 1)), undefined);
    await assertThrows(() => ifThere(readWhole(folder, 1)), "it is a folder");
  });
});

Deno.test("what is read whole is text: UTF-8, with or without a mark", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/x`, "\ufeffé");
    assertEquals(await readWholeText(`${folder}/x`, 10), "é");
    await Deno.writeFile(`${folder}/x`, Uint8Array.of(0x61, 0xff));
    await assertThrows(() => readWholeText(`${folder}/x`, 10), "UTF-8");
  });
});

/** Every file that is read whole, by what reads it. */
const READERS: readonly [name: string, read: (folder: string) => Promise<unknown>][] = [
  ["config.json", readConfig],
  ["adapter_config.json", (folder) => readAdapterConfig(folder)],
  ["model.safetensors.index.json", (folder) => openWeights(folder)],
  ["tokenizer.json", (folder) => Tokenizer.load(folder)],
  ["train_args.yaml", readTrainArgs],
  ["settings.yaml", (folder) => loadTrainArgs(`${folder}/settings.yaml`)],
  ["ids.bin.json", (folder) => readTokenBin(`${folder}/ids.bin`)],
];

for (const [name, read] of READERS) {
  Deno.test(`${name} as a pipe, a device, a link to one, a folder is refused at once by name`, async () => {
    await withFolder(async (folder) => {
      await Deno.writeFile(`${folder}/ids.bin`, new Uint8Array(4));
      const path = `${folder}/${name}`;
      await makePipe(path);
      await assertThrows(() => read(folder), name, "not a regular file");
      await Deno.remove(path);
      await Deno.symlink("/dev/zero", path);
      await assertThrows(() => read(folder), name, "not a regular file");
      await Deno.remove(path);
      await Deno.mkdir(path);
      // What lists a folder's files passes over folders.
      await assertThrows(() => read(folder), name === "model.safetensors.index.json" ? folder : name);
    });
  });
}

Deno.test("parseJson() names the line and column of what is no JSON, in one line", async () => {
  const cases: readonly [text: string, ...parts: string[]][] = [
    ['{"a": 1,\n "b": NaN\n}', "line 2, column 7", '"NaN"'],
    ['{"a": 1', "ends too early"],
    ['{"a": 1}\n\n}', "line 3, column 1"],
    ["", "ends too early"],
    ["[\u00a01]", "line 1, column 2"],
    ['{"a": "\u0000"}', "line 1, column 8"],
  ];
  for (const [text, ...parts] of cases) {
    const message = await assertThrows(
      () => parseJson(text, "x.json"),
      'Cannot read "x.json"',
      "not valid JSON",
      ...parts,
    );
    assert(!message.includes("\n"), "it has several lines");
  }
});

Deno.test("parseJson() refuses what nests over 100 levels deep, and counts no brackets in texts", async () => {
  const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
  parseJson(nested(100), "x.json");
  for (const depth of [101, 1_000_000]) {
    await assertThrows(() => parseJson(nested(depth), "x.json"), "levels deep");
  }
  await assertThrows(() => parseJson('{"a":'.repeat(5000), "x.json"), "levels deep");
  assertEquals(parseJson(JSON.stringify(['\\"' + "[".repeat(500), 1]), "x.json"), [
    '\\"' + "[".repeat(500),
    1,
  ]);
});

Deno.test("keys of prototypes are keys like others", () => {
  const value = parseJson(
    '{"__proto__": {"polluted": 1}, "constructor": {"prototype": 2}}',
    "x.json",
  ) as object;
  assertEquals(Object.keys(value), ["__proto__", "constructor"]);
  assertEquals([
    ({} as { polluted?: unknown }).polluted ?? null,
    Object.getPrototypeOf(value) === Object.prototype,
  ], [null, true]);
});

Deno.test("the limits of files hold what models have, and no more", () => {
  for (const [kind, limit] of Object.entries(FILE_LIMITS)) {
    assert(limit >= 1e6 && limit < 2 ** 31, `${kind} has a limit of ${limit}`);
  }
  // Twice a tokenizer of 256,000 tokens; 100,000 tensors; a log of 500,000 entries.
  const needed = { tokenizer: 70e6, index: 150 * 100_000, state: 300 * 500_000 } as const;
  for (const [kind, bytes] of Object.entries(needed)) {
    assert(FILE_LIMITS[kind as keyof typeof needed] >= bytes, `${kind} may have less than ${bytes} bytes`);
  }
});
