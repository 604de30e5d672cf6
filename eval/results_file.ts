/** A file of results that grows row by row, and from which work that was stopped goes on. */
import { exists, fileError } from "../checkpoint/files.ts";
import { writeAll } from "../data/file_bytes.ts";
import { readObjects } from "../data/jsonl.ts";
import { UserError } from "../errors.ts";
import { quote } from "../text.ts";

/** Everything that decides what a row is: names and values of JSON. */
export type Settings = Readonly<Record<string, unknown>>;

const REMEDY = "Choose another --output_dir";

/**
 * Rows of JSON behind a first line with the settings that gave them. A row is on the disk when {@linkcode ResultsFile.add}
 * returns; one that a crash tore is cut off when the file is opened again, and made anew.
 */
export class ResultsFile<R extends object> {
  /** Rows so far, those of before included. */
  readonly rows: R[];
  readonly #file: Deno.FsFile;
  readonly #path: string;

  private constructor(path: string, file: Deno.FsFile, rows: R[]) {
    this.#path = path;
    this.#file = file;
    this.rows = rows;
  }

  /**
   * Opens the file to go on, or begins it.
   *
   * @param isNew begins it anew, whatever is there
   * @throws {UserError} naming each setting that differs from those of the rows that are there
   */
  static async open<R extends object>(
    path: string,
    settings: Settings,
    { isNew = false }: { readonly isNew?: boolean } = {},
  ): Promise<ResultsFile<R>> {
    try {
      const rows = isNew || !await exists(path) ? null : await readRows<R>(path, settings);
      const file = await Deno.open(path, { write: true, create: true, truncate: rows === null });
      await file.seek(0, Deno.SeekMode.End);
      if (rows === null) await writeLine(file, { settings });
      return new ResultsFile(path, file, rows ?? []);
    } catch (error) {
      throw fileError(error, `Cannot write "${path}"`, REMEDY);
    }
  }

  /** Adds a row. @throws {UserError} if it cannot be written */
  async add(row: R): Promise<void> {
    try {
      await writeLine(this.#file, row);
    } catch (error) {
      throw fileError(error, `Cannot write "${this.#path}"`, REMEDY);
    }
    this.rows.push(row);
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#file.close();
  }
}

async function writeLine(file: Deno.FsFile, value: object): Promise<void> {
  await writeAll(file, new TextEncoder().encode(`${JSON.stringify(value)}\n`));
  await file.syncData();
}

/** The rows of a file whose settings are these; null where it has none yet. */
async function readRows<R>(path: string, settings: Settings): Promise<R[] | null> {
  if (!await cutTornLine(path)) return null;
  const rows: unknown[] = [];
  for await (const { value } of readObjects(path)) rows.push(value);
  const [head, ...results] = rows;
  if (results.length === 0 && isHead(head)) return null;
  if (!isHead(head)) {
    throw new UserError(
      `Cannot go on with "${path}": its first line has no settings, so it is not a file of results. ` +
        `${REMEDY}, or pass --overwrite to begin anew`,
      { kind: "usage" },
    );
  }
  const differing = differences(head.settings, settings);
  if (differing.length > 0) {
    throw new UserError(
      `Cannot go on with "${path}": its results are of other settings: ${differing.join("; ")}. ` +
        `${REMEDY}, or pass --overwrite to begin anew`,
      { kind: "usage" },
    );
  }
  return results as R[];
}

function isHead(row: unknown): row is { readonly settings: Settings } {
  const { settings } = row as { readonly settings?: unknown };
  return typeof settings === "object" && settings !== null;
}

/** The settings of two records that differ, each in words. */
function differences(before: Settings, now: Settings): string[] {
  const names = [...new Set([...Object.keys(before), ...Object.keys(now)])];
  return names.filter((name) => JSON.stringify(before[name]) !== JSON.stringify(now[name]))
    .map((name) => `${name} was ${quote(before[name] ?? null)}, is ${quote(now[name] ?? null)}`);
}

/** Cuts off what stands behind the last line end. @returns whether a line is left */
async function cutTornLine(path: string): Promise<boolean> {
  const bytes = await Deno.readFile(path);
  const end = bytes.lastIndexOf(0x0a) + 1;
  if (end < bytes.length) await Deno.truncate(path, end);
  return end > 0;
}
