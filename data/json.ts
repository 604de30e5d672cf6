/** JSON of files that others wrote. */
import { quote } from "../text.ts";
import { decodeText } from "./encoding.ts";
import { UserError } from "../errors.ts";
import { jsonErrorPosition, jsonShape } from "./json_position.ts";

/** Lists and objects within each other that a file may have; what goes over them by calls could not follow many more. */
const DEEPEST = 100;

/**
 * Reads JSON, as text or as the bytes of it.
 * @param path of its file, for messages
 * @throws {UserError} in one line if it is no text, or not JSON, naming the place, or nests too deeply
 */
export function parseJson(json: string | Uint8Array, path: string): unknown {
  const fail = (problem: string, cause?: unknown) =>
    new UserError(`Cannot read "${path}": ${problem}`, { cause });
  const text = typeof json === "string" ? json : decodeText(json, path);
  if (jsonShape(text, Infinity).depth > DEEPEST) {
    throw fail(`its lists and objects nest more than ${DEEPEST} levels deep`);
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    const at = jsonErrorPosition(text);
    if (at >= text.length) throw fail("it is not valid JSON: it ends too early. It may be cut short", cause);
    const before = text.slice(0, at).split("\n");
    const place = `line ${before.length}, column ${before.at(-1)!.length + 1}`;
    const [token] = /^[^ \t\n\r]{0,20}/.exec(text.slice(at))!;
    throw fail(`it is not valid JSON: unexpected ${quote(token)} at ${place}`, cause);
  }
}
