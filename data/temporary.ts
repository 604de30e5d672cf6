/**
 * Names under which files and folders are written until they are whole: `<final name>.tmp-<8 hex digits>`, each drawn
 * anew, so that two processes never share one.
 */

const SUFFIX = /^(.+)\.(?:tmp|trash)-[0-9a-f]{8}$/;

/** Temporary files that this process has begun and not finished. */
const unfinished = new Set<string>();

/** Eight random hexadecimal digits. */
export function randomSuffix(): string {
  return crypto.getRandomValues(new Uint32Array(1))[0]!.toString(16).padStart(8, "0");
}

/** A temporary name for what will become `path`. Call {@linkcode settle} once nothing has it any more. */
export function temporaryName(path: string): string {
  const name = `${path}.tmp-${randomSuffix()}`;
  begin(name);
  return name;
}

/** Says that `path` is this process's own until {@linkcode settle}: a signal removes it. */
export function begin(path: string): void {
  unfinished.add(path);
}

/** Says that a temporary name is free: what had it was moved into place or removed. */
export function settle(name: string): void {
  unfinished.delete(name);
}

/** The final name that a temporary one stands for; undefined if `name` is no temporary name. */
export function finalName(name: string): string | undefined {
  return SUFFIX.exec(name)?.[1];
}

/** Removes what this process has not finished. Waits for nothing: it is called when a signal ends the process. */
export function removeUnfinished(): void {
  for (const path of unfinished) {
    // A write in flight may put a file back into a folder while it is removed.
    for (let tries = 0; tries < 3; tries++) {
      try {
        Deno.removeSync(path, { recursive: true });
      } catch (error) {
        if (error instanceof Deno.errors.NotFound) break;
      }
    }
  }
  unfinished.clear();
}
