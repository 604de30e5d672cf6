import { hashFile, writeAll } from "../../data/file_bytes.ts";
import { UserError } from "../../errors.ts";
import { createHash } from "../deps.ts";
import { fileError } from "../files.ts";
import type { HubSettings } from "./settings.ts";

/** A file to fetch, and how to know that it is the right one. */
export interface RemoteFile {
  readonly url: string;
  /** For messages: `org/name/file`. */
  readonly label: string;
  readonly size: number;
  readonly hash: { readonly algorithm: "sha256" | "git-sha1"; readonly hex: string };
}

export interface DownloadOptions {
  readonly settings: Pick<HubSettings, "endpoint" | "token">;
  readonly onProgress?: (bytes: number) => void;
  /** Milliseconds without a byte after which a connection is given up. */
  readonly stallLimit?: number;
  /** Milliseconds before the first retry; doubled each time. */
  readonly retryDelay?: number;
}

/** Tries in a row that bring nothing before giving up. */
const TRIES = 5;
const MOST_REDIRECTS = 10;

/**
 * Fetches a file to `path`. It grows as `path.incomplete`, from where an earlier try ended, and gets its name when size
 * and hash are right: whatever a server sends, no wrong file ever has the name.
 *
 * @throws {UserError} if the server refuses it, sends something else, or does not answer
 */
export async function download(file: RemoteFile, path: string, options: DownloadOptions): Promise<void> {
  const partial = `${path}.incomplete`;
  using target = await openLocked(partial);
  if (await sizeOf(path) === file.size) {
    // Another process was faster.
    await Deno.remove(partial);
    return;
  }
  let failures = 0;
  for (;;) {
    const before = (await target.stat()).size;
    try {
      if (before < file.size) await receive(file, target, before, options);
      break;
    } catch (error) {
      if (error instanceof UserError) throw error;
      failures = (await target.stat()).size > before ? 0 : failures + 1;
      if (failures >= TRIES) {
        throw new UserError(
          `Cannot download ${file.label}: ${
            (error as Error).message
          }. What has arrived is kept: try again to go on`,
          { cause: error },
        );
      }
      await new Promise((resolve) => setTimeout(resolve, (options.retryDelay ?? 1000) * 2 ** failures));
    }
  }
  await verify(file, target, partial);
  await target.syncData();
  await Deno.rename(partial, path);
}

/** Opens the file that grows, for this process alone. */
async function openLocked(path: string): Promise<Deno.FsFile> {
  for (;;) {
    const file = await Deno.open(path, { read: true, write: true, create: true });
    await file.lock(true);
    // Whoever held the lock before may have given the file its name, or removed it.
    const isStill = (await file.stat()).ino === await Deno.stat(path).then(({ ino }) => ino, () => undefined);
    if (isStill) return file;
    file.close();
  }
}

/** Bytes of a file; undefined where there is none. */
export function sizeOf(path: string): Promise<number | undefined> {
  return Deno.stat(path).then(({ size }) => size, () => undefined);
}

async function receive(
  file: RemoteFile,
  target: Deno.FsFile,
  from: number,
  { settings, onProgress, stallLimit = 60_000 }: DownloadOptions,
): Promise<void> {
  const abort = new AbortController();
  let timer = setTimeout(() => abort.abort(), stallLimit);
  try {
    const response = await request(file, from, settings, abort.signal);
    const resumes = response.status === 206 &&
      response.headers.get("content-range")?.startsWith(`bytes ${from}-`);
    let at = resumes ? from : 0;
    await target.truncate(at);
    await target.seek(at, Deno.SeekMode.Start);
    onProgress?.(at);
    for await (const chunk of response.body ?? []) {
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), stallLimit);
      if (at + chunk.length > file.size) {
        await target.truncate(0);
        throw new UserError(
          `Cannot download ${file.label}: the server sends more than the ${file.size} bytes that the hub lists`,
        );
      }
      await append(target, chunk, file.label);
      at += chunk.length;
      onProgress?.(at);
    }
    if (at < file.size) throw new Error(`the connection ended after ${at} of ${file.size} bytes`);
  } catch (error) {
    if (abort.signal.aborted) throw new Error(`no data for ${stallLimit / 1000} s`, { cause: error });
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

async function append(target: Deno.FsFile, bytes: Uint8Array, label: string): Promise<void> {
  try {
    await writeAll(target, bytes);
  } catch (error) {
    throw fileError(error, `Cannot save ${label} in the cache of the hub`);
  }
}

/** Follows redirects by hand, so that the token goes to the hub alone and never from https to http. */
async function request(
  { url, label }: RemoteFile,
  from: number,
  { endpoint, token }: DownloadOptions["settings"],
  signal: AbortSignal,
): Promise<Response> {
  let at = new URL(url);
  for (let hop = 0; hop <= MOST_REDIRECTS; hop++) {
    const headers = new Headers(from > 0 ? { range: `bytes=${from}-` } : {});
    if (token && at.origin === new URL(endpoint).origin) headers.set("authorization", `Bearer ${token}`);
    const response = await fetch(at, { headers, signal, redirect: "manual" });
    const location = response.headers.get("location");
    if (response.status >= 300 && response.status < 400 && location) {
      await response.body?.cancel();
      const next = new URL(location, at);
      if (next.protocol !== "https:" && next.protocol !== at.protocol) {
        throw new UserError(
          `Cannot download ${label}: the hub redirects to "${next.protocol}//${next.host}"`,
        );
      }
      at = next;
      continue;
    }
    if (response.ok) return response;
    await response.body?.cancel();
    // Past the end: what is there is not the beginning of this file.
    if (response.status === 416) {
      return await request({ url, label } as RemoteFile, 0, { endpoint, token }, signal);
    }
    if (response.status >= 500 || response.status === 429) {
      throw new Error(`the server answers ${response.status}`);
    }
    throw refusal(label, response.status, token !== undefined);
  }
  throw new UserError(`Cannot download ${label}: the hub redirects more than ${MOST_REDIRECTS} times`);
}

/** What a refusal means and what to do. */
export function refusal(label: string, status: number, hasToken: boolean): UserError {
  if (status === 401 || status === 403) {
    return new UserError(
      `Cannot download ${label}: the hub answers ${status}. ` +
        (hasToken
          ? "The token in HF_TOKEN may not read it: accept the model's terms on its page, or use another token"
          : "It may be private or need its terms accepted: set HF_TOKEN to a token that may read it"),
    );
  }
  return new UserError(
    status === 404
      ? `Cannot download ${label}: the hub has no such file, model or revision. Check the name`
      : `Cannot download ${label}: the hub answers ${status}`,
  );
}

async function verify(file: RemoteFile, target: Deno.FsFile, partial: string): Promise<void> {
  const { algorithm, hex } = file.hash;
  const hash = createHash(algorithm === "sha256" ? "sha256" : "sha1");
  // Git hashes a file with its kind and size before it.
  if (algorithm === "git-sha1") hash.update(`blob ${file.size}\0`);
  await target.seek(0, Deno.SeekMode.Start);
  await hashFile(target, hash);
  if (hash.digest("hex") === hex) return;
  await Deno.remove(partial);
  throw new UserError(
    `Cannot download ${file.label}: its ${algorithm} is not what the hub lists, so it was removed. Try again; if it ` +
      `stays so, something on the way changes files`,
  );
}
