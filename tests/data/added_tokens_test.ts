import { Tokenizer } from "../../data/tokenizer.ts";
import type { TokenizerConfig } from "../../data/tokenizer_json.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";

const PLAIN = { bos: false, eos: false };
const json = JSON.parse(await Deno.readTextFile(`${GOLDEN}/mha/tokenizer.json`));
const config = { tokenizer_class: "LlamaTokenizer", bos_token: "<s>", eos_token: "</s>", unk_token: "<unk>" };

/** Bytes of a text are its ids in this tokenizer. */
function bytes(text: string): number[] {
  return [...new TextEncoder().encode(text)];
}

function withTokens(
  tokens: readonly Record<string, unknown>[],
  more: Record<string, unknown> = {},
): Tokenizer {
  const added = tokens.map((token, i) => ({ id: 259 + i, normalized: false, special: true, ...token }));
  return new Tokenizer({ ...json, ...more, added_tokens: [...json.added_tokens, ...added] }, config);
}

/** A folder with this tokenizer and other files. */
async function loadWith(files: Readonly<Record<string, unknown>>): Promise<Tokenizer> {
  let tokenizer: Tokenizer | undefined;
  await withFolder(async (folder) => {
    for (
      const [name, value] of Object.entries({
        "tokenizer.json": json,
        "tokenizer_config.json": config,
        ...files,
      })
    ) {
      await Deno.writeTextFile(`${folder}/${name}`, JSON.stringify(value));
    }
    tokenizer = await Tokenizer.load(folder);
  });
  return tokenizer!;
}

const marker = (content: string, flags: Record<string, boolean> = {}) => ({
  content,
  lstrip: false,
  rstrip: false,
  single_word: false,
  normalized: false,
  special: true,
  ...flags,
});
const CHAT = "<|im_start|>user\nhi<|im_end|>\n";
const CHAT_IDS = [257, 260, ...bytes("user\nhi"), 259, 10, 259];

Deno.test("tokens that only tokenizer_config.json, added_tokens.json or special_tokens_map.json has are tokens", async () => {
  const eos = { ...config, eos_token: "<|im_end|>" };
  const decoder = { "260": marker("<|im_start|>"), "259": marker("<|im_end|>") };
  const added = { "<|im_end|>": 259, "<|im_start|>": 260 };
  const cases: Record<string, Record<string, unknown>> = {
    decoder: { "tokenizer_config.json": { ...eos, added_tokens_decoder: decoder } },
    "added_tokens.json": { "tokenizer_config.json": eos, "added_tokens.json": added },
    "special_tokens_map.json": {
      "special_tokens_map.json": {
        eos_token: marker("<|im_end|>"),
        additional_special_tokens: ["<|im_start|>"],
      },
      "added_tokens.json": added,
    },
    "all alike": {
      "tokenizer_config.json": { ...eos, added_tokens_decoder: decoder },
      "added_tokens.json": added,
      // Not read where there is a decoder, as transformers has it.
      "special_tokens_map.json": { eos_token: "</s>" },
    },
  };
  for (const [name, files] of Object.entries(cases)) {
    const tokenizer = await loadWith(files);
    assertEquals(tokenizer.encode(CHAT, { bos: true, eos: true }), CHAT_IDS, name);
    assertEquals([tokenizer.eosId, tokenizer.vocabSize], [259, 261], name);
    assertEquals(tokenizer.decode(CHAT_IDS.slice(1, -1), { skipSpecial: false }), CHAT, name);
    // What a worker makes of it.
    assertEquals(new Tokenizer(...tokenizer.files).encode(CHAT, { bos: true, eos: true }), CHAT_IDS, name);
  }
});

Deno.test("special tokens of the vocabulary are found in texts though no list has them", () => {
  const bare = { ...json, added_tokens: [] };
  const tokenizer = new Tokenizer(bare, {
    ...config,
    pad_token: { content: "!" },
    extra_special_tokens: { x: "?" },
  });
  assertEquals(tokenizer.encode("a</s>b!?", PLAIN), [97, 258, 98, 33, 63]);
  assertEquals(tokenizer.padId, 33);
  assertEquals(new Tokenizer(bare, { eos_token: "\u0120" }).encode("</s>", PLAIN), bytes("</s>"));
});

Deno.test("a special token that the vocabulary lacks is refused by name, never replaced", async () => {
  for (const key of ["bos_token", "eos_token", "unk_token", "pad_token", "mask_token"]) {
    for (const value of ["<|none|>", { content: "<|none|>", lstrip: false }]) {
      await assertThrows(
        () => new Tokenizer(json, { ...config, [key]: value }),
        `its ${key} "<|none|>" is not in the vocabulary`,
        "added_tokens in tokenizer.json",
      );
    }
  }
  const lists: [TokenizerConfig, string][] = [
    [{ additional_special_tokens: ["</s>", "<|none|>"] }, 'additional_special_tokens "<|none|>" is not in'],
    [
      { extra_special_tokens: { image_token: "<|none|>" } },
      'extra_special_tokens.image_token "<|none|>" is not in',
    ],
    [{ eos_token: 5 }, "eos_token must be a token's text"],
    [{ bos_token: { text: "<s>" } }, "bos_token must be a token's text"],
    [{ additional_special_tokens: "<s>" }, "additional_special_tokens must be a list"],
    [{ add_bos_token: "yes" }, "add_bos_token in tokenizer_config.json must be true or false"],
  ];
  for (const [more, message] of lists) {
    await assertThrows(() => new Tokenizer(json, { ...config, ...more }), message);
  }
});

Deno.test("ids that do not agree are refused by name", async () => {
  const decoder = (entries: Record<string, unknown>) => ({
    "tokenizer_config.json": { ...config, added_tokens_decoder: entries },
  });
  const cases: [Record<string, unknown>, ...string[]][] = [
    [decoder({ "257": marker("</s>") }), 'gives "</s>" the id 257, but it has the id 258'],
    [decoder({ "258": marker("<|x|>") }), 'gives "<|x|>" the id 258, which "</s>" has'],
    [decoder({ "260": marker("<|x|>") }), 'gives "<|x|>" the id 260', "the next one is 259"],
    [decoder({ "x1": marker("<|x|>") }), 'the id "x1"', "ids are whole numbers"],
    [decoder({ "259": "<|x|>" }), "which is no token"],
    [decoder({ "259": marker("") }), "a token without content"],
    [decoder({ "259": { ...marker("<|x|>"), lstrip: "no" } }), 'lstrip of "<|x|>" must be true or false'],
    [{ "added_tokens.json": { "</s>": 259 } }, 'gives "</s>" the id 259, but it has the id 258'],
    [{ "added_tokens.json": { "<|x|>": 259, "<|y|>": 259 } }, 'gives "<|y|>" the id 259, which "<|x|>" has'],
    [{ "added_tokens.json": { "<|x|>": 99999999 } }, "the id 99999999", "ids are whole numbers"],
    [
      { "added_tokens.json": { "<|x|>": 259 }, ...decoder({ "258": marker("</s>") }) },
      "added_tokens.json",
      "no such token",
    ],
    [{ "added_tokens.json": ["<|x|>"] }, "added_tokens.json", "no JSON object"],
  ];
  for (const [files, ...messages] of cases) await assertThrows(() => loadWith(files), ...messages);
});

Deno.test("added tokens take their flags as the tokenizers crate has them", () => {
  // Each by hand from its rules: find_matches in added_vocabulary.rs.
  const flags = withTokens([
    { content: "[l]", lstrip: true },
    { content: "[r]", rstrip: true },
    { content: "word", single_word: true },
    { content: "[lo", special: false },
    { content: "[long]", special: false },
  ]);
  const cases: [string, number[]][] = [
    ["a \n[l] b", [97, 259, 32, 98]],
    ["a [r] \n b", [97, 32, 260, 98]],
    ["[r]  [l]x", [260, 259, 120]],
    ["a word,", [97, 32, 261, 44]],
    ["words sword \u00e9word word", [...bytes("words sword \u00e9word "), 261]],
    ["word", [261]],
    ["[long][lon", [263, 262, 110]],
    ["a\u{1d400}word", bytes("a\u{1d400}word")],
  ];
  for (const [text, ids] of cases) assertEquals(flags.encode(text, PLAIN), ids, JSON.stringify(text));
  // Positions lie before a token with all that it takes in.
  assertEquals(flags.encodeCut("a  [l]b", [0, 1, 2, 6]).at, [0, 1, 1, 2]);
});

Deno.test("added tokens that are normalised are found in the normalised text, after the others", () => {
  const normalizer = { type: "Replace", pattern: { String: "A" }, content: "a" };
  const tokenizer = withTokens(
    [{ content: "xAx", normalized: true }, { content: "AA" }, { content: "aab", normalized: true }],
    { normalizer },
  );
  assertEquals(tokenizer.encode("xAx xax AAb aab", PLAIN), [259, 32, 259, 32, 260, 98, 32, 261]);
  // Without a normalizer, too: first those that are not normalised, whatever lies before.
  const plain = withTokens([{ content: "ab", normalized: true }, { content: "bc" }]);
  assertEquals(plain.encode("abc", PLAIN), [97, 260]);
});

Deno.test("split_special_tokens leaves special tokens in texts as text", () => {
  const tokenizer = new Tokenizer(json, { ...config, split_special_tokens: true });
  assertEquals(tokenizer.encode("a</s>", { bos: true, eos: true }), [257, ...bytes("a</s>"), 258]);
});
