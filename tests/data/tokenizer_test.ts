import { Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { RowEncoder } from "../../data/encode.ts";
import type { Row } from "../../data/rows.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { integers } from "../support/random.ts";

const PLAIN = { bos: false, eos: false };

Deno.test("Tokenizer.load() reads special ids and the vocabulary size", async () => {
  const tokenizer = await Tokenizer.load(`${GOLDEN}/mha`);
  // No pad token in the file: the unknown token stands in.
  const { bosId, eosId, padId, vocabSize } = tokenizer;
  assertEquals({ bosId, eosId, padId, vocabSize }, { bosId: 257, eosId: 258, padId: 256, vocabSize: 259 });
});

Deno.test("encode() adds special tokens only where asked, and never a second bos", async () => {
  const tokenizer = await Tokenizer.load(`${GOLDEN}/mha`);
  assertEquals(tokenizer.encode("hi", PLAIN), [104, 105]);
  assertEquals(tokenizer.encode("hi", { bos: true, eos: false }), [257, 104, 105]);
  assertEquals(tokenizer.encode("hi", { bos: true, eos: true }), [257, 104, 105, 258]);
  assertEquals(tokenizer.encode("<s>hi", { bos: true, eos: false }), [257, 104, 105]);
  assertEquals(tokenizer.encode("", { bos: true, eos: true }), [257, 258]);
  assertEquals(tokenizer.encode("", PLAIN), []);
});

Deno.test("decode() gives the text back exactly, spaces before commas included", async () => {
  const tokenizer = await Tokenizer.load(`${GOLDEN}/mha`);
  for (
    const text of ["Hello , world ! it 's", "naïve 東京 🚀", "tabs\tand\n\nlines \r\n", "  two  spaces  "]
  ) {
    assertEquals(tokenizer.decode(tokenizer.encode(text, PLAIN), { skipSpecial: true }), text);
  }
  assertEquals(tokenizer.decode([], { skipSpecial: true }), "");
  assertEquals(tokenizer.decode([257, 104, 105, 258], { skipSpecial: false }), "<s>hi</s>");
  assertEquals(tokenizer.decode(Uint32Array.of(257, 104, 105, 258), { skipSpecial: true }), "hi");
});

Deno.test("Tokenizer.load() says what to do when there is no tokenizer", async () => {
  await withFolder(async (folder) => {
    await assertThrows(() => Tokenizer.load(folder), "Cannot load a tokenizer", folder, "no tokenizer.json");
    await assertThrows(() => Tokenizer.load(`${folder}/none`), "no tokenizer.json");
    await Deno.writeTextFile(`${folder}/tokenizer.json`, "{ not json");
    await assertThrows(() => Tokenizer.load(folder), "tokenizer.json", "not valid JSON");
    const json = JSON.parse(await Deno.readTextFile(`${GOLDEN}/mha/tokenizer.json`));
    json.added_tokens = [];
    delete json.model.vocab["<s>"];
    await Deno.writeTextFile(`${folder}/tokenizer.json`, JSON.stringify(json));
    await assertThrows(() => Tokenizer.load(folder), "has no bos_token", "tokenizer_config.json");
  });
});

Deno.test("texts begin with the beginning-of-text token where the model's own tokenizer puts it", async () => {
  const { post_processor: llama, ...json } = JSON.parse(
    await Deno.readTextFile(`${GOLDEN}/mha/tokenizer.json`),
  );
  const byteLevel = { type: "ByteLevel", add_prefix_space: false };
  const special = { bos_token: "<s>", eos_token: "</s>" };
  const cases: [string, unknown, Record<string, unknown>, number | undefined, number[]][] = [
    ["Llama-2", llama, special, 257, [257, 104]],
    ["Llama-3", { type: "Sequence", processors: [byteLevel, llama] }, special, 257, [257, 104]],
    ["GPT-NeoX", byteLevel, special, 257, [104]],
    ["Qwen2", byteLevel, { ...special, bos_token: null, add_bos_token: false }, undefined, [104]],
    ["without a post-processor", null, special, 257, [104]],
    ["by its setting", null, { ...special, add_bos_token: true }, 257, [257, 104]],
    ["against its file", llama, { ...special, add_bos_token: false }, 257, [104]],
  ];
  for (const [name, post_processor, config, bosId, ids] of cases) {
    const tokenizer = new Tokenizer({ ...json, post_processor }, config);
    assertEquals([tokenizer.bosId, tokenizer.encode("h", { bos: true, eos: false })], [bosId, ids], name);
    const chat: Row = { kind: "answer", input: "q", output: "a" };
    const row = new RowEncoder(tokenizer, { template: "vicuna" }).encode({ row: chat, where: "row" });
    assertEquals(row.ids[0] === 257, ids[0] === 257, name);
  }
  await assertThrows(
    () => new Tokenizer({ ...json, post_processor: llama }, { ...special, bos_token: null }),
    "has no bos_token",
  );
});

Deno.test("Tokenizer.load() takes the chat template from its own file before that of tokenizer_config.json", async () => {
  await withFolder(async (folder) => {
    await Deno.copyFile(`${GOLDEN}/mha/tokenizer.json`, `${folder}/tokenizer.json`);
    const config = { bos_token: "<s>", eos_token: "</s>", chat_template: "old" };
    await Deno.writeTextFile(`${folder}/tokenizer_config.json`, JSON.stringify(config));
    assertEquals((await Tokenizer.load(folder)).chatTemplate, "old");
    await Deno.writeTextFile(`${folder}/chat_template.jinja`, "new");
    assertEquals((await Tokenizer.load(folder)).chatTemplate, "new");
  });
});

/** A tokenizer built as Llama-2's is: no pre-tokenizer, a mark for spaces, merges, bytes for the rest. */
function llama2Like(merges: readonly [string, string][]) {
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`);
  const pieces = [
    "<unk>",
    "<s>",
    "</s>",
    ...bytes,
    "\u2581",
    ..."abcd",
    ...merges.map((pair) => pair.join("")),
  ];
  const special = (id: number, content: string) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
  const json = {
    version: "1.0",
    added_tokens: [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "Prepend", prepend: "\u2581" },
        { type: "Replace", pattern: { String: " " }, content: "\u2581" },
      ],
    },
    pre_tokenizer: null,
    post_processor: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "\u2581" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
    model: {
      type: "BPE",
      unk_token: "<unk>",
      byte_fallback: true,
      fuse_unk: true,
      vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
      merges: merges.map((pair) => pair.join(" ")),
    },
  };
  return { json, config: { bos_token: "<s>", eos_token: { content: "</s>" } } };
}

const MERGES: [string, string][] = [["a", "b"], ["\u2581", "a"], ["\u2581", "\u2581"], ["ab", "c"], [
  "c",
  "d",
]];

/** Texts of letters, newlines and special tokens. */
function* texts(): Generator<string> {
  const parts = ["a", "b", "c", "d", " ", " ", "\n", "\n", "\u00e9", "x", "</s>", "<s>"];
  for (let seed = 1; seed <= 200; seed++) {
    yield Array.from(integers(seed, 1 + seed % 40, parts.length), (i) => parts[i]).join("");
  }
}

/** Llama-2's file as it is, and the forms that newer ones have. */
const FORMS = ["Prepend", "Metaspace, first", "Metaspace, always"] as const;

function llama2Form(form: typeof FORMS[number]) {
  const { json, config } = llama2Like(MERGES);
  if (form === "Prepend") return { json, config };
  const prepend_scheme = form.split(", ")[1]!;
  const pre_tokenizer = { type: "Metaspace", replacement: "\u2581", prepend_scheme, split: false };
  return { json: { ...json, normalizer: null, pre_tokenizer }, config };
}

for (const form of FORMS) {
  Deno.test(`encode() of a Llama-2-like tokenizer is the same cut at lines and special tokens as whole: ${form}`, () => {
    const { json, config } = llama2Form(form);
    const [hub, tokenizer] = [new HubTokenizer(json, config), new Tokenizer(json, config)];
    for (const text of texts()) {
      const whole = [...hub.encode(text, { add_special_tokens: false }).ids];
      assertEquals(tokenizer.encode(text, PLAIN), whole, JSON.stringify(text));
    }
  });

  Deno.test(`encode() of a Llama-2-like tokenizer takes a long text line by line: ${form}`, () => {
    const { json, config } = llama2Form(form);
    const tokenizer = new Tokenizer(json, config);
    const text = "abcd abc ab a\n".repeat(4000);
    const whole = HubTokenizer.prototype.encode;
    let longest = 0;
    try {
      HubTokenizer.prototype.encode = function (
        this: HubTokenizer,
        text: string,
        options?: Parameters<typeof whole>[1],
      ) {
        longest = Math.max(longest, text.length);
        return whole.call(this, text, options);
      } as typeof whole;
      assertEquals(tokenizer.decode(tokenizer.encode(text, PLAIN), { skipSpecial: true }), text);
      assertEquals(longest, "\nabcd abc ab a".length);
    } finally {
      HubTokenizer.prototype.encode = whole;
    }
  });
}

Deno.test("encodeCut() finds the tokens before and after a position; one that spans it is after", () => {
  const { json, config } = llama2Like(MERGES);
  const tokenizer = new Tokenizer(json, config);
  for (const special of texts()) {
    const text = special.replaceAll(/<\/?s>/g, "");
    const cuts = [...text].keys().toArray();
    const { ids, at } = tokenizer.encodeCut(text, cuts);
    assertEquals(ids, tokenizer.encode(text, PLAIN));
    assertEquals(at.length, cuts.length);
    cuts.forEach((cut, i) => {
      assert(at[i]! >= (at[i - 1] ?? 0), "the positions go back");
      // What is before the index lies before the cut, whatever stands behind it.
      const before = tokenizer.decode(ids.slice(0, at[i]), { skipSpecial: false });
      assert(text.startsWith(before) && before.length <= cut, `${JSON.stringify(text)} at ${cut}: ${before}`);
    });
  }
  // The ids are the mark, ab, </s>, the mark, cd. "a" alone would be one token with its mark: nothing is certain there.
  const { ids, at } = tokenizer.encodeCut("ab</s>cd", [1, 2, 6, 7]);
  assertEquals([ids.length, ...at], [5, 0, 2, 3, 4]);
});
