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

/** Longest value that a message quotes, in characters. */
const LONGEST_QUOTE = 100;

/** Replaces what could move a terminal's cursor, one character for one, so that carets still line up. */
export function printable(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, " ");
}

/** A value as messages quote it: JSON, shortened. */
export function quoted(value: unknown): string {
  const text = printable(textOf(value));
  return text.length > LONGEST_QUOTE ? `${text.slice(0, LONGEST_QUOTE - 3)}...` : text;
}

function textOf(value: unknown): string {
  if (typeof value === "number") return String(value);
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    // It nests deeper than calls can follow.
    return Array.isArray(value) ? "[...]" : "{...}";
  }
}

/** How the engine's errors of sizes and places begin. */
const ENGINE =
  /^(Invalid (array|string|typed array|count)|Maximum call stack|Array buffer|Offset is|Start offset)/;

/**
 * What another program's error says, in one short line.
 * @param otherwise in place of the engine's own words, which tell of that program's code and of no file
 */
export function causeText(cause: unknown, otherwise: string): string {
  if (!(cause instanceof Error) || cause instanceof TypeError || ENGINE.test(cause.message)) {
    return otherwise;
  }
  const text = printable(cause.message);
  return text.length > 2 * LONGEST_QUOTE ? `${text.slice(0, 2 * LONGEST_QUOTE - 3)}...` : text;
}

/** The text in quotes, escaped and cut so that a hostile name cannot play tricks on a terminal. */
export function quote(text: string, limit = 120): string {
  // JSON escapes C0 only; DEL and C1 also steer terminals, and bidirectional marks reorder what is shown.
  const escaped = JSON.stringify(text.length > limit ? `${text.slice(0, limit)}...` : text);
  return escaped.replace(
    /[\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (mark) => `\\u${mark.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
