import { assert, assertEquals } from "./assert_close.ts";

const VOID = new Set(["meta"]);

/** Fails unless every element is closed in its turn and every `<` and `&` of the text is escaped. */
export function assertWellFormed(html: string): void {
  const open: string[] = [];
  const rest = html.replace(/<!DOCTYPE html>/, "").replaceAll(/<style>[^<]*<\/style>/g, "");
  const text = rest.replace(
    /<(\/?)([a-z][a-z0-9]*)((?:\s[\w-]+="[^"<>]*")*)\s*(\/?)>/gi,
    (_, close, name, __, self) => {
      if (close) assertEquals(open.pop(), name, "closing tag");
      else if (!self && !VOID.has(name)) open.push(name);
      return "";
    },
  );
  assertEquals(open, [], "open elements");
  assert(
    !/[<>]|&(?!(amp|lt|gt|quot);)/.test(text),
    `unescaped text: ${/.{20}([<>]|&).{20}/.exec(text)?.[0]}`,
  );
}
