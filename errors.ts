/** Process exit codes: scripts branch on them. */
export const EXIT = { ok: 0, failed: 1, usage: 2, doesNotFit: 3 } as const;

/**
 * A failure the user can act on. Commands print its message as it is, without a stack, and exit with
 * {@linkcode UserError.exitCode}. The message says what was tried, what is wrong, where, and what to do.
 */
export class UserError extends Error {
  /** As the class. */
  override readonly name: string = "UserError";
  /** 1 for a failure while working, 2 for wrong usage: flags, YAML keys, values; 3 where a run would not fit in memory. */
  readonly exitCode: number;

  /** Whether the command's result is on stdout already, so that with `--json` nothing more belongs there. */
  readonly isTold: boolean;

  /** Takes the message as it is to be printed. */
  constructor(message: string, options: { exitCode?: number; cause?: unknown; isTold?: boolean } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.exitCode = options.exitCode ?? EXIT.failed;
    this.isTold = options.isTold ?? false;
  }
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
