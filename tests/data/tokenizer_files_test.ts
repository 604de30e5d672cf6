import { saveFinal } from "../../checkpoint/atomic.ts";
import { copyTokenizer } from "../../checkpoint/save_model.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { describePlaces, tokenizerPlaces } from "../../data/tokenizer_files.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";

const json = JSON.parse(await Deno.readTextFile(`${GOLDEN}/mha/tokenizer.json`));
const flags = { lstrip: false, rstrip: false, single_word: false, normalized: false, special: true };
/** As an adapter of a chat brings it: one token more, which ends its turns. */
const chatJson = {
  ...json,
  added_tokens: [...json.added_tokens, { id: 259, content: "<|im_end|>", ...flags }],
};
const chatConfig = { bos_token: "<s>", eos_token: "<|im_end|>", chat_template: "adapter's" };
const baseConfig = { bos_token: "<s>", eos_token: "</s>", add_bos_token: false, chat_template: "base's" };

/** What the tokenizer of these two folders is. */
async function load(adapter: Record<string, unknown>, base: Record<string, unknown> = {}) {
  return await withFolder(async (folder) => {
    const write = async (name: string, files: Record<string, unknown>) => {
      await Deno.mkdir(`${folder}/${name}`);
      for (const [file, value] of Object.entries(files)) {
        const text = typeof value === "string" ? value : JSON.stringify(value);
        await Deno.writeTextFile(`${folder}/${name}/${file}`, text);
      }
    };
    await write("base", { "tokenizer.json": json, "tokenizer_config.json": baseConfig, ...base });
    await write("adapter", adapter);
    const places = await tokenizerPlaces(`${folder}/base`, `${folder}/adapter`);
    const { eosId, vocabSize, chatTemplate, frame } = await Tokenizer.load(
      `${folder}/base`,
      `${folder}/adapter`,
    );
    return {
      tokenizer: [eosId, vocabSize, chatTemplate, frame.before.length],
      note: describePlaces(places, "A"),
      names: [...places.paths].map(([name, path]) =>
        `${path.slice(folder.length + 1).split("/")[0]} ${name}`
      ),
    };
  });
}

Deno.test("an adapter's own tokenizer files are taken, the base's where it has none", async () => {
  const none = await load({});
  assertEquals([...none.tokenizer, none.note], [258, 259, "base's", 0, undefined]);
  const both = await load({ "tokenizer.json": chatJson, "tokenizer_config.json": chatConfig });
  assertEquals(both.tokenizer, [259, 260, "adapter's", 1]);
  assertEquals(both.note, 'The tokenizer is the adapter\'s: tokenizer.json, tokenizer_config.json of "A"');
});

Deno.test("parts of an adapter's tokenizer stand beside the base's parts, and it is said", async () => {
  const vocabulary = await load({ "tokenizer.json": chatJson });
  assertEquals(vocabulary.tokenizer, [258, 260, "base's", 0]);
  assertEquals(
    vocabulary.note,
    'The tokenizer is the adapter\'s: tokenizer.json of "A"; tokenizer_config.json of the base model',
  );
  const settings = await load({
    "tokenizer_config.json": {
      ...chatConfig,
      added_tokens_decoder: { 259: { content: "<|im_end|>", ...flags } },
    },
  }, { "special_tokens_map.json": { eos_token: "</s>" }, "chat_template.jinja": "base's file" });
  assertEquals(settings.tokenizer, [259, 260, "adapter's", 1]);
  assertEquals(settings.names, ["base tokenizer.json", "adapter tokenizer_config.json"]);
  const template = await load({ "chat_template.jinja": "adapter's file" });
  assertEquals(template.tokenizer, [258, 259, "adapter's file", 0]);
  const slow = await load({
    "added_tokens.json": { "<|im_end|>": 259 },
    "special_tokens_map.json": { eos_token: "<|im_end|>" },
  });
  assertEquals(slow.tokenizer, [259, 260, "base's", 0]);
  // Over the base's settings, though they list its added tokens.
  const decoder = {
    "tokenizer_config.json": { ...baseConfig, added_tokens_decoder: { 258: { content: "</s>", ...flags } } },
  };
  assertEquals(
    (await load({ "special_tokens_map.json": { eos_token: "<unk>" } }, decoder)).tokenizer[0],
    256,
  );
});

Deno.test("what belongs to the base's tokenizer.json or settings does not stand beside the adapter's", async () => {
  const base = {
    "added_tokens.json": { "<|other|>": 259 },
    "special_tokens_map.json": { eos_token: "<unk>" },
    "chat_template.jinja": "base's file",
    "tokenizer.model": "sentencepiece",
  };
  const both = await load({ "tokenizer.json": chatJson, "tokenizer_config.json": chatConfig }, base);
  assertEquals(both.tokenizer, [259, 260, "adapter's", 1]);
  assertEquals(both.names, ["adapter tokenizer.json", "adapter tokenizer_config.json"]);
  const vocabulary = await load({ "tokenizer.json": chatJson }, base);
  assertEquals(vocabulary.tokenizer, [256, 260, "base's file", 0]);
  await assertThrows(
    () => load({ "tokenizer.json": json, "added_tokens.json": { "</s>": 257 } }),
    'gives "</s>" the id 257, but it has the id 258',
  );
});

Deno.test("chat templates in additional_chat_templates are read, and go where the tokenizer goes", async () => {
  await withFolder(async (folder) => {
    const write = (name: string, text: string) => Deno.writeTextFile(`${folder}/model/${name}`, text);
    await Deno.mkdir(`${folder}/model/additional_chat_templates`, { recursive: true });
    await write("tokenizer.json", JSON.stringify(json));
    await write("tokenizer_config.json", JSON.stringify(baseConfig));
    await write("additional_chat_templates/tool_use.jinja", "for tools");
    await write("additional_chat_templates/notes.txt", "no template");
    // As transformers has it: templates in files stand in place of the one in tokenizer_config.json.
    assertEquals((await Tokenizer.load(`${folder}/model`)).chatTemplate, undefined);
    await write("chat_template.jinja", "default");
    const { paths } = await tokenizerPlaces(`${folder}/model`);
    for (const place of [`${folder}/copy`, `${folder}/copy/again`]) {
      await Deno.mkdir(place);
      await copyTokenizer(paths, place);
      const { chatTemplate, toolTemplate } = await Tokenizer.load(place);
      assertEquals([chatTemplate, toolTemplate], ["default", "for tools"]);
    }
    // A run that is gone on with ends in the same folder.
    const final = () => saveFinal(`${folder}/copy`, (staged) => copyTokenizer(paths, staged));
    await final();
    await final();
    const names = await Array.fromAsync(Deno.readDir(`${folder}/copy/additional_chat_templates`));
    assertEquals(names.map(({ name }) => name), ["tool_use.jinja"]);
  });
});
