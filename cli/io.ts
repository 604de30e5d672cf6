/**
 * The terminal as commands see it. This file is the only one that writes to it or ends the process. What a command shows
 * may come from files of others: nothing in it steers the terminal.
 */
import type { Communicator } from "../distributed/communicator.ts";
import { createInterface, stderr, stdin } from "./deps.ts";
import { errorCode, fileError } from "../checkpoint/files.ts";
import { removeUnfinished } from "../data/temporary.ts";
import type { Verdict, VerdictStore } from "../kernels/refusal.ts";
import type { FindTuning } from "../kernels/tuning.ts";
import type { Trace } from "./trace.ts";
import { permittedEnv } from "./user_cache.ts";
import { shortened, visible, withoutColours, wrapped } from "./visible.ts";

/** A command's outside besides files: streams, questions, colours; tests hand in memory. */
export interface Io {
  /** Results, one line or many, to stdout. */
  out(text: string): void;
  /** A piece of a result that grows, to stdout: text without a line end. */
  print(text: string): void;
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
  /** Lines that the user types or pipes in, until the input ends. */
  lines(options: LineOptions): Lines;
  /** Ends the process at once. */
  exit(code: number): never;
  /** Finds what was measured for a device; kernels are their defaults unless given. */
  readonly tuning?: FindTuning;
  /** Keeps which kernels are right on a device; the process's memory unless given. */
  readonly verdicts?: VerdictStore;
  /** Told of every kernel that is not used because it is wrong on the device. */
  readonly onRefusal?: (verdict: Verdict) => void;
  /** Takes the time of every dispatch; none is timed unless given. */
  readonly trace?: Trace;
  /** The ranks of the job that this process is of; it is alone unless given. */
  readonly ranks?: Communicator;
  /** Tells why the command has failed; as other things for people unless given. */
  failed?(text: string): void | Promise<void>;
}

/** Whether this process is alone, or the rank that writes for all. */
export function isFirstRank({ ranks }: Io): boolean {
  return (ranks?.rank ?? 0) === 0;
}

/** Options of questions for lines, on a terminal. */
export interface LineOptions {
  /** Stands before the place to type. */
  readonly prompt: string;
  /** Completions of a line, for the Tab key. */
  readonly complete: (line: string) => string[];
  /** Ctrl-C. */
  readonly onInterrupt: () => void;
}

/** Lines of the input. */
export interface Lines extends AsyncIterable<string> {
  /** Shows the prompt, on a terminal. */
  ask(): void;
  /** Ends the input. */
  close(): void;
}

/** Exit code of a process whose reader went away: 128 + SIGPIPE. */
const EXIT_PIPE = 141;

const encoder = new TextEncoder();

function writeAll(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = encoder.encode(text);
  for (let written = 0; written < bytes.length;) written += stream.writeSync(bytes.subarray(written));
}

/** @throws {UserError} if stdout is a file that cannot be written */
function writeResult(text: string): void {
  try {
    writeAll(Deno.stdout, text);
  } catch (error) {
    // `longreach ... | head` closes the pipe early: that is how it ends.
    if (error instanceof Deno.errors.BrokenPipe) exit(EXIT_PIPE);
    // A terminal that was closed: nobody is there to read it.
    if (errorCode(error) === "EIO" && !Deno.stdout.isTerminal()) return;
    throw fileError(error, "Cannot write the result to stdout");
  }
}

/** Lines for people are no reason to lose work: a closed terminal, a reader gone or a full disk ends nothing. */
function writeLine(text: string): void {
  try {
    writeAll(Deno.stderr, text);
  } catch (error) {
    if (errorCode(error) === undefined && !(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}

function exit(code: number): never {
  removeUnfinished();
  Deno.exit(code);
}

/** The process's own stdout and stderr. */
export function terminalIo(): Io {
  const isTerminal = Deno.stderr.isTerminal();
  const isForced = !["", "0"].includes(permittedEnv("FORCE_COLOR") ?? "");
  const color = isForced || (isTerminal && !Deno.noColor);
  const showsColours = isForced || Deno.stdout.isTerminal();
  const forPeople = (text: string) => {
    const shown = shortened(visible(text, color ? "colours" : undefined));
    // A terminal breaks lines in the middle of words.
    return isTerminal ? wrapped(shown, terminalColumns()) : shown;
  };
  return {
    out: (text) => {
      const shown = visible(text, "colours");
      writeResult(`${showsColours ? shown : withoutColours(shown)}\n`);
    },
    print: (text) => writeResult(visible(text)),
    err: (text) => writeLine(`${forPeople(text)}\n`),
    draw: (text) => writeLine(visible(text, "drawing")),
    isTerminal,
    columns: () => isTerminal ? terminalColumns() : 100,
    color,
    lines: (options) => linesOf(isTerminal && Deno.stdin.isTerminal(), options),
    exit,
  };
}

function linesOf(isTerminal: boolean, { prompt, complete, onInterrupt }: LineOptions): Lines {
  const reader = createInterface({
    input: stdin,
    ...(isTerminal ? { output: stderr } : {}),
    terminal: isTerminal,
    prompt,
    completer: (line: string) => [complete(line), line],
  });
  reader.on("SIGINT", onInterrupt);
  // Lines that come before anybody waits for them are kept only once there is an iterator.
  const lines = reader[Symbol.asyncIterator]();
  return {
    ask: () => isTerminal && reader.prompt(),
    close: () => reader.close(),
    [Symbol.asyncIterator]: () => lines,
  };
}

function terminalColumns(): number {
  try {
    return Deno.consoleSize().columns || 80;
  } catch {
    return 80;
  }
}
