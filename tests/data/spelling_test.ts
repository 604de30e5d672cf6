/** What a tokenizer cannot write, of templates and of texts, is refused or told by name. */
import { loadDataset } from "../../data/dataset.ts";
import { RowEncoder, type TemplateChoice } from "../../data/encode.ts";
import { UnknownTokens } from "../../data/spelling.ts";
import { tokenizeFiles } from "../../data/tokenize.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";

/** Knows these words and nothing else. */
function wordTokenizer(words: readonly string[], config: Record<string, unknown> = {}): Tokenizer {
  const vocab = Object.fromEntries(["<unk>", "<s>", "</s>", ...words].map((word, id) => [word, id]));
  return new Tokenizer({
    model: { type: "WordLevel", vocab, unk_token: "<unk>" },
    pre_tokenizer: { type: "WhitespaceSplit" },
    added_tokens: ["<unk>", "<s>", "</s>"].map((content, id) => ({ id, content, special: true })),
  }, { bos_token: "<s>", eos_token: "</s>", ...config });
}

async function byteTokenizer(chat_template?: string): Promise<Tokenizer> {
  const json = JSON.parse(await Deno.readTextFile(`${GOLDEN}/mha/tokenizer.json`));
  return new Tokenizer(json, {
    bos_token: "<s>",
    eos_token: "</s>",
    ...(chat_template && { chat_template }),
  });
}

Deno.test("a chat template whose marks or words the tokenizer lacks is refused by their names", async () => {
  const choose = (tokenizer: Tokenizer, template: TemplateChoice) => () =>
    new RowEncoder(tokenizer, { template });
  const lacks = '"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"';
  await assertThrows(
    choose(await byteTokenizer(), "llama-3"),
    `llama-3: the tokenizer has no token ${lacks}`,
  );
  const few = wordTokenizer(["[INST]", "hello"]);
  await assertThrows(choose(few, "mistral"), "chat_template mistral", 'does not know "[/INST]"');
  choose(few, "no")();
  choose(wordTokenizer(["[INST]", "[/INST]"]), "mistral")();
  const own = "{% for m in messages %}<turn> {{ m.content }}{% endfor %}";
  await assertThrows(
    choose(wordTokenizer(["hello"], { chat_template: own }), "model"),
    "the model's own chat template",
    '"<turn>"',
  );
  choose(wordTokenizer(["<turn>"], { chat_template: own }), "model")();
});

Deno.test("marks of the model's own template that are no tokens are told, where rows have them", async () => {
  const chatMl = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";
  const tokenizer = await byteTokenizer(chatMl);
  await withFolder(async (folder) => {
    const notes = async (row: object) => {
      await Deno.writeTextFile(`${folder}/t.jsonl`, JSON.stringify(row));
      return (await loadDataset([{ path: `${folder}/t.jsonl` }], tokenizer, { maxSeqLength: 99 })).notes;
    };
    const messages = [{ role: "user", content: "q" }, { role: "assistant", content: "a" }];
    const [note, ...more] = await notes({ messages });
    assertEquals(more, []);
    assert(
      note?.startsWith('"<|im_start|>", "<|im_end|>" of the model\'s chat template are no tokens'),
      `${note}`,
    );
    assertEquals(await notes({ instruction: "q", output: "a" }), []);
  });
});

Deno.test("unknown tokens are counted: few pass, many are told, mostly unknown is refused", async () => {
  const tokenizer = wordTokenizer(["a", "b"]);
  const told = (text: string) => {
    const unknown = new UnknownTokens(tokenizer);
    unknown.add(Uint32Array.from(tokenizer.encode(text, { bos: false, eos: false })));
    return unknown.describe("f.txt");
  };
  assertEquals(told("a b ".repeat(1000) + "c"), undefined);
  assertEquals(told("a b ".repeat(499) + "a c")?.slice(0, 22), "1 of 1,000 tokens of f", "one in a thousand");
  assertEquals(told("a c")?.slice(0, 18), "1 of 2 tokens of f", "half of them");
  assertEquals(
    told("a b ".repeat(499) + "c d"),
    '2 of 1,000 tokens of f.txt (0.2 %) are "<unk>", which stands for what the tokenizer does not know',
  );
  await assertThrows(() => told("a c d"), "Cannot use f.txt: 2 of 3 tokens", "not made for such text");
  await withFolder(async (folder) => {
    const path = `${folder}/f.txt`;
    await Deno.writeTextFile(path, "a b c a");
    const { notes } = await loadDataset([{ path }], tokenizer, { maxSeqLength: 9 });
    assertEquals(notes.map((line) => line.replace(folder, "")), [
      '1 of 5 tokens of /f.txt (20 %) are "<unk>", which stands for what the tokenizer does not know',
    ]);
    const lines: string[] = [];
    await tokenizeFiles([path], `${folder}/o.bin`, tokenizer, { note: (line) => lines.push(line) });
    assert(lines[0]?.startsWith("1 of 5 tokens"), lines.join());
    await Deno.writeTextFile(path, "Fremde Worte ohne Zahl");
    await assertThrows(
      () => tokenizeFiles([path], `${folder}/p.bin`, tokenizer),
      "Cannot use",
      "4 of 5 tokens",
    );
    assert(!await Deno.stat(`${folder}/p.bin`).then(() => true, () => false), "nothing is written");
  });
});

Deno.test("characters that a vocabulary without an unknown token lacks are refused, not left out", async () => {
  const vocab = { a: 0, b: 1, ab: 2, "</s>": 3 };
  const tokenizer = new Tokenizer({
    model: { type: "BPE", vocab, merges: ["a b"] },
    added_tokens: [{ id: 3, content: "</s>", special: true }],
  }, { eos_token: "</s>" });
  assertEquals(tokenizer.encode("abba", { bos: false, eos: false }), [2, 1, 0]);
  await assertThrows(() => tokenizer.encode("abéa", { bos: false, eos: false }), 'lacks "é"', "no unk_token");
});
