/** Free room on disks. */
import { formatBytes } from "../text.ts";
import { dirname, resolve, statfsSync } from "./deps.ts";

/**
 * Bytes that are free on the disk of a folder, or of the nearest folder above that is there.
 * @returns null where it cannot be found out, or the process may not ask (`--allow-sys=statfs`)
 */
export function freeBytes(folder: string): number | null {
  // Asking without the right would ask the user for it.
  if (Deno.permissions.querySync({ name: "sys", kind: "statfs" }).state !== "granted") return null;
  for (let place = resolve(folder);; place = dirname(place)) {
    try {
      const { bavail, bsize } = statfsSync(place);
      return bavail * bsize;
    } catch {
      if (dirname(place) === place) return null;
    }
  }
}

/**
 * Warns where less room is free than what will be written takes: what else the disk is used for until then, nobody knows.
 *
 * @param what is to be written, in words
 * @param bytes that it takes
 * @param remedy a sentence without its full stop
 * @param free bytes that are free; null where nobody knows
 */
export function roomNote(
  folder: string,
  { what, bytes, remedy, free = freeBytes(folder) }: {
    readonly what: string;
    readonly bytes: number;
    readonly remedy: string;
    readonly free?: number | null;
  },
): string | undefined {
  if (free === null || free >= bytes) return undefined;
  return `${what} take about ${formatBytes(bytes)}, but ${
    formatBytes(free)
  } are free where "${folder}" is: ${remedy}`;
}
