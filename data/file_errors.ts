/** Errors of the operating system in words. */
import { UserError } from "../errors.ts";

const PROBLEMS: ReadonlyMap<string, string> = new Map([
  ["ENOSPC", "the disk is full"],
  ["EDQUOT", "the disk quota is used up"],
  ["EROFS", "the file system is read-only"],
  ["EACCES", "permission denied"],
  ["EPERM", "permission denied"],
  ["ENOENT", "no such file or folder"],
  ["ENOTDIR", "part of the path is a file, not a folder"],
  ["EISDIR", "it is a folder, not a file"],
  ["ENOTREG", "it is not a regular file"],
  ["EEXIST", "the name is already taken"],
  ["EMFILE", "too many files are open"],
  ["EIO", "the disk reported an input/output error"],
  ["ENAMETOOLONG", "the name is too long"],
  ["ELOOP", "symbolic links lead in a circle"],
]);

/** The operating system's code of an error, such as `ENOSPC`; undefined if it has none. */
export function errorCode(error: unknown): string | undefined {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" ? code : undefined;
}

/** Remedies where a file cannot be written, by the code of the error: space where there is none, else another place. */
export type Remedy = string | ((code: string) => string);

/** To free some space where the disk is full, and else `other`, written small: "choose another folder". */
export function elsewhere(other: string): Remedy {
  return (code) =>
    code === "ENOSPC" || code === "EDQUOT"
      ? `Free some space or ${other}`
      : other.charAt(0).toUpperCase() + other.slice(1);
}

/**
 * Turns an error of the operating system into one line for the user: `action: problem`, and `remedy` if
 * given. Errors of other kinds, which are bugs or already {@linkcode UserError}s, come back as they are.
 */
export function fileError(error: unknown, action: string, remedy: Remedy = ""): unknown {
  const code = errorCode(error);
  if (error instanceof UserError || code === undefined) {
    // Deno's own refusal carries no code, and its message names the missing permission flag.
    return error instanceof Deno.errors.NotCapable
      ? new UserError(`${action}: ${refusedByDeno(error.message)}`, { cause: error })
      : error;
  }
  const problem = PROBLEMS.get(code) ?? `${(error as Error).message} (${code})`;
  const advice = typeof remedy === "string" ? remedy : remedy(code);
  return new UserError(`${action}: ${problem}${advice && `. ${advice}`}`, { cause: error });
}

/** Deno asks for all rights where a path is one of the system's own, as those of `/proc`: no data is there. */
function refusedByDeno(message: string): string {
  return message.startsWith("Requires all access")
    ? "it is one of the system's own files, which are not used here"
    : message;
}

/** Whether an error is the operating system's, in words by {@linkcode fileError}: what it is about may pass. */
export function isSystemError(error: unknown): error is UserError {
  return error instanceof UserError && errorCode(error.cause) !== undefined;
}
