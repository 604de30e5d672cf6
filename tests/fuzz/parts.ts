/** Several files as one input, so that it can be kept and made smaller as one. */
import { utf8 } from "./mutate.ts";

const MARK = "\n=== ";
const END = " ===\n";

/** The files, each after a line with its name. */
export function joinParts(files: Readonly<Record<string, Uint8Array>>): Uint8Array {
  const pieces = Object.entries(files).flatMap(([name, bytes]) => [utf8(`${MARK}${name}${END}`), bytes]);
  const all = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

/** What {@linkcode joinParts} was given. */
export function splitParts(input: Uint8Array): Record<string, Uint8Array> {
  // One character a byte, so that places in the text are places in the bytes.
  const text = new TextDecoder("latin1").decode(input);
  const marks = [...text.matchAll(/\n=== ([\w.]+) ===\n/g)];
  return Object.fromEntries(
    marks.map((mark, i) => [mark[1]!, input.slice(mark.index + mark[0].length, marks[i + 1]?.index)]),
  );
}
