/** Writes `docs/options.md` from the schema: `deno task options_doc`. */
import { optionsDocument } from "../train_args/describe.ts";

await Deno.writeTextFile(new URL("../docs/options.md", import.meta.url), optionsDocument());
