import { linesOf, measuredThroughput } from "../../tools/scaling_doc.ts";
import { assert } from "../support/assert_close.ts";

Deno.test("docs/scaling.md is what the plan predicts (run `deno task scaling_doc` after changing that)", async () => {
  const text = await Deno.readTextFile(new URL("../../docs/scaling.md", import.meta.url));
  for (const { cells } of await linesOf("llama2-7b", 8192, await measuredThroughput())) {
    const row = `| ${cells.join(" | ")} |`;
    assert(text.includes(row), `no row ${row}`);
  }
});
