import { BPE, Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { RowEncoder } from "../../data/encode.ts";
import type { Row } from "../../data/rows.ts";
import { exchange } from "../../data/templates.ts";
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
  // As a prompt, and as transformers decodes, where nothing is asked for.
  assertEquals(tokenizer.encode("hi"), [257, 104, 105]);
  assertEquals(tokenizer.decode([257, 104, 105, 258]), "<s>hi</s>");
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
    await assertThrows(() => Tokenizer.load(folder), 'gives "<s>" the id 257, which no token has');
    json.post_processor = null;
    await Deno.writeTextFile(`${folder}/tokenizer.json`, JSON.stringify(json));
    await Deno.writeTextFile(`${folder}/tokenizer_config.json`, '{ "add_bos_token": true }');
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
    ["by its class", null, { ...special, tokenizer_class: "LlamaTokenizerFast" }, 257, [257, 104]],
    ["by its class, none", llama, { ...special, tokenizer_class: "GPTNeoXTokenizer" }, 257, [104]],
    ["by its file alone", llama, { bos_token: null, eos_token: "</s>" }, undefined, [257, 104]],
  ];
  for (const [name, post_processor, config, bosId, ids] of cases) {
    const tokenizer = new Tokenizer({ ...json, post_processor }, config);
    assertEquals([tokenizer.bosId, tokenizer.encode("h", { bos: true, eos: false })], [bosId, ids], name);
    const chat: Row = { kind: "answer", messages: exchange("q", "a") };
    const row = new RowEncoder(tokenizer, { template: "vicuna" }).encode({ row: chat, where: "row" });
    assertEquals(row.ids[0] === 257, ids[0] === 257, name);
  }
  await assertThrows(
    () =>
      new Tokenizer({ ...json, post_processor: llama }, { ...special, bos_token: null, add_bos_token: true }),
    "has no bos_token",
  );
});

Deno.test("texts end with the end-of-text token once, whether they, the tokenizer or both put it", async () => {
  const json = JSON.parse(await Deno.readTextFile(`${GOLDEN}/mha/tokenizer.json`));
  const both = { bos: true, eos: true };
  const config = { tokenizer_class: "LlamaTokenizer", bos_token: "<s>", eos_token: "</s>" };
  for (const add_eos_token of [false, true]) {
    const tokenizer = new Tokenizer(json, { ...config, add_eos_token });
    for (const text of ["h", "h</s>", "<s>h", "<s>h</s>"]) {
      assertEquals(tokenizer.encode(text, both), [257, 104, 258], `${text} with ${add_eos_token}`);
      const row = new RowEncoder(tokenizer).encode({ row: { kind: "text", text }, where: "row" });
      assertEquals([...row.ids], [257, 104, 258], text);
    }
    assertEquals(tokenizer.encode("h</s>x", both), [257, 104, 258, 120, 258]);
  }
});

Deno.test("a post-processor's tokens stand around texts, whatever they are", async () => {
  const json = JSON.parse(await Deno.readTextFile(`${GOLDEN}/mha/tokenizer.json`));
  const config = { bos_token: "<s>", eos_token: "</s>" };
  const special = (id: string) => ({ SpecialToken: { id, type_id: 0 } });
  const text = { Sequence: { id: "A", type_id: 0 } };
  const entry = (id: string, value: number) => ({ [id]: { id, ids: [value], tokens: [id] } });
  const two = {
    type: "TemplateProcessing",
    single: [special("<unk>"), special("<s>"), text, special("</s>")],
    special_tokens: { ...entry("<unk>", 256), ...entry("<s>", 257), ...entry("</s>", 258) },
  };
  const encode = (post_processor: unknown, text = "h") =>
    new Tokenizer({ ...json, post_processor }, config).encode(text, { bos: true, eos: true });
  assertEquals(encode(two), [256, 257, 104, 258]);
  assertEquals(encode(two, "<unk><s>h"), [256, 257, 104, 258]);
  assertEquals(encode({ type: "RobertaProcessing", cls: ["<s>", 257], sep: ["</s>", 258] }), [257, 104, 258]);
  const wrong = { ...two, special_tokens: { ...two.special_tokens, ...entry("<s>", 258) } };
  await assertThrows(() => encode(wrong), 'gives "<s>" the id 258, but the vocabulary 257');
  await assertThrows(() => encode({ type: "Fancy" }), 'post_processor has a step of type "Fancy"');
});

Deno.test("a model's chat template is tokenized as it is: no token is put before it", async () => {
  const json = JSON.parse(await Deno.readTextFile(`${GOLDEN}/mha/tokenizer.json`));
  const config = { tokenizer_class: "LlamaTokenizer", bos_token: "<s>", eos_token: "</s>" };
  const chat: Row = { kind: "answer", messages: exchange("q", "a") };
  const ids = (
    chat_template: string,
  ) => [
    ...new RowEncoder(new Tokenizer(json, { ...config, chat_template }), { template: "model" })
      .encode({ row: chat, where: "row" }).ids,
  ];
  const turns = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}";
  assertEquals(ids(turns), [113, 258, 97, 258]);
  assertEquals(ids(`{{ bos_token }}${turns}`), [257, 113, 258, 97, 258]);
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
    const whole = BPE.prototype.encode;
    let longest = 0;
    try {
      BPE.prototype.encode = function (this: BPE, pieces: string[]) {
        longest = Math.max(longest, ...pieces.map((piece) => piece.length));
        return whole.call(this, pieces);
      };
      assertEquals(tokenizer.decode(tokenizer.encode(text, PLAIN), { skipSpecial: true }), text);
      // With the mark before it.
      assertEquals(longest, "\u2581\nabcd abc ab a".length);
    } finally {
      BPE.prototype.encode = whole;
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
  // The mark, ab, the newline, cd: over lines, too, a position has what stands before it.
  assertEquals(tokenizer.encodeCut("ab\ncd", [2, 3, 4]).at, [2, 3, 3]);
});
