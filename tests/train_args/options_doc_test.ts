import { describeOptions, optionsDocument } from "../../train_args/describe.ts";
import { OPTION_NAMES } from "../../train_args/schema.ts";
import { assert, assertEquals } from "../support/assert_close.ts";

Deno.test("docs/options.md is what the schema says (run `deno task options_doc` after changing it)", async () => {
  const written = await Deno.readTextFile(new URL("../../docs/options.md", import.meta.url));
  assertEquals(written, optionsDocument());
});

Deno.test("describeOptions() says something about every option", () => {
  const described = describeOptions();
  assertEquals(described.map(({ name }) => name), OPTION_NAMES);
  for (const { name, doc, kind, default: initial } of described) {
    assert(doc.length > 10 && kind !== "" && initial !== "", name);
    assert(!`${doc}${kind}${initial}`.includes("|"), `${name}: a bar would break the table`);
  }
});
