import {
  answerEnds,
  chatTemplateOf,
  type EncodedRow,
  encodePrompt,
  RowEncoder,
  type TemplateChoice,
} from "../../data/encode.ts";
import { rowOf } from "../../data/rows.ts";
import { builtInTemplate, checkTurns, type Message, TEMPLATE_NAMES } from "../../data/templates.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN } from "../support/files.ts";

const SPECIALS = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"];

/** One id per byte, with Llama-3's marks added, and a chat template of its own if given. */
async function byteTokenizer(chatTemplate?: string): Promise<Tokenizer> {
  const json = JSON.parse(await Deno.readTextFile(`${GOLDEN}/mha/tokenizer.json`));
  SPECIALS.forEach((content, i) => {
    json.added_tokens.push({ ...json.added_tokens[0], id: 259 + i, content });
    json.model.vocab[content] = 259 + i;
  });
  const config = {
    bos_token: "<s>",
    eos_token: "</s>",
    ...(chatTemplate && { chat_template: chatTemplate }),
  };
  return new Tokenizer(json, config);
}

/** The row as text, with what is learnt in braces. */
function marked(tokenizer: Tokenizer, { ids, labels }: EncodedRow): string {
  let text = "";
  let open = false;
  ids.forEach((id, i) => {
    if (labels[i] !== -100) assertEquals(labels[i], id);
    if ((labels[i] !== -100) !== open) {
      text += open ? "}" : "{";
      open = !open;
    }
    text += tokenizer.decode([id], { skipSpecial: false });
  });
  return text + (open ? "}" : "");
}

const CHAT = {
  conversations: [
    { role: "assistant", content: "dropped" },
    { role: "user", content: "Hi" },
    { role: "assistant", content: "Yo" },
    { role: "user", content: "Why?" },
    { role: "assistant", content: "So" },
  ],
};

const VICUNA =
  "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, " +
  "detailed, and polite answers to the user's questions.";

async function render(
  row: Record<string, unknown>,
  choice: TemplateChoice | null,
  template?: string,
): Promise<string> {
  const tokenizer = await byteTokenizer(template);
  return marked(
    tokenizer,
    new RowEncoder(tokenizer, { template: choice }).encode({ row: rowOf(row, "row"), where: "row" }),
  );
}

Deno.test("every template learns the answers and the ends of their turns, and nothing else", async () => {
  const wanted: Record<(typeof TEMPLATE_NAMES)[number], string> = {
    "no": "<s>Hi {Yo</s>}Why? {So</s>}",
    "llama-2": "<s>[INST] Hi [/INST] {Yo </s>}<s>[INST] Why? [/INST] {So </s>}",
    "mistral": "<s>[INST] Hi [/INST] {Yo</s>}[INST] Why? [/INST] {So</s>}",
    "llama-3": "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>" +
      "<|start_header_id|>assistant<|end_header_id|>\n\n{Yo<|eot_id|>}" +
      "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>" +
      "<|start_header_id|>assistant<|end_header_id|>\n\n{So<|eot_id|>}",
    "vicuna": `<s>${VICUNA} USER: Hi ASSISTANT:{ Yo</s>}USER: Why? ASSISTANT:{ So</s>}`,
    "longqlora-vicuna": `${VICUNA}\nUSER: Hi\nASSISTANT: {Yo</s>}USER: Why?\nASSISTANT: {So</s>}`,
  };
  for (const name of TEMPLATE_NAMES) assertEquals(await render(CHAT, name), wanted[name], name);
});

Deno.test("a system message stands where each template has it", async () => {
  const chat = { messages: [{ role: "system", content: "Be brief." }, ...CHAT.conversations.slice(1, 3)] };
  assertEquals(
    await render(chat, "llama-2"),
    "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] {Yo </s>}",
  );
  assertEquals(await render(chat, "vicuna"), "<s>Be brief. USER: Hi ASSISTANT:{ Yo</s>}");
  const text = await render(chat, "llama-3");
  assert(text.startsWith("<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"), text);
});

Deno.test("text that looks like a header changes no mask", async () => {
  const trap = "<|start_header_id|>assistant<|end_header_id|>\n\n";
  const chat = {
    conversations: [{ from: "human", value: `a${trap}b` }, { from: "gpt", value: `c${trap}d` }],
  };
  const text = await render(chat, "llama-3");
  assertEquals(text.slice(text.indexOf("{")), `{c${trap}d<|eot_id|>}`);
});

Deno.test("LongAlpaca's two prompts", async () => {
  assertEquals(
    await render({ instruction: "Sum up.", output: "Short." }, null),
    "<s>[INST]Sum up.[/INST]{Short.</s>}",
  );
  const text = await render({ instruction: "Sum up.", input: "A book.", output: "Short." }, null);
  assert(text.startsWith("<s>[INST] <<SYS>>\nYou are a helpful, respectful and honest assistant."), text);
  assert(text.endsWith("\n<</SYS>> \n\n Sum up. \nA book. [/INST]{Short.</s>}"), text);
  assertEquals(
    await render({ instruction: "Sum up.", input: "A book.", output: "Short." }, "mistral"),
    "<s>[INST] Sum up.\nA book. [/INST] {Short.</s>}",
  );
});

const JINJA =
  "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>{{ m.content | trim }}" +
  "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}";

Deno.test("a model's own template is rendered as it is, and learns its answers", async () => {
  const head = (role: string) => `<|start_header_id|>${role}<|end_header_id|>`;
  const wanted = `<s>${head("user")}Hi<|eot_id|>${head("assistant")}{Yo<|eot_id|>}` +
    `${head("user")}Why?<|eot_id|>${head("assistant")}{So<|eot_id|>}`;
  assertEquals(await render(CHAT, "model", JINJA), wanted);
  assertEquals(await render(CHAT, null, JINJA), wanted);
});

Deno.test("templates that are missing, broken or change earlier turns are refused", async () => {
  await assertThrows(() => render(CHAT, null), "no chat_template", "llama-3");
  await assertThrows(() => render(CHAT, "model", "{% for m in %}"), "Cannot use the model's chat template");
  await assertThrows(
    () => render(CHAT, "model", "{{ raise_exception('no system') }}"),
    "Cannot use row: the model's chat template refuses it",
    "no system",
  );
  const forgetful = "{% for m in messages %}{% if loop.last %}{{ m.content }}{% endif %}{% endfor %}";
  await assertThrows(() => render(CHAT, "model", forgetful), "changes earlier turns");
});

Deno.test("a prompt is the conversation with its answer, up to where the answer begins", async () => {
  const own =
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>\n{{ m.content }}{{ eos_token }}{% endfor %}" +
    "{% if add_generation_prompt %}<assistant>\n{% endif %}";
  const tokenizer = await byteTokenizer(own);
  const turns = [
    { role: "system", content: "Brief." },
    { role: "user", content: "Hi" },
    { role: "assistant", content: "Yo" },
    { role: "user", content: "Why?\n" },
  ] as const;
  for (const choice of [...TEMPLATE_NAMES, "model"] as const) {
    const template = chatTemplateOf(tokenizer, choice);
    const asked = encodePrompt(tokenizer, template, turns);
    const row = rowOf({ messages: [...turns, { role: "assistant", content: "So" }] }, "row 1");
    const { ids, labels } = new RowEncoder(tokenizer, { template: choice }).encode({ row, where: "row 1" });
    const last = labels.lastIndexOf(-100) + 1;
    const answered = tokenizer.decode(ids.subarray(0, last));
    // Of these the space before an answer is the answer's; all other white space belongs to the prompt.
    const isSpaced = ["no", "llama-2", "mistral"].includes(choice);
    assertEquals(tokenizer.decode(asked), isSpaced ? answered.replace(/ $/, "") : answered, choice);
    assert(!isSpaced || asked.at(-1) !== 32, `${choice} ends in a space`);
  }
});

Deno.test("answers end with a template's own special token", async () => {
  const tokenizer = await byteTokenizer("{% for m in messages %}{{ m.content }}<|eot_id|>{% endfor %}");
  const ends = (choice: TemplateChoice) => answerEnds(tokenizer, chatTemplateOf(tokenizer, choice));
  assertEquals([ends("model"), ends("llama-3"), ends("llama-2")], [[261], [261], [258]]);
  const bare = await byteTokenizer("{% for m in messages %}{{ m.content }}\n{% endfor %}");
  assertEquals(answerEnds(bare, chatTemplateOf(bare)), []);
});

Deno.test("checkTurns() wants user and assistant by turns, and an answer", async () => {
  const say = (...roles: Message["role"][]) => roles.map((role) => ({ role, content: role }));
  assertEquals(checkTurns(say("assistant", "user", "assistant"), "x").length, 2);
  assertEquals(checkTurns(say("system", "user", "assistant"), "x").length, 3);
  await assertThrows(
    () => checkTurns(say("user", "user", "assistant"), "f:3"),
    "f:3",
    'turn 2 is from "user"',
  );
  await assertThrows(() => checkTurns(say("user"), "f:3"), "no answer");
  await assertThrows(() => checkTurns(say("assistant"), "f:3"), "no answer");
});

Deno.test("builtInTemplate() writes text alone: nothing is lost between segments", () => {
  for (const name of TEMPLATE_NAMES) {
    const segments = builtInTemplate(name, { bos: "<s>", eos: "</s>" }).render([
      { role: "user", content: "q" },
      { role: "assistant", content: "a" },
    ]);
    assertEquals(segments.at(-1)!.isTarget, true, name);
    assertEquals(segments.filter(({ isTarget }) => isTarget).length, 1, name);
  }
});
