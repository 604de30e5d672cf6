/** Whether a tokenizer can write what a template puts around the turns, and the text of the rows. */
import { quoteNames } from "../text.ts";
import { UserError } from "../errors.ts";
import { type ChatTemplate, exchange } from "./templates.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Words that are named. */
const MOST_NAMED = 5;
/** The share of unknown tokens from which they are told, and from which the text is not of this tokenizer. */
const NOTED = 1 / 1000;
const REFUSED = 1 / 2;
/** Marks of templates: ChatML's and Llama-3's kind, and Gemma's. */
const MARK = /<\|[^<>|\s]{1,60}\|>|<(?:start|end)_of_turn>/g;

/**
 * Checks that a tokenizer has the tokens that mark a template's turns, and knows every word that it writes itself.
 * @throws {UserError} naming the tokens or words
 */
export function checkSpelling(template: ChatTemplate, tokenizer: Tokenizer): void {
  const name = template.name === "model" ? "the model's own chat template" : `chat_template ${template.name}`;
  const lacking = (template.marks ?? []).filter((mark) => tokenizer.tokenId(mark) === undefined);
  const words = lacking.length > 0 ? lacking : unknownWords(wordsOf(template), tokenizer);
  if (words.length === 0) return;
  const what = lacking.length > 0
    ? `the tokenizer has no token ${quoteNames(words)}`
    : `the tokenizer does not know ${quoteNames(words.slice(0, MOST_NAMED))}, which the template writes`;
  throw new UserError(
    `Cannot use ${name}: ${what}. ` +
      "Set chat_template to one that the model was trained with, or add the tokens to the model and its tokenizer",
    { kind: "usage" },
  );
}

/** Words that a template writes around a question and an answer; none where it refuses empty ones. */
function wordsOf(template: ChatTemplate): string[] {
  try {
    const text = template.render(exchange("", "")).map((segment) => segment.text).join("");
    return text.match(/\S+/g) ?? [];
  } catch (error) {
    if (error instanceof UserError) return [];
    throw error;
  }
}

/** Words, each once, that the tokenizer can write only as its unknown token. */
export function unknownWords(words: readonly string[], tokenizer: Tokenizer): string[] {
  const { unkId } = tokenizer.model;
  return [...new Set(words)].filter((word) => {
    const { ids } = tokenizer.encodeCut(word, []);
    return unkId !== undefined && ids.includes(unkId) && !word.includes(tokenizer.tokenText(unkId));
  });
}

/** Marks in the model's own template that a row written by it holds, and that are no tokens. */
export function spelledMarks(ids: ArrayLike<number>, tokenizer: Tokenizer): string[] {
  const sources = `${tokenizer.chatTemplate ?? ""}${tokenizer.toolTemplate ?? ""}`;
  const marks = [...new Set(sources.match(MARK))].filter((mark) => tokenizer.tokenId(mark) === undefined);
  if (marks.length === 0) return [];
  const text = tokenizer.decode(ids, { skipSpecial: false });
  return marks.filter((mark) => text.includes(mark));
}

/** Counts tokens, and the unknown ones among them. */
export class UnknownTokens {
  unknown = 0;
  tokens = 0;
  readonly #unkId: number | undefined;

  constructor(readonly tokenizer: Tokenizer) {
    this.#unkId = tokenizer.model.unkId;
  }

  add(ids: ArrayLike<number> & Iterable<number>): void {
    this.tokens += ids.length;
    for (const id of ids) if (id === this.#unkId) this.unknown++;
  }

  /**
   * One line where more than few are unknown.
   * @throws {UserError} where most are
   */
  describe(what: string): string | undefined {
    const { unknown, tokens, tokenizer } = this;
    if (unknown === 0 || unknown < NOTED * tokens) return undefined;
    const share = Number((100 * unknown / tokens).toPrecision(2));
    const count = (value: number) => value.toLocaleString("en-US");
    const found = `${count(unknown)} of ${count(tokens)} tokens of ${what} (${share} %) are ` +
      `"${tokenizer.tokenText(this.#unkId!)}", which stands for what the tokenizer does not know`;
    if (unknown <= REFUSED * tokens) return found;
    throw new UserError(`Cannot use ${what}: ${found}. The tokenizer is not made for such text`);
  }
}
