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

/**
 * Turns an error of the operating system into one line for the user: `action: problem`, and `remedy` if
 * given. Errors of other kinds, which are bugs or already {@linkcode UserError}s, come back as they are.
 */
export function fileError(error: unknown, action: string, remedy = ""): unknown {
  const code = errorCode(error);
  if (error instanceof UserError || code === undefined) {
    // Deno's own refusal carries no code, and its message names the missing permission flag.
    return error instanceof Deno.errors.NotCapable
      ? new UserError(`${action}: ${error.message}`, { cause: error })
      : error;
  }
  const problem = PROBLEMS.get(code) ?? `${(error as Error).message} (${code})`;
  return new UserError(`${action}: ${problem}${remedy && `. ${remedy}`}`, { cause: error });
}

/** Whether an error is the operating system's, in words by {@linkcode fileError}: what it is about may pass. */
export function isSystemError(error: unknown): error is UserError {
  return error instanceof UserError && errorCode(error.cause) !== undefined;
}
