/** Files of results: what is in them after a crash, and for which settings they go on. */
import { ResultsFile } from "../../eval/results_file.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";

const SETTINGS = { model: "a", seed: 1, wording: { task: "find" } };

Deno.test("results go on where they stopped; a torn row is cut off, and nothing else", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/results.jsonl`;
    {
      using file = await ResultsFile.open<{ n: number }>(path, SETTINGS);
      assertEquals(file.rows, []);
      await file.add({ n: 1 });
      await file.add({ n: 2 });
    }
    await Deno.writeTextFile(path, '{"n":3', { append: true });
    {
      using file = await ResultsFile.open<{ n: number }>(path, { ...SETTINGS });
      assertEquals(file.rows, [{ n: 1 }, { n: 2 }]);
      await file.add({ n: 4 });
    }
    assertEquals(
      await Deno.readTextFile(path),
      `{"settings":${JSON.stringify(SETTINGS)}}\n{"n":1}\n{"n":2}\n{"n":4}\n`,
    );
    // A crash before the first line was whole leaves nothing to go on from.
    await Deno.writeTextFile(path, '{"settings":{"mod');
    using file = await ResultsFile.open<{ n: number }>(path, SETTINGS);
    assertEquals(file.rows, []);
    assert((await Deno.readTextFile(path)).endsWith("}}\n"), "begun anew");
  });
});

Deno.test("results of other settings are refused with each that differs, unless they are to be replaced", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/results.jsonl`;
    // Without a row nothing is lost by other settings.
    (await ResultsFile.open(path, { ...SETTINGS, seed: 2 }))[Symbol.dispose]();
    {
      using file = await ResultsFile.open(path, SETTINGS);
      await file.add({ n: 1 });
    }
    const message = await assertThrows(
      () => ResultsFile.open(path, { model: "b", wording: { task: "look" }, digits: 5 }),
      'model was "a", is "b"',
      "seed was 1, is null",
      'wording was {"task":"find"}, is {"task":"look"}',
      "digits was null, is 5",
      "--overwrite",
    );
    assertIncludes(message, path);
    await Deno.writeTextFile(path, '{"text":"no results"}\n');
    await assertThrows(() => ResultsFile.open(path, SETTINGS), "not a file of results");
    using file = await ResultsFile.open(path, SETTINGS, { isNew: true });
    assertEquals([file.rows, await Deno.readTextFile(path)], [
      [],
      `{"settings":${JSON.stringify(SETTINGS)}}\n`,
    ]);
  });
});
