/** Long contexts of whole sentences, with others put between them at depths that are asked for. */
import type { Tokenizer } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import { formatCount } from "../text.ts";

/** A sentence that is put into a context. */
export interface Needle {
  readonly text: string;
  /** Wanted place: 0 before the first sentence, 100 behind the last, in percent of the context's tokens. */
  readonly depth: number;
}

/** A context that fits, and the prompt around it. */
export interface FittedPrompt {
  /** The prompt as the model reads it. */
  readonly ids: readonly number[];
  /** Place of each needle: percent of the context's tokens before it. */
  readonly depths: readonly number[];
  /** Sentences of the context, needles left out. */
  readonly sentences: number;
}

/** Cuts a text into sentences, each with the space behind it. A blank line ends one, too. */
export function sentencesOf(text: string): string[] {
  return text.match(/\S[^]*?(?:[.!?]["'”’)\]]*\s+|\n[ \t\r]*\n\s*|[。！？]["”’）]*\s*|$)/g) ?? [];
}

/** Sentences one after the other; after the last comes the first again. */
export class Haystack {
  readonly #sentences: readonly string[];
  readonly #counts: readonly number[];
  /** Tokens before each sentence of one round; the last is that of the round. */
  readonly #before: readonly number[];

  private constructor(sentences: readonly string[], counts: readonly number[]) {
    this.#sentences = sentences;
    this.#counts = counts;
    const before = [0];
    for (const count of counts) before.push(before.at(-1)! + count);
    this.#before = before;
  }

  /** @param sentences one or more, each with the space behind it */
  static of(sentences: readonly string[], tokenizer: Pick<Tokenizer, "encode">): Haystack {
    const counts = sentences.map((text) => Math.max(1, tokenizer.encode(text, { bos: false }).length));
    return new Haystack(sentences, counts);
  }

  /** Makes a haystack of the same sentences that begins with another. */
  startingAt(sentence: number): Haystack {
    const turned = <T>(list: readonly T[]) => [...list.slice(sentence), ...list.slice(0, sentence)];
    return new Haystack(turned(this.#sentences), turned(this.#counts));
  }

  /** Sentences of one round. */
  get sentences(): number {
    return this.#sentences.length;
  }

  /** Tokens of all sentences, each counted alone. */
  get tokens(): number {
    return this.#before.at(-1)!;
  }

  /** Tokens of the first sentences, each counted alone. */
  tokensBefore(sentences: number): number {
    const { length } = this.#sentences;
    return Math.floor(sentences / length) * this.tokens + this.#before[sentences % length]!;
  }

  /** Counts the sentences that have at most so many tokens together. */
  sentencesWithin(tokens: number): number {
    if (tokens < 0) return 0;
    const rounds = Math.floor(tokens / this.tokens);
    const rest = tokens - rounds * this.tokens;
    const over = this.#before.findIndex((before) => before > rest);
    return rounds * this.#sentences.length + (over < 0 ? this.#sentences.length : over - 1);
  }

  /** Finds the border between sentences nearest to a depth of the first `sentences`: the sentences before it. */
  borderAt(depth: number, sentences: number): number {
    const wanted = depth / 100 * this.tokensBefore(sentences);
    const lower = Math.min(sentences, this.sentencesWithin(wanted));
    if (lower === sentences) return lower;
    const nearer = wanted - this.tokensBefore(lower) <= this.tokensBefore(lower + 1) - wanted;
    return nearer ? lower : lower + 1;
  }

  /** Joins the sentences from one to before another. */
  text(from: number, to: number): string {
    const { length } = this.#sentences;
    return Array.from({ length: to - from }, (_, i) => this.#sentences[(from + i) % length]!).join("");
  }
}

/** Joins the first sentences of a haystack with needles between them, each at the border nearest to its depth. */
function contextOf(
  haystack: Haystack,
  sentences: number,
  needles: readonly Needle[],
): { text: string; depths: number[] } {
  const placed = needles.map(({ text, depth }) => ({ text, at: haystack.borderAt(depth, sentences) }));
  let text = "";
  let at = 0;
  for (const needle of placed.toSorted((a, b) => a.at - b.at)) {
    text += `${haystack.text(at, needle.at)}${needle.text} `;
    at = needle.at;
  }
  text += haystack.text(at, sentences);
  const all = haystack.tokensBefore(sentences);
  return {
    text: text.trimEnd(),
    depths: placed.map((needle) => all === 0 ? 0 : 100 * haystack.tokensBefore(needle.at) / all),
  };
}

/**
 * Makes the longest prompt of at most `budget` tokens: as many whole sentences as fit, and the needles between them. Tokens are
 * those of the whole prompt as the model reads it, template included.
 *
 * @param encode a context to the prompt that it stands in
 * @throws {UserError} if not even the needles fit
 */
export function fitPrompt(
  haystack: Haystack,
  needles: readonly Needle[],
  budget: number,
  encode: (context: string) => readonly number[],
): FittedPrompt {
  const made = (sentences: number): FittedPrompt => {
    const { text, depths } = contextOf(haystack, sentences, needles);
    return { ids: encode(text), depths, sentences };
  };
  let best = made(0);
  if (best.ids.length > budget) {
    throw new UserError(
      `Cannot fit a prompt into ${
        formatCount(budget)
      } tokens: without any text around what is to be found it has ${
        formatCount(best.ids.length)
      } already. Ask for longer ones`,
      { kind: "usage" },
    );
  }
  // Counted alone, sentences have nearly as many tokens as in a text: guess, read, and guess again from there.
  let tooMany = Infinity;
  for (let tried = best; best.sentences + 1 < tooMany;) {
    const room = budget - tried.ids.length;
    const guess = haystack.sentencesWithin(haystack.tokensBefore(tried.sentences) + room);
    const next = Math.min(tooMany - 1, Math.max(best.sentences + 1, guess));
    tried = made(next);
    if (tried.ids.length <= budget) best = tried;
    else tooMany = next;
  }
  return best;
}
