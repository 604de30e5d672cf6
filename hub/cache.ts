import { FILE_LIMITS, hashFile, isMissing, readWholeText } from "../data/file_bytes.ts";
import { finalName } from "../data/temporary.ts";
import { writeFileAtomic } from "../checkpoint/atomic.ts";
import { createHash, dirname, join, relative } from "../checkpoint/deps.ts";
import { errorCode, exists, fileError, readJson } from "../checkpoint/files.ts";
import { NO_LOCKS } from "../checkpoint/lock.ts";
import { safeJoin } from "../checkpoint/paths.ts";
import { isCommit, type ListedFile, listingOf, readListing } from "./api.ts";
import type { HubReference } from "./reference.ts";
import type { HubSettings } from "./settings.ts";

/** Files up to here are hashed whenever they are used, larger ones when asked for: weights take their time. */
const SMALL_BYTES = 2 ** 24;
const LISTING_LIMIT = 2 ** 25;

/** A file of a snapshot, as far as the cache tells: nothing of its size where a link leads nowhere. */
export interface CachedFile {
  readonly name: string;
  readonly size: number | undefined;
  readonly hash: ListedFile["hash"] | undefined;
}

/** Codes of file systems without links, or where not everybody may make them. */
const NO_LINKS: ReadonlySet<string | undefined> = new Set(["EPERM", "ENOSYS", "ENOTSUP", "EOPNOTSUPP"]);

/**
 * The part of the shared cache that belongs to one repository: `blobs/<hash>`, `refs/<revision>` with a commit in it,
 * and `snapshots/<commit>/<file>`, links to blobs. The layout and the locks are those of Python's `huggingface_hub`;
 * `listings/<commit>.json` is ours, and says which files a commit has.
 *
 * Every path is made from a checked name, and has its real place in the cache: see {@linkcode safeJoin}.
 */
export class RepositoryCache {
  readonly #cacheDir: string;
  readonly #folder: string;

  constructor({ cacheDir }: Pick<HubSettings, "cacheDir">, { kind, name }: HubReference) {
    this.#cacheDir = cacheDir;
    this.#folder = `${kind}s--${name.replace("/", "--")}`;
  }

  /** The commit that a branch or tag was when last asked for. */
  async readRef(revision: string): Promise<string | undefined> {
    const path = this.#path(`refs/${revision}`);
    try {
      const commit = (await readWholeText(path, FILE_LIMITS.note)).trim();
      return isCommit(commit) ? commit : undefined;
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw fileError(error, `Cannot read "${path}"`);
    }
  }

  async writeRef(revision: string, commit: string): Promise<void> {
    if (isCommit(revision) || await this.readRef(revision) === commit) return;
    await this.#write(`refs/${revision}`, commit);
  }

  /** The files of a commit as the hub listed them; undefined if that was not kept, or is damaged. */
  async readListing(commit: string): Promise<ListedFile[] | undefined> {
    const path = this.#path(`listings/${commit}.json`);
    if (!await exists(path)) return undefined;
    try {
      return readListing(await readJson(path, LISTING_LIMIT), (what) => new SyntaxError(what));
    } catch {
      return undefined;
    }
  }

  async writeListing(commit: string, files: readonly ListedFile[]): Promise<void> {
    const text = listingOf(files);
    const known = await this.readListing(commit);
    if (known !== undefined && listingOf(known) === text) return;
    try {
      await this.#write(`listings/${commit}.json`, text);
    } catch (error) {
      // It only helps later, without the hub; a cache that others fill may be read-only.
      if (error instanceof Deno.errors.NotCapable) throw error;
    }
  }

  snapshot(commit: string): string {
    return this.#path(`snapshots/${commit}`);
  }

  /** Path of a file of a snapshot. @throws {UserError} if its name leads elsewhere */
  file(commit: string, name: string): string {
    // Both: the name must not leave the snapshot, nor its folders the cache.
    safeJoin(this.snapshot(commit), name, { links: "follow" });
    return this.#path(`snapshots/${commit}/${name}`, "follow");
  }

  /** @param hash a file's content hash in hex */
  blob(hash: string): string {
    return this.#path(`blobs/${hash}`, "follow");
  }

  /** Names of the files a snapshot has. */
  async files(commit: string): Promise<string[]> {
    return await filesBelow(this.snapshot(commit));
  }

  /** Size and hash of a snapshot's file, as far as the cache tells: a blob's name is its hash. */
  async describe(commit: string, name: string): Promise<CachedFile> {
    const path = this.file(commit, name);
    const size = await Deno.stat(path).then((info) => info.size, () => undefined);
    const target = await Deno.readLink(path).catch(() => "");
    const hex = /[/\\]blobs[/\\]([0-9a-f]{40}|[0-9a-f]{64})$/.exec(target)?.[1];
    if (hex === undefined) return { name, size, hash: undefined };
    return { name, size, hash: { algorithm: hex.length === 64 ? "sha256" : "git-sha1", hex } };
  }

  /**
   * Gives a blob its name in a snapshot: a relative link, or the file itself where links are not allowed. What has the
   * name is replaced unless it is that link.
   */
  async link(commit: string, name: string, blob: string): Promise<void> {
    const path = this.file(commit, name);
    const target = relative(dirname(path), blob);
    await Deno.mkdir(dirname(path), { recursive: true });
    if (await Deno.readLink(path).catch(() => undefined) === target) return;
    if (await exists(path)) await Deno.remove(path);
    try {
      await Deno.symlink(target, path);
    } catch (error) {
      if (Deno.build.os !== "windows" && !NO_LINKS.has(errorCode(error))) throw error;
      await Deno.rename(blob, path);
    }
  }

  /** Waits for the right to change what has this name, which ends with the process. Python's client waits for it too. */
  async lock(name: string): Promise<Deno.FsFile> {
    const file = await this.#openLock(name);
    try {
      await file.lock(true);
    } catch (error) {
      // Hashes tell what two processes made of one file.
      if (!NO_LOCKS.has(errorCode(error))) throw error;
    }
    return file;
  }

  /**
   * Removes what killed processes left: unfinished files that no process works on, and that `keep` does not want.
   * @param keep hashes of the files whose beginnings are still of use
   * @returns the names of what was removed
   */
  async removeLeftovers(keep: ReadonlySet<string>): Promise<string[]> {
    const removed: string[] = [];
    for (const folder of ["blobs", "refs", "listings"]) {
      for (const name of await filesBelow(this.#path(folder))) {
        const hash = /^([0-9a-f]{40}|[0-9a-f]{64})\.incomplete$/.exec(name)?.[1];
        if (hash === undefined ? finalName(name) === undefined : keep.has(hash)) continue;
        using lock = await this.#openLock(hash ?? "longreach");
        if (!await lock.tryLock(true).catch(() => false)) continue;
        // Removes a link, not what it leads to.
        await Deno.remove(join(this.#path(folder), name));
        removed.push(`${folder}/${name}`);
      }
    }
    return removed;
  }

  async #write(name: string, text: string): Promise<void> {
    const path = this.#path(name);
    await Deno.mkdir(dirname(path), { recursive: true });
    using _lock = await this.lock("longreach");
    await writeFileAtomic(path, text);
  }

  async #openLock(name: string): Promise<Deno.FsFile> {
    const path = safeJoin(this.#cacheDir, `.locks/${this.#folder}/${name}.lock`);
    await Deno.mkdir(dirname(path), { recursive: true });
    return await Deno.open(path, { read: true, write: true, create: true });
  }

  #path(name: string, links: "follow" | "refuse" = "refuse"): string {
    return safeJoin(this.#cacheDir, `${this.#folder}/${name}`, { links });
  }
}

/** Names of all files and links of a folder, with `/` below it; none where there is no such folder. */
async function filesBelow(folder: string): Promise<string[]> {
  const names: string[] = [];
  const walk = async (path: string, prefix: string): Promise<void> => {
    for await (const { name, isDirectory } of Deno.readDir(path)) {
      if (isDirectory) await walk(join(path, name), `${prefix}${name}/`);
      else names.push(prefix + name);
    }
  };
  try {
    await walk(folder, "");
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw fileError(error, `Cannot read "${folder}"`);
  }
  return names.sort();
}

/**
 * Says what is wrong with a file, as the end of a sentence that begins with its name; undefined if nothing is.
 * @param thorough whether large files are hashed too
 */
export async function problemOf(
  path: string,
  { size, hash }: Omit<CachedFile, "name">,
  thorough: boolean,
): Promise<string | undefined> {
  try {
    const info = await Deno.stat(path);
    if (!info.isFile) return "is not a file";
    if (size === undefined) return "is missing";
    if (info.size !== size) return `has ${info.size} bytes, not ${size}`;
    if (hash === undefined || (!thorough && size > SMALL_BYTES)) return undefined;
    using file = await Deno.open(path);
    return await hashOf(file, size, hash.algorithm) === hash.hex
      ? undefined
      : `is damaged: its ${hash.algorithm} is another`;
  } catch (error) {
    if (["ENOENT", "ENOTDIR", "ELOOP"].includes(errorCode(error) ?? "")) return "is missing";
    throw fileError(error, `Cannot read "${path}"`);
  }
}

/** The hash of a whole file, in hex. */
export async function hashOf(
  file: Deno.FsFile,
  size: number,
  algorithm: ListedFile["hash"]["algorithm"],
): Promise<string> {
  const hash = createHash(algorithm === "sha256" ? "sha256" : "sha1");
  // Git hashes a file with its kind and size before it.
  if (algorithm === "git-sha1") hash.update(`blob ${size}\0`);
  await file.seek(0, Deno.SeekMode.Start);
  await hashFile(file, hash);
  return hash.digest("hex");
}
