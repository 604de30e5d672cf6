/**
 * Kinds of failure, for whoever asked: the work failed; the request is wrong (flags, YAML keys, values); or a run would
 * not fit in memory. The command line has an exit code for each.
 */
export type ErrorKind = "failed" | "usage" | "doesNotFit";

/**
 * A failure the user can act on. Commands print its message as it is, without a stack. The message says what was tried,
 * what is wrong, where, and what to do.
 */
export class UserError extends Error {
  /** As the class. */
  override readonly name: string = "UserError";
  /** `failed` unless given. */
  readonly kind: ErrorKind;

  /** Takes the message as it is to be printed. */
  constructor(message: string, options: { kind?: ErrorKind; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.kind = options.kind ?? "failed";
  }
}
