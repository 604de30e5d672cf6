/** The terminal as commands see it. This file is the only one that writes to it or ends the process. */

/** What a command may touch of the outside besides files; tests hand in memory. */
export interface Io {
  /** Results, one line or many, to stdout. */
  out(text: string): void;
  /** Everything for people while a command works, one line or many, to stderr. */
  err(text: string): void;
  /** Text without a line end, to stderr: for a line that is drawn again and again. */
  draw(text: string): void;
  /** Whether stderr is a terminal, on which lines can be drawn again. */
  readonly isTerminal: boolean;
  /** Width of that terminal in characters, or a width that reads well elsewhere. */
  columns(): number;
  /** Whether to use colours: on a terminal, unless NO_COLOR is set. */
  readonly color: boolean;
  /** Ends the process at once. */
  exit(code: number): never;
}

/** Exit code of a process that Ctrl-C ended: 128 + SIGINT. */
export const EXIT_INTERRUPTED = 130;
/** Exit code of a process whose reader went away: 128 + SIGPIPE. */
const EXIT_PIPE = 141;

const encoder = new TextEncoder();

function writeAll(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = encoder.encode(text);
  try {
    for (let written = 0; written < bytes.length;) written += stream.writeSync(bytes.subarray(written));
  } catch (error) {
    // `longreach ... | head` closes the pipe early: that is how it ends.
    if (error instanceof Deno.errors.BrokenPipe) Deno.exit(EXIT_PIPE);
    throw error;
  }
}

/** The process's own stdout and stderr. */
export function terminalIo(): Io {
  const isTerminal = Deno.stderr.isTerminal();
  return {
    out: (text) => writeAll(Deno.stdout, `${text}\n`),
    err: (text) => writeAll(Deno.stderr, `${text}\n`),
    draw: (text) => writeAll(Deno.stderr, text),
    isTerminal,
    columns: () => isTerminal ? terminalColumns() : 100,
    color: isTerminal && !Deno.noColor,
    exit: (code) => Deno.exit(code),
  };
}

function terminalColumns(): number {
  try {
    return Deno.consoleSize().columns || 80;
  } catch {
    return 80;
  }
}
