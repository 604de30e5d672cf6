import { writeAll } from "../data/file_bytes.ts";
import { UserError } from "../errors.ts";
import { fileError } from "../checkpoint/files.ts";
import type { ListedFile } from "./api.ts";
import { hashOf } from "./cache.ts";
import { ask, type Asking, HubUnavailable, PastTheEnd, Watch, withTries } from "./request.ts";

/** A file to fetch, and how to know that it is the right one. */
export interface RemoteFile extends Pick<ListedFile, "size" | "hash"> {
  readonly url: string;
}

/** A try that brought so much more of a file is no failure in a row. */
const PROGRESS_BYTES = 2 ** 20;
const PROGRESS_SHARE = 0.05;

/** The bytes that arrived are not this file: several answers may have been of several files. */
class WrongBytes extends Error {}

/**
 * Fetches a file to `path`, which only one process at a time may do. It grows as `path.incomplete`, from where an
 * earlier try ended, and gets its name when size and hash are right: whatever a server sends, no wrong file ever has
 * the name. What is wrong in the end is fetched once more from its beginning.
 *
 * @throws {UserError} if the server refuses it, sends something else, or does not answer
 */
export async function download(
  file: RemoteFile,
  path: string,
  asking: Asking,
  onProgress: (bytes: number) => void = () => {},
): Promise<void> {
  const partial = `${path}.incomplete`;
  using target = await openPartial(partial);
  try {
    await receiveAll(file, target, asking, onProgress).catch(async (error) => {
      if (!(error instanceof WrongBytes)) throw error;
      await target.truncate(0);
      await receiveAll(file, target, asking, onProgress);
    });
    await target.syncData();
    await Deno.rename(partial, path);
  } catch (error) {
    if (error instanceof HubUnavailable) {
      throw new UserError(
        `Cannot download ${asking.label}: ${error.message}. What has arrived is kept: try again to go on`,
        { cause: error },
      );
    }
    if (error instanceof WrongBytes) {
      await Deno.remove(partial);
      throw new UserError(
        `Cannot download ${asking.label}: ${error.message}, so it was removed. Try again; if it stays so, something on ` +
          `the way changes files`,
        { cause: error },
      );
    }
    throw error;
  }
}

/** Opens the file that grows. A link of this name would lead what is written to another place. */
async function openPartial(path: string): Promise<Deno.FsFile> {
  const info = await Deno.lstat(path).catch(() => undefined);
  if (info !== undefined && !info.isFile) await Deno.remove(path);
  return await Deno.open(path, { read: true, write: true, create: true });
}

/** Goes on until all bytes are there and are the right ones. */
async function receiveAll(
  file: RemoteFile,
  target: Deno.FsFile,
  asking: Asking,
  onProgress: (bytes: number) => void,
): Promise<void> {
  const enough = Math.min(PROGRESS_BYTES, Math.max(1, PROGRESS_SHARE * file.size));
  let at = (await target.stat()).size;
  let furthest = at;
  if (at > file.size) throw new WrongBytes(`it has more than the ${file.size} bytes that the hub lists`);
  let etag: string | null = null;
  let isPast = false;
  await withTries(asking, async () => {
    // Once is enough to know that the server has another idea of the range.
    at = isPast ? 0 : (await target.stat()).size;
    isPast = false;
    if (at === file.size && at > 0) return;
    try {
      using watch = new Watch(asking.patience.stallLimit);
      const response = await ask(file.url, asking, {
        headers: at === 0 ? {} : { range: `bytes=${at}-`, ...(isStrong(etag) ? { "if-range": etag } : {}) },
        signal: watch.signal,
      });
      at = beginning(response, at, file.size, etag);
      etag = response.headers.get("etag");
      await target.truncate(at);
      await target.seek(at, Deno.SeekMode.Start);
      onProgress(at);
      for await (const piece of watch.pieces(response)) {
        if (at + piece.length > file.size) {
          throw new WrongBytes(`the server sends more than the ${file.size} bytes that the hub lists`);
        }
        await append(target, piece, asking.label);
        at += piece.length;
        onProgress(at);
      }
    } catch (error) {
      isPast = error instanceof PastTheEnd || error instanceof OtherRange;
      throw error;
    }
    if (at < file.size) throw new HubUnavailable(`the connection ended after ${at} of ${file.size} bytes`);
  }, () => {
    const isFurther = at - furthest >= enough;
    furthest = Math.max(furthest, at);
    return isFurther;
  });
  if (await hashOf(target, file.size, file.hash.algorithm) === file.hash.hex) return;
  throw new WrongBytes(`its ${file.hash.algorithm} is not what the hub lists`);
}

/** An answer with other bytes than those that were asked for. */
class OtherRange extends HubUnavailable {}

/**
 * Offset in the file of the answer's first byte.
 * @param from the first byte that was asked for
 * @throws {OtherRange} if that cannot be told, or the file has become another
 */
function beginning({ status, headers }: Response, from: number, size: number, etag: string | null): number {
  if (status === 200) return 0;
  const range = headers.get("content-range");
  const [, first, last, total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(range ?? "") ?? [];
  const isAsked = status === 206 && from > 0 && Number(first) === from && Number(last) < size &&
    (total === "*" || Number(total) === size);
  if (!isAsked) {
    throw new OtherRange(
      `the server answers ${status} with the range ${JSON.stringify(range)} of ${size} bytes`,
    );
  }
  const now = headers.get("etag");
  if (etag !== null && now !== null && now !== etag) throw new OtherRange("the file has changed on the way");
  return from;
}

function isStrong(etag: string | null): etag is string {
  return etag !== null && /^"[^"]*"$/.test(etag);
}

async function append(target: Deno.FsFile, bytes: Uint8Array, label: string): Promise<void> {
  try {
    await writeAll(target, bytes);
  } catch (error) {
    throw fileError(
      error,
      `Cannot save ${label} in the cache of the hub`,
      "Free some space, or set HF_HUB_CACHE to a folder with more",
    );
  }
}
