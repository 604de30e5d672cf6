import { elsewhere, errorCode, fileError } from "../checkpoint/files.ts";
import { writeAll } from "../data/file_bytes.ts";

const REMEDY = elsewhere("choose another output_dir");

/**
 * A file of a log. What cannot be written, on a disk that is full for instance, waits and goes into the file as soon as
 * there is room: a log is no reason to end a run. A torn write is undone, so that the file is always whole up to its end.
 */
export class AppendFile {
  /** Bytes of the file that are whole. */
  #size = 0;
  #waiting: Uint8Array[] = [];

  /** @param onProblem told, in words, when writing begins to fail */
  constructor(readonly path: string, readonly onProblem: (problem: string) => void) {}

  /**
   * Begins the file anew with this content, or goes on at its end where there is none.
   * @throws {UserError} if it cannot be written
   */
  async open(content: Uint8Array | undefined): Promise<void> {
    try {
      if (content !== undefined) await Deno.writeFile(this.path, content);
      this.#size = content?.length ?? await sizeOf(this.path);
    } catch (error) {
      throw fileError(error, `Cannot write "${this.path}"`, REMEDY);
    }
  }

  /** Adds bytes, now or as soon as that is possible. */
  async add(bytes: Uint8Array): Promise<void> {
    const isFailing = this.#waiting.length > 0;
    this.#waiting.push(bytes);
    try {
      using file = await Deno.open(this.path, { write: true, create: true });
      await file.truncate(this.#size);
      await file.seek(this.#size, Deno.SeekMode.Start);
      for (const part of this.#waiting) await writeAll(file, part);
      this.#size += this.#waiting.reduce((sum, part) => sum + part.length, 0);
      this.#waiting = [];
    } catch (error) {
      if (errorCode(error) === undefined) throw error;
      await Deno.truncate(this.path, this.#size).catch(() => {});
      if (!isFailing) {
        this.onProblem((fileError(error, `Cannot write "${this.path}"`, REMEDY) as Error).message);
      }
    }
  }
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await Deno.stat(path)).size;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}
