/** Exit codes of a process: scripts branch on them. A signal's is 128 and its number. */
import { type ErrorKind, UserError } from "../errors.ts";

/** The exit code of a command that is done, and of each kind of failure. */
export const EXIT = { ok: 0, failed: 1, usage: 2, doesNotFit: 3 } as const satisfies Readonly<
  Record<ErrorKind | "ok", number>
>;

/** A command's own failure: one that has an exit code of its own, or that follows the command's result. */
export class CommandError extends UserError {
  /** That of its kind unless given. */
  readonly exitCode: number;
  /** Whether the command's result is on stdout already, so that with `--json` nothing more belongs there. */
  readonly isTold: boolean;

  /** Takes the message as it is to be printed. */
  constructor(
    message: string,
    { kind = "failed", exitCode = EXIT[kind], isTold = false }: {
      readonly kind?: ErrorKind;
      readonly exitCode?: number;
      readonly isTold?: boolean;
    },
  ) {
    super(message, { kind });
    this.exitCode = exitCode;
    this.isTold = isTold;
  }
}

/** The exit code of a process that ends with this error. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof CommandError) return error.exitCode;
  return error instanceof UserError ? EXIT[error.kind] : EXIT.failed;
}
