/** JSON of files that others wrote. */
import { decodeText } from "../encoding.ts";
import { quoted, UserError } from "../errors.ts";
import { jsonErrorPosition } from "./json_position.ts";

/** Lists and objects within each other that a file may have; what goes over them by calls could not follow many more. */
const DEEPEST = 100;
const [QUOTE, BACKSLASH] = [0x22, 0x5c];

/**
 * Reads JSON, as text or as the bytes of it.
 * @param path of its file, for messages
 * @throws {UserError} in one line if it is no text, or not JSON, naming the place, or nests too deeply
 */
export function parseJson(json: string | Uint8Array, path: string): unknown {
  const fail = (problem: string, cause?: unknown) =>
    new UserError(`Cannot read "${path}": ${problem}`, { cause });
  const text = typeof json === "string" ? json : decodeText(json, path);
  if (nestsTooDeep(text)) throw fail(`its lists and objects nest more than ${DEEPEST} levels deep`);
  try {
    return JSON.parse(text);
  } catch (cause) {
    const at = jsonErrorPosition(text);
    if (at >= text.length) throw fail("it is not valid JSON: it ends too early. It may be cut short", cause);
    const before = text.slice(0, at).split("\n");
    const place = `line ${before.length}, column ${before.at(-1)!.length + 1}`;
    throw fail(
      `it is not valid JSON: unexpected ${quoted(/\S{1,20}/.exec(text.slice(at))![0])} at ${place}`,
      cause,
    );
  }
}

function nestsTooDeep(text: string): boolean {
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    // "[" and "{" differ from "]" and "}" by 2, and from each other by 32.
    if ((code | 0x20) === 0x7b) {
      if (++depth > DEEPEST) return true;
    } else if ((code | 0x20) === 0x7d) depth--;
    else if (code === QUOTE) {
      for (i++; i < text.length && text.charCodeAt(i) !== QUOTE; i++) {
        if (text.charCodeAt(i) === BACKSLASH) i++;
      }
    }
  }
  return false;
}
