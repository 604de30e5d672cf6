import { previewData, shownParts } from "../../data/preview.ts";
import { formatPreview } from "../../cli/preview.ts";
import { visible } from "../../cli/visible.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";

const tokenizer = await Tokenizer.load(new URL("../golden/mha", import.meta.url).pathname);

/** A sample of bytes; what stands in brackets is learnt. */
function sample(text: string, end: boolean) {
  const parts = text.split(/[[\]]/);
  const ids = parts.flatMap((part) => tokenizer.encode(part, { bos: false, eos: false }));
  const labels = parts.flatMap((part, i) =>
    tokenizer.encode(part, { bos: false, eos: false }).map((id) => i % 2 === 1 ? id : -100)
  );
  const inputIds = Uint32Array.from(end ? [...ids, tokenizer.eosId] : ids);
  return { inputIds, labels: Int32Array.from(end ? [...labels, tokenizer.eosId] : labels) };
}

Deno.test("previewData() shows what is learnt of the first sample, and how long all are", () => {
  const samples = [
    sample("Q: why? A: [so it is.]", true),
    sample("x".repeat(60), false),
    sample("[y]", false),
  ];
  const preview = previewData(samples, tokenizer);
  assertEquals(preview.parts, [
    { text: "Q: why? A: ", isTarget: false },
    { text: "so it is.</s>", isTarget: true },
  ]);
  assertEquals([preview.firstTargets[0], preview.lastTargets.at(-1)], ["s", "</s>"]);
  assertEquals(preview.neverEnds, false);
  assertEquals(preview.lengths.map(({ samples }) => samples), [1, 0, 1, 0, 0, 0, 0, 1]);
  assertEquals(preview.lengths.at(-1)!.upTo, 64);
  assertEquals(previewData([sample("Q: why? A: [so it is.]", false)], tokenizer).neverEnds, true);
  assertEquals(previewData([sample("[a text without an end]", false)], tokenizer).neverEnds, false);
});

Deno.test("formatPreview() marks what is learnt, with and without colours, and lets no text steer the terminal", () => {
  const preview = previewData([sample("A\u001b[2J[B\u0007C]", true)], tokenizer);
  const plain = formatPreview(preview, false);
  assertIncludes(plain, "[[");
  assertIncludes(plain, "</s>]]");
  assert(![...plain].some((char) => char < " " && char !== "\n"), JSON.stringify(plain));
  const colored = visible(formatPreview(preview, true), "colours");
  assertIncludes(colored, "\x1b[32m");
  assert(!colored.includes("\x1b[2J"), "the text clears the screen");
  const long = formatPreview(previewData([sample("q".repeat(5000) + "[a]", true)], tokenizer), false);
  assertIncludes(long, "characters ...");
  assert(long.length < 1200, `${long.length} characters`);
});

Deno.test("Lengths are told up to round numbers, and what is shown of many stretches is bounded", () => {
  const upTo = (longest: number) =>
    previewData([sample("xx", false), sample("x".repeat(longest), false)], tokenizer).lengths.map((bin) =>
      bin.upTo
    );
  assertEquals(upTo(338), [64, 128, 192, 256, 320, 384]);
  assertEquals(upTo(512), [64, 128, 192, 256, 320, 384, 448, 512]);
  assertEquals(upTo(3), [2, 3]);
  assertEquals(previewData([sample("x".repeat(338), false)], tokenizer).lengths, [{ upTo: 384, samples: 1 }]);
  const turns = Array.from({ length: 50 }, (_, i) => `question ${i}[answer ${i}]`).join("");
  const preview = previewData([sample(turns, true)], tokenizer);
  const shown = shownParts(preview);
  assertEquals([preview.parts.length, shown.length], [100, 17]);
  assertIncludes(shown[8]!.text, "... 84 stretches ...");
  assertIncludes(shown.at(-1)!.text, "answer 49");
});

Deno.test("formatPreview() says what rows were taken for", () => {
  const heading = (...texts: string[]) =>
    formatPreview(previewData(texts.map((text) => sample(text, true)), tokenizer), false).split("\n")[0];
  assertEquals(
    heading("Q: why?[A]", "[B]"),
    "The first of 2 sequences, taken as prompts with answers to learn; what is learnt is in [[ ]]:",
  );
  assertEquals(
    heading("[a text]"),
    "The only sequence, taken as a text that is learnt whole; what is learnt is in [[ ]]:",
  );
});
