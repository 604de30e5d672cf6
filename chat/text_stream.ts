/** Text of tokens as they come: whole characters only, and never a part of what ends it. */
import type { Tokenizer } from "../data/tokenizer.ts";

/** Mark that a decoder writes for bytes that are no character (yet). */
export const UNFINISHED = "\ufffd";
/** Tokens behind which an unfinished character is none: no character of UTF-8 has more bytes. */
const MOST_PARTS = 4;

/** Turns the tokens of one answer into text piece by piece. */
export class TextStream {
  readonly #tokenizer: Pick<Tokenizer, "decode">;
  readonly #stops: readonly string[];
  readonly #ids: number[] = [];
  /** Tokens before `#shown` have been written; those from `#context` on are decoded again, for what stands between. */
  #context = 0;
  #shown = 0;
  /** Written by the tokens, and held back since a stop text may begin there. */
  #held = "";
  #isStopped = false;

  /** @param stops texts that end the answer, and are no part of it */
  constructor(tokenizer: Pick<Tokenizer, "decode">, stops: readonly string[] = []) {
    this.#tokenizer = tokenizer;
    this.#stops = stops.filter((stop) => stop !== "");
  }

  /** Whether a stop text came. */
  get isStopped(): boolean {
    return this.#isStopped;
  }

  /** Tokens that it has taken: none after a stop text. */
  get length(): number {
    return this.#ids.length;
  }

  /** The tokens it has taken. */
  get ids(): readonly number[] {
    return this.#ids;
  }

  /**
   * The text that a token would add; U+FFFD where it is a part of a character.
   * @param options.skipSpecial "" for a special token, as in the text; false unless given
   */
  peek(id: number, options: { readonly skipSpecial?: boolean } = {}): string {
    const [before, now] = [this.#ids.slice(this.#context, this.#shown), this.#ids.slice(this.#context)];
    const { length } = this.#tokenizer.decode(before, options);
    return this.#tokenizer.decode([...now, id], options).slice(length);
  }

  /** Takes the next tokens; returns the text that is certain with them. */
  push(ids: readonly number[]): string {
    let text = "";
    for (const id of ids) {
      if (this.#isStopped) break;
      this.#ids.push(id);
      text += this.#pass(this.#fresh(false), false);
    }
    return text;
  }

  /** The rest of the text, after the last token. */
  finish(): string {
    return this.#isStopped ? "" : this.#pass(this.#fresh(true), true);
  }

  /** Text of the tokens that were not shown: none while their last character is unfinished. */
  #fresh(isLast: boolean): string {
    const decode = (end: number) =>
      this.#tokenizer.decode(this.#ids.slice(this.#context, end), { skipSpecial: true });
    const before = decode(this.#shown);
    const now = decode(this.#ids.length);
    const waits = this.#ids.length - this.#shown;
    if (!isLast && now.endsWith(UNFINISHED) && waits < MOST_PARTS) return "";
    // The space between two words depends on the one before, so what gives no text is no context.
    if (now.length > before.length) this.#context = this.#shown;
    this.#shown = this.#ids.length;
    return now.slice(before.length);
  }

  #pass(fresh: string, isLast: boolean): string {
    const text = this.#held + fresh;
    const ends = this.#stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
    if (ends.length > 0) {
      this.#isStopped = true;
      this.#held = "";
      return text.slice(0, Math.min(...ends));
    }
    const kept = isLast ? 0 : Math.max(0, ...this.#stops.map((stop) => overlap(text, stop)));
    this.#held = text.slice(text.length - kept);
    return text.slice(0, text.length - kept);
  }
}

/** Characters at the end of `text` with which `stop` begins. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--) {
    if (stop.startsWith(text.slice(text.length - length))) return length;
  }
  return 0;
}
