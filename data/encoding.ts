/** Text files as people's tools write them: UTF-8, or UTF-16 where a byte order mark says so. */
import { UserError } from "../errors.ts";

/** Byte order marks, the longer ones first: UTF-32's begins as UTF-16's does. */
const MARKS = [
  { bytes: [0xff, 0xfe, 0x00, 0x00], encoding: "utf-32" },
  { bytes: [0x00, 0x00, 0xfe, 0xff], encoding: "utf-32" },
  { bytes: [0xef, 0xbb, 0xbf], encoding: "utf-8" },
  { bytes: [0xff, 0xfe], encoding: "utf-16le" },
  { bytes: [0xfe, 0xff], encoding: "utf-16be" },
] as const;

/** Bytes of a file's beginning in which zeros are counted, and the share of them that no text has. */
const LOOKED_AT = 1024;
const ZERO_SHARE = 0.2;

/** Decodes a file chunk by chunk, and says where it is no text. */
export class TextReader {
  #decoder: TextDecoder | undefined;
  /** Bytes that wait for the rest of a character, or of a byte order mark. */
  #held = new Uint8Array();
  #line = 1;
  /** Bytes before the next one: in its line, and in the file. */
  #column = 0;
  #offset = 0;

  /** @param path for messages only */
  constructor(readonly path: string) {}

  /**
   * The text of the next bytes of the file, but for a character that they leave unfinished.
   * @throws {UserError} with the line and the byte that is not of the encoding
   */
  decode(bytes: Uint8Array): string {
    return this.#decode(bytes, false);
  }

  /** Decodes what is left at the end of the file. @throws {UserError} as {@linkcode TextReader.decode} */
  finish(): string {
    return this.#decode(new Uint8Array(), true);
  }

  #decode(bytes: Uint8Array, isLast: boolean): string {
    let all = this.#held.length === 0 ? bytes : joined(this.#held, bytes);
    if (!this.#decoder) {
      if (all.length < 4 && !isLast) {
        this.#held = all.slice();
        return "";
      }
      const mark = this.#choose(all);
      all = all.subarray(mark);
      this.#offset = mark;
    }
    const end = all.length - (isLast ? 0 : this.#unfinished(all));
    this.#held = all.slice(end);
    const whole = all.subarray(0, end);
    try {
      const text = this.#decoder!.decode(whole);
      this.#pass(whole, text);
      return text;
    } catch (cause) {
      if (!(cause instanceof TypeError)) throw cause;
      throw this.#error(whole, cause);
    }
  }

  /** @returns the length of the byte order mark */
  #choose(bytes: Uint8Array): number {
    const mark = MARKS.find(({ bytes: mark }) => mark.every((byte, i) => bytes[i] === byte));
    const encoding = mark?.encoding ?? "utf-8";
    if (encoding === "utf-32") {
      throw new UserError(`Cannot read "${this.path}": it is in UTF-32. Save it as UTF-8`);
    }
    const start = bytes.subarray(0, LOOKED_AT);
    if (!mark && start.filter((byte) => byte === 0).length > ZERO_SHARE * start.length) {
      throw new UserError(
        `Cannot read "${this.path}": byte ${
          start.indexOf(0)
        } and many more are zero, as in UTF-16 without a byte ` +
          "order mark, or in a file that is no text. Save it as UTF-8",
      );
    }
    this.#decoder = new TextDecoder(encoding, { fatal: true, ignoreBOM: true });
    return mark?.bytes.length ?? 0;
  }

  /** Bytes at the end that begin a character. */
  #unfinished(bytes: Uint8Array): number {
    const { length } = bytes;
    if (this.#decoder!.encoding === "utf-8") {
      for (let count = 1; count <= Math.min(3, length); count++) {
        const byte = bytes[length - count]!;
        if ((byte & 0xc0) === 0x80) continue;
        return (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1) > count ? count : 0;
      }
      return 0;
    }
    const odd = length % 2;
    const high = bytes[length - odd - (this.#decoder!.encoding === "utf-16le" ? 1 : 2)];
    return high !== undefined && high >= 0xd8 && high < 0xdc ? odd + 2 : odd;
  }

  /** Counts lines and bytes. */
  #pass(bytes: Uint8Array, text: string): void {
    let last = -1;
    for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", last + 1)) {
      this.#line++;
      last = at;
    }
    const rest = this.#decoder!.encoding === "utf-8"
      ? bytes.length - 1 - bytes.lastIndexOf(0x0a)
      : 2 * (text.length - 1 - last);
    this.#column = last < 0 ? this.#column + bytes.length : rest;
    this.#offset += bytes.length;
  }

  /** @param bytes not all of the encoding */
  #error(bytes: Uint8Array, cause: unknown): UserError {
    const { encoding } = this.#decoder!;
    const decodes = (length: number, stream: boolean) => {
      try {
        new TextDecoder(encoding, { fatal: true, ignoreBOM: true }).decode(bytes.subarray(0, length), {
          stream,
        });
        return true;
      } catch {
        return false;
      }
    };
    let [good, bad] = [0, bytes.length + 1];
    while (bad - good > 1) {
      const middle = (good + bad) >> 1;
      if (decodes(middle, true)) good = middle;
      else bad = middle;
    }
    // The last of these bytes may begin a character that the next one does not go on with.
    while (!decodes(good, false)) good--;
    this.#pass(bytes.subarray(0, good), new TextDecoder(encoding).decode(bytes.subarray(0, good)));
    const hex = bytes[good]!.toString(16).padStart(2, "0");
    return new UserError(
      `Cannot read ${this.path}:${this.#line}: byte ${this.#column + 1} of the line, 0x${hex} (byte ` +
        `${this.#offset} of the file, from 0), is not valid ${encoding.toUpperCase()}. Save the file as UTF-8`,
      { cause },
    );
  }
}

/** A small file's bytes as text. @throws {UserError} as {@linkcode TextReader.decode} */
export function decodeText(bytes: Uint8Array, path: string): string {
  const reader = new TextReader(path);
  return reader.decode(bytes) + reader.finish();
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}
