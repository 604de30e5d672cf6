import { memoryLines, recipeNames, recipePath, withLines, writtenLines } from "../../tools/recipe_memory.ts";
import { assert, assertEquals } from "../support/assert_close.ts";

/** Those whose plan takes more than a second; `deno task recipe_headers` writes them too. */
const SLOW = /70b|100k|128k|80k|64k|32k|-16k(-full)?\.yaml/;

Deno.test("recipes say what plan counts (run `deno task recipe_headers` after a change of memory)", async () => {
  const names = await recipeNames();
  assert(names.length >= 14, names.join());
  for (const name of names) {
    const recipe = await Deno.readTextFile(recipePath(name));
    assert(writtenLines(recipe) !== undefined, `${name} has no lines about memory`);
    if (!SLOW.test(name)) assertEquals(writtenLines(recipe), await memoryLines(name), name);
  }
});

Deno.test("withLines() changes the lines about memory alone", async () => {
  const [name] = await recipeNames();
  const recipe = await Deno.readTextFile(recipePath(name!));
  const changed = withLines(recipe, "# one line");
  assertEquals(writtenLines(changed), undefined);
  assertEquals(changed.replace("# one line", () => writtenLines(recipe)!), recipe);
});
