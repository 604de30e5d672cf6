import { Tokenizer } from "../../data/tokenizer.ts";
import { measureRetrieval } from "../../demo/retrieval.ts";
import { readWording } from "../../eval/passkey.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { namesIn, withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";

const MODEL = "demo/model";

Deno.test("every key of the demo's passkey is one token, as an answer of one token needs", async () => {
  const { keys } = await readWording("demo/passkey.json");
  const tokenizer = await Tokenizer.load(MODEL);
  for (const key of keys!) assertEquals(tokenizer.encode(key, { bos: false, eos: false }).length, 1, key);
  assertEquals(new Set(keys).size, keys!.length);
});

Deno.test("past its context the base finds keys by chance alone, the same weights with a longer one nine in ten", async () => {
  await withFolder(async (folder) => {
    // What the demo's training only improves: the base with the positions of its recipe.
    const longer = `${folder}/model`;
    await Deno.mkdir(longer);
    for (const name of namesIn(MODEL)) await Deno.copyFile(`${MODEL}/${name}`, `${longer}/${name}`);
    const config = JSON.parse(await Deno.readTextFile(`${MODEL}/config.json`));
    await Deno.writeTextFile(
      `${longer}/config.json`,
      JSON.stringify({ ...config, max_position_embeddings: 1024, rope_theta: 400_000 }),
    );
    const { rows, keys, report } = await measureRetrieval(
      [{ model: "base", baseModel: MODEL }, { model: "longer", baseModel: longer }],
      folder,
      { counting: (_, run) => run({}) },
      { lengths: [256, 1024], depths: [0, 50, 100], trials: 4 },
    );
    assertEquals(keys, 48);
    const [base, extended] = rows;
    assert(base!.byLength[0]!.accuracy >= 0.9, "the base finds keys in its own context");
    assert(base!.beyondContext <= 0.1, `the base finds ${base!.beyondContext} past its context`);
    // The key at 100 % is near the question: it is no part of what only a longer context reaches.
    const far = base!.cells.filter(({ length, depth }) => length === 1024 && depth! < 100);
    assertEquals(base!.beyondContext, (far[0]!.accuracy + far[1]!.accuracy) / 2);
    assert(extended!.beyondContext >= 0.9 && extended!.byLength[1]!.accuracy >= 0.9, "the longer one");

    const page = await Deno.readTextFile(report);
    for (const { picture } of rows) {
      const svg = await Deno.readTextFile(picture);
      assertEquals(svg.match(/<rect /g)!.length, 6, picture);
      assertIncludes(page, svg);
    }
  });
});

Deno.test("README's demo: the extended model finds nine keys in ten at 1024 tokens, the base none but by chance", async () => {
  const readme = await Deno.readTextFile("README.md");
  const [, head = "", base = "", extended = ""] =
    /^(passkey found in tokens.*)\n(base .*)\n(extended .*)\n20 texts .*one of 48 words, 2 %$/m
      .exec(readme) ?? [];
  assertEquals(head.split(/ {2,}/).slice(1), ["256", "512", "768", "1024", "1024, over 256 back"]);
  const shares = (row: string) => [...row.matchAll(/(\d+) %/g)].map(([, share]) => Number(share));
  const [before, after] = [shares(base), shares(extended)];
  assert(before[0]! >= 90 && before[4]! <= 10, base);
  assert(after.length === 5 && after.every((share) => share >= 90), extended);
});
