import { datasetInfo, listFiles, modelInfo } from "@huggingface/hub";
import { UserError } from "../../errors.ts";
import { access } from "./access.ts";
import { RepositoryCache } from "./cache.ts";
import { download, refusal, type RemoteFile, sizeOf } from "./download.ts";
import { hubAddress, type HubReference } from "./reference.ts";
import type { HubSettings } from "./settings.ts";

export interface SnapshotOptions {
  readonly settings: HubSettings;
  /** Which of a repository's files are needed. */
  readonly wanted: (names: readonly string[]) => readonly string[];
  /** Bytes of a file that are there, of how many. */
  readonly onProgress?: (file: string, bytes: number, total: number) => void;
  readonly onNote?: (text: string) => void;
  readonly retryDelay?: number;
  readonly stallLimit?: number;
}

interface Listed {
  readonly name: string;
  readonly size: number;
  readonly hash: RemoteFile["hash"];
}

/**
 * Brings the wanted files of a repository into the shared cache and returns the folder that holds them. What is there
 * is not fetched again; offline, what is there has to do.
 *
 * @throws {UserError} if the repository, a file or the network fails, or offline if it was never fetched
 */
export async function fetchSnapshot(reference: HubReference, options: SnapshotOptions): Promise<string> {
  const { settings, wanted } = options;
  const cache = new RepositoryCache(settings, reference);
  const commit = await resolveCommit(reference, cache, options);
  const isKnown = (names: readonly string[]) => names.length > 0;
  if (commit.isCached) {
    const names = wanted(await cache.files(commit.id));
    if (!isKnown(names)) throw notCached(reference, settings);
    return cache.snapshot(commit.id);
  }
  const listed = await list(reference, commit.id, settings);
  const names = wanted(listed.map(({ name }) => name));
  if (!isKnown(names)) {
    throw new UserError(
      `Cannot use ${hubAddress(reference)} of the hub: none of its ${listed.length} files can be used here`,
    );
  }
  for (const name of names) {
    await fetchFile(reference, commit.id, listed.find((file) => file.name === name)!, cache, options);
  }
  await cache.writeRef(reference.revision, commit.id);
  return cache.snapshot(commit.id);
}

async function fetchFile(
  reference: HubReference,
  commit: string,
  { name, size, hash }: Listed,
  cache: RepositoryCache,
  { settings, onProgress, retryDelay, stallLimit }: SnapshotOptions,
): Promise<void> {
  if (await cache.has(commit, name)) return;
  const blob = await cache.blob(hash.hex);
  if (await sizeOf(blob) !== size) {
    const folder = reference.kind === "dataset" ? "datasets/" : "";
    const path = name.split("/").map(encodeURIComponent).join("/");
    const url = `${settings.endpoint}/${folder}${reference.name}/resolve/${commit}/${path}`;
    await download({ url, label: `${reference.name}/${name}`, size, hash }, blob, {
      settings,
      onProgress: (bytes) => onProgress?.(name, bytes, size),
      ...(retryDelay === undefined ? {} : { retryDelay }),
      ...(stallLimit === undefined ? {} : { stallLimit }),
    });
  }
  await cache.link(commit, name, blob);
}

/** The commit of a revision: asked of the hub, or when it cannot be asked the one of the last time. */
async function resolveCommit(
  reference: HubReference,
  cache: RepositoryCache,
  { settings, onNote }: SnapshotOptions,
): Promise<{ id: string; isCached: boolean }> {
  const { revision } = reference;
  const known = /^[0-9a-f]{40}$/.test(revision) ? revision : await cache.readRef(revision);
  if (settings.offline) {
    if (known === undefined) throw notCached(reference, settings);
    return { id: known, isCached: true };
  }
  try {
    const question = { name: reference.name, revision, ...access(settings) };
    const { sha } = reference.kind === "dataset"
      ? await datasetInfo({ ...question, additionalFields: ["sha"] })
      : await modelInfo({ ...question, additionalFields: ["sha"] });
    return { id: sha, isCached: false };
  } catch (error) {
    const status = (error as { statusCode?: number }).statusCode;
    if (status !== undefined && status < 500) {
      throw refusal(`${hubAddress(reference)}`, status, settings.token !== undefined);
    }
    if (known === undefined) throw unreachable(reference, settings, error);
    onNote?.(
      `The hub at ${settings.endpoint} cannot be reached; using ${
        hubAddress(reference)
      } as it was fetched before`,
    );
    return { id: known, isCached: true };
  }
}

async function list(reference: HubReference, commit: string, settings: HubSettings): Promise<Listed[]> {
  const repo = { type: reference.kind, name: reference.name };
  const files: Listed[] = [];
  try {
    for await (const entry of listFiles({ repo, revision: commit, recursive: true, ...access(settings) })) {
      if (entry.type !== "file") continue;
      const hash = entry.lfs
        ? { algorithm: "sha256", hex: entry.lfs.oid.replace(/^sha256:/, "") } as const
        : { algorithm: "git-sha1", hex: entry.oid ?? "" } as const;
      if (!/^[0-9a-f]{40}([0-9a-f]{24})?$/.test(hash.hex)) {
        throw new UserError(
          `Cannot use ${hubAddress(reference)} of the hub: it lists no hash for "${entry.path}"`,
        );
      }
      files.push({ name: entry.path, size: entry.lfs?.size ?? entry.size, hash });
    }
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw unreachable(reference, settings, error);
  }
  return files;
}

function notCached(reference: HubReference, { offline, cacheDir }: HubSettings): UserError {
  return new UserError(
    `Cannot use ${hubAddress(reference)}: it is not in the cache at "${cacheDir}"` +
      (offline ? ", and HF_HUB_OFFLINE forbids to fetch it. Unset it, or name a folder" : ""),
  );
}

function unreachable(reference: HubReference, { endpoint }: HubSettings, cause: unknown): UserError {
  return new UserError(
    `Cannot reach the hub at ${endpoint} for ${hubAddress(reference)}: ${(cause as Error).message}. ` +
      `Check the network, or HF_ENDPOINT`,
    { cause },
  );
}
