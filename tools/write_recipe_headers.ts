/** Writes into the recipes of train_args/ what `plan` counts for them: `deno task recipe_headers`. */
import { memoryLines, recipeNames, recipePath, withLines } from "./recipe_memory.ts";

for (const name of await recipeNames()) {
  const path = recipePath(name);
  await Deno.writeTextFile(path, withLines(await Deno.readTextFile(path), await memoryLines(name)));
}
