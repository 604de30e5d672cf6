/** `tokenizer.json` and `tokenizer_config.json`, and texts that are encoded with them. */
import { Tokenizer } from "../../../data/tokenizer.ts";
import { assert } from "../../support/assert_close.ts";
import { GOLDEN } from "../../support/files.ts";
import { joinParts, splitParts } from "../parts.ts";
import { asText, mutateJson, utf8 } from "../mutate.ts";
import type { Reader } from "../reader.ts";
import { SMALL_TOKENIZER } from "../small_tokenizer.ts";

const CONFIG = Deno.readTextFileSync(`${GOLDEN}/mha/tokenizer_config.json`);
/** Byte-level, as Llama-3 and Qwen2. */
const BYTE_LEVEL = JSON.stringify({
  added_tokens: [{ id: 4, content: "<|end_of_text|>", special: true }],
  normalizer: { type: "NFC" },
  pre_tokenizer: {
    type: "Sequence",
    pretokenizers: [
      {
        type: "Split",
        pattern: { Regex: "\\p{L}+| ?\\p{N}{1,3}|\\s+" },
        behavior: "Isolated",
        invert: false,
      },
      { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
    ],
  },
  post_processor: { type: "ByteLevel", add_prefix_space: true, trim_offsets: false, use_regex: true },
  decoder: { type: "ByteLevel" },
  model: { type: "BPE", vocab: { a: 0, b: 1, "\u0120": 2, ab: 3 }, merges: [["a", "b"]] },
});
const BYTE_LEVEL_CONFIG = JSON.stringify({
  eos_token: "<|end_of_text|>",
  tokenizer_class: "PreTrainedTokenizerFast",
});

const HINTS = {
  keys: [
    "id",
    "content",
    "type",
    "vocab",
    "merges",
    "pattern",
    "prepend",
    "decoders",
    "normalizers",
    "unk_token",
  ],
  values: [
    '"BPE"',
    '"WordPiece"',
    '"Unigram"',
    '"Metaspace"',
    '"ByteLevel"',
    '"Sequence"',
    '"TemplateProcessing"',
    '{"Regex":"(a+)+$"}',
    '{"Regex":"["}',
    '{"String":""}',
    "100000000",
    "4000000000",
    '["a","b"]',
    '"a b"',
    '{"type":"NFKC"}',
    '{"type":"Lowercase"}',
  ],
};
const TEXTS = [
  "",
  "ab ba\nabab",
  " a</s>b<s>",
  "\u{1f600}\ud83d \u0000",
  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!",
];

export const reader: Reader = {
  everyday: 400,
  accepted: [0.02, 0.95],
  make(dice) {
    const [json, config] = dice.chance(0.6) ? [SMALL_TOKENIZER, CONFIG] : [BYTE_LEVEL, BYTE_LEVEL_CONFIG];
    const isConfig = dice.chance(0.15);
    return joinParts({
      "tokenizer.json": isConfig ? utf8(json) : mutateJson(dice, json, HINTS),
      "tokenizer_config.json": isConfig ? mutateJson(dice, config, HINTS) : utf8(config),
    });
  },
  async read(input, folder) {
    const parts = splitParts(input);
    for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
      Deno.writeFileSync(`${folder}/${name}`, parts[name] ?? utf8("{}"));
    }
    const tokenizer = await Tokenizer.load(folder);
    for (const text of TEXTS) {
      const ids = tokenizer.encode(text, { bos: true, eos: true });
      for (const id of ids) {
        assert(
          Number.isInteger(id) && id >= 0 && id < tokenizer.vocabSize,
          `id ${id} of ${asText(utf8(text))}`,
        );
      }
      const decoded: unknown = tokenizer.decode(ids, { skipSpecial: true });
      assert(typeof decoded === "string", "what is decoded is no text");
    }
  },
};
