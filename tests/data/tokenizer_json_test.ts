import { Tokenizer } from "../../data/tokenizer.ts";
import type { TokenizerJson } from "../../data/tokenizer_json.ts";
import { UserError } from "../../errors.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { integers } from "../support/random.ts";

const PLAIN = { bos: false, eos: false };
const json = JSON.parse(await Deno.readTextFile(`${GOLDEN}/mha/tokenizer.json`));
const config = { bos_token: "<s>", eos_token: "</s>" };

/** Cuts a text by these steps into words that are one token each; the pieces. */
function pieces(
  pre_tokenizer: unknown,
  text: string,
  expected: readonly string[],
  normalizer: unknown = null,
): string[] {
  const words = ["</s>", "<unk>", ...new Set(expected)];
  const tokenizer = new Tokenizer({
    added_tokens: [],
    normalizer,
    pre_tokenizer,
    post_processor: null,
    decoder: null,
    model: {
      type: "WordLevel",
      unk_token: "<unk>",
      vocab: Object.fromEntries(words.map((word, id) => [word, id])),
    },
  }, { eos_token: "</s>" });
  return tokenizer.encode(text, PLAIN).map((id) => tokenizer.tokenText(id));
}

const split = (Regex: string, behavior: string, invert = false) => ({
  type: "Split",
  pattern: { Regex },
  behavior,
  invert,
});
const at = (String: string, behavior: string, invert = false) => ({
  type: "Split",
  pattern: { String },
  behavior,
  invert,
});

Deno.test("pre-tokenizers cut as the tokenizers crate does", () => {
  const metaspace = { type: "Metaspace", replacement: "\u2581", prepend_scheme: "always" };
  const cases: [unknown, string, string[]][] = [
    // Numbers of all scripts, of all kinds.
    [{ type: "Digits", individual_digits: true }, "a12\u0663\u00b2b", [
      "a",
      "1",
      "2",
      "\u0663",
      "\u00b2",
      "b",
    ]],
    [{ type: "Digits", individual_digits: false }, "a12\u0663b4", ["a", "12\u0663", "b", "4"]],
    [{ type: "Punctuation" }, "a,.b+\u3002", ["a", ",", ".", "b", "+", "\u3002"]],
    [{ type: "Punctuation", behavior: "Contiguous" }, "a,.b+\u3002", ["a", ",.", "b", "+\u3002"]],
    [{ type: "Whitespace" }, "na\u00efve  \u6771\u4eac, x\ufeff", [
      "na\u00efve",
      "\u6771\u4eac",
      ",",
      "x",
      "\ufeff",
    ]],
    [{ type: "WhitespaceSplit" }, "a\ufeff b\u0085c", ["a\ufeff", "b", "c"]],
    [metaspace, "a  bc d", ["\u2581a", "\u2581", "\u2581bc", "\u2581d"]],
    [{ ...metaspace, split: false }, "a  bc", ["\u2581a\u2581\u2581bc"]],
    [{ type: "Metaspace", replacement: "\u2581", add_prefix_space: false }, "a b", ["a", "\u2581b"]],
    [at("-", "MergedWithNext"), "a--b-", ["a", "-", "-b", "-"]],
    [at("-", "MergedWithPrevious"), "-a--b", ["-", "a-", "-", "b"]],
    [at("-", "Removed"), "a--b", ["a", "b"]],
    [at("-", "Isolated", true), "a--b", ["a", "-", "-", "b"]],
    [at("-", "Contiguous"), "a--b", ["a", "--", "b"]],
    [split("\\d", "Removed"), "a1b", ["a", "b"]],
    [split("\\d+|x", "Removed", true), "a12bx", ["12", "x"]],
    [{ type: "Sequence", pretokenizers: [{ type: "WhitespaceSplit" }, split("[a-c]", "Isolated")] }, "ad b", [
      "a",
      "d",
      "b",
    ]],
  ];
  for (const [step, text, expected] of cases) {
    assertEquals(pieces(step, text, expected), expected, JSON.stringify(step));
  }
  const gpt2 = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  // White space is Unicode's: the next line is, the byte-order mark is not.
  const expected = ["!\u00ef\u00bb\u00bf", "\u00c2\u0127", "\u0120b"];
  assertEquals(pieces(gpt2, "!\ufeff\u0085 b", expected), expected);
});

Deno.test("normalizers change texts as the tokenizers crate does", () => {
  const cases: [unknown, string, string][] = [
    [{ type: "Replace", pattern: { String: "a" }, content: "$&" }, "xa", "x$&"],
    [{ type: "Replace", pattern: { Regex: "b+" }, content: "c" }, "abb", "ac"],
    [{ type: "Strip", strip_left: true, strip_right: false }, " \n x ", "x "],
    [{ type: "Strip", strip_left: true, strip_right: true }, " \u0085x\ufeff ", "x\ufeff"],
    [
      { type: "Sequence", normalizers: [{ type: "NFC" }, { type: "Prepend", prepend: "_" }] },
      "e\u0301",
      "_\u00e9",
    ],
  ];
  for (const [step, text, expected] of cases) assertEquals(pieces(null, text, [expected], step), [expected]);
});

Deno.test("unknown characters of a Unigram model become bytes where it has them, and one unknown token a piece", async () => {
  const vocab: [string, number][] = [["<unk>", 0], ["</s>", 0], ["\u2581", -1], ["a", -2], ["\u2581a", -1.5]];
  for (let byte = 0; byte < 256; byte++) {
    vocab.push([`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`, -9]);
  }
  const make = (model: object) =>
    new Tokenizer({
      normalizer: null,
      pre_tokenizer: { type: "Metaspace", replacement: "\u2581", prepend_scheme: "always" },
      decoder: null,
      model: { type: "Unigram", unk_id: 0, vocab, ...model },
    }, { eos_token: "</s>" });
  assertEquals(make({ byte_fallback: true }).encode("a \u00e9a", PLAIN), [4, 2, 5 + 0xc3, 5 + 0xa9, 3]);
  assertEquals(make({}).encode("xy z", PLAIN), [2, 0, 2, 0]);
  await assertThrows(() => make({ unk_id: null }).encode("x", PLAIN), 'vocabulary lacks "x"', "unk_token");
});

Deno.test("what is not computed as transformers does is refused by name", async () => {
  const cases: [Record<string, unknown>, string][] = [
    [{ normalizer: { type: "Lowercase" } }, 'normalizer has a step of type "Lowercase"'],
    [{ normalizer: { type: "Precompiled", precompiled_charsmap: "" } }, '"Precompiled"'],
    [{ pre_tokenizer: { type: "UnicodeScripts" } }, 'pre_tokenizer has a step of type "UnicodeScripts"'],
    [{ pre_tokenizer: split("ab", "MergedWithNext") }, "MergedWithNext"],
    [{ pre_tokenizer: split("(a)b", "Removed") }, "Removed"],
    [{ pre_tokenizer: split("(a+)+b", "Isolated") }, "repeats what repeats"],
    [{ pre_tokenizer: split("(?:\\s*x){2,}", "Isolated") }, "repeats what repeats"],
    [{ pre_tokenizer: split("(?:a|ab)*c", "Isolated") }, "repeats what repeats"],
    [{ pre_tokenizer: split("(?:a?){30}b", "Isolated") }, "repeats what repeats"],
    [{ pre_tokenizer: split("a*a*a*a*b", "Isolated") }, "repeats what repeats"],
    [{ pre_tokenizer: split("[", "Isolated") }, "Unterminated character class"],
    [{ pre_tokenizer: { type: "Split" } }, "no pattern"],
    [{ pre_tokenizer: 5 }, "has no type"],
    [{ model: { ...json.model, continuing_subword_prefix: "##" } }, "continuing_subword_prefix"],
    [{ model: { ...json.model, dropout: 0.1 } }, "dropout"],
    [{ model: { ...json.model, type: "WordPiece" } }, '"WordPiece"'],
    [{ model: { ...json.model, merges: null } }, "no list of merges"],
    [{ model: { ...json.model, merges: ["a"] } }, 'merge 0 is "a"'],
    [{ model: { ...json.model, merges: ["a b"] } }, 'merge 0 has "ab", which is not in the vocabulary'],
    [{ model: { ...json.model, vocab: { a: 0, b: 0 } } }, 'id 0 is of "a" and of "b"'],
    [{ model: { ...json.model, vocab: { a: 1.5 } } }, 'token "a" has the id 1.5'],
    [{ model: { ...json.model, vocab: { a: 4e9 } } }, "ids are whole numbers"],
    [{ model: { ...json.model, vocab: { a: 1e7 } } }, 'token "a" has the id 10000000'],
    [{ model: { ...json.model, vocab: [["a", "b"]], type: "Unigram" } }, "entry 0 of its vocabulary"],
    [{ model: null }, "it has no model"],
    [{ added_tokens: 5 }, "added_tokens must be a list"],
    [{ added_tokens: [null] }, "which is no token"],
    [{ decoder: { type: "Fancy" } }, "Fancy"],
  ];
  for (const [parts, message] of cases) {
    await assertThrows(() => new Tokenizer({ ...json, ...parts }, config), message);
  }
  let deep: unknown = json.pre_tokenizer;
  for (let i = 0; i < 20; i++) deep = { type: "Sequence", pretokenizers: [deep] };
  await assertThrows(
    () => new Tokenizer({ ...json, pre_tokenizer: deep }, config),
    "too many steps within steps",
  );
});

Deno.test("an unknown token that the vocabulary lacks matters only where a text needs it", async () => {
  const { "!": _, ...vocab } = json.model.vocab;
  const tokenizer = new Tokenizer({ ...json, model: { ...json.model, unk_token: "", vocab } }, config);
  assertEquals(tokenizer.encode("a", PLAIN), [97]);
  await assertThrows(() => tokenizer.encode("a!", PLAIN), 'vocabulary lacks "!"', "unk_token");
});

Deno.test("patterns of tokenizers in use are none that repeat what repeats", () => {
  const patterns = [
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
    "\\d{1,3}(?=(?:\\d{3})*\\b)",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
    " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+",
    "\\p{N}+",
    "(?=(\\d{3})+(?!\\d))",
  ];
  for (const pattern of patterns) {
    new Tokenizer({ ...json, pre_tokenizer: split(pattern, "Isolated") }, config);
  }
});

Deno.test("a tokenizer.json with damage anywhere is read, or refused in one line, in no time", async () => {
  const samples: TokenizerJson[] = [
    json,
    JSON.parse(await Deno.readTextFile(new URL("../../demo/model/tokenizer.json", import.meta.url))),
  ];
  // Few tokens, so that damage lands everywhere.
  const small = samples.map((sample) => {
    const model = sample.model as { vocab: Record<string, number> };
    const kept = new Set((sample.added_tokens as { content: string }[]).map(({ content }) => content));
    const vocab = Object.entries(model.vocab).filter(([token], i) => i < 20 || kept.has(token));
    return JSON.stringify({ ...sample, model: { ...model, vocab: Object.fromEntries(vocab) } });
  });
  const values = [
    "null",
    "-1",
    "1e9",
    "16777216",
    "0.5",
    '""',
    "[]",
    "{}",
    "true",
    '"(a+)+"',
    '"Sequence"',
    "[[[]]]",
  ];
  let refused = 0;
  for (let seed = 1; seed <= 400; seed++) {
    const text = small[seed % small.length]!;
    const places = [...text.matchAll(/(?<=[:,[])(?:-?\d+|"[^"]*"|true|false|null)/g)];
    const [place = 0, value = 0, kind = 0] = integers(seed, 3, 1 << 30);
    const { index, 0: old } = places[place % places.length]!;
    const damaged = kind % 3 === 0
      ? text.slice(0, index) + text.slice(index + old.length)
      : text.slice(0, index) + values[value % values.length]! + text.slice(index + old.length);
    await withFolder(async (folder) => {
      await Deno.writeTextFile(`${folder}/tokenizer.json`, damaged);
      const started = performance.now();
      try {
        const tokenizer = await Tokenizer.load(folder);
        const ids = tokenizer.encode("aaaaaaaaaaaaaaaaaaaaaaaa b\n12 </s>!", { bos: true, eos: true });
        assert(ids.every((id) => id < tokenizer.vocabSize), `seed ${seed}: ${ids}`);
      } catch (error) {
        assert(error instanceof UserError, `seed ${seed}: ${error}`);
        assert(!error.message.includes("\n"), `seed ${seed}: ${error.message}`);
        refused++;
      }
      assert(performance.now() - started < 20_000, `seed ${seed} took too long`);
    });
  }
  assert(refused > 150, `${refused} refused`);
});

Deno.test("files of a tokenizer that are too deep, no text or no file are refused by name", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/tokenizer.json`;
    await Deno.writeTextFile(path, `{"model":${"[".repeat(5000)}${"]".repeat(5000)}}`);
    await assertThrows(() => Tokenizer.load(folder), path, "levels deep");
    await Deno.writeFile(path, Uint8Array.of(0x7b, 0xff, 0x7d));
    await assertThrows(() => Tokenizer.load(folder), path, "not valid UTF-8");
    await Deno.writeTextFile(path, "[]");
    await assertThrows(() => Tokenizer.load(folder), path, "no JSON object");
    await Deno.truncate(path, 200_000_000);
    await assertThrows(() => Tokenizer.load(folder), path, "200000000 bytes");
    await Deno.remove(path);
    await Deno.mkdir(path);
    await assertThrows(() => Tokenizer.load(folder), path, "it is a folder");
  });
});

Deno.test("add_prefix_space of a LlamaTokenizer decides on the space before texts, whatever the file's steps", () => {
  const mark = "\u2581";
  const tokens = ["<unk>", "<s>", "</s>", mark, "a", `${mark}a`];
  const model = {
    type: "BPE",
    unk_token: "<unk>",
    vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
    merges: [[mark, "a"]],
  };
  const added = [1, 2].map((id) => ({ id, content: tokens[id], special: true, normalized: false }));
  const replace = { type: "Replace", pattern: { String: " " }, content: mark };
  const prepend = { type: "Sequence", normalizers: [{ type: "Prepend", prepend: mark }, replace] };
  const metaspace = (prepend_scheme: string) => ({
    type: "Metaspace",
    replacement: mark,
    prepend_scheme,
    split: false,
  });
  const strip = {
    type: "Sequence",
    decoders: [{ type: "Fuse" }, { type: "Strip", content: " ", start: 1, stop: 0 }],
  };
  const texts = (steps: Record<string, unknown>, settings: Record<string, unknown>) => {
    const tokenizer = new Tokenizer(
      {
        added_tokens: added,
        normalizer: null,
        pre_tokenizer: null,
        post_processor: null,
        decoder: strip,
        ...steps,
        model,
      },
      { ...config, tokenizer_class: "LlamaTokenizerFast", ...settings },
    );
    // A worker makes it again from its files.
    const again = new Tokenizer(...tokenizer.files);
    const ids = tokenizer.encode("a</s>a", PLAIN);
    assertEquals(again.encode("a</s>a", PLAIN), ids);
    return ids.map((id) => tokens[id]).join(" ");
  };
  const put = `${mark}a </s> ${mark}a`;
  assertEquals(texts({ normalizer: prepend }, {}), put);
  assertEquals(texts({ normalizer: prepend }, { add_prefix_space: true, legacy: false }), put);
  assertEquals(texts({ normalizer: prepend }, { add_prefix_space: false }), "a </s> a");
  assertEquals(
    texts({ normalizer: prepend }, { add_prefix_space: false, tokenizer_class: "GemmaTokenizer" }),
    put,
  );
  assertEquals(texts({ pre_tokenizer: metaspace("first") }, { add_prefix_space: false }), "a </s> a");
  assertEquals(texts({ pre_tokenizer: metaspace("always") }, { add_prefix_space: true }), put);
  assertEquals(texts({ pre_tokenizer: metaspace("never") }, { add_prefix_space: true }), put);
  assertEquals(
    texts({ pre_tokenizer: metaspace("never") }, { add_prefix_space: true, legacy: false }),
    `${mark}a </s> a`,
  );
  assertEquals(texts({ normalizer: replace }, { add_prefix_space: true }), put);
  assertEquals(texts({ normalizer: replace }, { add_prefix_space: null }), "a </s> a");
  // GGUF is told by what the tokenizer was made from.
  const bytes = { type: "ByteLevel", add_prefix_space: false, use_regex: true };
  const settled = new Tokenizer({ ...json, pre_tokenizer: bytes }, { ...config, add_prefix_space: true });
  assertEquals(settled.files[0].pre_tokenizer, { ...bytes, add_prefix_space: true });
});
