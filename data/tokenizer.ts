import { Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { UserError } from "../errors.ts";

/** Which special tokens {@linkcode Tokenizer.encode} puts around a text. */
export interface EncodeOptions {
  /** Begin with the beginning-of-text token if this model's texts do, unless the text itself begins with it. */
  readonly bos: boolean;
  /** End with the end-of-text token. */
  readonly eos: boolean;
}

/** A token that is found in a text before anything else is done to it. */
interface AddedToken {
  readonly content: string;
  readonly lstrip?: boolean;
  readonly rstrip?: boolean;
  readonly single_word?: boolean;
  readonly normalized?: boolean;
  readonly special?: boolean;
}

/** The parts of tokenizer.json that are read here. */
export interface TokenizerJson {
  readonly added_tokens?: readonly AddedToken[];
  readonly normalizer?:
    | { readonly type: string; readonly normalizers?: readonly { readonly type: string }[] }
    | null;
  readonly pre_tokenizer?:
    | { readonly type: string; readonly split?: boolean; readonly prepend_scheme?: string }
    | null;
  readonly post_processor?: PostProcessor | null;
  readonly model: {
    readonly type?: string;
    readonly byte_fallback?: boolean;
    readonly vocab: Readonly<Record<string, number>>;
    readonly merges?: readonly (string | readonly [string, string])[];
  };
}

/** What puts special tokens around a text. */
interface PostProcessor {
  readonly type: string;
  /** Of a `Sequence`. */
  readonly processors?: readonly PostProcessor[];
  /** Of a `TemplateProcessing`: what a text becomes. */
  readonly single?: readonly (Readonly<Record<string, unknown>>)[];
}

/** The parts of tokenizer_config.json in use; a special token is its text or an object with `content`. */
export type TokenizerConfig = Readonly<Record<string, unknown>>;

/** What SentencePiece models write for a space, and put before a text. */
const SPACE_MARK = "\u2581";

/**
 * The tokenizer of a model folder: text to token ids and back.
 *
 * Special tokens are added here and only on request, never by the file's post-processor. A special token written out
 * in a text (`</s>`) becomes that token, as in Hugging Face's tokenizers. `@huggingface/tokenizers` does the work and
 * is used nowhere else.
 */
export class Tokenizer {
  /** The beginning-of-text token; undefined where the model has none, as Qwen2. */
  readonly bosId: number | undefined;
  /** Whether texts of this model begin with it: GPT-NeoX' do not, though it has one. */
  readonly addsBos: boolean;
  readonly eosId: number;
  /** The padding token, else the unknown token, else the end-of-text token. */
  readonly padId: number;
  /** One more than the largest id, special tokens included. */
  readonly vocabSize: number;
  /** The model's own chat template in Jinja, where tokenizer_config.json has one. */
  readonly chatTemplate: string | undefined;
  /** What it was made from, so that a worker can make it again. */
  readonly files: readonly [TokenizerJson, TokenizerConfig, string];
  readonly #inner: HubTokenizer;
  readonly #lines: LineRule | null;
  readonly #added: RegExp | null;

  /** Wraps parsed files; {@linkcode Tokenizer.load} reads them. `label` names the tokenizer in errors. */
  constructor(json: TokenizerJson, config: TokenizerConfig, label = "tokenizer.json") {
    this.files = [json, config, label];
    try {
      this.#inner = new HubTokenizer(json, config);
    } catch (cause) {
      throw new UserError(`Cannot use the tokenizer ${label}: ${describe(cause)}`, { cause });
    }
    const named = (key: string) => specialId(this.#inner, config, key);
    const find = (key: string, usual: readonly string[]) =>
      named(key) ?? usual.map((token) => this.#inner.token_to_id(token)).find((id) => id !== undefined);
    const required = (key: string, id: number | undefined): number => {
      if (id !== undefined) return id;
      throw new UserError(
        `Cannot use the tokenizer ${label}: it has no ${key}. Set "${key}" in tokenizer_config.json to a token of its vocabulary`,
      );
    };
    this.bosId = config.bos_token === null ? undefined : find("bos_token", ["<s>", "<|begin_of_text|>"]);
    this.addsBos = addsBos(json, config);
    if (this.addsBos) required("bos_token", this.bosId);
    this.eosId = required("eos_token", find("eos_token", ["</s>", "<|end_of_text|>"]));
    this.padId = named("pad_token") ?? named("unk_token") ?? this.eosId;
    let largest = 0;
    for (const id of this.#inner.get_vocab(true).values()) largest = Math.max(largest, id);
    this.vocabSize = largest + 1;
    this.#lines = lineRule(json);
    this.#added = addedTokens(json);
    this.chatTemplate = chatTemplate(config);
  }

  /**
   * Reads `tokenizer.json` and, where they are there, `tokenizer_config.json` and `chat_template.jinja`.
   *
   * @throws {UserError} if the folder has no usable `tokenizer.json`, or it names no bos or eos token
   */
  static async load(folder: string): Promise<Tokenizer> {
    const json = await readJson(`${folder}/tokenizer.json`);
    if (json === undefined) throw missingTokenizer(folder);
    const config = await readJson(`${folder}/tokenizer_config.json`) ?? {};
    const chat_template = await readFile(`${folder}/chat_template.jinja`);
    return new Tokenizer(
      json as TokenizerJson,
      { ...config, ...(chat_template === undefined ? {} : { chat_template }) },
      `"${folder}/tokenizer.json"`,
    );
  }

  /** Token ids of a text, with the special tokens asked for. */
  encode(text: string, { bos, eos }: EncodeOptions): number[] {
    const { ids } = this.encodeCut(text, []);
    if (bos && this.lacksBos(ids)) ids.unshift(this.bosId!);
    if (eos) ids.push(this.eosId);
    return ids;
  }

  /** Whether this model's texts begin with the beginning-of-text token, and these ids do not. */
  lacksBos(ids: readonly number[]): boolean {
    return this.addsBos && ids[0] !== this.bosId;
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
   */
  encodeCut(text: string, cuts: readonly number[]): { ids: number[]; at: number[] } {
    const ids: number[] = [];
    const at: number[] = [];
    for (const { start, text: section, id } of this.#sections(text)) {
      const encoded = id === undefined ? this.#encodeSection(section, start > 0) : [id];
      while (at.length < cuts.length && cuts[at.length]! < start + section.length) {
        const inside = cuts[at.length]! - start;
        const before = inside <= 0 || id !== undefined
          ? []
          : this.#encodeSection(section.slice(0, inside), start > 0);
        at.push(Math.max(at.at(-1) ?? 0, ids.length + commonPrefix(before, encoded)));
      }
      for (const each of encoded) ids.push(each);
    }
    while (at.length < cuts.length) at.push(ids.length);
    return { ids, at };
  }

  /** The text of token ids, with no clean-up of spaces; of no ids, "". */
  decode(ids: ArrayLike<number>, { skipSpecial }: { readonly skipSpecial: boolean }): string {
    if (ids.length === 0) return "";
    const options = { skip_special_tokens: skipSpecial, clean_up_tokenization_spaces: false };
    return this.#inner.decode(Array.from(ids), options);
  }

  /** The id of one token, or undefined if the vocabulary lacks it. */
  tokenId(token: string): number | undefined {
    return this.#inner.token_to_id(token);
  }

  /** The text cut at added tokens, which are encoded apart from each other; one piece where that is not certain. */
  *#sections(text: string): Generator<{ start: number; text: string; id?: number }> {
    let start = 0;
    for (const match of this.#added === null ? [] : text.matchAll(this.#added)) {
      if (match.index > start) yield { start, text: text.slice(start, match.index) };
      yield { start: match.index, text: match[0], id: this.#inner.token_to_id(match[0])! };
      start = match.index + match[0].length;
    }
    if (start < text.length) yield { start, text: text.slice(start) };
  }

  /** @param isLater whether an added token stands before it: some tokenizers treat the beginning of a text differently */
  #encodeSection(text: string, isLater: boolean): number[] {
    const lines = this.#lines;
    const encode = (part: string) =>
      isLater && !lines?.marksAll ? this.#encodeLater(part) : this.#encodePlain(part);
    if (!lines || !text.includes("\n") || text.startsWith("\n")) return encode(text);
    const [first = "", ...rest] = text.split(/(?=\n)/);
    const ids = encode(first);
    for (const line of rest) {
      // A line begins with its newline, and loses the mark put before it.
      const piece = this.#encodePlain(line);
      // A merge would have to span the newline for this to fail; lineRule has excluded that.
      if (piece[0] !== lines.spaceId) return encode(text);
      for (let i = 1; i < piece.length; i++) ids.push(piece[i]!);
    }
    return ids;
  }

  /** A text after an added token. */
  #encodeLater(text: string): number[] {
    if (text === "") return [];
    const before = this.#inner.id_to_token(this.eosId)!;
    return this.#encodePlain(before + text).slice(1);
  }

  #encodePlain(text: string): number[] {
    return text === "" ? [] : this.#inner.encode(text, { add_special_tokens: false }).ids;
  }
}

/** That a text may be encoded line by line with the same result. */
interface LineRule {
  /** The mark that the tokenizer puts before a text. */
  readonly spaceId: number;
  /** Whether it puts it before what follows an added token, too. */
  readonly marksAll: boolean;
}

/**
 * Tokenizers of Llama-2's kind do not cut a text into words, so the time grows faster than its length.
 * Cutting before newlines is exact if no merge contains a newline; returns null where that is not certain.
 */
function lineRule({ model, normalizer, pre_tokenizer }: TokenizerJson): LineRule | null {
  const spaceId = model.vocab?.[SPACE_MARK];
  const steps = normalizer?.normalizers?.map((step) => step.type).join();
  const isPrepended = !pre_tokenizer && steps === "Prepend,Replace";
  const isMetaspace = !normalizer && pre_tokenizer?.type === "Metaspace" && pre_tokenizer.split === false &&
    (pre_tokenizer.prepend_scheme === "first" || pre_tokenizer.prepend_scheme === "always");
  const exact = model.type === "BPE" && (isPrepended || isMetaspace) && spaceId !== undefined &&
    (model.byte_fallback === true || "\n" in model.vocab) &&
    !model.merges?.some((merge) =>
      typeof merge === "string" ? merge.includes("\n") : merge.join("").includes("\n")
    );
  return exact ? { spaceId, marksAll: pre_tokenizer?.prepend_scheme !== "first" } : null;
}

/** Finds added tokens as the tokenizer does, the longest first; null if some of them change the text beside them. */
function addedTokens({ added_tokens = [] }: TokenizerJson): RegExp | null {
  const contents = added_tokens.map(({ content }) => content).filter((content) => content !== "");
  const plain = added_tokens.every(({ lstrip, rstrip, single_word, normalized }) =>
    !lstrip && !rstrip && !single_word && !normalized
  );
  if (contents.length === 0 || !plain) return null;
  contents.sort((a, b) => b.length - a.length);
  return new RegExp(contents.map((content) => content.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")).join("|"), "g");
}

/** `chat_template` is the template, or a list of named ones of which "default" is meant. */
function chatTemplate({ chat_template: value }: TokenizerConfig): string | undefined {
  if (typeof value === "string") return value;
  if (!Array.isArray(value)) return undefined;
  const named = value.find((entry) => entry?.name === "default") ?? value[0];
  return typeof named?.template === "string" ? named.template : undefined;
}

function commonPrefix(a: readonly number[], b: readonly number[]): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}

/** Whether texts begin with the beginning-of-text token: by the setting, else by what the file does to a text. */
function addsBos(
  { post_processor: last }: TokenizerJson,
  { add_bos_token: setting }: TokenizerConfig,
): boolean {
  if (typeof setting === "boolean") return setting;
  const steps = last?.type === "Sequence" ? last.processors ?? [] : last ? [last] : [];
  return steps.some(({ single: [first] = [] }) => first !== undefined && "SpecialToken" in first);
}

function specialId(inner: HubTokenizer, config: TokenizerConfig, key: string): number | undefined {
  const value = config[key];
  const content = typeof value === "object" && value !== null && "content" in value ? value.content : value;
  return typeof content === "string" ? inner.token_to_id(content) : undefined;
}

async function readFile(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound || cause instanceof Deno.errors.NotADirectory) return undefined;
    throw new UserError(`Cannot read "${path}": ${describe(cause)}`, { cause });
  }
}

async function readJson(path: string): Promise<object | undefined> {
  const text = await readFile(path);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new UserError(`Cannot read "${path}": it is not valid JSON (${describe(cause)})`, { cause });
  }
}

function missingTokenizer(folder: string): UserError {
  return new UserError(
    `Cannot load a tokenizer from "${folder}": it has no tokenizer.json. Copy the one of the base model there; ` +
      `a folder with only tokenizer.model needs a fast tokenizer saved by AutoTokenizer.save_pretrained`,
  );
}

function describe(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
