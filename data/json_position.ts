/** Lists within lists that are followed: what lies deeper is taken for the mistake. */
const DEEPEST = 1000;
const SPACE = /[ \t\n\r]*/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;
const [QUOTE, BACKSLASH, COLON, COMMA, FIRST_PRINTABLE] = [0x22, 0x5c, 0x3a, 0x2c, 0x20];
const [OPEN, CLOSE] = [0x7b, 0x7d];
const SCALAR = /true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;

/**
 * Finds where a text stops being JSON: the index of the first token that cannot stand there, or the text's length if it ends
 * too early. V8's own message names a position only for some mistakes. To be called on text that `JSON.parse` refused.
 */
export function jsonErrorPosition(text: string): number {
  const scan = new Scan(text);
  if (scan.value()) scan.skipSpace();
  return scan.at;
}

/** A key that an object of the text has twice, and where it stands the second time. */
export interface RepeatedKey {
  readonly key: string;
  readonly at: number;
}

/** Depth and size of a JSON text, counted without building its values. */
export interface JsonShape {
  /** Depth of lists and objects within each other. */
  readonly depth: number;
  /** Values: commas and opening brackets. */
  readonly parts: number;
  /** Keys: colons. */
  readonly keys: number;
}

/** Counts brackets, commas and colons outside of strings, up to `mostParts` of them; the text need not be JSON. */
export function jsonShape(text: string, mostParts: number): JsonShape {
  let [open, depth, parts, keys] = [0, 0, 0, 0];
  for (let i = 0; i < text.length && parts <= mostParts; i++) {
    const code = text.charCodeAt(i);
    if (code === QUOTE) i = stringEnd(text, i);
    else if (code === COLON) keys++;
    else if (code === COMMA) parts++;
    // "[" and "{" differ from "]" and "}" by 2, and from each other by 32.
    else if ((code | 0x20) === OPEN) {
      parts++;
      depth = Math.max(depth, ++open);
    } else if ((code | 0x20) === CLOSE) open--;
  }
  return { depth, parts, keys };
}

/**
 * The first key that stands twice in one object: parsers keep the last and say nothing.
 * @param value what the text says, and `keys` how many its {@linkcode jsonShape} has
 */
export function repeatedKey(text: string, value: unknown, keys: number): RepeatedKey | undefined {
  if (keys === countKeys(value)) return undefined;
  const scan = new Scan(text);
  scan.value();
  return scan.repeated;
}

/** Finds the end of the string that begins at `start`; most of a text is in strings, and this leaps over them. */
function stringEnd(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let backslashes = 0;
    while (text.charCodeAt(end - 1 - backslashes) === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return end;
  }
  return text.length;
}

function countKeys(value: unknown): number {
  let count = 0;
  for (const each of everything(value)) {
    if (typeof each === "object" && each !== null && !Array.isArray(each)) count += Object.keys(each).length;
  }
  return count;
}

/** A value and all that is in it. */
function* everything(value: unknown): Generator<unknown> {
  const open = [value];
  while (open.length > 0) {
    const each = open.pop();
    yield each;
    if (typeof each === "object" && each !== null) {
      for (const item of Object.values(each)) open.push(item);
    }
  }
}

/** Escapes of what is a character in pairs only: a pair, or one alone. */
const SURROGATES =
  /\\u[dD][89abAB][0-9a-fA-F]{2}(\\u[dD][c-fC-F][0-9a-fA-F]{2})?|\\u[dD][c-fC-F][0-9a-fA-F]{2}/g;

/**
 * Finds half of a surrogate pair in a text of JSON; undefined where there is none.
 * @param value what the text says
 */
export function halfCharacter(text: string, value: unknown): number | undefined {
  if (text.search(SURROGATES) < 0) return undefined;
  for (const each of everything(value)) {
    if (typeof each !== "string" || each.isWellFormed()) continue;
    return [...text.matchAll(SURROGATES)].find(([, second]) => second === undefined)?.index ?? 0;
  }
  return undefined;
}

/** A walk over the text; each method returns whether it went well and leaves `at` at the first mistake otherwise. */
class Scan {
  at = 0;
  repeated: RepeatedKey | undefined;
  #depth = 0;
  constructor(readonly text: string) {}

  skipSpace(): boolean {
    return this.#match(SPACE);
  }

  value(): boolean {
    this.skipSpace();
    switch (this.text[this.at]) {
      case "{":
        return this.#object();
      case "[":
        return this.#list("]", () => this.value());
      case '"':
        return this.#string();
      default:
        return this.#match(SCALAR);
    }
  }

  #object(): boolean {
    const keys = new Set<string>();
    return this.#list("}", () => {
      const at = this.at;
      if (!this.#string()) return false;
      const key: string = JSON.parse(this.text.slice(at, this.at));
      if (keys.has(key)) this.repeated ??= { key, at };
      keys.add(key);
      return this.#char(":") && this.value();
    });
  }

  /** Items between an opening character, already seen, and `close`, with commas between them. */
  #list(close: string, item: () => boolean): boolean {
    if (this.#depth === DEEPEST) return false;
    this.#depth++;
    this.at++;
    if (!this.#char(close)) {
      do {
        this.skipSpace();
        if (!item()) return false;
      } while (this.#char(","));
      if (!this.#char(close)) return false;
    }
    this.#depth--;
    return true;
  }

  /** A loop and no pattern: patterns try a string that has no end in every way, or run out of memory on long ones. */
  #string(): boolean {
    if (this.text[this.at] !== '"') return false;
    for (this.at++; this.at < this.text.length;) {
      const code = this.text.charCodeAt(this.at);
      if (code === BACKSLASH) {
        if (!this.#match(ESCAPE)) return false;
      } else if (code < FIRST_PRINTABLE) return false;
      else {
        this.at++;
        if (code === QUOTE) return true;
      }
    }
    return false;
  }

  #char(char: string): boolean {
    this.skipSpace();
    if (this.text[this.at] !== char) return false;
    this.at++;
    return true;
  }

  #match(pattern: RegExp): boolean {
    pattern.lastIndex = this.at;
    if (!pattern.test(this.text)) return false;
    this.at = pattern.lastIndex;
    return true;
  }
}
