/**
 * The names that llama.cpp has for the cuts before byte-level BPE (its `llama-vocab.cpp`). Its converter tells them by the ids of a
 * check text, which needs the vocabularies of all known models; here they are told by the expressions of tokenizer.json.
 */
import { quote } from "../text.ts";
import { isRecord, type TokenizerJson } from "../data/tokenizer_json.ts";
import { UserError } from "../errors.ts";

/** A way to cut that llama.cpp knows. */
export interface PreTokenizerKind {
  /** `tokenizer.ggml.pre` */
  readonly name: string;
  /** The steps of tokenizer.json, as {@linkcode stepsOf} writes them. */
  readonly steps: readonly string[];
  /** Whether llama.cpp takes a whole word that is a token as it is, before any merge. */
  readonly ignoresMerges?: boolean;
  /** Whether the models of this kind bring texts to NFC first, which llama.cpp does not. */
  readonly isNfc?: boolean;
}

const WORDS = "words of GPT-2";
const BYTES = "bytes";
const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const SPACES = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const UPPER = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
const LOWER = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
const BEFORE_LETTERS = "[^\\r\\n\\p{L}\\p{N}]?";

/** cl100k's words with numbers of so many digits. */
function cl100k(digits: string): string {
  return `${CONTRACTIONS}|${BEFORE_LETTERS}\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${SPACES}`;
}

/** o200k's words, which end before capital letters. */
function o200k(contractions: string, digits: string): string {
  return `${BEFORE_LETTERS}${UPPER}*${LOWER}+${contractions}|${BEFORE_LETTERS}${UPPER}+${LOWER}*${contractions}|` +
    `${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACES}`;
}

const CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+";
const LATIN =
  "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af" +
  "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481" +
  "\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b" +
  "\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d" +
  "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec" +
  "\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d" +
  "\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2" +
  "\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17" +
  "\uff21-\uff3a\uff41-\uff5a\u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}" +
  "\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\u{1e900}-\u{1e943}]+";

const split = (pattern: string) => `split ${spelled(pattern)}`;

/** Every kind, under the name by which models of LLaMA's form have it. */
const KINDS: readonly PreTokenizerKind[] = [
  { name: "gpt-2", steps: [WORDS, BYTES] },
  { name: "olmo", steps: [WORDS, BYTES], isNfc: true },
  { name: "llama-bpe", steps: [split(cl100k("\\p{N}{1,3}")), BYTES], ignoresMerges: true },
  { name: "smaug-bpe", steps: [split(cl100k("\\p{N}{1,3}")), BYTES] },
  { name: "qwen2", steps: [split(cl100k("\\p{N}")), BYTES], isNfc: true },
  {
    name: "qwen35",
    steps: [
      split(
        `${CONTRACTIONS}|${BEFORE_LETTERS}[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|${SPACES}`,
      ),
      BYTES,
    ],
    isNfc: true,
  },
  {
    name: "minicpm5",
    steps: [split("\\p{N}{1,3}"), split(cl100k("\\p{N}+")), BYTES],
    ignoresMerges: true,
  },
  {
    name: "seed-coder",
    steps: [
      split(
        `${CONTRACTIONS}|${BEFORE_LETTERS}\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|${SPACES}`,
      ),
      BYTES,
    ],
  },
  {
    name: "bailingmoe",
    steps: [
      split(
        `'(?i:[sdmt]|ll|ve|re)|${BEFORE_LETTERS}+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|` +
          "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
      ),
      BYTES,
    ],
  },
  { name: "tekken", steps: [split(o200k("", "\\p{N}")), BYTES], ignoresMerges: true },
  { name: "gpt-4o", steps: [split(o200k(`${CONTRACTIONS}?`, "\\p{N}{1,3}")), BYTES] },
  {
    name: "deepseek-llm",
    steps: [
      split("[\\r\\n]"),
      split(LATIN),
      split("\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"),
      split("\\s+$"),
      split(CJK),
      "digits one by one",
      BYTES,
    ],
  },
  {
    name: "deepseek-coder",
    steps: [
      split("[\\r\\n]"),
      split("\\s?\\p{L}+"),
      split("\\s?\\p{P}+"),
      split(CJK),
      "digits one by one",
      BYTES,
    ],
  },
  {
    name: "deepseek-v3",
    steps: [
      split("\\p{N}{1,3}"),
      split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"),
      split(
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|" +
          ` ?[\\p{P}\\p{S}]+[\\r\\n]*|${SPACES}`,
      ),
      BYTES,
    ],
  },
  {
    name: "falcon",
    steps: ["punctuation together", WORDS, BYTES, "digits together", split("[0-9][0-9][0-9]")],
  },
  { name: "smollm", steps: ["digits one by one", WORDS, BYTES] },
  { name: "command-r", steps: ["digits one by one", WORDS, BYTES], isNfc: true },
  {
    name: "bloom",
    steps: [split(" ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"), BYTES],
  },
];

/**
 * The kinds that cut as a tokenizer does: more than one where they differ in `ignore_merges` alone.
 * @throws {UserError} if llama.cpp is not known to cut so
 */
export function preTokenizerKinds({ normalizer, pre_tokenizer }: TokenizerJson): PreTokenizerKind[] {
  const steps = stepsOf(pre_tokenizer);
  const normal = normalizersOf(normalizer);
  if (normal.length > 0 && normal.join() !== "NFC") {
    throw new UserError(
      `Cannot write GGUF: the tokenizer's normalizer (${
        normal.join(", ")
      }) changes texts before they are cut, ` +
        "and llama.cpp has no such step for byte-level BPE",
    );
  }
  const same = KINDS.filter((kind) => kind.steps.join("\n") === steps.join("\n"));
  if (same.length === 0) {
    throw new UserError(
      `Cannot write GGUF: llama.cpp is not known to cut texts as this tokenizer's pre_tokenizer does (${
        quote(steps)
      }), and would read texts otherwise than training did. Known are ${
        KINDS.map(({ name }) => name).join(", ")
      }`,
    );
  }
  const isNfc = normal.length > 0;
  const fitting = same.filter((kind) => (kind.isNfc ?? false) === isNfc);
  // Without NFC llama.cpp cuts as it does with it.
  const kinds = fitting.length > 0 || isNfc ? fitting : same;
  if (kinds.length > 0) return kinds;
  throw new UserError(
    `Cannot write GGUF: the tokenizer brings texts to NFC before it cuts them, which models of the kind ` +
      `${same[0]!.name} do not, and llama.cpp has no such step`,
  );
}

/** The normalizers in their order; a sequence of none is none. */
export function normalizersOf(value: unknown): string[] {
  if (!isRecord(value)) return [];
  if (value.type === "Sequence" && Array.isArray(value.normalizers)) {
    return value.normalizers.flatMap(normalizersOf);
  }
  return [String(value.type)];
}

/** The steps of a pre-tokenizer, each in one form whatever its spelling. */
function stepsOf(value: unknown): string[] {
  if (!isRecord(value)) return [];
  switch (value.type) {
    case "Sequence":
      return Array.isArray(value.pretokenizers) ? value.pretokenizers.flatMap(stepsOf) : [];
    case "ByteLevel":
      return [
        ...value.add_prefix_space === true ? ["a space before"] : [],
        ...value.use_regex === false ? [] : [WORDS],
        BYTES,
      ];
    case "Digits":
      return [value.individual_digits === true ? "digits one by one" : "digits together"];
    case "Punctuation":
      return [
        value.behavior === "Contiguous" ? "punctuation together" : `punctuation ${quote(value.behavior)}`,
      ];
    case "Split": {
      const { behavior, invert = false, pattern } = value;
      const regex = isRecord(pattern) && typeof pattern.Regex === "string"
        ? spelled(pattern.Regex)
        : undefined;
      // What ends so matches all of a text: nothing lies between its matches.
      const isWhole = regex?.endsWith("|\\s+(?!\\S)|\\s+");
      const isSplit = behavior === "Isolated" || (behavior === "Removed" && invert === true && isWhole);
      return [regex !== undefined && isSplit ? `split ${regex}` : quote(value)];
    }
    default:
      return [quote(value)];
  }
}

/** A pattern with its line ends written out, and in NFC: some copies of these files went through it. */
function spelled(pattern: string): string {
  return pattern.replaceAll("\r", "\\r").replaceAll("\n", "\\n").normalize("NFC");
}
