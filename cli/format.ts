/** Numbers, sizes, times and tables as people read them. */
import { formatCount, formatTable } from "../text.ts";

import { ownColour } from "./visible.ts";

/** A path as a shell reads it back. */
export function shellWord(path: string): string {
  const word = path.startsWith("-") ? `./${path}` : path;
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** A value of a result record: numbers keep ten digits, what is missing is a dash. */
function formatValue(value: unknown): string {
  if (value === null || value === undefined) return "-";
  if (typeof value === "number") {
    return Number.isInteger(value) ? formatCount(value) : String(Number(value.toPrecision(10)));
  }
  if (Array.isArray(value)) return value.map(formatValue).join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** A record as two columns, names and values. */
export function formatRecord(record: object): string {
  return formatTable(Object.entries(record).map(([name, value]) => [name, formatValue(value)]));
}

/** A command's result as one line of JSON, its names in snake_case as in Hugging Face's files. */
export function formatJson(result: unknown): string {
  return JSON.stringify(inSnakeCase(result));
}

function inSnakeCase(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(inSnakeCase);
  if (typeof value !== "object" || value === null) return value;
  const name = (key: string) =>
    /^[a-z]+[a-zA-Z0-9]*$/.test(key) ? key.replace(/[A-Z]+/g, (letters) => `_${letters.toLowerCase()}`) : key;
  return Object.fromEntries(Object.entries(value).map(([key, child]) => [name(key), inSnakeCase(child)]));
}

/** A command's result: one JSON object, or names and values in two columns. */
export function formatResult(result: unknown, json: boolean): string {
  return json ? formatJson(result) : formatRecord(result as object);
}

const CODES = { bold: [1, 22], dim: [2, 22], red: [31, 39], yellow: [33, 39], cyan: [36, 39] } as const;

/** `text` in a colour or weight, where `color` says that colours are wanted. */
export function paint(text: string, style: keyof typeof CODES, color: boolean): string {
  const [on, off] = CODES[style];
  return color ? ownColour(on) + text + ownColour(off) : text;
}
