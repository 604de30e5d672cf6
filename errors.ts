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
