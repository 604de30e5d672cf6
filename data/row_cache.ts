/** Encoded rows kept on disk, so that data which did not change is tokenized once. */
import { createHash } from "./deps.ts";
import type { EncodedRow, TemplateChoice } from "./encode.ts";
import { hashFile } from "./file_bytes.ts";
import { openToRead } from "./jsonl.ts";
import { openRows, readRows, removeUnfinishedRows, RowWriter } from "./row_file.ts";
import { dataFilesOf } from "./rows.ts";
import type { Tokenizer } from "./tokenizer.ts";
import type { UnusedKeys } from "./unused_keys.ts";

/** Cache of encoded rows. */
export interface RowCache {
  /** Made when it is needed. */
  readonly folder: string;
  /** Told, in one line, why the cache could not be used; the rows come all the same. */
  readonly note?: ((line: string) => void) | undefined;
}

/** To be raised when the same text no longer gives the same rows. */
const VERSION = 4;

/**
 * Hashes what the rows of a file or folder depend on: the bytes of the data, the tokenizer's files, and how rows are
 * made. Data is hashed as it is read, whatever its size.
 * @throws {UserError} if the data cannot be read
 */
export async function rowsKey(
  path: string,
  { files: [json, config] }: Tokenizer,
  choice: { readonly template: TemplateChoice | null; readonly sft: boolean | null },
): Promise<string> {
  const hash = createHash("sha256").update(JSON.stringify([VERSION, choice, json, config]));
  for (const name of await dataFilesOf(path)) {
    using file = await openToRead(name);
    // The name's ending says how rows are read.
    hash.update(`\n${/\.\w+(\.gz)?$/i.exec(name)?.[0]} ${(await file.stat()).size}\n`);
    await hashFile(file, hash);
  }
  return hash.digest("hex");
}

/**
 * The rows of `encode`, or the same from the cache where they were kept under this key before. What is damaged there is
 * made again, what cannot be written is left out.
 * @param unused what `encode` counts there is kept with the rows, and counted again with them
 * @throws as `encode`; never because of the cache
 */
export async function* cachedRows(
  { folder, note }: RowCache,
  key: string,
  encode: () => AsyncIterable<EncodedRow>,
  unused: UnusedKeys,
): AsyncGenerator<EncodedRow> {
  const path = `${folder}/${key}.rows`;
  using kept = await open(path, note);
  if (kept) {
    unused.addAll(JSON.parse(yield* readRows(kept)));
    return;
  }
  await removeLeftovers(folder, note);
  const writer = new RowWriter(path);
  try {
    let isKept = await attempt(() => writer.open(), path, note);
    for await (const row of encode()) {
      isKept &&= await attempt(() => writer.add(row), path, note);
      yield row;
    }
    if (isKept) await attempt(() => writer.finish(JSON.stringify(unused)), path, note);
  } finally {
    await writer.close();
  }
}

/** Makes room before more is written; that nothing can be removed is no reason to stop. */
async function removeLeftovers(folder: string, note: RowCache["note"]): Promise<void> {
  const removed = await removeUnfinishedRows(folder).catch(() => 0);
  if (removed > 0) note?.(`Removed ${removed} unfinished files that interrupted runs left in "${folder}"`);
}

async function open(path: string, note: RowCache["note"]): Promise<Deno.FsFile | undefined> {
  try {
    const file = await openRows(path);
    if (file === "damaged") note?.(`The tokenized data in "${path}" is damaged: it is made again`);
    return file === "damaged" ? undefined : file;
  } catch (error) {
    note?.(`The tokenized data in "${path}" cannot be used (${(error as Error).message}): it is made again`);
    return undefined;
  }
}

/** @returns whether it succeeded */
async function attempt(step: () => Promise<void>, path: string, note: RowCache["note"]): Promise<boolean> {
  try {
    await step();
    return true;
  } catch (error) {
    note?.(`Tokenized data cannot be kept in "${path}": ${(error as Error).message}`);
    return false;
  }
}
