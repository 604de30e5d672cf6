import { UserError } from "../errors.ts";
import { dirname } from "../checkpoint/deps.ts";
import { elsewhere, errorCode, exists, fileError } from "../checkpoint/files.ts";
import { askCommit, askFiles, isCommit, type ListedFile } from "./api.ts";
import { type CachedFile, problemOf, RepositoryCache } from "./cache.ts";
import { download } from "./download.ts";
import { hubAddress, type HubReference } from "./reference.ts";
import { type Asking, type HubPatience, HubUnavailable, PATIENCE } from "./request.ts";
import type { HubSettings } from "./settings.ts";

/** Options of a download: how thoroughly files are checked, and hooks. */
export interface SnapshotHooks {
  /** Also hash the large files that are there: a changed bit is found and mended. Small ones are always hashed. */
  readonly thorough?: boolean;
  /** Bytes of a file that are there, of how many. */
  readonly onProgress?: (file: string, bytes: number, total: number) => void;
  /** A file in the cache of so many bytes is about to be hashed, which takes its time. */
  readonly onCheck?: (file: string, bytes: number) => void;
  /** Something the user should know: one line, without a full stop. */
  readonly onNote?: (text: string) => void;
  /** Told before each wait for another try, and its milliseconds. */
  readonly onRetry?: (text: string, pause: number) => void;
}

/** Options of {@linkcode fetchSnapshot}. */
export interface SnapshotOptions extends SnapshotHooks, Partial<HubPatience> {
  readonly settings: HubSettings;
  /** Which of a repository's files are needed. */
  readonly wanted: (names: readonly string[]) => readonly string[];
}

/** The state of one call. */
interface Work {
  readonly reference: HubReference;
  readonly cache: RepositoryCache;
  readonly options: SnapshotOptions;
  readonly asking: Asking;
}

/** The files of a commit, and whether the hub can be asked for them. */
type Snapshot = FetchableSnapshot | CachedSnapshot;

interface FetchableSnapshot {
  readonly commit: string;
  readonly files: readonly ListedFile[];
  readonly cachedOnly: undefined;
}

interface CachedSnapshot {
  readonly commit: string;
  readonly files: readonly CachedFile[];
  /** The reason why nothing can be fetched. */
  readonly cachedOnly: string;
}

/**
 * Brings the wanted files of a repository into the shared cache and returns the folder that holds them. What is there
 * and right is not fetched again, what is damaged is; without the hub, what is there has to do.
 *
 * @throws {UserError} if the repository, a file, the disk or the network fails, or offline if something was never fetched
 */
export async function fetchSnapshot(reference: HubReference, options: SnapshotOptions): Promise<string> {
  const { settings } = options;
  const asking = {
    settings,
    patience: { ...PATIENCE, ...given(options) },
    label: hubAddress(reference),
    onRetry: options.onRetry,
  };
  const work = { reference, options, asking, cache: new RepositoryCache(settings, reference) };
  try {
    const snapshot = await findSnapshot(work);
    const { commit } = snapshot;
    const names = new Set(options.wanted(snapshot.files.map(({ name }) => name)));
    if (names.size === 0) throw nothingWanted(work, snapshot);
    const isWanted = ({ name }: CachedFile) => names.has(name);
    if (snapshot.cachedOnly !== undefined) {
      for (const file of snapshot.files.filter(isWanted)) await requireCached(file, snapshot, work);
      return work.cache.snapshot(commit);
    }
    await tidy(snapshot, work);
    for (const file of snapshot.files.filter(isWanted)) await provide(file, commit, work);
    await work.cache.writeListing(commit, snapshot.files);
    await work.cache.writeRef(reference.revision, commit);
    return work.cache.snapshot(commit);
  } catch (error) {
    if (error instanceof HubUnavailable) throw unreachable(reference, settings, error);
    throw fileError(
      error,
      `Cannot keep ${hubAddress(reference)} in the cache of the hub at "${settings.cacheDir}"`,
      elsewhere("set HF_HUB_CACHE to a folder that can be written"),
    );
  }
}

function given({ requestLimit, stallLimit, retryDelay, wait }: SnapshotOptions): Partial<HubPatience> {
  const limits = { requestLimit, stallLimit, retryDelay, wait };
  return Object.fromEntries(Object.entries(limits).filter(([, value]) => value !== undefined));
}

/** Asks the hub for the commit and its files; where it cannot be asked, the cache says what they were. */
async function findSnapshot(work: Work): Promise<Snapshot> {
  const { reference, cache, options: { settings, onNote }, asking } = work;
  const known = isCommit(reference.revision) ? reference.revision : await cache.readRef(reference.revision);
  if (settings.offline) {
    if (known === undefined) throw notCached(reference, settings);
    return {
      commit: known,
      files: await cachedFiles(known, work),
      cachedOnly: "HF_HUB_OFFLINE forbids to fetch it",
    };
  }
  try {
    const commit = await askCommit(reference, asking);
    return { commit, files: await askFiles(reference, commit, asking), cachedOnly: undefined };
  } catch (error) {
    if (!(error instanceof HubUnavailable) || known === undefined) throw error;
    const reason = `The hub at ${settings.endpoint} cannot be reached (${error.message})`;
    const files = await cachedFiles(known, work);
    if (files.length === 0) throw error;
    onNote?.(`${reason}; using ${hubAddress(reference)} as it was fetched before`);
    return { commit: known, files, cachedOnly: reason };
  }
}

/** The files of a commit by the listing that was kept, or by what is there: others fill the cache too. */
async function cachedFiles(
  commit: string,
  { cache, options, reference }: Work,
): Promise<readonly CachedFile[]> {
  const listed = await cache.readListing(commit);
  if (listed !== undefined) return listed;
  const files = await Array.fromAsync(await cache.files(commit), (name) => cache.describe(commit, name));
  if (reference.kind === "dataset" && files.length > 0) {
    options.onNote?.(
      `The cache does not say which files ${hubAddress(reference)} has: only those that are there are used`,
    );
  }
  return files;
}

async function requireCached(
  file: CachedFile,
  { commit, cachedOnly: reason }: CachedSnapshot,
  work: Work,
): Promise<void> {
  const { cache, options, reference } = work;
  const problem = await problemOf(cache.file(commit, file.name), file, options.thorough ?? false);
  if (problem === undefined) return;
  throw new UserError(
    `Cannot use ${
      hubAddress(reference)
    }: in the cache at "${options.settings.cacheDir}" its ${file.name} ${problem}, and ` +
      `${reason}. Fetch it with download when the hub can be asked`,
  );
}

/** Sees to it that a file is there and right. */
async function provide(file: ListedFile, commit: string, work: Work): Promise<void> {
  const { cache, reference, options, asking } = work;
  const thorough = options.thorough ?? false;
  const path = cache.file(commit, file.name);
  if (thorough && await exists(path)) options.onCheck?.(file.name, file.size);
  if (await problemOf(path, file, thorough) === undefined) return;
  using _lock = await cache.lock(file.hash.hex);
  // Another process may have been faster.
  const problem = await problemOf(path, file, thorough);
  if (problem === undefined) return;
  const label = `${reference.name}/${file.name}`;
  if (problem !== "is missing") options.onNote?.(`${label} in the cache ${problem}. It is fetched again`);
  const blob = cache.blob(file.hash.hex);
  if (await problemOf(blob, file, true) !== undefined) {
    await Deno.mkdir(dirname(blob), { recursive: true });
    if (await exists(blob)) await Deno.remove(blob);
    await download({ ...file, url: fileUrl(reference, commit, file.name, asking) }, blob, {
      ...asking,
      label,
    }, (bytes) => options.onProgress?.(file.name, bytes, file.size));
  }
  await cache.link(commit, file.name, blob);
}

function fileUrl({ kind, name }: HubReference, commit: string, file: string, { settings }: Asking): string {
  const folder = kind === "dataset" ? "datasets/" : "";
  const path = file.split("/").map(encodeURIComponent).join("/");
  return `${settings.endpoint}/${folder}${name}/resolve/${commit}/${path}`;
}

/** Removes what killed downloads left and this one does not go on with. */
async function tidy({ files }: FetchableSnapshot, { cache, reference, options }: Work): Promise<void> {
  const keep = new Set<string>();
  for (const { hash } of files) if (!await exists(cache.blob(hash.hex))) keep.add(hash.hex);
  try {
    const removed = await cache.removeLeftovers(keep);
    if (removed.length === 0) return;
    options.onNote?.(
      `Removed from the cache what interrupted downloads of ${reference.name} had left: ${
        removed.join(", ")
      }`,
    );
  } catch (error) {
    // A cache that others fill may be read-only, and whole.
    if (!["EROFS", "EACCES", "EPERM"].includes(errorCode(error) ?? "")) throw error;
  }
}

function nothingWanted({ reference, options }: Work, { files, cachedOnly }: Snapshot): UserError {
  return cachedOnly === undefined
    ? new UserError(
      `Cannot use ${hubAddress(reference)} of the hub: none of its ${files.length} files can be used here`,
    )
    : notCached(reference, options.settings);
}

function notCached(reference: HubReference, { offline, cacheDir }: HubSettings): UserError {
  return new UserError(
    `Cannot use ${hubAddress(reference)}: it is not in the cache at "${cacheDir}"` +
      (offline ? ", and HF_HUB_OFFLINE forbids to fetch it. Unset it, or name a folder" : ""),
  );
}

function unreachable(reference: HubReference, { endpoint }: HubSettings, cause: HubUnavailable): UserError {
  return new UserError(
    `Cannot reach the hub at ${endpoint} for ${hubAddress(reference)}: ${cause.message}. ` +
      `Check the network, or HF_ENDPOINT`,
    { cause },
  );
}
