/** Rows to token ids and labels. */
import { UserError } from "../errors.ts";
import { jinjaTemplate } from "./jinja.ts";
import type { PlacedRow } from "./rows.ts";
import { checkSpelling } from "./spelling.ts";
import {
  builtInTemplate,
  type ChatTemplate,
  checkTurns,
  exchange,
  longAlpaca,
  type Message,
  type Rendering,
  type Segment,
  type SpecialTokens,
  type TemplateName,
} from "./templates.ts";
import type { EncodeOptions, Tokenizer } from "./tokenizer.ts";

/** The label of a token that is not trained on. */
export const NO_TARGET: number = -100;

/** A row as tokens, before it is cut or packed. */
export interface EncodedRow {
  /** Whole text to be learnt, or answers to questions. */
  readonly kind: "text" | "answers";
  readonly ids: Uint32Array<ArrayBuffer>;
  /** The id at the same position, or {@linkcode NO_TARGET}; in the memory of `ids` where all are learnt. */
  readonly labels: Int32Array<ArrayBuffer>;
}

/** A chat template's name in the settings: a built-in one, or `model` for the tokenizer's own. */
export type TemplateChoice = TemplateName | "model";

/** Options of {@linkcode RowEncoder}. */
export interface RowForm {
  /**
   * The template of all rows that are not plain text; null where each kind of row has its own: LongQLoRA's for `input`
   * and `output`, LongAlpaca's for `instruction`, the model's for conversations. Null unless given.
   */
  readonly template?: TemplateChoice | null;
  /** Tokens around plain text: both unless given. */
  readonly frame?: EncodeOptions;
}

/**
 * Whether the template of conversations reads a key, such as `tools`, of a row or a turn: a model's own may, by its
 * source. The built-in ones read none.
 */
export function templateReader(
  { chatTemplate = "", toolTemplate = "" }: Tokenizer,
  choice: TemplateChoice | null,
): (key: string) => boolean {
  const words = new Set(`${chatTemplate} ${toolTemplate}`.match(/[\p{L}\p{N}_]+/gu));
  return (key) => (choice ?? "model") === "model" && words.has(key);
}

/**
 * A chat template for a tokenizer: its own (`model`, and `tool_use` for conversations with tools), or a built-in one.
 * @throws {UserError} if its own is asked for and it has none, or a broken one; or if it cannot spell the template
 */
export function chatTemplateOf(
  tokenizer: Tokenizer,
  choice: TemplateChoice | "tool_use" = "model",
): ChatTemplate {
  const template = templateOf(tokenizer, choice);
  checkSpelling(template, tokenizer);
  return template;
}

function templateOf(tokenizer: Tokenizer, choice: TemplateChoice | "tool_use"): ChatTemplate {
  const specials = specialTokens(tokenizer);
  if (choice !== "model" && choice !== "tool_use") return builtInTemplate(choice, specials);
  const source = tokenizer[choice === "model" ? "chatTemplate" : "toolTemplate"];
  if (source !== undefined) return jinjaTemplate(source, specials);
  throw new UserError(
    "Cannot render conversations: the model's tokenizer files have no chat_template, or none named default. " +
      "Set chat_template to llama-2, llama-3, mistral, vicuna or no",
    { kind: "usage" },
  );
}

function specialTokens(tokenizer: Tokenizer): SpecialTokens {
  return {
    bos: tokenizer.bosId === undefined ? "" : tokenizer.tokenText(tokenizer.bosId),
    eos: tokenizer.tokenText(tokenizer.eosId),
    named: tokenizer.namedTokens,
  };
}

/**
 * Token ids of a conversation up to where the assistant's next answer begins.
 * @throws {UserError} if the template refuses the conversation
 */
export function encodePrompt(
  tokenizer: Tokenizer,
  template: ChatTemplate,
  messages: readonly Message[],
  rendering?: Rendering,
): number[] {
  const segments = template.prompt(messages, rendering);
  const { ids } = template.isSplit ? encodeEach(tokenizer, segments) : encodeWhole(tokenizer, segments);
  return [...(template.bos ? tokenizer.lackingBefore(ids) : []), ...ids];
}

/**
 * Tokens that end an answer of a template: the first special token behind one's text.
 * @returns none where the template ends answers with ordinary text, or not at all
 */
export function answerEnds(tokenizer: Tokenizer, template: ChatTemplate): number[] {
  const special = new Set(tokenizer.addedTokens().filter(({ special }) => special).map(({ id }) => id));
  const answer = template.render(exchange("question", "answer")).find(({ isTarget }) => isTarget);
  const id = tokenizer.encode(answer?.text ?? "", { bos: false }).find((id) => special.has(id));
  return id === undefined ? [] : [id];
}

/** Encodes rows with one tokenizer in one form. */
export class RowEncoder {
  readonly #tokenizer: Tokenizer;
  readonly #frame: EncodeOptions;
  readonly #specials: SpecialTokens;
  readonly #templates = new Map<TemplateChoice | "tool_use", ChatTemplate>();
  readonly #chosen: ChatTemplate | undefined;

  /**
   * @throws {UserError} if the model's template is asked for and it has none, or a broken one; or if the tokenizer cannot
   * spell the template
   */
  constructor(tokenizer: Tokenizer, { template = null, frame = { bos: true, eos: true } }: RowForm = {}) {
    this.#tokenizer = tokenizer;
    this.#frame = frame;
    this.#specials = specialTokens(tokenizer);
    this.#chosen = template === null ? undefined : this.#template(template);
  }

  /** @throws {UserError} naming the row if it cannot be used */
  encode({ row, where }: PlacedRow): EncodedRow {
    const tokenizer = this.#tokenizer;
    switch (row.kind) {
      case "text": {
        const ids = row.text.trim() === "" ? [] : tokenizer.encode(row.text, this.#frame);
        return textRow(Uint32Array.from(ids));
      }
      case "answer":
        return this.#encodeChat(row.messages, this.#chosen ?? this.#template("longqlora-vicuna"), { where });
      case "instruction": {
        const { instruction, input, output, before = [] } = row.values;
        if (!this.#chosen) return this.#encodeSegments(longAlpaca(row.values, this.#specials), { bos: true });
        const question = input === "" ? instruction : `${instruction}\n${input}`;
        return this.#encodeChat([...before, ...exchange(question, output)], this.#chosen, { where });
      }
      case "completion": {
        const { prompt, completion } = row;
        if (this.#chosen) return this.#encodeChat(exchange(prompt, completion), this.#chosen, { where });
        const { eos } = this.#specials;
        // As TRL: nothing is put between the two, and the end of text is put once.
        return this.#encodeSegments([
          { text: prompt, isTarget: false },
          { text: completion.endsWith(eos) ? completion : completion + eos, isTarget: true },
        ], { bos: true });
      }
      case "chat": {
        const template = this.#chosen ?? this.#template("model");
        // As transformers chooses.
        const isForTools = template.name === "model" && row.tools &&
          this.#tokenizer.toolTemplate !== undefined;
        const chosen = isForTools ? this.#template("tool_use") : template;
        return this.#encodeChat(checkTurns(row.messages, where), chosen, { where, tools: row.tools });
      }
    }
  }

  #encodeChat(messages: readonly Message[], template: ChatTemplate, rendering: Rendering): EncodedRow {
    return this.#encodeSegments(template.render(messages, rendering), template);
  }

  #encodeSegments(
    segments: readonly Segment[],
    { bos, isSplit = false }: Pick<ChatTemplate, "bos" | "isSplit">,
  ): EncodedRow {
    const tokenizer = this.#tokenizer;
    const { ids, at } = isSplit ? encodeEach(tokenizer, segments) : encodeWhole(tokenizer, segments);
    const before = bos ? tokenizer.lackingBefore(ids) : [];
    const first = before.length;
    const all = new Uint32Array(first + ids.length);
    all.set(before);
    all.set(ids, first);
    const labels = new Int32Array(all.length).fill(NO_TARGET);
    segments.forEach(({ isTarget }, i) => {
      if (!isTarget) return;
      for (let t = first + at[i]!; t < first + at[i + 1]!; t++) labels[t] = all[t]!;
    });
    return { kind: "answers", ids: all, labels };
  }

  #template(choice: TemplateChoice | "tool_use"): ChatTemplate {
    const known = this.#templates.get(choice);
    if (known) return known;
    const template = chatTemplateOf(this.#tokenizer, choice);
    this.#templates.set(choice, template);
    return template;
  }
}

/** A text of which every token is learnt. */
export function textRow(ids: Uint32Array<ArrayBuffer>): EncodedRow {
  return { kind: "text", ids, labels: new Int32Array(ids.buffer, ids.byteOffset, ids.length) };
}

/** Ids of the segments as one text, and where each begins; the last number is the count of ids. */
function encodeWhole(tokenizer: Tokenizer, segments: readonly Segment[]): { ids: number[]; at: number[] } {
  const cuts: number[] = [];
  let length = 0;
  for (const { text } of segments) {
    cuts.push(length);
    length += text.length;
  }
  const { ids, at } = tokenizer.encodeCut(segments.map(({ text }) => text).join(""), cuts);
  return { ids, at: [...at, ids.length] };
}

function encodeEach(tokenizer: Tokenizer, segments: readonly Segment[]): { ids: number[]; at: number[] } {
  const pieces = segments.map(({ text }) => tokenizer.encode(text, { bos: false, eos: false }));
  const at = [0];
  for (const { length } of pieces) at.push(at.at(-1)! + length);
  return { ids: pieces.flat(), at };
}
