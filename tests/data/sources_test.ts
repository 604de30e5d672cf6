import { parseSources } from "../../data/sources.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";

Deno.test("parseSources() reads Long-LLM's entries", () => {
  const entries = [
    "long-llm:gpt/book.train.64K.json",
    "redpajama/train.json[5000]",
    "a[1].json",
    "long-llm:/x.json[3]",
  ];
  assertEquals(parseSources(entries, { dataRoot: "/data/long-llm/" }), [
    { path: "/data/long-llm/gpt/book.train.64K.json", most: undefined, weight: undefined },
    { path: "redpajama/train.json", most: 5000, weight: undefined },
    { path: "a[1].json", most: undefined, weight: undefined },
    { path: "/data/long-llm/x.json", most: 3, weight: undefined },
  ]);
  assertEquals(
    parseSources(["a", "b"], { weights: [0.7, 0.3] }).map(({ weight }) => weight),
    [0.7, 0.3],
  );
});

Deno.test("parseSources() says what is wrong with an entry", async () => {
  await assertThrows(() => parseSources(["a.json[]"]), '"a.json[]"', "number of rows");
  await assertThrows(() => parseSources(["a.json[0]"]), "number of rows");
  await assertThrows(() => parseSources(["long-llm:a.json"]), "data_root");
  await assertThrows(
    () => parseSources(["a", "b"], { weights: [1] }),
    "1 weights for 2 entries",
  );
});
