/** A tokenizer as GGUF's `tokenizer.*` keys, by which llama.cpp reads texts as training did. */
import { quote } from "../text.ts";
import type { GgufValue } from "../checkpoint/gguf.ts";
import { byteToken, type Tokenizer } from "../data/tokenizer.ts";
import { isRecord } from "../data/tokenizer_json.ts";
import { UserError } from "../errors.ts";
import { normalizersOf, preTokenizerKinds } from "./gguf_pre_tokenizer.ts";

/** The keys, and what llama.cpp will do otherwise, one line each. */
export interface GgufTokenizer {
  readonly keys: ReadonlyMap<string, GgufValue>;
  readonly notes: readonly string[];
}

/** llama.cpp's types of tokens. */
const TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** GGUF's names of the special tokens. */
const SPECIAL: readonly (readonly [name: string, key: string])[] = [
  ["unk_token", "unknown"],
  ["sep_token", "seperator"],
  ["pad_token", "padding"],
  ["cls_token", "cls"],
  ["mask_token", "mask"],
];
const SPACE_MARK = "\u2581";

/**
 * Makes the keys for a model with `size` rows of embeddings.
 * @throws {UserError} if llama.cpp could not read texts as the tokenizer does, or is not known to
 */
export function ggufTokenizer(tokenizer: Tokenizer, size: number): GgufTokenizer {
  const { model, frame, bosId, eosId } = tokenizer;
  if (model.type !== "BPE") {
    throw refusal(
      `the tokenizer's model is of type "${model.type}"; BPE ones, also SentencePiece's, can be written`,
    );
  }
  const notes: string[] = [];
  const form = spaceForm(tokenizer);
  const table = tokenTable(tokenizer, size, form !== undefined, notes);
  const keys = new Map<string, GgufValue>(
    form ? sentencePieceKeys(tokenizer, table.tokens, form, notes) : byteLevelKeys(tokenizer, notes),
  );
  keys.set("tokenizer.ggml.tokens", { strings: table.tokens });
  keys.set("tokenizer.ggml.token_type", { i32s: table.types });
  if (bosId !== undefined) keys.set("tokenizer.ggml.bos_token_id", { u32: bosId });
  keys.set("tokenizer.ggml.eos_token_id", { u32: eosId });
  for (const [name, key] of SPECIAL) {
    const token = tokenizer.namedTokens[name];
    const id = name === "unk_token"
      ? tokenizer.unkId
      : token === undefined
      ? undefined
      : tokenizer.tokenId(token);
    if (id !== undefined) keys.set(`tokenizer.ggml.${key}_token_id`, { u32: id });
  }
  keys.set("tokenizer.ggml.add_bos_token", isOneOf(frame.before, bosId, "before"));
  keys.set("tokenizer.ggml.add_eos_token", isOneOf(frame.after, eosId, "behind"));
  if (tokenizer.chatTemplate !== undefined) {
    keys.set("tokenizer.chat_template", tokenizer.chatTemplate);
    const bos = tokenizer.namedTokens.bos_token;
    const writesBos = tokenizer.chatTemplate.includes("bos_token") ||
      (bos && tokenizer.chatTemplate.includes(bos));
    if (frame.before.length > 0 && !writesBos) {
      notes.push(
        "The chat template does not write bos_token; llama.cpp puts it before a chat, and training did not",
      );
    }
  }
  return { keys, notes };
}

function refusal(problem: string): UserError {
  return new UserError(`Cannot write GGUF: ${problem}`);
}

/** Whether texts are framed by a token, or by nothing. */
function isOneOf(frame: readonly number[], id: number | undefined, where: string): boolean {
  if (frame.length === 0) return false;
  if (frame.length === 1 && frame[0] === id) return true;
  throw refusal(
    `the tokenizer puts the tokens ${frame.join(", ")} ${where} a text; llama.cpp puts one at most`,
  );
}

/** Tokens by id with their types; rows of the model that no token has are unused. */
function tokenTable(
  tokenizer: Tokenizer,
  size: number,
  isSentencePiece: boolean,
  notes: string[],
): { tokens: string[]; types: number[] } {
  const { model, bosId, eosId, unkId } = tokenizer;
  const tokens = new Array<string | undefined>(size).fill(undefined);
  const types = new Array<number>(size).fill(TYPE.unused);
  const beyond: string[] = [];
  const put = (id: number, token: string, type: number) => {
    if (id >= size) return void beyond.push(token);
    tokens[id] = token;
    types[id] = type;
  };
  for (const [token, id] of model.ids) {
    put(id, token, isSentencePiece && /^<0x[0-9A-F]{2}>$/.test(token) ? TYPE.byte : TYPE.normal);
  }
  const changed: string[] = [];
  for (const { id, content, special, lstrip, rstrip, single_word, normalized } of tokenizer.addedTokens()) {
    put(id, content, special ? TYPE.control : TYPE.userDefined);
    if (lstrip || rstrip || single_word || (normalized && isSentencePiece)) changed.push(content);
  }
  if (isSentencePiece && unkId !== undefined && unkId < size && unkId !== eosId && unkId !== bosId) {
    types[unkId] = TYPE.unknown;
  }
  const special = [["bos_token", bosId], ["eos_token", eosId]] as const;
  for (const [key, id] of special) {
    if (id === undefined || id < size) continue;
    throw refusal(`the tokenizer's ${key} has the id ${id}, but the model has ${size} tokens`);
  }
  if (beyond.length > 0) {
    notes.push(`Tokens that the model has no row for are left out: ${named(beyond)}`);
  }
  if (changed.length > 0) {
    notes.push(
      `llama.cpp finds these added tokens wherever they stand, and takes no spaces with them: ${
        named(changed)
      }`,
    );
  }
  const known = new Set(tokens);
  const filler = (id: number) => {
    let name = `[PAD${id}]`;
    while (known.has(name)) name = `[${name}]`;
    return name;
  };
  return { tokens: tokens.map((token, id) => token ?? filler(id)), types };
}

function named(tokens: readonly string[]): string {
  const shown = tokens.slice(0, 5).map((token) => quote(token)).join(", ");
  return tokens.length > 5 ? `${shown} and ${tokens.length - 5} more` : shown;
}

/** Byte-level BPE, as GPT-2 has it. */
function byteLevelKeys(tokenizer: Tokenizer, notes: string[]): [string, GgufValue][] {
  const { model, files: [json] } = tokenizer;
  const kinds = preTokenizerKinds(json);
  const ignoresMerges = model.raw.ignore_merges === true;
  // Where every token is what its merges make, it is all the same.
  const kind = kinds.find((kind) => (kind.ignoresMerges ?? false) === ignoresMerges) ??
    (tokenizer.isMadeByMerges() ? kinds[0] : undefined);
  if (!kind) {
    throw refusal(
      `ignore_merges of the tokenizer is ${ignoresMerges}, which is not so in llama.cpp's kind ${
        kinds[0]!.name
      }, and ` +
        "some of its tokens are not what its merges make",
    );
  }
  if (normalizersOf(json.normalizer).length > 0) {
    notes.push(
      "The tokenizer brings texts to NFC, llama.cpp does not: texts in another form are cut otherwise",
    );
  }
  return [
    ["tokenizer.ggml.model", "gpt2"],
    ["tokenizer.ggml.pre", kind.name],
    ["tokenizer.ggml.merges", { strings: model.merges.map((merge) => merge.join(" ")) }],
  ];
}

/** Marking of spaces by a SentencePiece tokenizer. */
interface SpaceForm {
  readonly addsPrefix: boolean;
  readonly isMetaspace: boolean;
}

/** @throws {UserError} if it marks spaces in a way that llama.cpp does not know */
function spaceForm({ model, files: [{ normalizer, pre_tokenizer: pre }] }: Tokenizer): SpaceForm | undefined {
  const steps =
    (isRecord(normalizer) && normalizer.type === "Sequence" && Array.isArray(normalizer.normalizers)
      ? normalizer.normalizers
      : [normalizer]).filter(isRecord);
  const isReplace = (step: unknown) =>
    isRecord(step) && step.type === "Replace" && step.content === SPACE_MARK && isRecord(step.pattern) &&
    step.pattern.String === " ";
  const isPrepend = (step: unknown) =>
    isRecord(step) && step.type === "Prepend" && step.prepend === SPACE_MARK;
  // After the replacement there is no space to split at.
  const isNone = pre === null || pre === undefined ||
    (isRecord(pre) && pre.type === "Split" && isRecord(pre.pattern) && pre.pattern.String === " ");
  const marks = steps.some((step) => isReplace(step) || isPrepend(step)) ||
    JSON.stringify(pre ?? null).includes('"Metaspace"');
  if (!marks) return undefined;
  const bytes = Array.from({ length: 256 }, (_, byte) => byteToken(byte));
  if (!model.byteFallback || !bytes.every((byte) => model.ids.has(byte))) {
    throw refusal(
      "the tokenizer marks spaces as SentencePiece does, but has no byte_fallback with tokens for all bytes",
    );
  }
  const isReplaced = isNone && steps.length > 0 && isReplace(steps.at(-1));
  if (isReplaced && steps.length === 1) return { addsPrefix: false, isMetaspace: false };
  if (isReplaced && steps.length === 2 && isPrepend(steps[0])) {
    return { addsPrefix: true, isMetaspace: false };
  }
  const isMetaspace = steps.length === 0 && isRecord(pre) && pre.type === "Metaspace" &&
    pre.split === false &&
    (pre.replacement ?? SPACE_MARK) === SPACE_MARK;
  if (isMetaspace) {
    const scheme = pre.prepend_scheme ?? (pre.add_prefix_space === false ? "never" : "always");
    return { addsPrefix: scheme !== "never", isMetaspace: scheme !== "never" };
  }
  throw refusal(
    `llama.cpp does not know how this tokenizer marks spaces: normalizer ${
      quote(normalizer ?? null)
    }, pre_tokenizer ` +
      quote(pre ?? null),
  );
}

/** SentencePiece's BPE, as Llama-2 has it. */
function sentencePieceKeys(
  { model }: Tokenizer,
  tokens: readonly string[],
  { addsPrefix, isMetaspace }: SpaceForm,
  notes: string[],
): [string, GgufValue][] {
  if (isMetaspace) {
    notes.push(
      "llama.cpp puts a space before every stretch of text, this tokenizer not before one that begins with a space, " +
        "nor, where its prepend_scheme is first, behind a special token",
    );
  }
  const scores = mergeScores(model.merges, model.ids);
  const last = -model.merges.length - 1;
  return [
    ["tokenizer.ggml.model", "llama"],
    ["tokenizer.ggml.pre", "default"],
    ["tokenizer.ggml.scores", { f32s: tokens.map((token) => scores.get(token) ?? last) }],
    ["tokenizer.ggml.add_space_prefix", addsPrefix],
  ];
}

/**
 * Scores by token: llama.cpp joins any two neighbours whose text is a token, the highest score first, where
 * tokenizer.json lists which two are joined, and in which order.
 *
 * @throws {UserError} if no scores give the order of the merges
 */
function mergeScores(
  merges: readonly (readonly [string, string])[],
  ids: ReadonlyMap<string, number>,
): Map<string, number> {
  const scores = new Map<string, number>();
  const pairs = new Set<string>();
  let before = "";
  merges.forEach(([left, right], rank) => {
    const token = left + right;
    pairs.add(`${left} ${right}`);
    if (token !== before && scores.has(token)) {
      throw refusal(
        `merge ${rank} of the tokenizer makes ${
          quote(token)
        } anew after merges of other tokens: no score of the token, ` +
          "by which llama.cpp merges, gives that order",
      );
    }
    if (!scores.has(token)) scores.set(token, -rank);
    before = token;
  });
  for (const token of scores.keys()) {
    for (let at = 1; at < token.length; at++) {
      const [left, right] = [token.slice(0, at), token.slice(at)];
      if (!ids.has(left) || !ids.has(right) || pairs.has(`${left} ${right}`)) continue;
      throw refusal(
        `the tokenizer does not merge ${quote(left)} and ${quote(right)}, though ${
          quote(token)
        } is a token: llama.cpp ` +
          "would. Tokenizers that are made from a SentencePiece model can be written",
      );
    }
  }
  return scores;
}
