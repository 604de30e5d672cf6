/** Streamed text is the whole text, in whole characters, without what ends it. */
import { TextStream } from "../../chat/text_stream.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { GOLDEN } from "../support/files.ts";
import { integers } from "../support/random.ts";

/** One token a byte. */
const bytes = await Tokenizer.load(`${GOLDEN}/mha`);
const WORDS = "Grüße, 世界! 👩‍👧 ok";

/** What a stream gives for each group of tokens, the rest last. */
function pieces(ids: readonly number[], groups: readonly number[], stops: readonly string[] = []): string[] {
  const stream = new TextStream(bytes, stops);
  const shown: string[] = [];
  let at = 0;
  for (const count of groups) {
    shown.push(stream.push(ids.slice(at, at + count)));
    at += count;
  }
  return [...shown, stream.push(ids.slice(at)), stream.finish()];
}

Deno.test("pieces are whole characters, and together the text, however tokens come", () => {
  const ids = bytes.encode(WORDS, { bos: false });
  for (let seed = 1; seed <= 20; seed++) {
    const shown = pieces(ids, [...integers(seed, 12, 5)]);
    for (const piece of shown) assert(piece.isWellFormed() && !piece.includes("\ufffd"), `${seed}: ${shown}`);
    assertEquals(shown.join(""), WORDS, `seed ${seed}`);
  }
});

Deno.test("bytes that are no character do not hold the text up, and show at its end", () => {
  const stream = new TextStream(bytes);
  const ids = [0xff, 0xff, 0xff, 0xff, 0xff, 0x61, 0x62, 0xe4];
  const shown = ids.map((id) => stream.push([id])).join("");
  assert(shown.endsWith("ab"), JSON.stringify(shown));
  assertEquals(shown + stream.finish(), bytes.decode(ids));
});

Deno.test("special tokens are not shown", () => {
  assertEquals(pieces([...bytes.encode("a", { bos: false }), bytes.eosId, 0x62], []).join(""), "ab");
});

Deno.test("a stop text ends the answer wherever tokens are cut, and no part of it is shown", () => {
  const ids = bytes.encode("one\nQ: two", { bos: false });
  for (let cut = 0; cut <= ids.length; cut++) {
    assertEquals(pieces(ids, [cut], ["\nQ:", "wo"]).join(""), "one", `cut at ${cut}`);
  }
  const stream = new TextStream(bytes, ["two"]);
  assertEquals([stream.push(ids), stream.isStopped, stream.push(ids), stream.finish()], [
    "one\nQ: ",
    true,
    "",
    "",
  ]);
});

Deno.test("what looks like a stop text and is none is shown, at the latest at the end", () => {
  const ids = bytes.encode("one\nQ two\nQ", { bos: false });
  const shown = pieces(ids, ids.map(() => 1), ["\nQ:"]);
  assertEquals(shown.join(""), "one\nQ two\nQ");
  assertEquals(shown.at(-1), "\nQ");
});

Deno.test("a tokenizer that writes the space before a word streams words with it", async () => {
  const words = await Tokenizer.load(new URL("../../demo/model", import.meta.url).pathname);
  const ids = words.encode("the knight turns to signal meteor .", { bos: false });
  const stream = new TextStream(words);
  assertEquals(
    ids.map((id) => stream.push([id])).join("") + stream.finish(),
    words.decode(ids, { skipSpecial: true }),
  );
});
