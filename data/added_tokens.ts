/** Tokens that are found in a text before anything else is done to it, as Hugging Face's tokenizers find them. */
import { quote } from "../text.ts";
import type { UserError } from "../errors.ts";
import { ID_RULE, isTokenId } from "./tokenizer_json.ts";

/** A token that is found whole, wherever its text stands. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Not inside a word. */
  readonly single_word: boolean;
  /** With the white space before it. */
  readonly lstrip: boolean;
  /** With the white space behind it. */
  readonly rstrip: boolean;
  /** Found in the normalised text, not in the text as it stands. */
  readonly normalized: boolean;
  /** Not shown where special tokens are left out. */
  readonly special: boolean;
}

/** A stretch of a text: an added token, with the white space that it takes in, or what lies between two. */
export interface Stretch {
  /** In UTF-16 units. */
  readonly start: number;
  readonly text: string;
  /** Undefined between added tokens. */
  readonly id: number | undefined;
}

const FLAGS = ["single_word", "lstrip", "rstrip", "normalized", "special"] as const;
/** A word's characters, and white space, as the `tokenizers` crate defines them. */
const WORD = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u;
const SPACE = /\p{White_Space}/u;
const MOST_ADDED_TOKENS = 100_000;

/** Finds added tokens in texts: at each place the longest, the leftmost first. */
export class AddedTokenFinder {
  readonly #tokens = new Map<string, AddedToken>();
  /** Lengths of the tokens that begin with a character, the longest first. */
  readonly #lengths = new Map<string, number[]>();
  /** Characters that tokens begin with; null where there are none. */
  readonly #beginnings: RegExp | null;

  /** @param textOf what of a token stands in texts: its content, unless texts are normalised before */
  constructor(tokens: readonly AddedToken[], textOf: (content: string) => string = (content) => content) {
    const lengths = new Map<string, Set<number>>();
    for (const token of tokens) {
      const text = textOf(token.content);
      // The first of several that are the same once they are normalised.
      if (text === "" || this.#tokens.has(text)) continue;
      this.#tokens.set(text, token);
      const known = lengths.get(text[0]!);
      if (known) known.add(text.length);
      else lengths.set(text[0]!, new Set([text.length]));
    }
    for (const [first, each] of lengths) this.#lengths.set(first, [...each].sort((a, b) => b - a));
    const characters = [...lengths.keys()].map((first) => first.replace(/[\\\]^-]/g, "\\$&")).join("");
    this.#beginnings = characters === "" ? null : new RegExp(`[${characters}]`, "g");
  }

  /** The text in stretches, one after the other, without gaps. */
  *split(text: string): Generator<Stretch> {
    let done = 0;
    for (const { index, content, token } of this.#find(text)) {
      const { id, single_word, lstrip, rstrip } = token;
      let start = index;
      let end = index + content.length;
      if (single_word && (isWord(text.slice(0, start), "end") || isWord(text.slice(end), "start"))) continue;
      if (lstrip) { while (start > done && SPACE.test(text[start - 1]!)) start--; }
      if (rstrip) { while (end < text.length && SPACE.test(text[end]!)) end++; }
      if (start > done) yield { start: done, text: text.slice(done, start), id: undefined };
      yield { start, text: text.slice(start, end), id };
      done = end;
    }
    if (done < text.length) yield { start: done, text: text.slice(done), id: undefined };
  }

  *#find(text: string): Generator<{ index: number; content: string; token: AddedToken }> {
    const beginnings = this.#beginnings;
    if (beginnings === null) return;
    for (let from = 0;;) {
      beginnings.lastIndex = from;
      const index = beginnings.exec(text)?.index;
      if (index === undefined) return;
      from = index + 1;
      for (const length of this.#lengths.get(text[index]!)!) {
        const content = text.slice(index, index + length);
        const token = content.length === length ? this.#tokens.get(content) : undefined;
        if (token === undefined) continue;
        from = index + length;
        yield { index, content, token };
        break;
      }
    }
  }
}

/** Whether a text has a word's character at that end. */
function isWord(text: string, end: "start" | "end"): boolean {
  const character = end === "start" ? String.fromCodePoint(text.codePointAt(0) ?? 0x20) : text.at(-1) ?? " ";
  const isLow = end === "end" && /[\udc00-\udfff]/.test(character);
  return WORD.test(isLow ? text.slice(-2) : character);
}

/** An added token as files have it: an object with `content`, and flags that may be missing. */
export type TokenEntry = Readonly<Record<string, unknown>>;

/**
 * All added tokens of a tokenizer, each once: those of tokenizer.json, those of `added_tokens_decoder`, and special
 * tokens that only have a name in the settings.
 *
 * @throws {UserError} if two have one id, one has two, or an id is not the one that `tokenizers` would give it
 */
export class AddedTokens {
  readonly #byContent = new Map<string, AddedToken>();
  readonly #byId = new Map<number, string>();
  #largest = -1;

  /** @param vocabulary tokens of the model itself */
  constructor(
    readonly vocabulary: ReadonlyMap<string, number>,
    vocabularyIds: ReadonlyMap<number, string>,
    readonly fail: (problem: string) => UserError,
  ) {
    for (const [id, content] of vocabularyIds) this.#byId.set(id, content);
  }

  /** Adds a token of a file; a later one replaces the flags of an earlier one. @param where of the file, for errors */
  add(entry: TokenEntry, id: unknown, where: string): void {
    const { content } = entry;
    if (typeof content !== "string" || content === "") {
      throw this.fail(`${where} has a token without content (id ${quote(id)})`);
    }
    const name = quote(content);
    if (!isTokenId(id)) throw this.fail(`${where} gives ${name} the id ${quote(id)}: ${ID_RULE}`);
    const known = this.#byContent.get(content)?.id ?? this.vocabulary.get(content);
    if (known !== undefined && known !== id) {
      throw this.fail(`${where} gives ${name} the id ${id}, but it has the id ${known}. Keep one of them`);
    }
    const other = this.#byId.get(id);
    if (other !== undefined && other !== content) {
      throw this.fail(
        `${where} gives ${name} the id ${id}, which ${quote(other)} has. Keep one of them`,
      );
    }
    const next = Math.max(this.vocabulary.size, this.#largest + 1);
    if (known === undefined && id !== next) {
      throw this.fail(
        `${where} gives ${name} the id ${id}, but ids have no gaps and the next one is ${next}, which transformers ` +
          `would give it. Save the tokenizer anew with AutoTokenizer.save_pretrained`,
      );
    }
    for (const flag of FLAGS) {
      if (entry[flag] !== undefined && typeof entry[flag] !== "boolean") {
        throw this.fail(`${where}: ${flag} of ${name} must be true or false`);
      }
    }
    const flag = (key: (typeof FLAGS)[number], usual: boolean) =>
      (entry[key] as boolean | undefined) ?? usual;
    const special = flag("special", false);
    this.#byContent.set(content, {
      id,
      content,
      single_word: flag("single_word", false),
      lstrip: flag("lstrip", false),
      rstrip: flag("rstrip", false),
      normalized: flag("normalized", !special),
      special,
    });
    this.#byId.set(id, content);
    this.#largest = Math.max(this.#largest, id);
    if (this.#byContent.size > MOST_ADDED_TOKENS) {
      throw this.fail(`it has more than ${MOST_ADDED_TOKENS} added tokens`);
    }
  }

  /** Adds a token that the settings name, unless it is there already. @throws {UserError} if the vocabulary lacks it */
  addSpecial(entry: TokenEntry, key: string): number {
    const content = entry.content as string;
    const id = this.idOf(content);
    if (id === undefined) {
      throw this.fail(
        `its ${key} ${quote(content)} is not in the vocabulary. Set "${key}" in tokenizer_config.json to a ` +
          `token of the vocabulary, or add it to added_tokens in tokenizer.json`,
      );
    }
    if (!this.#byContent.has(content)) this.add({ ...entry, special: true }, id, key);
    return id;
  }

  idOf(content: string): number | undefined {
    return this.#byContent.get(content)?.id ?? this.vocabulary.get(content);
  }

  has(id: number): boolean {
    return this.#byId.has(id);
  }

  /** By id. */
  list(): AddedToken[] {
    return [...this.#byContent.values()].sort((a, b) => a.id - b.id);
  }
}
