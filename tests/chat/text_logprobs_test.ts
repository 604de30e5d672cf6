/** Logprobs come with the text of their tokens: not before it is certain, and not behind a stop text. */
import { LogprobQueue } from "../../chat/text_logprobs.ts";
import { TextStream } from "../../chat/text_stream.ts";
import { assertEquals } from "../support/assert_close.ts";

const bytes = new TextEncoder();

/** A tokenizer of one byte a token; 255 is special. */
const tokenizer = {
  decode: (ids: ArrayLike<number>, { skipSpecial = false }: { readonly skipSpecial?: boolean } = {}) => {
    const special = skipSpecial ? [] : [...bytes.encode("</s>")];
    return new TextDecoder().decode(
      Uint8Array.from(Array.from(ids).flatMap((id) => id === 255 ? special : [id])),
    );
  },
};

/** What is told, with each token of a text. */
function told(
  text: string,
  stops: readonly string[],
  ids: readonly number[] = [...bytes.encode(text)],
): string[] {
  const stream = new TextStream(tokenizer, stops);
  const queue = new LogprobQueue();
  const steps: string[] = [];
  let shown = 0;
  const take = (piece: string, isLast: boolean) => {
    shown += piece.length;
    const logprobs = queue.take(shown, isLast);
    for (const { logprob, top } of logprobs) assertEquals([logprob, top[0]!.logprob], [-1, -0.5]);
    steps.push(`${piece}:${logprobs.map(({ text }) => text).join("|")}`);
  };
  for (const id of ids) {
    if (stream.isStopped) break;
    queue.add({ id, logprob: -1, top: [{ id: 97, logprob: -0.5 }] }, stream);
    const piece = stream.push([id]);
    take(piece, stream.isStopped);
  }
  take(stream.finish(), true);
  return steps;
}

Deno.test("each token comes with its text", () => {
  assertEquals(told("abc", []), ["a:a", "b:b", "c:c", ":"]);
});

Deno.test("what may begin a stop text is held back with its logprobs, and told when it does not", () => {
  assertEquals(told("axyb", ["xyz"]), ["a:a", ":", ":", "xyb:x|y|b", ":"]);
  assertEquals(told("ax", ["xyz"]), ["a:a", ":", "x:x"]);
});

Deno.test("tokens of a stop text are not told", () => {
  assertEquals(told("axyz!", ["xyz"]), ["a:a", ":", ":", ":", ":"]);
});

Deno.test("a part of a character has none of its text, which comes with the last part", () => {
  assertEquals(told("é.", []), [":\ufffd", "é:é", ".:.", ":"]);
});

Deno.test("a special token that goes on has a name, and no place in the text", () => {
  assertEquals(told("", [], [97, 255, 98]), ["a:a", ":</s>", "b:b", ":"]);
});
