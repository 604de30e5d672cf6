import { quoteNames, typeName } from "../text.ts";
import { isMisspelt } from "../nearest.ts";
import { TextReader } from "./encoding.ts";
import { UserError } from "../errors.ts";
import { readChunks } from "./compression.ts";
import { openRegular } from "./file_bytes.ts";
import { errorCode, fileError } from "./file_errors.ts";
import { refuseForeign } from "./foreign.ts";
import { halfCharacter, jsonErrorPosition, jsonShape, repeatedKey } from "./json_position.ts";

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
 * Reads the objects of a JSON file one by one: one object per line, a list of objects laid out in any way, or objects
 * over several lines each. None of them is held in memory as a whole.
 *
 * @throws {UserError} naming `file:line` as {@linkcode readJsonl}
 */
export async function* readObjects(path: string): AsyncGenerator<PlacedObject> {
  let rows = 0;
  for await (const stretch of stretchesOf(path)) {
    if (stretch.text.trim() === "") continue;
    rows++;
    const where = `${path}:${stretch.line}`;
    yield { line: stretch.line, where, value: parseRow(path, where, stretch) };
  }
  if (rows === 0) {
    throw new UserError(
      `Cannot use "${path}": it has no rows. Write one JSON object per line, such as {"text": "..."}, or a list of them`,
    );
  }
}

function parseRow(
  path: string,
  where: string,
  { text, textLine }: Stretch,
): Readonly<Record<string, unknown>> {
  const fail = (at: number, problem: string, cause?: unknown) => {
    const before = text.slice(0, at);
    const line = textLine + before.split("\n").length - 1;
    const column = at - before.lastIndexOf("\n");
    return new UserError(
      `Cannot read ${path}:${line}:${column}: ${problem}. Write one JSON object per line`,
      { cause },
    );
  };
  const { depth, parts, keys } = jsonShape(text, MOST_PARTS);
  if (depth > DEEPEST) throw fail(0, `the row's lists and objects nest more than ${DEEPEST} levels deep`);
  if (parts > MOST_PARTS) throw fail(0, `the row has more than ${MOST_PARTS} values`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const at = jsonErrorPosition(text);
    const problem = at >= text.length
      ? "it ends too early"
      : NOT_FINITE.test(text.slice(at, at + 10))
      ? "NaN and Infinity are not in JSON; write null or a number"
      : `unexpected ${JSON.stringify(excerpt(text, at))}`;
    throw fail(at, `the line is not valid JSON, ${problem}`, cause);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new UserError(`Cannot read ${where}: the line must be a JSON object, got ${typeName(value)}`);
  }
  const repeated = repeatedKey(text, value, keys);
  if (repeated) throw fail(repeated.at, `the key ${JSON.stringify(repeated.key)} is there twice`);
  const half = halfCharacter(text, value);
  if (half !== undefined) {
    throw fail(
      half,
      `${text.slice(half, half + 6)} is one half of a character, and the other half is missing`,
    );
  }
  return value as Record<string, unknown>;
}

/** Lists and objects within each other, and values, of one row. */
const DEEPEST = 1000;
const MOST_PARTS = 2 ** 22;

/** Words that Python's `json` writes for numbers that JSON has not. */
const NOT_FINITE = /^-?(?:NaN|Infinity)/;

function checkRow<K extends string>(
  where: string,
  row: Readonly<Record<string, unknown>>,
  keys: readonly K[],
): Record<K, string> {
  const found = Object.keys(row);
  const missing = keys.filter((key) => !Object.hasOwn(row, key));
  if (missing.length > 0) {
    const hint = missing.flatMap((key) => found.find((name) => isMisspelt(name, key)) ?? [])[0];
    throw new UserError(
      `Cannot use ${where}: it lacks ${quoteNames(missing)}. Wanted ${quoteNames(keys)}, found ` +
        (found.length > 0 ? quoteNames(found) : "no keys") + (hint ? `. Is "${hint}" meant?` : ""),
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

/** A stretch of a file that holds one row, and the line that the row begins on. */
interface Stretch {
  readonly line: number;
  readonly text: string;
  /** The line that the text begins on: space may come before the row. */
  readonly textLine: number;
}

/** The rows of a file in whichever of the three forms its beginning shows. */
async function* stretchesOf(path: string): AsyncGenerator<Stretch> {
  const chunks = readTexts(path);
  try {
    let line = 1;
    let begun = "";
    let form: RegExpExecArray | null = null;
    for (let looked = 0; !form && looked < 2;) {
      const { value, done } = await chunks.next();
      if (done) break;
      if (begun === "" && value.trim() === "") {
        line += value.split("\n").length - 1;
        continue;
      }
      begun += value;
      looked++;
      form = FIRST_LINE.exec(begun);
    }
    const all = chained(begun, chunks);
    if (form?.[1] === "[") yield* readElements(all, path, line);
    else if (form?.[1] === "{" && form[2] !== undefined) yield* readSpread(all, path, line);
    else yield* readLines(all, path, line);
  } finally {
    await chunks.return(undefined);
  }
}

/** The first character that is no space, and the line end where it is alone on its line. */
const FIRST_LINE = /^\s*(\S)[ \t]*(?:(\r?\n)|\S|\r\S)/;

async function* chained(begun: string, rest: AsyncIterable<string>): AsyncGenerator<string> {
  yield begun;
  yield* rest;
}

/** Lines without their line ends; the last needs none. */
async function* readLines(
  chunks: AsyncIterable<string>,
  path: string,
  firstLine: number,
): AsyncGenerator<Stretch> {
  const pieces = new Pieces(path);
  let line = firstLine;
  for await (const chunk of chunks) {
    let start = 0;
    for (let end = chunk.indexOf("\n"); end >= 0; end = chunk.indexOf("\n", start)) {
      const text = pieces.finish(chunk.slice(start, end), line);
      yield { line, textLine: line++, text };
      start = end + 1;
    }
    pieces.add(chunk.slice(start), line);
  }
  const text = pieces.finish("", line);
  if (text !== "") yield { line, textLine: line, text };
}

const [NEWLINE, QUOTE, COMMA, BACKSLASH] = [0x0a, 0x22, 0x2c, 0x5c];
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];

/** The elements of the file's one list: cut at the commas between them, by counting brackets outside of strings. */
async function* readElements(
  chunks: AsyncIterable<string>,
  path: string,
  firstLine: number,
): AsyncGenerator<Stretch> {
  const pieces = new Pieces(path);
  let [depth, inString, escaped, line, first, textLine, isOver] = [
    0,
    false,
    false,
    firstLine,
    firstLine,
    firstLine,
    false,
  ];
  for await (const chunk of chunks) {
    let start = 0;
    for (let i = 0; i < chunk.length; i++) {
      const code = chunk.charCodeAt(i);
      if (code === NEWLINE) line++;
      if (inString) {
        if (escaped) escaped = false;
        else if (code === BACKSLASH) escaped = true;
        else if (code === QUOTE) inString = false;
        continue;
      }
      if (isOver || depth === 0) {
        if (code <= 0x20) continue;
        if (isOver) throw new UserError(`Cannot read ${path}:${line}: something follows the end of the list`);
        [depth, start, first, textLine] = [1, i + 1, line, line];
        continue;
      }
      if (code === QUOTE) inString = true;
      else if (code === OPEN_LIST || code === OPEN_OBJECT) {
        if (depth++ === 1) first = line;
      } else if (code === CLOSE_LIST || code === CLOSE_OBJECT) depth--;
      isOver = depth === 0;
      if (isOver || (depth === 1 && code === COMMA)) {
        yield { line: first, textLine, text: pieces.finish(chunk.slice(start, i), first) };
        [start, first, textLine] = [i + 1, line, line];
      }
    }
    if (!isOver) pieces.add(chunk.slice(start), first);
  }
  if (isOver) return;
  throw new UserError(`Cannot read ${path}:${line}: the list ends too early. The file may be cut short`);
}

/** Objects over several lines, one after the other: cut where their brackets are closed. */
async function* readSpread(
  chunks: AsyncIterable<string>,
  path: string,
  firstLine: number,
): AsyncGenerator<Stretch> {
  const pieces = new Pieces(path);
  let [depth, inString, escaped, line, first, textLine] = [0, false, false, firstLine, firstLine, firstLine];
  for await (const chunk of chunks) {
    let start = 0;
    for (let i = 0; i < chunk.length; i++) {
      const code = chunk.charCodeAt(i);
      if (code === NEWLINE) line++;
      if (inString) {
        if (escaped) escaped = false;
        else if (code === BACKSLASH) escaped = true;
        else if (code === QUOTE) inString = false;
      } else if (code === QUOTE) inString = true;
      else if (code === OPEN_LIST || code === OPEN_OBJECT) {
        if (depth++ === 0) first = line;
      } else if ((code === CLOSE_LIST || code === CLOSE_OBJECT) && --depth <= 0) {
        yield { line: first, textLine, text: pieces.finish(chunk.slice(start, i + 1), first) };
        [depth, start, first, textLine] = [0, i + 1, line, line];
      }
    }
    pieces.add(chunk.slice(start), first);
  }
  yield { line: first, textLine, text: pieces.finish("", first) };
}

/** Characters of a row, or of a text file that is one document. */
const LONGEST_TEXT = 2 ** 27;

/** Joins what spans chunks once, so that a row of n chunks costs n, not n squared. */
class Pieces {
  #parts: string[] = [];
  #length = 0;

  constructor(readonly path: string) {}

  /** @throws {UserError} if there is more of a row than {@linkcode LONGEST_TEXT} */
  add(part: string, line: number): void {
    this.#length += part.length;
    if (this.#length > LONGEST_TEXT) {
      throw new UserError(
        `Cannot read ${this.path}:${line}: the row has more than ${
          LONGEST_TEXT / 2 ** 20
        } Mi characters, the most ` +
          "that a row may have. Cut it into several rows",
      );
    }
    if (part.length > 0) this.#parts.push(part);
  }

  finish(last: string, line: number): string {
    this.add(last, line);
    const whole = this.#parts.length === 1 ? this.#parts[0]! : this.#parts.join("");
    this.#parts = [];
    this.#length = 0;
    return whole;
  }
}

/** A file's text in pieces. @throws {UserError} as {@linkcode openToRead}, or where it is not text */
async function* readTexts(path: string): AsyncGenerator<string, undefined> {
  using file = await openToRead(path);
  const reader = new TextReader(path);
  let isFirst = true;
  for await (const chunk of readChunks(file, path)) {
    if (isFirst) refuseForeign(path, chunk);
    isFirst = false;
    yield reader.decode(chunk);
  }
  yield reader.finish();
}

const REMEDIES: ReadonlyMap<string | undefined, string> = new Map([
  ["ENOENT", "Check the path"],
  ["EISDIR", "Name a file in it"],
  ["ENOTREG", "If it is a pipe or a device, write its data into a file first"],
]);

/** Opens a data file. @throws {UserError} if it is missing, not readable, or no regular file */
export async function openToRead(path: string): Promise<Deno.FsFile> {
  try {
    return await openRegular(path);
  } catch (error) {
    throw fileError(error, `Cannot read "${path}"`, REMEDIES.get(errorCode(error)));
  }
}

/**
 * A file as one text.
 *
 * @throws {UserError} as {@linkcode openToRead}, if it is not text, or longer than {@linkcode LONGEST_TEXT}
 */
export async function readText(path: string): Promise<string> {
  const parts: string[] = [];
  let length = 0;
  for await (const part of readTexts(path)) {
    length += part.length;
    if (length > LONGEST_TEXT) {
      throw new UserError(
        `Cannot read "${path}" as one document: it has more than ${
          LONGEST_TEXT / 2 ** 20
        } Mi characters. Cut it into ` +
          "documents: files, or rows of a .jsonl file",
      );
    }
    parts.push(part);
  }
  return parts.join("");
}

/** Excerpt of a text from a position on. */
function excerpt(text: string, at: number): string {
  return text.length > at + 20 ? `${text.slice(at, at + 20)}...` : text.slice(at);
}
