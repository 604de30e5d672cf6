/** Numbers, sizes, times and tables as people read them. */
import { ownColour } from "./visible.ts";

/** A path as a shell reads it back. */
export function shellWord(path: string): string {
  const word = path.startsWith("-") ? `./${path}` : path;
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** A size: `512 B`, `1.5 KiB`, `23.4 GiB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < BYTE_UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${BYTE_UNITS[unit]}`;
}

/** A length of time: `0.4s`, `12s`, `3m 05s`, `2h 07m`, `4d 03h`. */
export function formatSeconds(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return "?";
  if (seconds < 9.95) return `${seconds.toFixed(1)}s`;
  const whole = Math.round(seconds);
  const pad = (value: number) => String(Math.floor(value)).padStart(2, "0");
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${pad(whole % 60)}s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)}h ${pad((whole % 3600) / 60)}m`;
  return `${Math.floor(whole / 86_400)}d ${pad((whole % 86_400) / 3600)}h`;
}

/** A whole number with separators: `1,234,567`. */
export function formatCount(count: number): string {
  return Math.round(count).toLocaleString("en-US");
}

/** A rate per second: `0.52`, `87.3`, `1,234`. */
export function formatRate(rate: number): string {
  if (!Number.isFinite(rate)) return "?";
  return rate >= 1000 ? formatCount(rate) : rate >= 10 ? rate.toFixed(1) : rate.toFixed(2);
}

/** A learning rate or similar small number: `2.00e-4`, and `0` for zero. */
export function formatSmall(value: number): string {
  return value === 0 ? "0" : value.toExponential(2);
}

/** A value of a result record: numbers keep ten digits, what is missing is a dash. */
export function formatValue(value: unknown): string {
  if (value === null || value === undefined) return "-";
  if (typeof value === "number") {
    return Number.isInteger(value) ? formatCount(value) : String(Number(value.toPrecision(10)));
  }
  if (Array.isArray(value)) return value.map(formatValue).join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/**
 * Rows as padded columns.
 *
 * @param align one letter per column, `l` or `r`; columns beyond it are left-aligned
 */
export function formatTable(rows: readonly (readonly string[])[], align = "", indent = ""): string {
  const columns = Math.max(0, ...rows.map((row) => row.length));
  const widths = Array.from(
    { length: columns },
    (_, c) => Math.max(...rows.map((row) => row[c]?.length ?? 0)),
  );
  return rows.map((row) => {
    const cells = row.map((cell, c) =>
      align[c] === "r" ? cell.padStart(widths[c]!) : cell.padEnd(widths[c]!)
    );
    return `${indent}${cells.join("  ")}`.trimEnd();
  }).join("\n");
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
