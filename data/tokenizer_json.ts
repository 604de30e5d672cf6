/** tokenizer.json, checked: what `@huggingface/tokenizers` would compute otherwise than transformers is rewritten or refused. */
import { quote } from "../text.ts";
import type { UserError } from "../errors.ts";

/** A step of a tokenizer, as its file has it. */
export type Step = { readonly type: string } & Readonly<Record<string, unknown>>;

/** A step's settings by name. */
type Values = Readonly<Record<string, unknown>>;

/** tokenizer_config.json, parsed; a special token is its text or an object with `content`. */
export type TokenizerConfig = Readonly<Record<string, unknown>>;

/** The parts of tokenizer.json that are read here. */
export interface TokenizerJson {
  /** Tokens that are found whole in a text. */
  readonly added_tokens?: unknown;
  /** Normalisation: done to a text first. */
  readonly normalizer?: unknown;
  /** Cutting of a text into words. */
  readonly pre_tokenizer?: unknown;
  /** Tokens around a text. */
  readonly post_processor?: unknown;
  /** Decoding: tokens to text. */
  readonly decoder?: unknown;
  /** Vocabulary and merges. */
  readonly model: unknown;
}

/** The model of tokenizer.json, with its tables checked. */
export interface TokenizerModel {
  readonly type: "BPE" | "Unigram" | "WordLevel";
  /** As the file has it, for the library. */
  readonly raw: Step;
  readonly ids: ReadonlyMap<string, number>;
  readonly tokens: ReadonlyMap<number, string>;
  /** Merges of a BPE model, the first first. */
  readonly merges: readonly (readonly [string, string])[];
  readonly byteFallback: boolean;
  readonly unkId: number | undefined;
}

/** A tokenizer's steps in forms that the library computes as transformers does. */
export interface TokenizerSteps {
  readonly normalizer: Step | null;
  readonly preTokenizer: Step | null;
  readonly decoder: Step | null;
}

/** Makes the error for a fault of the file. */
export type Fail = (problem: string) => UserError;

/** Steps within steps; files in use have two. */
const DEEPEST = 8;
const MOST_STEPS = 64;
const MOST_PATTERN = 20_000;

/** GPT-2's cut into words, which a `ByteLevel` step has built in. */
const GPT2_WORDS = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
/** The `tokenizers` crate's punctuation: Unicode's, and ASCII's symbols. */
const PUNCTUATION = "[\\p{P}$+<=>^`|~]";

/** Checks the model's tables. @throws what `fail` makes if one is damaged, or the model is of another type */
export function readModel(json: TokenizerJson, fail: Fail): TokenizerModel {
  const { model } = json;
  if (!isRecord(model)) throw fail("it has no model");
  const type = model.type ?? (Array.isArray(model.vocab) ? "Unigram" : "BPE");
  if (type !== "BPE" && type !== "Unigram" && type !== "WordLevel") {
    throw fail(`its model is of type ${quote(type)}: BPE, Unigram and WordLevel are known`);
  }
  const raw = { ...model, type } as Step;
  for (const key of ["continuing_subword_prefix", "continuing_subword_suffix", "end_of_word_suffix"]) {
    if (raw[key]) throw fail(`its model has ${key} ${quote(raw[key])}, which is not known here`);
  }
  if (raw.dropout) throw fail(`its model has dropout ${quote(raw.dropout)}: texts would be cut at random`);
  for (const key of ["byte_fallback", "fuse_unk", "ignore_merges"]) {
    if (raw[key] !== undefined && raw[key] !== null && typeof raw[key] !== "boolean") {
      throw fail(`${key} of its model must be true or false`);
    }
  }
  const ids = type === "Unigram" ? unigramIds(raw.vocab, fail) : vocabularyIds(raw.vocab, fail);
  const tokens = new Map<number, string>();
  for (const [token, id] of ids) {
    const other = tokens.get(id);
    if (other !== undefined) throw fail(`id ${id} is of ${quote(other)} and of ${quote(token)}`);
    tokens.set(id, token);
  }
  // A table of as many places is made of it.
  const largest = ids.values().reduce((most, id) => Math.max(most, id), 0);
  if (largest > 2 * ids.size + 1024) {
    throw fail(
      `token ${quote(tokens.get(largest))} has the id ${largest}, but the vocabulary has ${ids.size} tokens`,
    );
  }
  const merges = type === "BPE" ? readMerges(raw.merges, ids, fail) : [];
  const unk = type === "Unigram" ? raw.unk_id : raw.unk_token;
  // A name that the vocabulary lacks, as GPT-2's "", matters where a text needs it.
  const unkId = typeof unk === "string" ? ids.get(unk) : unk ?? undefined;
  if (unkId !== undefined && !(isTokenId(unkId) && tokens.has(unkId))) {
    throw fail(`its unknown token ${quote(unk)} is not in the vocabulary`);
  }
  return {
    type,
    raw: type === "BPE" ? { ...raw, merges } : raw,
    ids,
    tokens,
    merges,
    byteFallback: raw.byte_fallback === true,
    unkId,
  };
}

function vocabularyIds(vocab: unknown, fail: Fail): Map<string, number> {
  if (!isRecord(vocab)) throw fail("the vocabulary of its model must be an object of tokens and ids");
  const ids = new Map<string, number>();
  for (const [token, id] of Object.entries(vocab)) {
    if (!isTokenId(id)) throw fail(`token ${quote(token)} has the id ${quote(id)}: ${ID_RULE}`);
    ids.set(token, id);
  }
  return ids;
}

function unigramIds(vocab: unknown, fail: Fail): Map<string, number> {
  if (!Array.isArray(vocab) || vocab.length === 0) {
    throw fail("the vocabulary of its Unigram model must be a list of tokens and scores");
  }
  const ids = new Map<string, number>();
  vocab.forEach((entry: unknown, id) => {
    const [token, score] = Array.isArray(entry) ? entry as unknown[] : [];
    if (typeof token !== "string" || typeof score !== "number" || !Number.isFinite(score) || !isTokenId(id)) {
      throw fail(`entry ${id} of its vocabulary is ${quote(entry)}, not a token and its score`);
    }
    if (ids.has(token)) throw fail(`token ${quote(token)} has the ids ${ids.get(token)} and ${id}`);
    ids.set(token, id);
  });
  return ids;
}

function readMerges(
  merges: unknown,
  ids: ReadonlyMap<string, number>,
  fail: Fail,
): (readonly [string, string])[] {
  if (!Array.isArray(merges)) throw fail("its BPE model has no list of merges");
  return merges.map((merge: unknown, rank) => {
    const pair = typeof merge === "string" ? merge.split(" ") : merge;
    if (Array.isArray(pair) && pair.length === 2 && pair.every((part) => typeof part === "string" && part)) {
      const missing = [...pair, pair.join("")].find((token) => !ids.has(token));
      if (missing === undefined) return pair as [string, string];
      throw fail(`merge ${rank} has ${quote(missing)}, which is not in the vocabulary`);
    }
    throw fail(`merge ${rank} is ${quote(merge)}, not two tokens`);
  });
}

/**
 * The tokenizer with a space before texts, or without one, where `add_prefix_space` says otherwise than the steps of the
 * file: transformers makes those of a LlamaTokenizer anew then. With `legacy: false` none is put behind an added token.
 */
export function withPrefixSpace(json: TokenizerJson, config: Values): TokenizerJson {
  const { tokenizer_class, add_prefix_space: wanted, legacy } = config;
  const { normalizer, pre_tokenizer: pre, decoder } = json;
  if (typeof wanted !== "boolean") return json;
  // Of every class, where the step stands alone.
  if (isRecord(pre) && pre.type === "ByteLevel") {
    return { ...json, pre_tokenizer: { ...pre, add_prefix_space: wanted } };
  }
  if (!/^LlamaTokenizer/.test(String(tokenizer_class))) return json;
  const mark = "\u2581";
  // Where it is put, the space of the decoded text goes; where it is not, that space is the text's own.
  const decoders = isRecord(decoder) && Array.isArray(decoder.decoders) ? decoder.decoders : undefined;
  const unstripped = decoders
    ? { ...decoder as Values, decoders: decoders.filter((step) => !isRecord(step) || step.type !== "Strip") }
    : decoder;
  if (isRecord(pre) && pre.type === "Metaspace") {
    const isPut = pre.prepend_scheme === undefined || pre.prepend_scheme === null
      ? pre.add_prefix_space !== false
      : pre.prepend_scheme !== "never";
    if (isPut === wanted) return json;
    const prepend_scheme = wanted ? legacy === false ? "first" : "always" : "never";
    const decodes = isRecord(decoder) && decoder.type === "Metaspace"
      ? { ...decoder, prepend_scheme }
      : unstripped;
    return { ...json, pre_tokenizer: { ...pre, prepend_scheme }, decoder: wanted ? decoder : decodes };
  }
  const steps = isRecord(normalizer) && Array.isArray(normalizer.normalizers)
    ? normalizer.normalizers
    : [normalizer];
  const isPrepend = (step: unknown) => isRecord(step) && step.type === "Prepend" && step.prepend === mark;
  const marksSpaces = steps.some((step) =>
    isRecord(step) && step.type === "Replace" && step.content === mark
  );
  if (!marksSpaces || steps.some(isPrepend) === wanted) return json;
  const normalizers = wanted
    ? [{ type: "Prepend", prepend: mark }, ...steps]
    : steps.filter((step) => !isPrepend(step));
  return {
    ...json,
    normalizer: { type: "Sequence", normalizers },
    decoder: wanted ? decoder : unstripped,
  };
}

/**
 * The steps before the model in forms that the library computes as transformers does.
 * @throws what `fail` makes if there is a step that it does not
 */
export function readSteps(
  { normalizer, pre_tokenizer, decoder }: TokenizerJson,
  fail: Fail,
): TokenizerSteps {
  const count = { steps: 0 };
  return {
    normalizer: normalizer == null ? null : normalizerStep(normalizer, { fail, count, depth: 0 }),
    preTokenizer: pre_tokenizer == null ? null : preTokenizerStep(pre_tokenizer, { fail, count, depth: 0 }),
    decoder: decoder == null ? null : decoderStep(decoder, { fail, count, depth: 0 }),
  };
}

/** Place in a tokenizer's steps. */
interface Place {
  readonly fail: Fail;
  readonly count: { steps: number };
  readonly depth: number;
}

function normalizerStep(value: unknown, place: Place): Step {
  const step = checkedStep(value, "normalizer", place);
  switch (step.type) {
    case "Sequence":
      return sequence(step, "normalizers", "normalizer", place, normalizerStep);
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD":
      return step;
    case "Prepend":
      return { ...step, prepend: text(step, "prepend", place) };
    case "Replace":
      return replace(pattern(step, place), text(step, "content", place));
    case "Strip": {
      const left = step.strip_left === true ? [replace({ Regex: "\\A\\s+" }, "")] : [];
      const right = step.strip_right === true ? [replace({ Regex: "\\s+\\z" }, "")] : [];
      return { type: "Sequence", normalizers: [...left, ...right] };
    }
    default:
      throw unknownStep(step, "normalizer", "NFC, NFD, NFKC, NFKD, Prepend, Replace and Strip are", place);
  }
}

function preTokenizerStep(value: unknown, place: Place): Step {
  const step = checkedStep(value, "pre_tokenizer", place);
  switch (step.type) {
    case "Sequence":
      return sequence(step, "pretokenizers", "pre_tokenizer", place, preTokenizerStep);
    case "ByteLevel":
      return byteLevel(step);
    case "Metaspace":
      return metaspace(step, place);
    case "Split":
      return split(step, place);
    // The library takes ASCII's digits and word characters alone.
    case "Digits":
      return cut({ Regex: step.individual_digits === true ? "\\p{N}" : "\\p{N}+" });
    case "Punctuation":
      return punctuation(step, place);
    case "Whitespace":
      return matches({ Regex: "\\w+|[^\\w\\s]+" });
    case "WhitespaceSplit":
      return matches({ Regex: "\\S+" });
    default:
      throw unknownStep(
        step,
        "pre_tokenizer",
        "ByteLevel, Metaspace, Split, Digits, Punctuation, Whitespace and WhitespaceSplit are",
        place,
      );
  }
}

function decoderStep(value: unknown, place: Place): Step {
  const step = checkedStep(value, "decoder", place);
  switch (step.type) {
    case "Sequence":
      return sequence(step, "decoders", "decoder", place, decoderStep);
    case "ByteLevel":
    case "ByteFallback":
    case "Fuse":
      return { type: step.type };
    case "Metaspace": {
      const { replacement, prepend_scheme } = metaspace({ ...step, split: false }, place);
      return { type: "Metaspace", replacement, add_prefix_space: prepend_scheme !== "never" };
    }
    case "Replace":
      return replace(pattern(step, place), text(step, "content", place));
    case "Strip": {
      const [start, stop] = [step.start ?? 0, step.stop ?? 0];
      if (isTokenId(start) && isTokenId(stop)) {
        return { ...step, content: text(step, "content", place), start, stop };
      }
      throw place.fail(`start and stop of its Strip must be whole numbers, got ${quote([start, stop])}`);
    }
    default:
      throw unknownStep(
        step,
        "decoder",
        "ByteLevel, ByteFallback, Fuse, Metaspace, Replace and Strip are",
        place,
      );
  }
}

/** Pieces are what the pattern matches, and what lies between. */
function cut(pattern: Values): Step {
  return { type: "Split", pattern, behavior: "Isolated", invert: false };
}

/** Pieces are what the pattern matches, and nothing else. */
function matches(pattern: Values): Step {
  return { type: "Split", pattern, behavior: "Removed", invert: true };
}

function replace(pattern: Values, content: string): Step {
  // The library takes $1 and $& for what was matched.
  return { type: "Replace", pattern, content: content.replaceAll("$", "$$$$") };
}

function byteLevel(step: Step): Step {
  const bytes = { ...step, use_regex: false };
  if (step.use_regex === false || step.add_prefix_space === true) return step;
  // The pattern leaves nothing out, and `\s` in it is Unicode's white space, not JavaScript's.
  return { type: "Sequence", pretokenizers: [matches({ Regex: GPT2_WORDS }), bytes] };
}

function metaspace(step: Step, place: Place): Step {
  const { replacement = "\u2581", add_prefix_space, split = true } = step;
  // Older files have add_prefix_space in place of a scheme.
  const scheme = step.prepend_scheme ?? (add_prefix_space === false ? "never" : "always");
  if (typeof replacement !== "string" || [...replacement].length !== 1) {
    throw place.fail(`replacement of its Metaspace must be one character, got ${quote(replacement)}`);
  }
  if (scheme !== "always" && scheme !== "first" && scheme !== "never") {
    throw place.fail(
      `prepend_scheme of its Metaspace is ${quote(scheme)}: always, first and never are known`,
    );
  }
  const marked = { type: "Metaspace", replacement, prepend_scheme: scheme, split: false };
  if (split === false) return marked;
  // The library never cuts there.
  const mark = escapePattern(replacement);
  return { type: "Sequence", pretokenizers: [marked, cut({ Regex: `${mark}[^${mark}]*` })] };
}

function split(step: Step, place: Place): Step {
  const { behavior, invert = false } = step;
  const wanted = pattern(step, place);
  if (behavior === "Isolated") return cut(wanted);
  if (behavior === "Removed" && invert === true) return matches(wanted);
  const source = typeof wanted.String === "string" ? escapePattern(wanted.String) : wanted.Regex as string;
  // The library would keep what a group catches.
  if (behavior === "Removed" && !/(?<!\\)\((?!\?)/.test(source)) {
    return { type: "Split", pattern: { Regex: source }, behavior, invert: false };
  }
  const character = typeof wanted.String === "string" && [...wanted.String].length === 1 && invert !== true
    ? escapePattern(wanted.String)
    : undefined;
  if (behavior === "MergedWithNext" && character) return cut({ Regex: `${character}[^${character}]*` });
  if (behavior === "MergedWithPrevious" && character) return cut({ Regex: `[^${character}]*${character}` });
  if (behavior === "Contiguous" && invert !== true) return cut({ Regex: `(?:${source})+` });
  throw place.fail(
    `its pre_tokenizer splits at ${quote(step.pattern)} with behavior ${quote(behavior)}` +
      `${invert === true ? ", inverted" : ""}, which is not known here`,
  );
}

function punctuation(step: Step, place: Place): Step {
  const { behavior = "Isolated" } = step;
  if (behavior === "Isolated") return cut({ Regex: PUNCTUATION });
  if (behavior === "Contiguous") return cut({ Regex: `${PUNCTUATION}+` });
  throw place.fail(`its Punctuation has behavior ${quote(behavior)}: Isolated and Contiguous are known`);
}

function sequence(
  step: Step,
  key: string,
  what: string,
  place: Place,
  read: (value: unknown, place: Place) => Step,
): Step {
  const list = step[key];
  if (!Array.isArray(list)) throw place.fail(`a Sequence of its ${what} has no list "${key}"`);
  return { type: "Sequence", [key]: list.map((each) => read(each, { ...place, depth: place.depth + 1 })) };
}

function checkedStep(value: unknown, what: string, { fail, count, depth }: Place): Step {
  if (!isRecord(value) || typeof value.type !== "string") {
    throw fail(`a step of its ${what} has no type: ${quote(value)}`);
  }
  if (depth > DEEPEST || ++count.steps > MOST_STEPS) {
    throw fail(`its ${what} has too many steps within steps`);
  }
  return value as Step;
}

function unknownStep({ type }: Step, what: string, known: string, { fail }: Place): UserError {
  return fail(
    `its ${what} has a step of type ${quote(type)}, and that is not computed as transformers does; ${known}`,
  );
}

function text(step: Step, key: string, { fail }: Place): string {
  const value = step[key];
  if (typeof value !== "string") throw fail(`${key} of its ${step.type} must be a text, got ${quote(value)}`);
  return value;
}

function pattern(step: Step, { fail }: Place): Values {
  const { pattern } = step;
  const source = isRecord(pattern) ? pattern.Regex ?? pattern.String : undefined;
  if (typeof source !== "string" || source === "") throw fail(`its ${step.type} has no pattern`);
  if (source.length > MOST_PATTERN) {
    throw fail(
      `a pattern of its ${step.type} has ${source.length} characters, at most ${MOST_PATTERN} are allowed`,
    );
  }
  if ((pattern as Values).Regex === undefined) return { String: source };
  if (isSlow(source)) {
    throw fail(
      `the pattern ${quote(source)} of its ${step.type} repeats what repeats: a text could take it for ever`,
    );
  }
  return { Regex: source };
}

/** Repetitions of one place of a pattern that may follow each other; patterns in use have two. */
const MOST_REPEATS = 3;
/** From so many on a repetition counts as one without bound. */
const LONG_REPEAT = 8;

/**
 * Whether a search may take time that grows out of proportion with the text: a group that can match in several ways is
 * repeated, as in `(a+)+` or `(a|ab)*`, or many repetitions follow each other. Patterns of tokenizers in use have neither.
 */
function isSlow(source: string): boolean {
  const groups = [{ varies: false, repeats: 0, most: 0 }];
  /** Whether what stands before is a group that can match in several ways. */
  let isVarying = false;
  for (let i = 0; i < source.length; i++) {
    const top = groups.at(-1)!;
    const [quantifier, least = "", comma, most = ""] =
      /^(?:[*+?]|\{(\d*)(,?)(\d*)\})[+?]?/.exec(source.slice(i, i + 32)) ?? [];
    if (quantifier !== undefined && quantifier[1] !== "}") {
      const [low, high] = quantifier[0] === "{"
        ? [Number(least), comma && most === "" ? Infinity : Number(most || least)]
        : [quantifier[0] === "+" ? 1 : 0, quantifier[0] === "?" ? 1 : Infinity];
      if (isVarying && high > 1) return true;
      if (low !== high) top.varies = true;
      if (high > LONG_REPEAT && ++top.repeats > MOST_REPEATS) return true;
      i += quantifier.length - 1;
      continue;
    }
    isVarying = false;
    const character = source[i]!;
    if (character === "\\") i += Math.max(1, lengthAt(/^\\[pPxu]\{[^}]*\}/, source, i) - 1);
    else if (character === "[") i = endOfClass(source, i);
    else if (character === "(") {
      groups.push({ varies: false, repeats: 0, most: 0 });
      // What kind of group it is.
      i += Math.max(0, lengthAt(/^\(\?(?:<?[=!]|[a-z-]*:|>|<\w+>)/, source, i) - 1);
    } else if (character === "|") {
      top.varies = true;
      top.most = Math.max(top.most, top.repeats);
      top.repeats = 0;
    } else if (character === ")" && groups.length > 1) {
      groups.pop();
      isVarying = top.varies;
      const outer = groups.at(-1)!;
      outer.varies ||= top.varies;
      outer.repeats += Math.max(top.most, top.repeats);
      if (outer.repeats > MOST_REPEATS) return true;
    }
  }
  return false;
}

/** Characters that a pattern matches at a place. */
function lengthAt(pattern: RegExp, source: string, at: number): number {
  return pattern.exec(source.slice(at, at + 64))?.[0].length ?? 0;
}

/** Index of a character class's closing bracket. */
function endOfClass(source: string, start: number): number {
  let depth = 0;
  for (let i = start; i < source.length; i++) {
    if (source[i] === "\\") i++;
    else if (source[i] === "[") depth++;
    else if (source[i] === "]" && i > start + (source[start + 1] === "^" ? 2 : 1) && --depth === 0) return i;
  }
  return source.length;
}

function escapePattern(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|\-/]/g, "\\$&");
}

export function isRecord(value: unknown): value is Values {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Ids that a table of embeddings could have. */
const MOST_TOKENS = 2 ** 24;
export const ID_RULE = `ids are whole numbers from 0 to ${MOST_TOKENS - 1}`;

export function isTokenId(id: unknown): id is number {
  return typeof id === "number" && Number.isInteger(id) && id >= 0 && id < MOST_TOKENS;
}
