import { commonPrefix } from "./common_prefix.ts";
import { causeText, quote } from "../text.ts";
import { BPE, Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { UserError } from "../errors.ts";
import { AddedTokenFinder, AddedTokens, type TokenEntry } from "./added_tokens.ts";
import { framesOf, type TextFrame } from "./text_frame.ts";
import { readTokenizerFiles } from "./tokenizer_files.ts";
import {
  isRecord,
  readModel,
  readSteps,
  type TokenizerConfig,
  type TokenizerJson,
  type TokenizerModel,
  withPrefixSpace,
} from "./tokenizer_json.ts";

/** Which special tokens {@linkcode Tokenizer.encode} puts around a text. */
export interface EncodeOptions {
  /** Begin with what this model's texts begin with, unless the text itself begins with it. */
  readonly bos: boolean;
  /** End with the end-of-text token, unless the text itself ends with it. */
  readonly eos: boolean;
}

/** SentencePiece's mark for a space, which it also puts before a text. */
const SPACE_MARK = "\u2581";

/** Placeholder for characters that a BPE vocabulary without an unknown token lacks: its reader would leave them out. */
const LACKING = "\0lacking";

/** The settings that name one special token, as transformers has them. */
const SPECIAL_KEYS = [
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
] as const;

/**
 * The tokenizer of a model folder: text to token ids and back, as transformers' fast tokenizers do it.
 *
 * Special tokens are added here and only on request, never by the file's post-processor. A special token written out
 * in a text (`</s>`) becomes that token. `@huggingface/tokenizers` normalises, cuts and merges, and is used nowhere else.
 */
export class Tokenizer {
  /** The beginning-of-text token; undefined where the model has none, as Qwen2. */
  readonly bosId: number | undefined;
  /** The end-of-text token. */
  readonly eosId: number;
  /** The unknown token, where the model has one. */
  readonly unkId: number | undefined;
  /** The padding token, else the unknown token, else the end-of-text token. */
  readonly padId: number;
  /**
   * Tokens around this model's texts, by its own tokenizer.
   * @internal
   */
  readonly frame: TextFrame;
  /** One more than the largest id, special tokens included. */
  readonly vocabSize: number;
  /** The model's own chat template in Jinja, where its files have one. */
  readonly chatTemplate: string | undefined;
  /** The one among its named templates that conversations with tools are written by, where there is one. */
  readonly toolTemplate: string | undefined;
  /** Special tokens by the names that chat templates know them by. */
  readonly namedTokens: Readonly<Record<string, string>>;
  /** The parsed files, so that a worker can make it again. */
  readonly files: readonly [TokenizerJson, TokenizerConfig, string];
  /**
   * The tables of its model.
   * @internal
   */
  readonly model: TokenizerModel;
  readonly #inner: HubTokenizer;
  readonly #added: AddedTokens;
  readonly #finder: AddedTokenFinder;
  /** Finder of tokens that stand in the normalised text; null where there are none. */
  readonly #normalizedFinder: AddedTokenFinder | null;
  readonly #lines: LineRule | null;
  readonly #fail: (problem: string) => UserError;

  /** Wraps parsed files; {@linkcode Tokenizer.load} reads them. `label` names the tokenizer in errors. */
  constructor(given: TokenizerJson, config: TokenizerConfig, label = "tokenizer.json") {
    const json = withPrefixSpace(given, config);
    this.files = [json, config, label];
    const fail = (problem: string) => new UserError(`Cannot use the tokenizer ${label}: ${problem}`);
    this.#fail = fail;
    this.model = readModel(json, fail);
    const { ids, tokens } = this.model;
    const steps = readSteps(json, fail);
    this.#added = new AddedTokens(ids, tokens, fail);
    addListed(this.#added, json, config, fail);
    const named = new Map<string, number>();
    for (const [key, entry] of specialEntries(config, fail)) {
      named.set(key, this.#added.addSpecial(entry, key));
    }
    const added = this.#added.list();
    try {
      this.#inner = new HubTokenizer({
        added_tokens: added,
        normalizer: steps.normalizer,
        pre_tokenizer: steps.preTokenizer,
        post_processor: null,
        decoder: steps.decoder,
        model: this.model.type === "BPE" && this.model.unkId === undefined
          ? { ...this.model.raw, unk_token: LACKING }
          : this.model.raw,
      }, {});
      // The model itself does not know tokens that are added to it.
      for (const { content } of added) {
        if (!ids.has(content)) this.#inner.model!.tokens_to_ids.delete(content);
      }
      // With special tokens split as any text, they stand only where they are put.
      const found = config.split_special_tokens === true ? added.filter(({ special }) => !special) : added;
      this.#finder = new AddedTokenFinder(found.filter(({ normalized }) => !normalized));
      const normalized = found.filter((token) => token.normalized);
      this.#normalizedFinder = normalized.length === 0 ? null : new AddedTokenFinder(
        normalized,
        (content) => this.#inner.normalizer?.normalize(content) ?? content,
      );
    } catch (cause) {
      // What its reader does not expect it does not name.
      const problem = causeText(
        cause,
        "one of its parts does not have the form that Hugging Face's tokenizers write",
      );
      throw new UserError(`Cannot use the tokenizer ${label}: ${problem}`, { cause });
    }
    const usual = (key: string, contents: readonly string[]) =>
      config[key] === undefined
        ? contents.map((content) => this.#added.idOf(content)).find((id) => id !== undefined)
        : undefined;
    const required = (key: string, id: number | undefined): number => {
      if (id !== undefined) return id;
      throw fail(`it has no ${key}. Set "${key}" in tokenizer_config.json to a token of its vocabulary`);
    };
    this.eosId = required(
      "eos_token",
      named.get("eos_token") ?? usual("eos_token", ["</s>", "<|end_of_text|>"]),
    );
    const bosId = named.get("bos_token") ?? usual("bos_token", ["<s>", "<|begin_of_text|>"]);
    const bosEos = { bos: () => required("bos_token", bosId), eos: this.eosId };
    this.frame = framesOf(json.post_processor, config, bosEos, this.#added, fail);
    const [first, ...more] = this.frame.before;
    this.bosId = bosId ?? (config.bos_token === undefined && more.length === 0 ? first : undefined);
    this.unkId = named.get("unk_token") ?? this.model.unkId;
    this.padId = named.get("pad_token") ?? this.unkId ?? this.eosId;
    let largest = added.at(-1)?.id ?? 0;
    for (const id of tokens.keys()) largest = Math.max(largest, id);
    this.vocabSize = largest + 1;
    this.#lines = lineRule(this.model, steps.normalizer, json.pre_tokenizer);
    this.chatTemplate = chatTemplate(config, "default", fail);
    this.toolTemplate = Array.isArray(config.chat_template)
      ? chatTemplate(config, "tool_use", fail)
      : undefined;
    this.namedTokens = Object.fromEntries(
      SPECIAL_KEYS.flatMap((key) => named.has(key) ? [[key, this.tokenText(named.get(key)!)]] : []),
    );
  }

  /**
   * Reads a model's tokenizer files; an adapter's own ones, where its folder has some, in their place
   * ({@linkcode readTokenizerFiles}).
   *
   * @throws {UserError} if there is no usable `tokenizer.json`, or it lacks a special token that the settings name
   */
  static async load(folder: string, adapter?: string): Promise<Tokenizer> {
    return new Tokenizer(...await readTokenizerFiles(folder, adapter));
  }

  /** Token ids of a text: as a prompt, with what this model's texts begin with, unless other special tokens are asked for. */
  encode(text: string, { bos = true, eos = false }: Partial<EncodeOptions> = {}): number[] {
    const { ids } = this.encodeCut(text, []);
    const before = bos ? this.lackingBefore(ids) : [];
    return [...before, ...ids, ...(eos ? this.#lackingAfter(ids) : [])];
  }

  /** Tokens that this model's texts begin with, unless these ids do. */
  lackingBefore(ids: readonly number[]): readonly number[] {
    const { before } = this.frame;
    return before.every((id, i) => ids[i] === id) ? [] : before;
  }

  /** Tokens that this model's texts end with, and the end-of-text token, unless these ids end so. */
  #lackingAfter(ids: readonly number[]): readonly number[] {
    const { after } = this.frame;
    const end = after.at(-1) === this.eosId ? after : [...after, this.eosId];
    return end.every((id, i) => ids[ids.length - end.length + i] === id) ? [] : end;
  }

  /** The text of one token as it stands in the vocabulary. */
  tokenText(id: number): string {
    return this.#inner.id_to_token(id)!;
  }

  /**
   * Token ids of a text, with no special token put around it, and for each position in the text the index of the
   * first token that holds anything of what follows it: a token that spans a position belongs to its right side.
   *
   * @param cuts ascending positions in `text`, in UTF-16 units
   * @throws {UserError} if the text has what the vocabulary lacks, and there is no unknown token
   */
  encodeCut(text: string, cuts: readonly number[]): { ids: number[]; at: number[] } {
    const ids: number[] = [];
    const at: number[] = [];
    for (const { start, text: section, id } of this.#finder.split(text)) {
      const encoded = id === undefined ? this.#encodeSection(section, start === 0) : [id];
      while (at.length < cuts.length && cuts[at.length]! < start + section.length) {
        const inside = cuts[at.length]! - start;
        const before = inside <= 0 || id !== undefined
          ? []
          : this.#encodeSection(section.slice(0, inside), start === 0);
        at.push(Math.max(at.at(-1) ?? 0, ids.length + commonPrefix(before, encoded)));
      }
      for (const each of encoded) ids.push(each);
    }
    while (at.length < cuts.length) at.push(ids.length);
    return { ids, at };
  }

  /**
   * The text of token ids, with no clean-up of spaces; of no ids, "".
   * @param options.skipSpecial leave special tokens out; false unless given, as in transformers
   */
  decode(ids: ArrayLike<number>, { skipSpecial = false }: { readonly skipSpecial?: boolean } = {}): string {
    if (ids.length === 0) return "";
    const options = { skip_special_tokens: skipSpecial, clean_up_tokenization_spaces: false };
    // Ids between those of the vocabulary have no text.
    const known = Array.from(ids).filter((id) => this.#added.has(id));
    return known.length === 0 ? "" : this.#inner.decode(known, options);
  }

  /** The id of one token, or undefined if the vocabulary lacks it. */
  tokenId(token: string): number | undefined {
    return this.#added.idOf(token);
  }

  /**
   * Tokens that are found whole in a text, by id.
   * @internal
   */
  addedTokens(): ReturnType<AddedTokens["list"]> {
    return this.#added.list();
  }

  /** Whether each token of a BPE model is what merging its characters makes; those that are added count as made. */
  isMadeByMerges(): boolean {
    const { model } = this.#inner;
    if (!(model instanceof BPE)) return false;
    const added = new Set(this.#added.list().map(({ content }) => content));
    return this.model.ids.keys().every((token) => added.has(token) || model.bpe(token).length <= 1);
  }

  /** @param isFirst whether no added token stands before it: some tokenizers treat the beginning of a text differently */
  #encodeSection(text: string, isFirst: boolean): number[] {
    const lines = this.#lines;
    if (!lines || !text.includes("\n") || text.startsWith("\n")) return this.#encodePlain(text, isFirst);
    const [first = "", ...rest] = text.split(/(?=\n)/);
    const ids = this.#encodePlain(first, isFirst);
    for (const line of rest) {
      // A line begins with its newline, and loses the mark put before it.
      const piece = this.#encodePlain(line, true);
      // A merge would have to span the newline for this to fail; lineRule has excluded that.
      if (piece[0] !== lines.spaceId) return this.#encodePlain(text, isFirst);
      for (let i = 1; i < piece.length; i++) ids.push(piece[i]!);
    }
    return ids;
  }

  #encodePlain(text: string, isFirst: boolean): number[] {
    const ids: number[] = [];
    if (text === "") return ids;
    try {
      const normal = this.#inner.normalizer?.normalize(text) ?? text;
      if (this.#normalizedFinder === null) this.#encodePieces(normal, isFirst, ids);
      else {
        for (const { start, text: piece, id } of this.#normalizedFinder.split(normal)) {
          if (id !== undefined) ids.push(id);
          else this.#encodePieces(piece, isFirst && start === 0, ids);
        }
      }
    } catch (cause) {
      if (cause instanceof UserError) throw cause;
      throw this.#fail(
        `a text of ${text.length} characters cannot be cut into tokens (${
          causeText(cause, "a part of tokenizer.json does not fit it")
        })`,
      );
    }
    return ids;
  }

  #encodePieces(text: string, isFirst: boolean, into: number[]): void {
    const { pre_tokenizer, model } = this.#inner;
    const pieces = pre_tokenizer?.pre_tokenize(text, { section_index: isFirst ? 0 : 1 }) ?? [text];
    // The library joins unknown tokens across pieces, too.
    const groups = model!.fuse_unk ? pieces.map((piece) => [piece]) : [pieces];
    for (const group of groups) {
      for (const token of model!._call(group)) {
        this.#pushId(token === LACKING ? this.#firstLacking(group.join("")) : token, into);
      }
    }
  }

  #firstLacking(text: string): string {
    return [...text].find((char) => !this.model.ids.has(char)) ?? text;
  }

  #pushId(token: string, into: number[]): void {
    const { ids, type, byteFallback, unkId } = this.model;
    const id = ids.get(token);
    if (id !== undefined) return void into.push(id);
    const bytes = type === "Unigram" && byteFallback
      ? Array.from(new TextEncoder().encode(token), byteToken)
      : [];
    const byteIds = bytes.map((byte) => ids.get(byte)).filter((id) => id !== undefined);
    if (bytes.length > 0 && byteIds.length === bytes.length) into.push(...byteIds);
    else if (unkId !== undefined) into.push(unkId);
    else throw this.#fail(`its vocabulary lacks ${quote(token)}, and it has no unk_token for such`);
  }
}

/** A byte as SentencePiece vocabularies have it. */
export function byteToken(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
}

/** Adds the tokens of tokenizer.json, then those of `added_tokens_decoder`, as transformers does. */
function addListed(
  added: AddedTokens,
  { added_tokens = [] }: TokenizerJson,
  { added_tokens_decoder: decoder = {} }: TokenizerConfig,
  fail: (problem: string) => UserError,
): void {
  if (!Array.isArray(added_tokens ?? [])) throw fail("its added_tokens must be a list");
  for (const entry of added_tokens as unknown[] ?? []) {
    if (!isRecord(entry)) throw fail(`its added_tokens have ${quote(entry)}, which is no token`);
    added.add(entry, entry.id, "tokenizer.json");
  }
  // Without a decoder those of added_tokens.json are in its place.
  const where = "added_tokens_decoder (or added_tokens.json)";
  if (!isRecord(decoder)) throw fail("added_tokens_decoder of tokenizer_config.json must be an object");
  const entries = Object.entries(decoder).map(([id, entry]) =>
    [/^\d+$/.test(id) ? Number(id) : id, entry] as const
  );
  for (const [id, entry] of entries.sort(([a], [b]) => Number(a) - Number(b))) {
    if (!isRecord(entry)) throw fail(`${where} has ${quote(entry)} at id ${id}, which is no token`);
    added.add(entry, id, where);
  }
}

/** The special tokens that the settings name. */
function* specialEntries(
  config: TokenizerConfig,
  fail: (problem: string) => UserError,
): Generator<[key: string, entry: TokenEntry]> {
  const entryOf = (key: string, value: unknown): TokenEntry => {
    if (typeof value === "string" && value !== "") return { content: value };
    if (isRecord(value) && typeof value.content === "string" && value.content !== "") return value;
    throw fail(`its ${key} must be a token's text, or an object with its content, got ${quote(value)}`);
  };
  for (const key of SPECIAL_KEYS) {
    const value = config[key] ?? null;
    // An empty text is none, as transformers has it.
    if (value !== null && value !== "") yield [key, entryOf(key, value)];
  }
  for (const key of ["additional_special_tokens", "extra_special_tokens"]) {
    const value = config[key] ?? [];
    if (!Array.isArray(value) && !isRecord(value)) {
      throw fail(`its ${key} must be a list, got ${quote(value)}`);
    }
    const isNamed = !Array.isArray(value);
    for (const [name, each] of Object.entries(value)) {
      yield [isNamed ? `${key}.${name}` : key, entryOf(key, each)];
    }
  }
}

/** A rule by which a text may be encoded line by line with the same result. */
interface LineRule {
  /** The mark that the tokenizer puts before a text. */
  readonly spaceId: number;
}

/**
 * Tokenizers of Llama-2's kind do not cut a text into words, so the time grows faster than its length.
 * Cutting before newlines is exact if no merge contains a newline; returns null where that is not certain.
 */
function lineRule(
  { type, ids, merges, byteFallback }: TokenizerModel,
  normalizer: TokenizerConfig | null,
  pre: unknown,
): LineRule | null {
  const spaceId = ids.get(SPACE_MARK);
  const list: readonly unknown[] = Array.isArray(normalizer?.normalizers) ? normalizer.normalizers : [];
  const steps = list.map((step) => isRecord(step) ? step.type : undefined).join();
  const isPrepended = !pre && steps === "Prepend,Replace";
  const isMetaspace = !normalizer && isRecord(pre) && pre.type === "Metaspace" && pre.split === false &&
    (pre.prepend_scheme === "first" || pre.prepend_scheme === "always");
  const exact = type === "BPE" && (isPrepended || isMetaspace) && spaceId !== undefined &&
    (byteFallback || ids.has("\n")) && !merges.some(([a, b]) => a.includes("\n") || b.includes("\n"));
  return exact ? { spaceId } : null;
}

/** `chat_template` is the template, or a list of named ones. */
function chatTemplate(
  { chat_template: value }: TokenizerConfig,
  wanted: "default" | "tool_use",
  fail: (problem: string) => UserError,
): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === "string") return value;
  const named = Array.isArray(value) && value.every(isRecord) ? value : undefined;
  const template = named?.find(({ name }) => name === wanted)?.template;
  if (typeof template === "string") return template;
  if (named === undefined) throw fail(`its chat_template must be a text, got ${quote(value)}`);
  return undefined;
}
