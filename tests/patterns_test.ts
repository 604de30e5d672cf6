/** Regular expressions over what users give must take time that is linear in it: each here once took its square. */
import { hubSettings } from "../hub/settings.ts";
import { parseHubReference } from "../hub/reference.ts";
import { ParagraphWriter } from "../data/pdf/paragraphs.ts";
import { parseSources } from "../data/sources.ts";
import { bytes, real } from "../train_args/values.ts";
import { parseYaml } from "../data/yaml.ts";
import { assert, assertEquals } from "./support/assert_close.ts";

const LENGTH = 300_000;
/** What takes the square of the length takes minutes; what is linear, milliseconds. */
const MOST_MS = 20_000;

const CASES: Readonly<Record<string, () => void>> = {
  "numbers of settings": () => {
    assert(!real().type.safeParse("1".repeat(LENGTH) + "x").success, "no number");
    assert(!real().type.safeParse("1_".repeat(LENGTH) + "x").success, "no number");
    assert(!bytes().type.safeParse("1".repeat(LENGTH) + "x").success, "no size");
  },
  "blank lines in a settings file": () => {
    assertEquals(parseYaml("\n".repeat(LENGTH) + "seed: 1", "x.yaml").entries.length, 1);
  },
  "slashes of data_root": () => {
    const slashes = "/".repeat(LENGTH);
    const [source] = parseSources(["long-llm:a.json[3]"], { dataRoot: `${slashes}x${slashes}` });
    assertEquals([source!.path.length, source!.most], [LENGTH + "x/a.json".length, 3]);
    assertEquals(parseSources([`a\nb${"[".repeat(LENGTH)}`])[0]!.most, undefined);
  },
  "slashes of HF_ENDPOINT": () => {
    const endpoint = `http://x${"/".repeat(LENGTH)}y/`;
    const { length } =
      hubSettings((name) => ({ HF_ENDPOINT: endpoint, HOME: "/home" } as Record<string, string>)[name])
        .endpoint;
    assertEquals(length, endpoint.length - 1);
  },
  "names of models": () => {
    assertEquals(parseHubReference(`a/${"b.-".repeat(LENGTH)}@${"c/".repeat(LENGTH)}?`), undefined);
  },
  "words of a PDF": () => {
    const writer = new ParagraphWriter(10, new Set());
    const line = { left: 0, right: 100, size: 10, isCode: false };
    writer.addBlock([{ ...line, text: "a".repeat(LENGTH), y: 20 }, { ...line, text: "b", y: 8 }]);
    assertEquals(writer.finish().length, LENGTH + 3);
  },
};

for (const [name, run] of Object.entries(CASES)) {
  Deno.test(`patterns: ${name}`, () => {
    const start = performance.now();
    run();
    assert(performance.now() - start < MOST_MS, "it takes the square of the length");
  });
}
