/** Signals that ask a command to stop: training finishes its step and saves, everything else ends at once. */
import { basename } from "../checkpoint/deps.ts";
import { CommandError } from "./exit.ts";
import type { Io } from "./io.ts";
import { permittedEnv } from "./user_cache.ts";

/**
 * SIGTERM is what schedulers send before they kill, SIGHUP what a terminal sends that is closed, SIGUSR2 what `mpirun` passes on
 * to all ranks without ending them.
 */
const SIGNALS: readonly Deno.Signal[] = Deno.build.os === "windows"
  ? ["SIGINT", "SIGBREAK"]
  : ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2"];

const NUMBERS: Readonly<Partial<Record<Deno.Signal, number>>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGUSR2: Deno.build.os === "darwin" ? 31 : 12,
  SIGTERM: 15,
  SIGBREAK: 21,
};

/**
 * Milliseconds in which one event may arrive more than once: from the terminal and passed on by `deno task`, or as the
 * SIGHUP and SIGTERM of a session that ends, in whatever order.
 */
const SAME_EVENT_MS = 300;

/** Exit code of a process that a signal ended, as shells tell it: 128 and the signal's number. */
function signalExitCode(signal: Deno.Signal): number {
  return 128 + (NUMBERS[signal] ?? 0);
}

function nameOf(signal: Deno.Signal): string {
  return signal === "SIGINT" ? "Ctrl-C" : signal;
}

/** Work that a signal ended before it was done; the exit code tells which. */
export class Interrupted extends CommandError {
  constructor(signal: Deno.Signal, whatNow: string, { isTold = false } = {}) {
    super(`Stopped by ${nameOf(signal)}: ${whatNow}`, { exitCode: signalExitCode(signal), isTold });
  }
}

/**
 * Whether the user asked that closing the terminal end nothing. Deno takes SIGHUP over from nohup, so that is told by
 * `./longreach`, or by what bash and zsh say that they started.
 */
export function ignoresHangup(env: (name: string) => string | undefined = permittedEnv): boolean {
  return env("LONGREACH_NOHUP") === "1" || basename(env("_") ?? "") === "nohup";
}

/** Calls `act` on every signal that is not to be ignored. @returns what ends that */
function onSignals(act: (signal: Deno.Signal) => void): () => void {
  const ignored: Deno.Signal | undefined = ignoresHangup() ? "SIGHUP" : undefined;
  const listeners = SIGNALS.map((signal) => {
    const listener = () => signal === ignored || act(signal);
    Deno.addSignalListener(signal, listener);
    return () => Deno.removeSignalListener(signal, listener);
  });
  return () => listeners.forEach((remove) => remove());
}

/** Number of {@linkcode StopSignal}s that listen. */
let takenOver = 0;

/** Listens for signals as long as the process lives: they end it, unless a {@linkcode StopSignal} takes them over. */
export function listenForSignals(io: Io): void {
  onSignals((signal) => {
    if (takenOver > 0) return;
    if (io.isTerminal) io.draw("\r\u001b[K");
    io.err(`Stopped by ${nameOf(signal)}: nothing unfinished is left`);
    io.exit(signalExitCode(signal));
  });
}

/**
 * Takes signals over until one comes; one that comes later ends the process.
 * @param failed rejects where the work ends before
 */
export async function untilSignal(io: Pick<Io, "exit">, failed: Promise<never>): Promise<Deno.Signal> {
  const { promise, resolve } = Promise.withResolvers<Deno.Signal>();
  let first: { readonly signal: Deno.Signal; readonly at: number } | undefined;
  takenOver++;
  const remove = onSignals((signal) => {
    if (first === undefined) {
      first = { signal, at: performance.now() };
      resolve(signal);
    } else if (performance.now() - first.at > SAME_EVENT_MS) io.exit(signalExitCode(first.signal));
  });
  try {
    return await Promise.race([promise, failed]);
  } catch (error) {
    remove();
    takenOver--;
    throw error;
  }
}

/** Takes signals over until {@linkcode StopSignal.close}: the first asks to stop, the second ends the process. */
export class StopSignal {
  #asked: Deno.Signal | null = null;
  #askedAt = 0;
  readonly #removeListeners: () => void;
  /** Whether there is something to finish and save; while there is not, the first signal ends the process too. */
  isWorking = true;

  /** @param say shows a line without breaking the progress line */
  constructor(readonly io: Pick<Io, "exit">, readonly say: (line: string) => void) {
    takenOver++;
    this.#removeListeners = onSignals((signal) => this.#onSignal(signal));
  }

  /** The signal by which the user has asked to stop. */
  get asked(): Deno.Signal | null {
    return this.#asked;
  }

  #onSignal(signal: Deno.Signal): void {
    const first = this.#asked;
    if (first === null && this.isWorking) {
      this.#asked = signal;
      this.#askedAt = performance.now();
      this.say("stopping: finishing this step, then saving (Ctrl-C again quits at once)");
      return;
    }
    const isSameEvent = (first === signal || first === "SIGHUP") &&
      performance.now() - this.#askedAt < SAME_EVENT_MS;
    // A terminal that closes says so more than once, and nobody meant to lose the save.
    if (isSameEvent || (first !== null && signal === "SIGHUP")) return;
    if (first === null) this.say(`Stopped by ${nameOf(signal)} before the first step: nothing was trained`);
    this.io.exit(signalExitCode(first ?? signal));
  }

  close(): void {
    takenOver--;
    this.#removeListeners();
  }
}
