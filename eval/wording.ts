/** Parts of prompts that a user may word anew: read from a file, and held against the tokenizer. */
import { FILE_LIMITS, readWholeText } from "../data/file_bytes.ts";
import { unknownWords } from "../data/spelling.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import { formatCount, quote, quoteNames } from "../text.ts";

/** Reads the parts of one file, and refuses what is not what it must be. */
export class WordingFile {
  readonly #left: Map<string, unknown>;

  private constructor(readonly path: string, readonly form: string, parts: object) {
    this.#left = new Map(Object.entries(parts));
  }

  /**
   * Opens a file of JSON.
   * @param form what it must be, for errors: `a JSON object with ...`
   * @throws {UserError} if it is none
   */
  static async open(path: string, form: string): Promise<WordingFile> {
    const file = new WordingFile(path, form, {});
    let parts: unknown;
    try {
      parts = JSON.parse(await readWholeText(path, FILE_LIMITS.config));
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      throw file.refusal("it is not JSON");
    }
    if (typeof parts !== "object" || parts === null || Array.isArray(parts)) {
      throw file.refusal("it is not an object");
    }
    return new WordingFile(path, form, parts);
  }

  /** Takes a part that is text. @param otherwise where it is not there; it must be unless given */
  text(name: string, otherwise?: string): string {
    const value = this.#take(name) ?? otherwise;
    if (typeof value === "string" && (value.trim() !== "" || otherwise !== undefined)) return value;
    throw this.refusal(`${name} is no text`);
  }

  /** Takes a part that is a list of one text or more. */
  texts(name: string): readonly string[] {
    const value = this.#take(name);
    const isTexts = Array.isArray(value) && value.length > 0 &&
      value.every((item) => typeof item === "string" && item.trim() !== "");
    if (isTexts) return value;
    throw this.refusal(`${name} is no list of texts`);
  }

  /** Tells whether a part is there. */
  has(name: string): boolean {
    return (this.#left.get(name) ?? null) !== null;
  }

  /** @throws {UserError} if something is left that nothing has read */
  close(): void {
    for (const name of this.#left.keys()) throw this.refusal(`it has ${quote(name)}, which nothing reads`);
  }

  refusal(what: string): UserError {
    return new UserError(`Cannot use the wording "${this.path}": ${what}. It is ${this.form}`, {
      kind: "usage",
    });
  }

  #take(name: string): unknown {
    const value = this.#left.get(name);
    this.#left.delete(name);
    return value ?? undefined;
  }
}

/** Words that a refusal names. */
const MOST_NAMED = 5;

/**
 * Refuses texts that the tokenizer cannot write: what reads as the unknown token can be found by nobody.
 * @throws {UserError} naming some of the words
 */
export function checkSpellable(
  texts: readonly string[],
  tokenizer: Tokenizer,
  task: string,
  remedy = "Give a --wording in the model's own words",
): void {
  const unknown = unknownWords(texts.flatMap((text) => text.match(/\S+/g) ?? []), tokenizer);
  if (unknown.length === 0) return;
  const more = unknown.length - MOST_NAMED;
  throw new UserError(
    `Cannot measure ${task}: the tokenizer does not know ${quoteNames(unknown.slice(0, MOST_NAMED))}` +
      `${
        more > 0 ? ` and ${formatCount(more)} more` : ""
      }, and would read its unknown token in their place. ` +
      remedy,
    { kind: "usage" },
  );
}
