import { distance } from "fastest-levenshtein";
import { UserError } from "../errors.ts";
import { readChunks } from "./compression.ts";
import { jsonErrorPosition } from "./json_position.ts";

/** One row of a JSON Lines file: the wanted keys, each a string. */
export interface JsonlRow<K extends string> {
  /** Line number in the file, from 1. */
  readonly line: number;
  readonly values: Readonly<Record<K, string>>;
}

/** One object of a JSON file, and where it begins: `file:line`. */
export interface PlacedObject {
  readonly line: number;
  readonly where: string;
  readonly value: Readonly<Record<string, unknown>>;
}

/**
 * Reads a JSON Lines file row by row without holding the file in memory; blank lines are skipped, other keys ignored.
 *
 * @param keys the keys every row must have, with text in them
 * @throws {UserError} naming `file:line` if the file is missing or has no rows, or a row is not UTF-8, not a JSON
 * object, lacks a key or holds something else than text in it
 */
export async function* readJsonl<K extends string>(
  path: string,
  keys: readonly K[],
): AsyncGenerator<JsonlRow<K>> {
  for await (const { line, where, value } of readObjects(path)) {
    yield { line, values: checkRow(where, value, keys) };
  }
}

/**
 * Reads the objects of a JSON file one by one: one object per line, or a list of objects laid out in any way. Neither
 * form is held in memory as a whole.
 *
 * @throws {UserError} naming `file:line` as {@linkcode readJsonl}
 */
export async function* readObjects(path: string): AsyncGenerator<PlacedObject> {
  // It also drops a byte order mark.
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let rows = 0;
  for await (const { line, bytes } of await isList(path) ? readElements(path) : readLines(path)) {
    const where = `${path}:${line}`;
    let text: string;
    try {
      text = decoder.decode(bytes);
    } catch (cause) {
      throw new UserError(`Cannot read ${where}: the line is not valid UTF-8. Save the file as UTF-8`, {
        cause,
      });
    }
    if (text.trim() === "") continue;
    rows++;
    yield { line, where, value: parseRow(where, text) };
  }
  if (rows === 0) {
    throw new UserError(
      `Cannot use "${path}": it has no rows. Write one JSON object per line, such as {"text": "..."}, or a list of them`,
    );
  }
}

/** Whether the first thing in the file is a list that is not closed on its line. */
async function isList(path: string): Promise<boolean> {
  for await (const chunk of chunksOf(path)) {
    const start = chunk.findIndex((byte) => byte > 0x20 && byte < 0x80);
    if (start >= 0) return chunk[start] === 0x5b;
  }
  return false;
}

function parseRow(where: string, text: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const at = jsonErrorPosition(text);
    const problem = at >= text.length
      ? "it ends too early"
      : `unexpected ${JSON.stringify(excerpt(text, at))}`;
    throw new UserError(
      `Cannot read ${where}:${
        at + 1
      }: the line is not valid JSON, ${problem}. Write one JSON object per line`,
      { cause },
    );
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new UserError(`Cannot read ${where}: the line must be a JSON object, got ${typeName(value)}`);
  }
  return value as Record<string, unknown>;
}

function checkRow<K extends string>(
  where: string,
  row: Readonly<Record<string, unknown>>,
  keys: readonly K[],
): Record<K, string> {
  const found = Object.keys(row);
  const missing = keys.filter((key) => !Object.hasOwn(row, key));
  if (missing.length > 0) {
    const hint = missing.map((key) => nearest(key, found)).find((name) => name !== undefined);
    throw new UserError(
      `Cannot use ${where}: it lacks ${quoted(missing)}. Wanted ${quoted(keys)}, found ` +
        (found.length > 0 ? quoted(found) : "no keys") + (hint ? `. Is "${hint}" meant?` : ""),
    );
  }
  const values = {} as Record<K, string>;
  for (const key of keys) {
    const value = row[key];
    if (typeof value !== "string") {
      throw new UserError(`Cannot use ${where}: "${key}" must be text, got ${typeName(value)}`);
    }
    values[key] = value;
  }
  return values;
}

/** A stretch of a file that holds one row, and the line it begins on. */
interface Stretch {
  readonly line: number;
  readonly bytes: Uint8Array;
}

/** Lines as bytes without their line ends; the last needs none. */
async function* readLines(path: string): AsyncGenerator<Stretch> {
  const pieces = new Pieces();
  let line = 1;
  for await (const chunk of chunksOf(path)) {
    let start = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, start)) {
      yield { line: line++, bytes: withoutReturn(pieces.finish(chunk.subarray(start, end))) };
      start = end + 1;
    }
    pieces.add(chunk.subarray(start));
  }
  if (!pieces.isEmpty) yield { line, bytes: withoutReturn(pieces.finish(new Uint8Array())) };
}

/** The elements of the file's one list: cut at the commas between them, by counting brackets outside of strings. */
async function* readElements(path: string): AsyncGenerator<Stretch> {
  const pieces = new Pieces();
  let [depth, inString, escaped, line, first] = [0, false, false, 1, 1];
  for await (const chunk of chunksOf(path)) {
    let start = 0;
    for (let i = 0; i < chunk.length; i++) {
      const byte = chunk[i]!;
      if (byte === 0x0a) line++;
      if (depth === 0) {
        if (byte !== 0x5b) continue;
        [depth, start, first] = [1, i + 1, line];
      } else if (inString) {
        if (escaped) escaped = false;
        else if (byte === 0x5c) escaped = true;
        else if (byte === 0x22) inString = false;
      } else if (byte === 0x22) inString = true;
      else if (byte === 0x5b || byte === 0x7b) {
        if (depth++ === 1) first = line;
      } else if (byte === 0x5d || byte === 0x7d) depth--;
      const isEnd = depth === 0;
      if (!inString && (isEnd || (depth === 1 && byte === 0x2c))) {
        yield { line: first, bytes: pieces.finish(chunk.subarray(start, i)) };
        [start, first] = [i + 1, line];
        if (isEnd) return;
      }
    }
    if (depth > 0) pieces.add(chunk.subarray(start));
  }
  throw new UserError(`Cannot read ${path}:${line}: the list ends too early. The file may be cut short`);
}

/** Joins what spans chunks once, so that a row of n chunks costs n, not n squared. */
class Pieces {
  #parts: Uint8Array[] = [];

  get isEmpty(): boolean {
    return this.#parts.length === 0;
  }

  add(part: Uint8Array): void {
    if (part.length > 0) this.#parts.push(part);
  }

  finish(last: Uint8Array): Uint8Array {
    const whole = this.#parts.length === 0 ? last : join([...this.#parts, last]);
    this.#parts = [];
    return whole;
  }
}

async function* chunksOf(path: string): AsyncGenerator<Uint8Array> {
  using file = await openToRead(path);
  yield* readChunks(file, path);
}

function withoutReturn(line: Uint8Array): Uint8Array {
  return line.subarray(0, line.at(-1) === 0x0d ? line.length - 1 : line.length);
}

/**
 * Opens a data file.
 *
 * @throws {UserError} if it is missing, a folder or not readable
 */
export async function openToRead(path: string): Promise<Deno.FsFile> {
  try {
    const info = await Deno.stat(path);
    if (info.isDirectory) throw new UserError(`Cannot read "${path}": it is a folder. Name a file in it`);
    return await Deno.open(path);
  } catch (cause) {
    if (cause instanceof UserError) throw cause;
    if (cause instanceof Deno.errors.NotFound) {
      throw new UserError(`Cannot read "${path}": there is no such file. Check the path`, { cause });
    }
    throw new UserError(`Cannot read "${path}": ${(cause as Error).message}`, { cause });
  }
}

/** Bytes of UTF-8 that surely fit into a string of JavaScript. */
const LONGEST_TEXT = 2 ** 29 - 24;

/**
 * A file as one text.
 *
 * @throws {UserError} as {@linkcode openToRead}, and if it is larger than a string can be
 */
export async function readText(path: string): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let size = 0;
  for await (const chunk of chunksOf(path)) {
    size += chunk.length;
    if (size > LONGEST_TEXT) {
      throw new UserError(
        `Cannot read "${path}" as one document: it has more than ${LONGEST_TEXT} bytes. Cut it into documents: files, or ` +
          `rows of a .jsonl file`,
      );
    }
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    all.set(part, offset);
    offset += part.length;
  }
  return all;
}

/** What stands at a position, shortened. */
function excerpt(text: string, at: number): string {
  return text.length > at + 20 ? `${text.slice(at, at + 20)}...` : text.slice(at);
}

/** The found key that is the wanted one but for a slip of the finger or its case. */
function nearest(wanted: string, found: readonly string[]): string | undefined {
  const scored = found.map((name) => ({ name, score: distance(wanted, name.trim().toLowerCase()) }));
  scored.sort((a, b) => a.score - b.score);
  return scored[0] && scored[0].score <= 2 ? scored[0].name : undefined;
}

/** Names as messages list them. */
export function quoted(names: readonly string[]): string {
  return names.map((name) => `"${name}"`).join(", ");
}

/** What a value is, for messages. */
export function typeName(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  return Array.isArray(value) ? "a list" : typeof value === "object" ? "an object" : `a ${typeof value}`;
}
