/** Names of models and data on the command line: folders here, or what the Hugging Face hub has. */
import { exists } from "../checkpoint/files.ts";
import { parseHubReference } from "../checkpoint/hub/reference.ts";
import { hubSettings } from "../checkpoint/hub/settings.ts";
import { dataFiles, modelFiles } from "../checkpoint/hub/wanted.ts";
import { safeJoin } from "../checkpoint/paths.ts";
import { UserError } from "../errors.ts";
import { formatBytes } from "./format.ts";
import type { Io } from "./io.ts";
import { visible } from "./visible.ts";

/** Between two lines of progress where lines cannot be drawn again. */
const REPORT_EVERY_MS = 10_000;

const WANTED = {
  model: () => modelFiles,
  dataset: dataFiles,
  config: () => (names: readonly string[]) => names.filter((name) => name === "config.json"),
} as const;

/**
 * The folder of a model or adapter (or, as `config`, of its config.json alone), or the file or folder of a data set:
 * `place` itself where it exists here, else fetched from the hub into the shared cache.
 *
 * @param thorough whether large files that are in the cache are hashed too
 * @throws {UserError} if there is neither
 */
export async function locate(
  io: Io,
  place: string,
  kind: "model" | "dataset" | "config",
  { thorough = false }: { thorough?: boolean } = {},
): Promise<string> {
  const reference = parseHubReference(place);
  if (!reference || await exists(place)) return place;
  if (reference.kind !== (kind === "config" ? "model" : kind)) {
    throw new UserError(
      `Cannot use "${place}": a ${kind} is wanted, and that is a ${reference.kind} of the hub`,
      {
        exitCode: 2,
      },
    );
  }
  // Most runs never need it.
  const { fetchSnapshot } = await import("../checkpoint/hub/hub.ts");
  const folder = await fetchSnapshot(reference, {
    settings: hubSettings((name) => Deno.env.get(name)),
    wanted: WANTED[kind](reference.path),
    thorough,
    onProgress: progressOn(io, reference.name),
    onNote: (text) => io.err(text),
    onRetry: (text) => io.err(text),
  });
  return reference.path === undefined ? folder : safeJoin(folder, reference.path, { links: "follow" });
}

function progressOn(io: Io, name: string): (file: string, bytes: number, total: number) => void {
  let last = 0;
  return (file, bytes, total) => {
    const now = performance.now();
    const text = visible(`fetching ${name}/${file}: ${formatBytes(bytes)} of ${formatBytes(total)}`);
    if (io.isTerminal) io.draw(`\r\x1b[2K${bytes < total ? text : ""}`);
    else if (bytes === total || now - last > REPORT_EVERY_MS) {
      last = now;
      io.err(text);
    }
  };
}
