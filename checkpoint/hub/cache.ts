import { writeFileAtomic } from "../atomic.ts";
import { safeJoin } from "../paths.ts";
import { dirname, join, relative } from "../deps.ts";
import type { HubReference } from "./reference.ts";
import type { HubSettings } from "./settings.ts";

/**
 * The part of the shared cache that belongs to one repository: `blobs/<hash>`, `refs/<revision>` with a commit in it,
 * and `snapshots/<commit>/<file>`, links to blobs. The layout is that of Python's `huggingface_hub`.
 */
export class RepositoryCache {
  readonly root: string;

  constructor({ cacheDir }: HubSettings, { kind, name }: HubReference) {
    this.root = join(cacheDir, `${kind}s--${name.replace("/", "--")}`);
  }

  /** The commit that a branch or tag was when last asked for. */
  async readRef(revision: string): Promise<string | undefined> {
    try {
      const commit = (await Deno.readTextFile(this.#ref(revision))).trim();
      return /^[0-9a-f]{40}$/.test(commit) ? commit : undefined;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  }

  async writeRef(revision: string, commit: string): Promise<void> {
    const path = this.#ref(revision);
    await Deno.mkdir(dirname(path), { recursive: true });
    await writeFileAtomic(path, commit);
  }

  snapshot(commit: string): string {
    return join(this.root, "snapshots", commit);
  }

  /** Where a file of a snapshot stands. @throws {UserError} if its name leads elsewhere */
  file(commit: string, name: string): string {
    return safeJoin(this.snapshot(commit), name, { links: "follow" });
  }

  async has(commit: string, name: string): Promise<boolean> {
    try {
      return (await Deno.stat(this.file(commit, name))).isFile;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return false;
      throw error;
    }
  }

  /** @param hash a file's content hash in hex */
  async blob(hash: string): Promise<string> {
    const folder = join(this.root, "blobs");
    await Deno.mkdir(folder, { recursive: true });
    return join(folder, hash);
  }

  /** Gives a blob its name in a snapshot: a relative link, or the file itself where links are not allowed. */
  async link(commit: string, name: string, blob: string): Promise<void> {
    const path = this.file(commit, name);
    await Deno.mkdir(dirname(path), { recursive: true });
    try {
      await Deno.symlink(relative(dirname(path), blob), path);
    } catch (error) {
      if (error instanceof Deno.errors.AlreadyExists) return;
      if (Deno.build.os !== "windows") throw error;
      await Deno.rename(blob, path);
    }
  }

  /** Names of the files a snapshot has. */
  async files(commit: string): Promise<string[]> {
    const names: string[] = [];
    const walk = async (folder: string, prefix: string): Promise<void> => {
      for await (const { name, isDirectory } of Deno.readDir(folder)) {
        if (isDirectory) await walk(join(folder, name), `${prefix}${name}/`);
        else names.push(prefix + name);
      }
    };
    try {
      await walk(this.snapshot(commit), "");
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    return names.sort();
  }

  #ref(revision: string): string {
    return safeJoin(join(this.root, "refs"), revision);
  }
}
