/** What data sets write into their rows: each form gives the text that is meant, or is refused or noted by name. */
import { loadDataset } from "../../data/dataset.ts";
import { RowEncoder, type TemplateChoice, templateReader } from "../../data/encode.ts";
import { rowOf } from "../../data/rows.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { UnusedKeys } from "../../data/unused_keys.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { marked } from "../support/marked.ts";

type Values = Record<string, unknown>;

/** Writes every key of a turn, and the names of tools. */
const TEMPLATE = "{{bos_token}}{% if tools %}[tools]{{ tools[0]['function']['name'] }}{% endif %}" +
  "{% for m in messages %}[{{ m.role }}]{% if m.name %}{{ m.name }}: {% endif %}{{ m.content or '' }}" +
  "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}{{ eos_token }}{% endfor %}" +
  "{% if add_generation_prompt %}[assistant]{% endif %}";
const NO_SYSTEM = "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}" +
  "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}" +
  "{{ '[' + m['role'] + ']' + m['content'] + eos_token }}{% endfor %}";

async function withTemplate(chat_template?: string): Promise<Tokenizer> {
  const json = JSON.parse(await Deno.readTextFile(`${GOLDEN}/mha/tokenizer.json`));
  return new Tokenizer(json, {
    bos_token: "<s>",
    eos_token: "</s>",
    add_bos_token: true,
    ...(chat_template !== undefined && { chat_template }),
  });
}

/** What a row becomes, and what of it nothing reads. */
async function seen(
  value: Values,
  choice: TemplateChoice | null = "model",
  template = TEMPLATE,
): Promise<{ text: string; unused: string | undefined }> {
  const tokenizer = await withTemplate(template);
  const unused = new UnusedKeys();
  const row = rowOf(value, "f:3", { unused, templateReads: templateReader(tokenizer, choice) });
  const encoded = new RowEncoder(tokenizer, { template: choice }).encode({ row, where: "f:3" });
  return { text: marked(tokenizer, encoded), unused: unused.describe("f") };
}

async function reads(value: Values, wanted: string, choice?: TemplateChoice | null): Promise<void> {
  const { text, unused } = await seen(value, choice);
  assertEquals(text, wanted, JSON.stringify(value));
  assertEquals(unused, undefined);
}

const refused = (value: Values, ...parts: string[]) =>
  assertThrows(() => seen(value), "Cannot use f:3", ...parts);

const Q = { role: "user", content: "q" };
const A = { role: "assistant", content: "a" };
const QA = "[user]q</s>[assistant][[a</s>]]";
const TOOLS = [{ type: "function", function: { name: "get_tide", parameters: {} } }];

Deno.test("rows: a system text, a history and tools beside the turns", async () => {
  await reads(
    {
      conversations: [{ from: "human", value: "Hi" }, { from: "gpt", value: "Ahoy" }],
      system: "Talk like a pirate",
    },
    "<s>[system]Talk like a pirate</s>[user]Hi</s>[assistant][[Ahoy</s>]]",
  );
  const height = {
    instruction: "And its height?",
    input: "",
    output: "12 m",
    system: "Be brief",
    history: [["How wide is the gate?", "4 m"]],
  };
  await reads(
    height,
    "<s>[system]Be brief</s>[user]How wide is the gate?</s>[assistant][[4 m</s>]][user]And its height?</s>" +
      "[assistant][[12 m</s>]]",
  );
  await reads(
    height,
    "<s>[INST] <<SYS>>\nBe brief\n<</SYS>> \n\n How wide is the gate? [/INST][[4 m</s>]]<s>[INST]And its height?[/INST]" +
      "[[12 m</s>]]",
    null,
  );
  const { instruction, input: _, ...rest } = height;
  await reads(
    { input: instruction, ...rest },
    "Be brief\nUSER: How wide is the gate?\nASSISTANT: [[4 m</s>]]USER: And its height?\nASSISTANT: [[12 m</s>]]",
    null,
  );
  for (const tools of [TOOLS, JSON.stringify(TOOLS)]) {
    await reads({ messages: [Q, A], tools }, `<s>[tools]get_tide${QA}`);
  }
  for (const nothing of [null, "", []]) {
    await reads(
      { messages: [Q, A], tools: nothing, history: nothing, id: nothing, conversations: null },
      `<s>${QA}`,
    );
  }
  await refused({ messages: [Q, A], tools: "get_tide" }, '"tools"', "not JSON");
  await refused({ messages: [Q, A], tools: { name: "x" } }, '"tools" must be a list');
  await refused({ ...height, history: [["q"]] }, '"history" must be a list of [question, answer]');
  await refused({ ...height, history: "q" }, '"history"');
  const named = await withTemplate(TEMPLATE);
  const templates = [{ name: "default", template: NO_SYSTEM }, { name: "tool_use", template: TEMPLATE }];
  const twoTemplates = new Tokenizer(named.files[0], { ...named.files[1], chat_template: templates });
  for (const [tools, start] of [[TOOLS, "<s>[tools]get_tide"], [undefined, "<s>"]] as const) {
    const row = rowOf({ messages: [Q, A], tools }, "f:3", {
      templateReads: templateReader(twoTemplates, null),
    });
    assertEquals(
      marked(twoTemplates, new RowEncoder(twoTemplates).encode({ row, where: "f:3" })).startsWith(
        start + "[user]",
      ),
      true,
    );
  }
  // A system turn of its own comes first, as in LLaMA-Factory; what it hides is noted.
  const both = await seen({ messages: [{ role: "system", content: "s" }, Q, A], system: "t" });
  assertEquals([both.text, both.unused], [`<s>[system]s</s>${QA}`, "1 key of f is not used: system (1 row)"]);
});

Deno.test("rows: speakers under all their names, and none other", async () => {
  for (const user of ["user", "human", "Human", "prompter"]) {
    for (const assistant of ["assistant", "gpt", "model", "chatgpt", "bing", "bard", "bot"]) {
      await reads(
        { conversations: [{ from: user, value: "q" }, { from: assistant, value: "a" }] },
        `<s>${QA}`,
      );
    }
  }
  await reads({ messages: [{ role: "developer", content: "s" }, Q, A] }, `<s>[system]s</s>${QA}`);
  await refused({ messages: [{ role: "narrator", content: "s" }, Q, A] }, "turn 1", '"narrator"', '"human"');
  await refused({ messages: [Q, { name: "assistant", content: "s" }] }, "turn 2", 'found "name", "content"');
  await refused({ messages: [Q, "a"] }, "turn 2", "must be an object", "a string");
  await refused({ messages: [{ ...Q, from: "gpt" }, A] }, 'turn 1 has "role" and "from", and they differ');
  await refused({ messages: [{ ...Q, value: "x" }, A] }, 'turn 1 has "content" and "value", and they differ');
  await refused({ messages: [{ from: "human", text: "q" }, A] }, 'turn 1 must have "content"', '"text"');
  await refused(Q, "It is one turn", '"messages"');
  // None of several system texts is lost.
  const systems = ["s", "t"].map((content) => ({ role: "system", content }));
  await reads({ messages: [...systems, Q, A] }, `<s>[system]s</s>[system]t</s>${QA}`);
  await reads({ messages: [...systems, Q, A] }, "<s>s\nt USER: q ASSISTANT:[[ a</s>]]", "vicuna");
  await refused({ messages: [] }, '"messages" must be a list of turns, got an empty one');
  await refused({ messages: "[]" }, '"messages" must be a list of turns, got a string');
});

Deno.test("rows: parts of content are joined where they are text, and named where they are not", async () => {
  const parts = (...texts: string[]) => texts.map((text) => ({ type: "text", text, image_url: null }));
  await reads(
    { messages: [{ role: "user", content: parts("Hi") }, { role: "assistant", content: parts("Yo") }] },
    "<s>[user]Hi</s>[assistant][[Yo</s>]]",
  );
  await reads(
    { messages: [{ role: "user", content: parts("a", "b") }, A] },
    "<s>[user]a\nb</s>[assistant][[a</s>]]",
  );
  const image = [{ type: "image_url", image_url: { url: "x" } }];
  await refused({ messages: [{ role: "user", content: image }, A] }, "turn 1", '"image_url"', '"text"');
  await refused(
    { messages: [Q, { role: "assistant", content: null }] },
    "turn 2",
    "text as its content, got null",
  );
  await refused({ messages: [{ role: "user", content: { text: "q" } }, A] }, "turn 1", "an object");
});

Deno.test("rows: calls of tools and their results go to the model's own template", async () => {
  const written = '[{"type": "function", "function": {"name": "w", "arguments": {"at": "Kiel"}}}]';
  const rest = [{ role: "tool", content: "sunny", name: "w" }, { role: "assistant", content: "It is sunny" }];
  const wanted =
    `<s>[user]weather?</s>[assistant][[${written}</s>]][tool]w: sunny</s>[assistant][[It is sunny</s>]]`;
  const args = { at: "Kiel" };
  for (
    const call of [
      { type: "function", function: { name: "w", arguments: JSON.stringify(args) } },
      { type: "function", function: { name: "w", arguments: args } },
      { name: "w", arguments: args },
    ]
  ) {
    const turn = { role: "assistant", content: null, tool_calls: [call] };
    await reads({ messages: [{ role: "user", content: "weather?" }, turn, ...rest] }, wanted);
  }
  const call = JSON.stringify({ name: "w", arguments: args });
  for (const [caller, answerer] of [["function_call", "observation"], ["tool_call", "tool_response"]]) {
    await reads({
      conversations: [
        { from: "human", value: "weather?" },
        { from: caller, value: call },
        { from: answerer, value: "sunny", name: "w" },
        { from: "gpt", value: "It is sunny" },
      ],
    }, wanted);
  }
  const calling = {
    role: "assistant",
    content: null,
    tool_calls: [{ function: { name: "w", arguments: "{" } }],
  };
  await refused({ messages: [Q, calling] }, "turn 2", 'calls "w" with arguments whose text is not JSON');
  await refused({ messages: [Q, { ...calling, tool_calls: [{}] }] }, "turn 2", 'without its "name"');
  await refused({ messages: [Q, { ...A, function_call: { name: "w" } }] }, "turn 2", "tool_calls");
  await refused(
    { messages: [Q, { role: "tool", content: "x" }, A] },
    'turn 2 is from "tool" and follows "user"',
  );
  const row = { messages: [Q, { ...calling, tool_calls: [{ name: "w" }] }, ...rest] };
  await assertThrows(() => seen(row, "vicuna"), "f:3: turn 2 calls tools", "chat_template: model");
  await assertThrows(() => seen({ messages: [Q, A, ...rest] }, "vicuna"), "f:3: turn 3 is from a tool");
  await assertThrows(() => seen(row, "model", NO_SYSTEM), "f:3: turn 2 calls tools, which the model's");
});

Deno.test("rows: an answer with weight 0, or train false, is read and not learnt", async () => {
  for (
    const [off, on] of [[{ weight: 0 }, { weight: 1 }], [{ train: false }, {}], [{ training: false }, {
      training: true,
    }]]
  ) {
    const messages = [
      // OpenAI writes a weight beside questions too, which says nothing of them.
      { role: "user", content: "q1", weight: 1 },
      { role: "assistant", content: "BAD", ...off },
      { role: "user", content: "q2", weight: 0 },
      { role: "assistant", content: "good", ...on },
    ];
    await reads({ messages }, "<s>[user]q1</s>[assistant]BAD</s>[user]q2</s>[assistant][[good</s>]]");
    await reads({ messages }, "<s>[INST] q1 [/INST] BAD</s>[INST] q2 [/INST] [[good</s>]]", "mistral");
    await reads({ messages }, "<s>q1 BAD</s>q2 [[good</s>]]", "no");
    assert(
      (await seen({ messages }, "vicuna")).text.endsWith("BAD</s>USER: q2 ASSISTANT:[[ good</s>]]"),
      "vicuna",
    );
  }
  await refused({ messages: [Q, { ...A, weight: 0.5 }] }, "turn 2", '"weight": 0.5', "nothing between");
  await refused({ messages: [Q, { ...A, weight: "0" }] }, "turn 2", '"weight": "0"');
  await refused({ messages: [{ ...Q, train: true }, A] }, "turn 1", '"train": true', "only answers");
  await refused({ messages: [Q, { ...A, train_detail: [] }] }, "turn 2", '"train_detail"');
});

Deno.test("rows: a prompt and its completion, of which the completion is learnt", async () => {
  const row = { prompt: "Once ", completion: "upon" };
  await reads(row, "<s>Once [[upon</s>]]", null);
  await reads({ ...row, completion: "upon</s>" }, "<s>Once [[upon</s>]]", null);
  await reads(row, "<s>[user]Once </s>[assistant][[upon</s>]]", "model");
  await reads({ prompt: [Q, A, Q], completion: [A] }, `<s>[user]q</s>[assistant]a</s>${QA}`);
  await refused({ prompt: [Q], completion: "a" }, '"prompt" must be text, got a list');
});

Deno.test("rows: what is not for this is named, and what other data sets call their keys", async () => {
  await refused({ prompt: "p", chosen: "a", rejected: "b" }, '"chosen", "rejected"', "preferences");
  await refused({ messages: [Q, A], rejected: [A] }, '"rejected"', "preferences");
  await refused({ prompt: "p", completion: "c", label: false }, '"label"', "preferences");
  await refused({ question: "q", answer: "a" }, 'Rename "question" to "input" and "answer" to "output"');
  await refused({ query: "q", response: "a" }, 'Rename "query" to "input" and "response" to "output"');
  await refused({ instruction: "q", context: "", response: "a" }, 'Rename "response" to "output"');
  await refused({ content: "q", license: "mit" }, 'Rename "content" to "text"');
  await refused({ version: 1, data: [{ text: "a" }] }, 'If the rows are in "data", save that list alone');
  await refused({ Text: "a" }, 'Is "text" meant?');
  await refused({ instruction: "q", output: null }, '"output": null');
  await refused({ text: ["a"] }, '"text" must be text, got a list');
});

Deno.test("rows: keys that nothing reads are named once, with their count; those from the cache, too", async () => {
  const tokenizer = await withTemplate(TEMPLATE);
  await withFolder(async (folder) => {
    const path = `${folder}/t.jsonl`;
    const rows = [
      ...[1, 2, 3, 4].map((id) => ({ text: `t${id}`, id, source: "x", meta: id > 3 ? {} : null, tags: [] })),
      { messages: [{ ...A, content: "hello" }, { ...Q, date: 3 }, A], tools: TOOLS, functions: [{}] },
    ];
    await Deno.writeTextFile(path, rows.map((row) => JSON.stringify(row)).join("\n"));
    const cache = { folder: `${folder}/cache`, note: (line: string) => assert(false, line) };
    const options = { maxSeqLength: 100, chatTemplate: "vicuna" as const, cache };
    const start = `keys of ${path} are not used: id (4 rows), source (4 rows), meta (1 row), `;
    for (let i = 0; i < 2; i++) {
      const { notes } = await loadDataset([{ path }], tokenizer, options);
      assertEquals(notes, [
        `7 ${start}tools (1 row), functions (1 row), date of turns (1 row), turns before the first question (1 row)`,
      ]);
    }
    const model = { ...options, chatTemplate: "model" as const };
    const { notes } = await loadDataset([{ path }], tokenizer, model);
    assert(notes[0]!.startsWith("6 ") && !notes[0]!.includes("tools"), notes[0]!);
  });
});

Deno.test("rows: what a template refuses, or takes too much for, is told with the row", async () => {
  const { encodeRows } = await import("../../data/encode_pool.ts");
  const ask = async (template: string, turns: Values[] = [Q, A]) => {
    const rows = async function* () {
      for (const line of [1, 2, 3]) yield { row: rowOf({ messages: [Q, A] }, ""), where: `t.jsonl:${line}` };
      yield { row: rowOf({ messages: turns }, ""), where: "t.jsonl:4" };
    };
    return await Array.fromAsync(encodeRows(rows(), await withTemplate(template), { template: "model" }));
  };
  const system = { role: "system", content: "s" };
  await assertThrows(
    () => ask(NO_SYSTEM, [system, Q, A]),
    "Cannot use t.jsonl:4: the model's chat template refuses it: Only user and assistant roles are supported!",
  );
  await assertThrows(
    () => ask("{{ messages[0].content + none }}"),
    "t.jsonl:1",
    "cannot be rendered",
    "null",
  );
  const excesses: Record<string, string> = {
    "{% for i in range(1000000000) %}{% endfor %}": "list of 1000000000 items",
    "{% set r = range %}{{ r(10 ** 12) | length }}": "list of 1000000000000 items",
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}": "steps",
    "{% for i in range(5000) %}{% for j in range(5) %}{% if true %}{% continue %}{% endif %}{% endfor %}{% endfor %}x":
      "earlier turns",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "calls itself without end",
    "{% set ns = namespace(s='xy') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}":
      "characters",
    "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = ns.l + ns.l %}{% endfor %}":
      "1000000 items",
    "{% for i in range(9000) %}{{ '0123456789' * 1 if false else messages | tojson }}{{ 'x' }}{% for j in range(9) %}{{ '0123456789abcdef' }}{% endfor %}{% endfor %}":
      "characters",
    "{{ messages | tojson(indent=100000000) }}": "characters",
    "{% set ns = namespace(l=[]) %}{% for i in range(99) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}":
      "characters",
    "{% set ns = namespace(s='x') %}{% for i in range(18) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s.replace('', ns.s) }}":
      "may write",
    "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l | tojson }}":
      "too deeply",
  };
  for (const [template, part] of Object.entries(excesses)) {
    await assertThrows(() => ask(template), "Cannot use t.jsonl:1: the", "model's chat template", part);
  }
  await assertThrows(() => ask(" ".repeat(20_000) + TEMPLATE), "10000 characters of space in one place");
  await assertThrows(() => ask(TEMPLATE + "x".repeat(2 ** 20)), "more than 1048576");
  await assertThrows(() => ask("{% if true %}".repeat(50_000)), "chat template");
  assertEquals((await ask(TEMPLATE)).length, 4);
});
