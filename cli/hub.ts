/** Names of models and data on the command line: folders here, or what the Hugging Face hub has. */
import { formatBytes, formatSeconds } from "../text.ts";
import { exists } from "../checkpoint/files.ts";
import { type HubReference, parseHubReference } from "../hub/reference.ts";
import { firstThenOthers } from "../distributed/agreement.ts";
import { ALONE } from "../distributed/communicator.ts";
import { UserError } from "../errors.ts";
import type { Io } from "./io.ts";
import { hasParent, missingPath, modelFolderOf } from "./places.ts";
import { visible } from "./visible.ts";

/** Between two lines of progress where lines cannot be drawn again. */
const REPORT_EVERY_MS = 10_000;

/** Bytes whose check is announced there too. */
const LONG_CHECK = 2 ** 30;

/**
 * The folder of a model or adapter (or, as `config`, of what it is without its weights), or the file or folder of a data set:
 * `place` itself where it exists here, else, if it can be nothing here and can be a name on the hub, fetched into the
 * shared cache.
 *
 * @param where the place in a settings file that names it, for errors
 * @param onHub whether it is a name on the hub in any case, and never a path; then large files in the cache are hashed too
 * @throws {UserError} if there is neither
 */
export async function locate(
  io: Io,
  place: string,
  kind: "model" | "dataset" | "config",
  { onHub = false, where }: { onHub?: boolean; where?: string | undefined } = {},
): Promise<string> {
  if (!onHub && await exists(place)) return kind === "model" ? await modelFolderOf(io, place) : place;
  const wanted = kind === "config" ? "model" : kind;
  const isAddress = place.startsWith("hf://");
  const parsed = parseHubReference(place);
  const reference = parsed && !isAddress && onHub ? { ...parsed, kind: wanted } : parsed;
  if (!reference) throw await missingPath(place, { where });
  if (!isAddress && !onHub) {
    if (kind === "dataset") {
      throw await missingPath(place, { where, hint: `A data set of the hub is hf://datasets/${place}` });
    }
    if (await hasParent(place)) {
      throw await missingPath(place, { where, hint: `A model of the hub by that name is hf://${place}` });
    }
  }
  if (reference.kind !== wanted) {
    throw new UserError(
      `Cannot use "${place}": a ${wanted} is wanted, and that is a ${reference.kind} of the hub`,
      { kind: "usage" },
    );
  }
  try {
    return await firstThenOthers(io.ranks ?? ALONE, () => fetch(io, reference, kind, onHub));
  } catch (error) {
    if (!(error instanceof UserError) || isAddress || onHub) throw error;
    throw new UserError(
      `${
        where === undefined ? "" : `${where}: `
      }${error.message}. There is no folder "${place}" in the current folder, ${Deno.cwd()}, either`,
      {
        cause: error,
        kind: error.kind,
      },
    );
  }
}

async function fetch(
  io: Io,
  reference: HubReference,
  kind: "model" | "dataset" | "config",
  thorough: boolean,
): Promise<string> {
  // Most runs never need it.
  const { snapshotDownload } = await import("../hub/snapshot_download.ts");
  return await snapshotDownload(reference, {
    kind,
    thorough,
    onCheck: (file, bytes) =>
      draw(io, `checking ${reference.name}/${file}: ${formatBytes(bytes)}`, bytes > LONG_CHECK),
    onProgress: progressOn(io, reference.name),
    onNote: (text) => {
      draw(io, "");
      io.err(text);
    },
    onRetry: (text, pause) => draw(io, text, pause > REPORT_EVERY_MS),
  }).finally(() => draw(io, ""));
}

/** A line that the next one replaces; where lines cannot be drawn again, one that stays if it `mayStay`. */
function draw(io: Io, text: string, mayStay = false): void {
  if (io.isTerminal) io.draw(`\r\x1b[2K${visible(text).slice(0, io.columns() - 1)}`);
  else if (mayStay) io.err(text);
}

/** A line for each file: how much of it is here, how fast it comes, and how long the rest takes. */
function progressOn(io: Io, name: string): (file: string, bytes: number, total: number) => void {
  let [current, startedAt, startBytes, shownAt] = ["", 0, 0, 0];
  return (file, bytes, total) => {
    const now = performance.now();
    if (file !== current) [current, startedAt, startBytes, shownAt] = [file, now, bytes, now];
    const rate = (bytes - startBytes) / (now - startedAt) * 1000;
    const pace = rate > 0 && bytes < total
      ? `, ${formatBytes(Math.round(rate))}/s, eta ${formatSeconds((total - bytes) / rate)}`
      : "";
    const text = visible(`fetching ${name}/${file}: ${formatBytes(bytes)} of ${formatBytes(total)}${pace}`);
    if (bytes === total) {
      if (io.isTerminal) io.draw("\r\x1b[2K");
      io.err(text);
    } else if (io.isTerminal) {
      io.draw(`\r\x1b[2K${text.slice(0, io.columns() - 1)}`);
    } else if (now - shownAt > REPORT_EVERY_MS) {
      shownAt = now;
      io.err(text);
    }
  };
}
