/** The tokens that a tokenizer puts before and behind a text. */
import { quote } from "../text.ts";
import type { UserError } from "../errors.ts";
import { isRecord, isTokenId } from "./tokenizer_json.ts";

/** Ids around every text of a model. */
export interface TextFrame {
  readonly before: readonly number[];
  readonly after: readonly number[];
}

/** Tokens to put around a text. */
export interface TokenTable {
  idOf(content: string): number | undefined;
  has(id: number): boolean;
}

/** Classes of transformers that frame texts by their own defaults, whatever the file says: no end, and a beginning or not. */
const OWN_FRAMES: readonly (readonly [name: RegExp, addsBos: boolean])[] = [
  [/^(Code)?Llama|^Gemma|^Cohere/, true],
  [/^GPTNeoX/, false],
];

/**
 * The frame of a tokenizer: by `add_bos_token` and `add_eos_token`, else by its class where that has defaults of its own
 * (LlamaTokenizer: a beginning, GPTNeoXTokenizer: none), else by the post-processor of tokenizer.json.
 *
 * @param special the ids of the tokens that the settings put there; `bos` throws where there is none
 * @throws what `fail` makes if the post-processor is not understood
 */
export function framesOf(
  postProcessor: unknown,
  config: Readonly<Record<string, unknown>>,
  special: { readonly bos: () => number; readonly eos: number },
  tokens: TokenTable,
  fail: (problem: string) => UserError,
): TextFrame {
  const className = typeof config.tokenizer_class === "string" ? config.tokenizer_class : "";
  const own = OWN_FRAMES.find(([name]) => name.test(className));
  const setting = (key: string, usual: boolean | undefined): boolean | undefined => {
    const value = config[key] ?? usual;
    if (value === undefined || typeof value === "boolean") return value;
    throw fail(`${key} in tokenizer_config.json must be true or false, got ${quote(value)}`);
  };
  const [bos, eos] = [setting("add_bos_token", own?.[1]), setting("add_eos_token", own && false)];
  const file = postProcessor === null || postProcessor === undefined
    ? { before: [], after: [] }
    : frameOfProcessor(postProcessor, tokens, fail, 0);
  return {
    before: bos === undefined ? file.before : bos ? [special.bos()] : [],
    after: eos === undefined ? file.after : eos ? [special.eos] : [],
  };
}

function frameOfProcessor(
  value: unknown,
  tokens: TokenTable,
  fail: (problem: string) => UserError,
  depth: number,
): TextFrame {
  const step = isRecord(value) && depth < 8 ? value : { type: quote(value) };
  switch (step.type) {
    case "ByteLevel":
      return { before: [], after: [] };
    case "Sequence": {
      if (!Array.isArray(step.processors)) {
        throw fail('a Sequence of its post_processor has no list "processors"');
      }
      const frames = step.processors.map((each) => frameOfProcessor(each, tokens, fail, depth + 1));
      return {
        before: frames.toReversed().flatMap(({ before }) => before),
        after: frames.flatMap(({ after }) => after),
      };
    }
    case "TemplateProcessing":
      return frameOfTemplate(step, tokens, fail);
    case "BertProcessing":
    case "RobertaProcessing":
      return { before: [pairId(step.cls, tokens, fail)], after: [pairId(step.sep, tokens, fail)] };
    default:
      throw fail(
        `its post_processor has a step of type ${
          quote(step.type)
        }: ByteLevel, TemplateProcessing, BertProcessing, ` +
          `RobertaProcessing and Sequence are known`,
      );
  }
}

function frameOfTemplate(
  { single, special_tokens }: Readonly<Record<string, unknown>>,
  tokens: TokenTable,
  fail: (problem: string) => UserError,
): TextFrame {
  const parts = Array.isArray(single) ? single.filter(isRecord) : [];
  const at = parts.findIndex((part) => "Sequence" in part);
  if (at < 0) throw fail('"single" of its TemplateProcessing has no place for the text');
  const idsOf = (part: Readonly<Record<string, unknown>>): number[] => {
    const name = isRecord(part.SpecialToken) ? part.SpecialToken.id : undefined;
    if (typeof name !== "string") throw fail(`"single" of its TemplateProcessing has ${quote(part)}`);
    const entry = isRecord(special_tokens) ? special_tokens[name] : undefined;
    const ids = isRecord(entry) ? entry.ids : undefined;
    const known = tokens.idOf(name);
    if (!Array.isArray(ids) || ids.length === 0 || !ids.every(isTokenId)) {
      throw fail(`special_tokens of its TemplateProcessing has no ids of ${quote(name)}`);
    }
    if (ids.length === 1 && known !== undefined && ids[0] !== known) {
      throw fail(`its TemplateProcessing gives ${quote(name)} the id ${ids[0]}, but the vocabulary ${known}`);
    }
    const missing = ids.find((id) => !tokens.has(id));
    if (missing === undefined) return ids;
    throw fail(`its TemplateProcessing gives ${quote(name)} the id ${missing}, which no token has`);
  };
  return { before: parts.slice(0, at).flatMap(idsOf), after: parts.slice(at + 1).flatMap(idsOf) };
}

/** The id in `["<s>", 0]`. */
function pairId(
  pair: unknown,
  tokens: TokenTable,
  fail: (problem: string) => UserError,
): number {
  const [content, id] = Array.isArray(pair) ? pair as unknown[] : [];
  if (typeof content === "string" && isTokenId(id) && tokens.idOf(content) === id) return id;
  throw fail(`its post_processor names the token ${quote(pair)}, which the vocabulary has not`);
}
