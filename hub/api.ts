/** The two questions that are asked of the hub's API, and what counts as an answer. */
import { quote } from "../text.ts";
import { UserError } from "../errors.ts";
import { hubAddress, type HubReference } from "./reference.ts";
import { type Asking, askJson, strangeAnswer } from "./request.ts";

/** A file of a repository, and how to know that it is the right one. */
export interface ListedFile {
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  /** Hash of the content in hex: SHA-256 of large files, Git's blob hash of small ones. */
  readonly hash: { readonly algorithm: "sha256" | "git-sha1"; readonly hex: string };
}

/** More are not listed: whole data sets of so many files are not fetched file by file. */
const MOST_FILES = 10_000;
const MOST_PAGES = 100;

/** A commit: it becomes the name of a folder, so nothing else is let through. */
export function isCommit(text: unknown): text is string {
  return typeof text === "string" && /^[0-9a-f]{40}$/.test(text);
}

/**
 * The commit that a revision is now.
 * @throws {HubUnavailable} if the hub cannot be asked
 * @throws {UserError} if it refuses, or answers with something else than a commit
 */
export async function askCommit(reference: HubReference, asking: Asking): Promise<string> {
  const { name, revision } = reference;
  const address = `${api(reference, asking)}/${name}/revision/${encodeURIComponent(revision)}?expand=sha`;
  const { value } = await askJson(address, asking);
  const sha = fieldsOf(value).sha;
  if (isCommit(sha) && (!isCommit(revision) || sha === revision)) return sha;
  throw strangeAnswer(asking, `with the commit ${shown(sha)}, not with 40 hexadecimal digits of its own`);
}

/**
 * The files of a commit.
 * @throws as {@linkcode askCommit}
 */
export async function askFiles(
  reference: HubReference,
  commit: string,
  asking: Asking,
): Promise<ListedFile[]> {
  const files: ListedFile[] = [];
  const seen = new Set<string>();
  let address: string | undefined = `${
    api(reference, asking)
  }/${reference.name}/tree/${commit}?recursive=true&expand=false`;
  while (address !== undefined) {
    if (seen.has(address) || seen.size >= MOST_PAGES) {
      throw strangeAnswer(asking, "with a list of files that does not end");
    }
    seen.add(address);
    const { value, headers } = await askJson(address, asking);
    files.push(...readListing(value, (what) => strangeAnswer(asking, what)));
    if (files.length > MOST_FILES) {
      throw new UserError(
        `Cannot use ${
          hubAddress(reference)
        } of the hub: it has more than ${MOST_FILES} files. Download what is ` +
          `needed with another tool, and name the folder`,
      );
    }
    address = nextPage(headers.get("link"), address, asking);
  }
  requireDistinct(files, asking);
  return files;
}

/**
 * The files of a listing in the form of the hub's API: an array of objects with `type`, `path`, `size`, `oid`, and
 * `lfs` for large files.
 * @param wrong the error for what is not of this form
 */
export function readListing(value: unknown, wrong: (what: string) => Error): ListedFile[] {
  if (!Array.isArray(value)) throw wrong("with no list of files");
  return value.map(fieldsOf).filter(({ type }) => type === "file").map((entry) => {
    const { path } = entry;
    if (typeof path !== "string") throw wrong(`with a file whose name is ${shown(path)}`);
    const isLarge = entry.lfs !== undefined && entry.lfs !== null;
    const { oid, size } = isLarge ? fieldsOf(entry.lfs) : entry;
    if (!isSize(size)) throw wrong(`with the size ${shown(size)} for ${quote(path)}`);
    const hex = typeof oid === "string" ? oid.replace(/^sha256:/, "") : "";
    if (!(isLarge ? /^[0-9a-f]{64}$/ : /^[0-9a-f]{40}$/).test(hex)) {
      throw wrong(`with no hash for ${quote(path)}`);
    }
    return { name: path, size, hash: { algorithm: isLarge ? "sha256" : "git-sha1", hex } };
  });
}

/** The listing as JSON that {@linkcode readListing} reads. */
export function listingOf(files: readonly ListedFile[]): string {
  return JSON.stringify(files.map(({ name, size, hash: { algorithm, hex } }) => ({
    type: "file",
    path: name,
    ...(algorithm === "sha256" ? { lfs: { oid: hex, size } } : { oid: hex, size }),
  })));
}

function api({ kind }: HubReference, { settings }: Asking): string {
  return `${settings.endpoint}/api/${kind}s`;
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? value as Record<string, unknown> : {};
}

function shown(value: unknown): string {
  return value === undefined ? "nothing" : quote(typeof value === "string" ? value : JSON.stringify(value));
}

function requireDistinct(files: readonly ListedFile[], asking: Asking): void {
  const names = new Set<string>();
  for (const { name } of files) {
    if (names.has(name)) throw strangeAnswer(asking, `with the file ${quote(name)} twice`);
    names.add(name);
  }
}

/** The address behind `rel="next"` of a `Link` header. */
function nextPage(header: string | null, from: string, asking: Asking): string | undefined {
  const next = /<([^>]*)>\s*;[^,]*\brel="?next\b/.exec(header ?? "")?.[1];
  if (next === undefined) return undefined;
  const url = URL.parse(next, from);
  if (url === null) throw strangeAnswer(asking, `with the address ${quote(next)} for the rest of its files`);
  return url.href;
}
