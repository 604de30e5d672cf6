/** Writes `docs/scaling.md`: `deno task scaling_doc`. */
import { scalingDocument } from "./scaling_doc.ts";

const measured = new URL("../bench/results/scaling.json", import.meta.url);
await Deno.writeTextFile(
  new URL("../docs/scaling.md", import.meta.url),
  await scalingDocument(JSON.parse(await Deno.readTextFile(measured))),
);
