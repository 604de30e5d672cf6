/** Numbers, sizes, times and quoted values in words: every message and table writes them so. */

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

/** An amount of memory, in which hundredths of a GiB count: `23.4 MiB`, `8.91 GiB`. */
export function formatMemory(bytes: number): string {
  return bytes < 2 ** 30 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${(bytes / 2 ** 30).toFixed(2)} GiB`;
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

/** A time in milliseconds: `0.012 ms`, `3.45 ms`, `1.23 s`. */
export function formatMs(ms: number): string {
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return `${ms >= 100 ? ms.toFixed(0) : ms >= 1 ? ms.toFixed(2) : ms.toFixed(3)} ms`;
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

/** Longest message of another program that is passed on, in characters. */
const LONGEST_CAUSE = 200;

/** Replaces what could move a terminal's cursor, one character for one, so that carets still line up. */
export function printable(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, " ");
}

/** Marks that JSON leaves as they are and that steer a terminal (DEL, C1) or reorder what it shows. */
const STEERING = /[\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** Longest text that {@linkcode quote} shows whole, in characters. */
const LONGEST_VALUE = 120;

/**
 * A value as messages quote it: JSON, cut after `limit` characters, with every mark escaped by which a hostile name could
 * play tricks on a terminal.
 */
export function quote(value: unknown, limit = LONGEST_VALUE): string {
  const isLong = typeof value === "string" && value.length > limit;
  const json = jsonOf(isLong ? `${value.slice(0, limit)}...` : value);
  const text = typeof value !== "string" && json.length > limit ? `${json.slice(0, limit - 3)}...` : json;
  return text.replace(STEERING, (mark) => `\\u${mark.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function jsonOf(value: unknown): string {
  if (typeof value === "number") return String(value);
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    // It nests deeper than calls can follow.
    return Array.isArray(value) ? "[...]" : "{...}";
  }
}

/** Most names that a message lists. */
const MOST_NAMES = 20;

/** Names as messages list them: `"a", "b"`, of more than 20 the first and `...`. */
export function quoteNames(names: readonly string[]): string {
  const shown = names.slice(0, MOST_NAMES).map((name) => quote(name));
  return [...shown, ...(names.length > MOST_NAMES ? ["..."] : [])].join(", ");
}

/** A value's type in words: `null`, `a list`, `an object`, `a number`. */
export function typeName(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  return Array.isArray(value) ? "a list" : typeof value === "object" ? "an object" : `a ${typeof value}`;
}

/** Beginnings of the engine's own errors of sizes and places. */
const ENGINE =
  /^(Invalid (array|string|typed array|count)|Maximum call stack|Array buffer|Offset is|Start offset)/;

/**
 * Another program's error in one short line.
 * @param otherwise in place of the engine's own words, which tell of that program's code and of no file
 */
export function causeText(cause: unknown, otherwise: string): string {
  if (!(cause instanceof Error) || cause instanceof TypeError || ENGINE.test(cause.message)) {
    return otherwise;
  }
  const text = printable(cause.message);
  return text.length > LONGEST_CAUSE ? `${text.slice(0, LONGEST_CAUSE - 3)}...` : text;
}
