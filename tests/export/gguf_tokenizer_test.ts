import { Tokenizer } from "../../data/tokenizer.ts";
import type { TokenizerConfig } from "../../data/tokenizer_json.ts";
import { preTokenizerKinds } from "../../export/gguf_pre_tokenizer.ts";
import { type GgufTokenizer, ggufTokenizer } from "../../export/gguf_tokenizer.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN } from "../support/files.ts";
import { assertIncludes } from "../support/text.ts";

const json = JSON.parse(await Deno.readTextFile(`${GOLDEN}/mha/tokenizer.json`));
const config = { bos_token: "<s>", eos_token: "</s>" };
const bytes = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
const words = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
const digits = { type: "Digits", individual_digits: true };
const split = (Regex: string) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false });
const steps = (...pretokenizers: unknown[]) => ({ type: "Sequence", pretokenizers });

const CL100K =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const QWEN2 =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const TEKKEN =
  "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const GPT4O =
  "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const DEEPSEEK3 =
  "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
const LATIN =
  "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
const CJK = "[一-龥ࠀ-一가-퟿]+";

Deno.test("pre-tokenizers of tokenizer.json files in use have llama.cpp's names", async () => {
  const nfc = { type: "NFC" };
  const cases: [string, unknown, unknown?][] = [
    // gpt2, gpt-neox-20b, falcon-7b, SmolLM2, c4ai-command-r
    ["gpt-2", { type: "ByteLevel", add_prefix_space: false, trim_offsets: true }],
    ["olmo", words, nfc],
    [
      "falcon",
      steps(
        { type: "Punctuation", behavior: "Contiguous" },
        words,
        { ...digits, individual_digits: false },
        split("[0-9][0-9][0-9]"),
      ),
    ],
    ["smollm", steps(digits, words)],
    ["command-r", steps(digits, words), nfc],
    // Meta-Llama-3-8B, whose words are taken before merges; Qwen2-7B; Mistral-Nemo; gpt-4o and Llama 4
    ["llama-bpe smaug-bpe", steps(split(CL100K), bytes)],
    ["llama-bpe smaug-bpe", steps({ ...split(CL100K), behavior: "Removed", invert: true }, bytes)],
    ["qwen2", steps(split(QWEN2), bytes), nfc],
    ["qwen2", steps(split(QWEN2), bytes)],
    ["tekken", steps(split(TEKKEN), bytes)],
    ["gpt-4o", steps(split(GPT4O), bytes)],
    // deepseek-coder-6.7b, deepseek-llm-7b, DeepSeek-V3
    [
      "deepseek-coder",
      steps(split("[\r\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"), split(CJK), digits, bytes),
      { type: "Sequence", normalizers: [] },
    ],
    [
      "deepseek-llm",
      steps(
        split("[\r\n]"),
        split(LATIN),
        split("\\s?[!-/:-~！-／：-～‘-‟　-。]+"),
        split("\\s+$"),
        split(CJK),
        digits,
        bytes,
      ),
    ],
    ["deepseek-v3", steps(split("\\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK3), bytes)],
    ["bloom", steps(split(" ?[^(\\s|[.,!?…。，、।۔،])]+"), bytes)],
  ];
  for (const [names, pre_tokenizer, normalizer = null] of cases) {
    const kinds = preTokenizerKinds({ normalizer, pre_tokenizer, model: null });
    assertEquals(kinds.map(({ name }) => name).join(" "), names);
  }
  const unknown: [unknown, unknown, string][] = [
    // As deepseek-coder, but without its step for Chinese.
    [
      steps(split("[\r\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"), digits, bytes),
      null,
      "not known to cut",
    ],
    [steps(split(CL100K.replace("{1,3}", "{1,4}")), bytes), null, "not known to cut"],
    [{ ...words, add_prefix_space: true }, null, "a space before"],
    [steps({ ...split(CL100K), behavior: "MergedWithNext" }, bytes), null, "not known to cut"],
    [null, null, "not known to cut"],
    [words, { type: "NFKC" }, "normalizer (NFKC)"],
    [steps(split(CL100K), bytes), nfc, "NFC"],
    [
      words,
      { type: "Sequence", normalizers: [nfc, { type: "Prepend", prepend: "x" }] },
      "normalizer (NFC, Prepend)",
    ],
  ];
  for (const [pre_tokenizer, normalizer, message] of unknown) {
    await assertThrows(
      () => preTokenizerKinds({ normalizer, pre_tokenizer, model: null }),
      "Cannot write GGUF",
      message,
    );
  }
});

function keysOf(
  parts: Record<string, unknown>,
  settings: TokenizerConfig = config,
  size = 261,
): GgufTokenizer {
  return ggufTokenizer(new Tokenizer({ ...json, ...parts }, settings), size);
}

Deno.test("ignore_merges decides between kinds, unless merges make every token", async () => {
  const llama3 = steps(split(CL100K), bytes);
  const name = (model: Record<string, unknown>, pre_tokenizer: unknown = llama3) =>
    keysOf({ pre_tokenizer, model: { ...json.model, ...model } }).keys.get("tokenizer.ggml.pre");
  assertEquals(name({ ignore_merges: true }), "llama-bpe");
  assertEquals(name({}), "smaug-bpe");
  const made = { vocab: { ...json.model.vocab, ab: 259 }, merges: ["a b"] };
  const tekken = steps(split(TEKKEN), bytes);
  assertEquals(name(made, tekken), "tekken");
  assertEquals(name({ ...made, ignore_merges: true }, steps(split(QWEN2), bytes)), "qwen2");
  const alone = { ...made, merges: [] };
  assertEquals(name({ ...alone, ignore_merges: true }, tekken), "tekken");
  await assertThrows(() => name(alone, tekken), "ignore_merges of the tokenizer is false", "tekken");
});

Deno.test("byte-level keys hold types of tokens, special ids and what frames texts", () => {
  const added = [
    ...json.added_tokens,
    { id: 259, content: "<|im_end|>", special: true, normalized: false },
    { id: 260, content: "[tool]", special: false, normalized: false, rstrip: true },
  ];
  const { keys, notes } = keysOf({ added_tokens: added }, {
    ...config,
    eos_token: "<|im_end|>",
    pad_token: "!",
    add_eos_token: true,
    chat_template: "{{ messages }}",
  }, 263);
  const { strings } = keys.get("tokenizer.ggml.tokens") as { strings: string[] };
  const { i32s } = keys.get("tokenizer.ggml.token_type") as { i32s: number[] };
  assertEquals(strings.slice(256), ["<unk>", "<s>", "</s>", "<|im_end|>", "[tool]", "[PAD261]", "[PAD262]"]);
  // Normal, control, user-defined and unused ones.
  assertEquals([i32s[65], ...i32s.slice(256)], [1, 3, 3, 3, 3, 4, 5, 5]);
  const numbers = ["bos", "eos", "padding", "unknown"].map((name) =>
    keys.get(`tokenizer.ggml.${name}_token_id`)
  );
  assertEquals(numbers, [{ u32: 257 }, { u32: 259 }, { u32: 33 }, undefined]);
  assertEquals([keys.get("tokenizer.ggml.add_bos_token"), keys.get("tokenizer.ggml.add_eos_token")], [
    true,
    true,
  ]);
  assertEquals(keys.get("tokenizer.chat_template"), "{{ messages }}");
  assertIncludes(notes.join("\n"), 'takes no spaces with them: "[tool]"');
  assertIncludes(notes.join("\n"), "does not write bos_token");
  const nfc = keysOf({ normalizer: { type: "NFC" } });
  assertEquals(nfc.keys.get("tokenizer.ggml.pre"), "olmo");
  assertIncludes(nfc.notes.join(), "NFC, llama.cpp does not");
});

Deno.test("a tokenizer that llama.cpp cannot follow is refused by name", async () => {
  const special = (id: string) => ({ SpecialToken: { id, type_id: 0 } });
  const entry = (id: string, value: number) => ({ [id]: { id, ids: [value], tokens: [id] } });
  const two = {
    type: "TemplateProcessing",
    single: [special("<unk>"), special("<s>"), { Sequence: { id: "A", type_id: 0 } }],
    special_tokens: { ...entry("<unk>", 256), ...entry("<s>", 257) },
  };
  await assertThrows(() => keysOf({ post_processor: two }), "puts the tokens 256, 257 before a text");
  await assertThrows(() => keysOf({}, config, 258), "eos_token has the id 258", "258 tokens");
  assertIncludes(
    keysOf({ added_tokens: [...json.added_tokens, { id: 259, content: "<x>" }] }, config, 259).notes.join(),
    'left out: "<x>"',
  );
  const demo = await Tokenizer.load(new URL("../../demo/model", import.meta.url).pathname);
  await assertThrows(() => ggufTokenizer(demo, 4096), 'of type "WordLevel"', "BPE");
});

const PREPEND = { type: "Prepend", prepend: "\u2581" };
const REPLACE = { type: "Replace", pattern: { String: " " }, content: "\u2581" };
const BYTE_TOKENS = Array.from(
  { length: 256 },
  (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`,
);

/** A tokenizer as those that transformers makes of SentencePiece models. */
function sentencePiece(
  merges: string[],
  parts: Record<string, unknown> = {},
  more: string[] = [],
): GgufTokenizer {
  const letters = ["\u2581", "a", "b", "c"];
  const made = [...new Set(merges.map((merge) => merge.replace(" ", "")))];
  const pieces = ["<unk>", "<s>", "</s>", ...BYTE_TOKENS, ...made, ...more, ...letters];
  const tokenizer = new Tokenizer({
    added_tokens: [],
    normalizer: { type: "Sequence", normalizers: [PREPEND, REPLACE] },
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    model: {
      type: "BPE",
      unk_token: "<unk>",
      byte_fallback: true,
      vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
      merges,
    },
    ...parts,
  }, { ...config, unk_token: "<unk>", tokenizer_class: "LlamaTokenizer" });
  return ggufTokenizer(tokenizer, pieces.length);
}

Deno.test("SentencePiece's BPE has scores in the order of its merges, byte tokens and its mark before texts", () => {
  const { keys, notes } = sentencePiece(["a b", "\u2581 a", "\u2581a b", "\u2581 ab"], {}, ["cc"]);
  const { strings } = keys.get("tokenizer.ggml.tokens") as { strings: string[] };
  const { i32s } = keys.get("tokenizer.ggml.token_type") as { i32s: number[] };
  const { f32s } = keys.get("tokenizer.ggml.scores") as { f32s: number[] };
  const score = (token: string) => f32s[strings.indexOf(token)]!;
  assertEquals(
    [score("ab"), score("\u2581a"), score("\u2581ab")],
    [0, -1, -2].map((rank) => rank === 0 ? -0 : rank),
  );
  // What no merge makes comes after all that merges make.
  assert(score("cc") < score("\u2581ab"), `${score("cc")}`);
  assertEquals(i32s.slice(0, 4).concat(i32s.at(-1)!), [2, 3, 3, 6, 1]);
  const of = (name: string) => keys.get(`tokenizer.ggml.${name}`);
  assertEquals([of("model"), of("pre"), of("add_space_prefix"), of("add_bos_token"), of("add_eos_token")], [
    "llama",
    "default",
    true,
    true,
    false,
  ]);
  assertEquals([of("unknown_token_id"), of("merges")], [{ u32: 0 }, undefined]);
  assertEquals(notes, []);
});

Deno.test("spaces are marked as llama.cpp marks them, or it is refused or said", async () => {
  const prefix = (parts: Record<string, unknown>) => {
    const { keys, notes } = sentencePiece(["a b"], parts);
    return [keys.get("tokenizer.ggml.add_space_prefix"), notes.length];
  };
  const metaspace = { type: "Metaspace", replacement: "\u2581", split: false };
  assertEquals(prefix({ normalizer: REPLACE }), [false, 0]);
  assertEquals(
    prefix({
      normalizer: REPLACE,
      pre_tokenizer: { type: "Split", pattern: { String: " " }, behavior: "MergedWithPrevious" },
    }),
    [false, 0],
  );
  assertEquals(prefix({ normalizer: null, pre_tokenizer: { ...metaspace, prepend_scheme: "never" } }), [
    false,
    0,
  ]);
  assertEquals(prefix({ normalizer: null, pre_tokenizer: { ...metaspace, prepend_scheme: "first" } }), [
    true,
    1,
  ]);
  const refused: [Record<string, unknown>, string][] = [
    [
      { normalizer: { type: "Sequence", normalizers: [{ type: "NFKC" }, PREPEND, REPLACE] } },
      "how this tokenizer marks spaces",
    ],
    [{ normalizer: null, pre_tokenizer: { ...metaspace, split: true } }, "how this tokenizer marks spaces"],
    [{ normalizer: PREPEND }, "how this tokenizer marks spaces"],
  ];
  for (const [parts, message] of refused) await assertThrows(() => sentencePiece(["a b"], parts), message);
  await assertThrows(() => sentencePiece(["a b", "b c", "a bc"], {}, ["abc"]), 'does not merge "ab" and "c"');
  await assertThrows(
    () => sentencePiece(["a b", "b c", "ab c", "\u2581 a", "a bc"]),
    'merge 4 of the tokenizer makes "abc" anew',
  );
});
