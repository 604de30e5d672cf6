import { quote } from "../text.ts";
import { FILE_LIMITS } from "../data/file_bytes.ts";
import { UserError } from "../errors.ts";
import { createHash, join, relative, sep } from "./deps.ts";
import { diskFiles, type Files, RangeFile, readJson, readSmallFile, writeWhole } from "./files.ts";
import { safeJoin } from "./paths.ts";

/** Written last into a checkpoint: a folder without it was never finished. */
const MANIFEST_NAME = "manifest.json";
const MANIFEST_LIMIT = FILE_LIMITS.manifest;
const FORMAT = "longreach-checkpoint-1";
const CHUNK_BYTES = 4 * 2 ** 20;

interface ManifestEntry {
  /** Relative to the folder, with "/" between parts. */
  readonly name: string;
  readonly size: number;
  readonly sha256: string;
}

/** The only text that these entries have: any other bytes are damage. */
function encodeManifest(entries: readonly ManifestEntry[]): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({ format: FORMAT, files: entries }, null, 2) + "\n");
}

/** The regular files of a folder and its subfolders, relative, sorted within each folder. */
export async function listTree(folder: string, files: Files, prefix = ""): Promise<string[]> {
  const names: string[] = [];
  for (const { name, isFile, isFolder } of await files.list(folder)) {
    if (isFile) names.push(prefix + name);
    if (isFolder) names.push(...await listTree(join(folder, name), files, `${prefix}${name}/`));
  }
  return names;
}

/** Makes all files of a folder durable, then the names in it, innermost first. */
export async function syncTree(folder: string, files: Files): Promise<void> {
  for (const { name, isFile, isFolder } of await files.list(folder)) {
    if (isFile) await files.sync(join(folder, name));
    if (isFolder) await syncTree(join(folder, name), files);
  }
  await files.sync(folder);
}

async function describe(folder: string, name: string, files: Files): Promise<ManifestEntry> {
  const file = await RangeFile.open(join(folder, name), files);
  try {
    const hash = createHash("sha256");
    for (let at = 0; at < file.size; at += CHUNK_BYTES) {
      hash.update(await file.read(at, Math.min(CHUNK_BYTES, file.size - at)));
    }
    return { name, size: file.size, sha256: hash.digest("hex") };
  } finally {
    file.close();
  }
}

/** Lists every file of a synced folder, with size and SHA-256, in its manifest, and syncs that too. */
export async function writeManifest(folder: string, files: Files): Promise<void> {
  const entries: ManifestEntry[] = [];
  for (const name of await listTree(folder, files)) entries.push(await describe(folder, name, files));
  await writeWhole(join(folder, MANIFEST_NAME), "create", encodeManifest(entries), files);
}

function isEntry(value: unknown): value is ManifestEntry {
  if (typeof value !== "object" || value === null) return false;
  const { name, size, sha256 } = value as Record<string, unknown>;
  return typeof name === "string" && Number.isSafeInteger(size) && typeof sha256 === "string";
}

async function readManifest(folder: string, files: Files): Promise<ManifestEntry[]> {
  const path = join(folder, MANIFEST_NAME);
  const parsed = await readJson(path, MANIFEST_LIMIT, files);
  const entries = typeof parsed === "object" && parsed !== null && "files" in parsed
    ? parsed.files
    : undefined;
  if (!Array.isArray(entries) || !entries.every(isEntry)) throw new UserError(`"${path}" is damaged`);
  const checked = entries.map(({ name, size, sha256 }) => ({ name, size, sha256 }));
  const [actual, expected] = [await readSmallFile(path, MANIFEST_LIMIT, files), encodeManifest(checked)];
  const same = actual.length === expected.length && actual.every((byte, i) => byte === expected[i]);
  if (!same) throw new UserError(`"${path}" is damaged`);
  return checked;
}

/**
 * The files of a checkpoint that its manifest lists and no others: what was put beside them later is not there for who
 * reads the checkpoint through these. Throws a {@linkcode UserError} if the manifest is damaged.
 */
export async function listedFiles(folder: string, files: Files = diskFiles): Promise<Files> {
  const names = new Set((await readManifest(folder, files)).map(({ name }) => name));
  const isListed = (path: string) => names.has(relative(folder, path).replaceAll(sep, "/"));
  return {
    ...files,
    open: async (path, mode) => {
      if (isListed(path)) return await files.open(path, mode);
      throw Object.assign(new Error("not in the manifest"), { code: "ENOENT" });
    },
    list: async (path) =>
      (await files.list(path)).filter(({ name, isFolder }) => isFolder || isListed(join(path, name))),
  };
}

/**
 * Reads every file of a checkpoint and compares it with the manifest. Throws a {@linkcode UserError} saying which
 * file is missing or differs; returns if the checkpoint is byte for byte what was saved.
 */
export async function verify(folder: string, files: Files = diskFiles): Promise<void> {
  try {
    for (const expected of await readManifest(folder, files)) {
      safeJoin(folder, expected.name);
      const actual = await describe(folder, expected.name, files);
      if (actual.size !== expected.size) {
        throw new UserError(`${quote(expected.name)} has ${actual.size} bytes, not ${expected.size}`);
      }
      if (actual.sha256 !== expected.sha256) {
        throw new UserError(`the bytes of ${quote(expected.name)} have changed`);
      }
    }
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    throw new UserError(`The checkpoint "${folder}" is damaged or unfinished: ${error.message}`, {
      cause: error,
    });
  }
}
