import { assert, assertEquals } from "./support/assert_close.ts";
import { withFolder } from "./support/files.ts";
import { assertIncludes } from "./support/text.ts";

const ROOT = new URL("..", import.meta.url).pathname;
const BASE = `${ROOT}tests/golden/mha`;

/** Runs a copy of an example outside of the checkout, as a user's own script. */
async function runExample(folder: string, name: string, args: readonly string[]): Promise<string> {
  await Deno.copyFile(`${ROOT}examples/${name}`, `${folder}/${name}`);
  const permissions = ["--allow-read", "--allow-write", "--allow-env"];
  const { success, stdout, stderr } = await new Deno.Command("deno", {
    args: ["run", "--no-prompt", "--config", `${ROOT}deno.json`, ...permissions, name, ...args],
    cwd: folder,
    env: { NO_COLOR: "1" },
  }).output();
  assert(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

const textOf = (lines: number, from: number) =>
  Array.from({ length: lines }, (_, i) => `harbour ${from + i}, then orchard ${(7 * (from + i)) % 13}.`).join(
    " ",
  );

Deno.test("the examples run outside of the checkout: extend, measure, merge, write and talk", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/book.txt`, textOf(60, 0));
    await Deno.writeTextFile(`${folder}/held-out.txt`, textOf(24, 60));
    const told = await runExample(folder, "extend.ts", [BASE, "book.txt", "held-out.txt", "long"]);
    assertEquals(told.match(/^step \d+ of 20: loss \d/gm)?.length, 20);
    const [, before, after] = /^perplexity at 256 tokens: ([\d.]+) before, ([\d.]+) after$/m.exec(told)!;
    assert(Number(after) < Number(before), `${before} before, ${after} after`);
    assertIncludes(told, "merged into long-merged");
    const merged = JSON.parse(await Deno.readTextFile(`${folder}/long-merged/config.json`));
    assertEquals(merged.rope_scaling, { type: "linear", factor: 4 });

    const written = await runExample(folder, "generate.ts", [BASE, "long", "harbour 9,"]);
    assert(written.startsWith("harbour 9,") && written.length > "harbour 9,\n".length, written);

    const talk = await runExample(folder, "chat.ts", ["long-merged", "harbour 9?", "and 10?"]);
    const cached = [...talk.matchAll(/^\((\d+) tokens were in the cache\)$/gm)].map(([, count]) =>
      Number(count)
    );
    assert(cached.length === 2 && cached[0] === 0 && cached[1]! > "harbour 9?".length, talk);
  });
});

Deno.test("examples import the library by its name alone", async () => {
  for await (const { name } of Deno.readDir(`${ROOT}examples`)) {
    const source = await Deno.readTextFile(`${ROOT}examples/${name}`);
    const imported = [...source.matchAll(/\bfrom "([^"]+)"|\bimport\(?\s*"([^"]+)"/g)].map((match) =>
      match[1]
    );
    assertEquals(imported, ["@longreach/longreach"], name);
  }
});

Deno.test("the library's documentation is whole: everything is described, and what signatures name is exported", async () => {
  const { success, stderr } = await new Deno.Command("deno", {
    args: ["doc", "--lint", "mod.ts"],
    cwd: ROOT,
    env: { NO_COLOR: "1" },
  }).output();
  assert(success, new TextDecoder().decode(stderr));
});
