/** Settings files: YAML 1.2, one flat map, no aliases, no tags, every value with its place. */
import { printable } from "../text.ts";
import {
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  type ParsedNode,
  parseDocument,
} from "yaml";
import { decodeText } from "./encoding.ts";
import { FILE_LIMITS, readWhole } from "./file_bytes.ts";
import { type Place, type Problem, problemOf } from "./problems.ts";

/** Deepest nesting of lists and maps; settings need two levels. */
const MAX_DEPTH = 8;

/** One `key: value` of the file. */
export interface YamlEntry {
  readonly key: string;
  /** Plain data; `undefined` where it was refused, and a problem says why. */
  readonly value: unknown;
  readonly keyPlace: Place;
  readonly valuePlace: Place;
}

/** A parsed settings file: its entries, and what is wrong with it as YAML. */
export interface YamlFile {
  /** False when the YAML itself is broken, so that nothing can be said about the options. */
  readonly readable: boolean;
  readonly entries: readonly YamlEntry[];
  readonly problems: readonly Problem[];
}

/**
 * Reads and parses `path`.
 *
 * @throws {UserError} if the file is missing, unreadable, over 1 MiB or not UTF-8
 */
export async function readYamlFile(path: string): Promise<YamlFile> {
  const action = `Cannot read settings "${path}"`;
  return parseYaml(decodeText(await readWhole(path, FILE_LIMITS.settings, { action }), path), path);
}

/** The last part of a path: messages name files by it. */
export function fileName(path: string): string {
  return path.split(/[\\/]/).at(-1) || path;
}

/** Parses the text of a settings file; `path` is only for messages. */
export function parseYaml(text: string, path: string): YamlFile {
  const name = fileName(path);
  const lines = text.split(/\r\n|\n|\r/);
  const counter = new LineCounter();
  const problems: Problem[] = [];

  const placeAt = (line: number, column: number): Place => ({
    label: `${name}:${line}:${column}`,
    source: { line, text: lines[line - 1] ?? "", column },
  });
  const placeOf = (offset: number | undefined): Place => {
    if (offset === undefined) return { label: name };
    const { line, col } = counter.linePos(offset);
    return placeAt(Math.max(1, line), Math.max(1, col));
  };
  const unreadable = { readable: false, entries: [], problems };

  if (nestsDeeper(text, 64)) {
    problems.push({ place: { label: name }, message: "brackets are nested too deeply" });
    return unreadable;
  }
  let document: Document.Parsed;
  try {
    document = parseDocument(text, { lineCounter: counter, prettyErrors: false, logLevel: "error" });
  } catch (error) {
    problems.push({
      place: { label: name },
      message: `not YAML: ${error instanceof Error ? error.message : error}`,
    });
    return unreadable;
  }
  const isRepeatedKey = ({ code }: { code: string }) => code === "DUPLICATE_KEY";
  const broken = document.errors.find((error) => !isRepeatedKey(error));
  // What the parser finds after the first slip are its consequences.
  for (const error of [...document.errors.filter(isRepeatedKey), ...(broken ? [broken] : [])]) {
    const message = error.code === "MULTIPLE_DOCS"
      ? "a second document begins here, which nobody would read: write one map of options"
      : lowerFirst(error.message);
    const shown = message.length > LONGEST ? `${message.slice(0, LONGEST)}...` : message;
    problems.push({ place: placeOf(error.pos[0]), message: `not valid YAML: ${shown}` });
  }
  // A repeated key leaves the rest readable; after any other error the tree is a guess.
  if (broken) return unreadable;

  const root = document.contents;
  if (root === null || (isScalar(root) && root.value === null)) {
    return { readable: true, entries: [], problems };
  }
  if (!isMap(root)) {
    problems.push({
      place: placeOf(root.range[0]),
      message: "must hold one map of options, as `lora_rank: 64`",
    });
    return unreadable;
  }
  const entries: YamlEntry[] = [];
  for (const pair of root.items) {
    const keyPlace = placeOf(pair.key.range[0]);
    if (!isScalar(pair.key) || pair.key.value === null) {
      problems.push({ place: keyPlace, message: "an option's name must be plain text" });
      continue;
    }
    const key = printable(String(pair.key.value));
    // An empty value has a range too: the place right behind the colon.
    const valuePlace = isNode(pair.value) ? placeOf(pair.value.range?.[0]) : keyPlace;
    const before = problems.length;
    const value = plainValue(pair.value, (message, offset) => {
      if (problems.length === before) problems.push(problemOf(key, placeOf(offset), message));
    }, 1);
    entries.push({ key, value: problems.length > before ? undefined : value, keyPlace, valuePlace });
  }
  return { readable: true, entries, problems };
}

/** A node as plain data: maps have no prototype, so that no key of theirs can be special. */
function plainValue(
  node: ParsedNode | null,
  refuse: (message: string, offset: number) => void,
  depth: number,
): unknown {
  if (node === null) return null;
  const offset = node.range[0];
  if (isAlias(node)) {
    refuse("aliases (`*name`) are not allowed: write the value out", offset);
    return null;
  }
  if (node.tag !== undefined) {
    refuse(`tags (here ${node.tag}) are not allowed: write the plain value`, offset);
    return null;
  }
  if (isScalar(node)) {
    if (
      node.type === "PLAIN" && typeof node.value === "number" && /^[-+]?0[0-9_]+$/.test(node.source ?? "")
    ) {
      refuse("a number with a zero in front is octal to some readers: write it without", offset);
    }
    return node.value;
  }
  if (depth > MAX_DEPTH) {
    refuse(`nested more than ${MAX_DEPTH} levels deep`, offset);
    return null;
  }
  if (isSeq(node)) return node.items.map((item) => plainValue(item as ParsedNode, refuse, depth + 1));
  const record: Record<string, unknown> = Object.create(null);
  for (const { key, value } of node.items) {
    record[isScalar(key) ? String(key.value) : ""] = plainValue(value as ParsedNode, refuse, depth + 1);
  }
  return record;
}

/** Whether flow brackets open more than `limit` deep anywhere, before a recursive parser sees them. */
function nestsDeeper(text: string, limit: number): boolean {
  let depth = 0;
  for (const [bracket] of text.matchAll(/[[\]{}]|^[ \t]*(?:[-?] +)+/gm)) {
    if (bracket === "[" || bracket === "{") depth++;
    else if (bracket === "]" || bracket === "}") depth = Math.max(0, depth - 1);
    else if (bracket.trim().length > 2 * limit) return true;
    if (depth > limit) return true;
  }
  return false;
}

/** Characters of a parser's message: it may quote the whole file. */
const LONGEST = 200;

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}
