/**
 * Files of encoded rows. They are little-endian u32 words: magic and version, then blocks of rows, each the count of its
 * words and as many words, then a count of 0; then a text in UTF-8, after its length in bytes and filled up to whole
 * words; at the end stands the SHA-256 of everything before. A row is
 * `[tokens, kind, runs]`, then `runs` lengths of stretches that are in turn no targets and targets, then the tokens.
 */
import { createHash } from "./deps.ts";
import { type EncodedRow, NO_TARGET, textRow } from "./encode.ts";
import { hashFile, writeAll } from "./file_bytes.ts";
import { finalName, settle, temporaryName } from "./temporary.ts";

const MAGIC = 0x5752_524c;
const VERSION = 2;
const HASH_BYTES = 32;
/** Words of a block, unless one row takes more. */
const BLOCK_WORDS = 2 ** 20;
const KINDS = ["text", "answers"] as const;

/**
 * Opens a file for {@linkcode readRows} once its hash is known to be right.
 * @returns nothing where there is no such file
 * @throws the operating system's error if it cannot be read
 */
export async function openRows(path: string): Promise<Deno.FsFile | "damaged" | undefined> {
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  let whole = false;
  try {
    whole = await isWhole(file);
  } finally {
    if (!whole) file.close();
  }
  return whole ? file : "damaged";
}

/** Checks the hash and leaves the file at its first block. */
async function isWhole(file: Deno.FsFile): Promise<boolean> {
  const length = (await file.stat()).size - HASH_BYTES;
  if (length < 12 || length % 4 !== 0) return false;
  const hash = createHash("sha256");
  await hashFile(file, hash, length);
  const stored = await readExactly(file, HASH_BYTES);
  if (!hash.digest().every((byte, i) => byte === stored[i])) return false;
  await file.seek(0, Deno.SeekMode.Start);
  const [magic, version] = words(await readExactly(file, 8));
  return magic === MAGIC && version === VERSION;
}

/** The rows of an opened file, in their order; returns the text that was written with them. */
export async function* readRows(file: Deno.FsFile): AsyncGenerator<EncodedRow, string> {
  for (;;) {
    const [length] = words(await readExactly(file, 4));
    if (length === 0) {
      const [bytes] = words(await readExactly(file, 4));
      return new TextDecoder().decode(await readExactly(file, bytes!));
    }
    const block = words(await readExactly(file, 4 * length!));
    for (let at = 0; at < block.length;) {
      const [tokens, kind, runs] = [block[at]!, block[at + 1]!, block[at + 2]!];
      const first = at + 3 + runs;
      const ids = block.subarray(first, first + tokens);
      const stretches = block.subarray(at + 3, first);
      yield KINDS[kind] === "text"
        ? textRow(ids)
        : { kind: "answers", ids, labels: labelsOf(ids, stretches) };
      at = first + tokens;
    }
  }
}

function labelsOf(ids: Uint32Array, stretches: Uint32Array): Int32Array<ArrayBuffer> {
  const labels = new Int32Array(ids.length).fill(NO_TARGET);
  let at = 0;
  stretches.forEach((length, i) => {
    if (i % 2 === 1) labels.set(ids.subarray(at, at + length), at);
    at += length;
  });
  return labels;
}

/** Lengths of the stretches that are in turn no targets and targets; of a text, all of which is learnt, none. */
function stretchesOf({ kind, labels }: EncodedRow): number[] {
  const stretches: number[] = [];
  if (kind === "text") return stretches;
  let start = 0;
  for (let i = 0; i <= labels.length; i++) {
    const inTarget = stretches.length % 2 === 1;
    if (i < labels.length && (labels[i] !== NO_TARGET) === inTarget) continue;
    stretches.push(i - start);
    start = i;
  }
  return stretches;
}

async function readExactly(file: Deno.FsFile, length: number): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length;) {
    const size = await file.read(bytes.subarray(done));
    if (size === null) throw new RangeError("The file of rows ends too early");
    done += size;
  }
  return bytes;
}

function words(bytes: Uint8Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  return new Uint32Array(bytes.buffer);
}

/**
 * Removes the files of rows that processes which have died left unfinished in a folder: their locks are free.
 * @returns how many
 */
export async function removeUnfinishedRows(folder: string): Promise<number> {
  let removed = 0;
  for await (const { name } of Deno.readDir(folder)) {
    if (!finalName(name)?.endsWith(".rows")) continue;
    using file = await Deno.open(`${folder}/${name}`, { read: true, write: true });
    if (!await file.tryLock(true)) continue;
    await Deno.remove(`${folder}/${name}`);
    removed++;
  }
  return removed;
}

/** Writes a file under another name, which becomes `path` when it is whole. It is locked as long as it is written. */
export class RowWriter {
  readonly #hash = createHash("sha256");
  readonly #partial: string;
  #file: Deno.FsFile | undefined;
  #block: Uint32Array<ArrayBuffer>[] = [];
  #blockWords = 0;

  constructor(readonly path: string) {
    this.#partial = temporaryName(path);
  }

  /** Makes the folder and the file. @throws the operating system's error; so do the others */
  async open(): Promise<void> {
    await Deno.mkdir(this.path.slice(0, this.path.lastIndexOf("/")), { recursive: true });
    this.#file = await Deno.open(this.#partial, { read: true, write: true, createNew: true });
    // Where there are no locks, nobody removes it either.
    await this.#file.lock(true).catch(() => {});
    await this.#write(Uint32Array.of(MAGIC, VERSION));
  }

  async add(row: EncodedRow): Promise<void> {
    const stretches = stretchesOf(row);
    const head = Uint32Array.from([row.ids.length, KINDS.indexOf(row.kind), stretches.length, ...stretches]);
    this.#block.push(head, row.ids);
    this.#blockWords += head.length + row.ids.length;
    if (this.#blockWords >= BLOCK_WORDS) await this.#endBlock();
  }

  /** Gives the file its name. @param text what is to be known of the rows besides them */
  async finish(text: string): Promise<void> {
    if (this.#blockWords > 0) await this.#endBlock();
    const bytes = new TextEncoder().encode(text);
    const filled = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
    filled.set(bytes);
    await this.#write(Uint32Array.of(0, bytes.length));
    await this.#write(words(filled));
    await writeAll(this.#file!, this.#hash.digest());
    await this.#file!.sync();
    await Deno.rename(this.#partial, this.path);
  }

  /** Removes what was not finished. Call it in any case. */
  async close(): Promise<void> {
    this.#file?.close();
    await Deno.remove(this.#partial).catch(() => {});
    settle(this.#partial);
  }

  async #endBlock(): Promise<void> {
    await this.#write(Uint32Array.of(this.#blockWords));
    for (const part of this.#block) await this.#write(part);
    this.#block = [];
    this.#blockWords = 0;
  }

  async #write({ buffer, byteOffset, byteLength }: Uint32Array<ArrayBuffer>): Promise<void> {
    const bytes = new Uint8Array(buffer, byteOffset, byteLength);
    this.#hash.update(bytes);
    await writeAll(this.#file!, bytes);
  }
}
