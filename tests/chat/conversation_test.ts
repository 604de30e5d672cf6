import { Conversation } from "../../chat/conversation.ts";
import { askAbout } from "../../chat/material.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { withFolder } from "../support/files.ts";

Deno.test("a document stands before the next question alone, and stays with it", () => {
  const talk = new Conversation("Be brief.");
  talk.attach("The book.");
  const asked = talk.with("Who?").at(-1)!;
  assertEquals(asked, { role: "user", content: "The book.\nWho?" });
  assertEquals(talk.messages.length, 1, "asking keeps nothing");
  talk.add("Who?", "She.");
  assert(!talk.hasMaterial, "used");
  assertEquals(talk.with("Why?").map(({ role, content }) => [role, content]), [
    ["system", "Be brief."],
    ["user", "The book.\nWho?"],
    ["assistant", "She."],
    ["user", "Why?"],
  ]);
  talk.reset();
  assertEquals(talk.messages, [{ role: "system", content: "Be brief." }]);
  talk.setSystem(null);
  assertEquals(talk.messages, []);
});

Deno.test("what is saved is a row of training data, and comes back", () =>
  withFolder(async (folder) => {
    const talk = new Conversation("s");
    talk.add("q", 'a "quoted"\nline');
    await talk.save(`${folder}/talk.json`);
    assertEquals(JSON.parse(await Deno.readTextFile(`${folder}/talk.json`)), { messages: talk.messages });
    const other = new Conversation();
    await other.load(`${folder}/talk.json`);
    assertEquals(other.messages, talk.messages);
  }));

Deno.test("a file that is no conversation is refused, and nothing is forgotten", () =>
  withFolder(async (folder) => {
    const talk = new Conversation();
    talk.add("q", "a");
    const files: [text: string, says: string][] = [
      ["{", "not JSON"],
      ["null", "no list of messages"],
      ['{"messages": 1}', "no list of messages"],
      ['{"messages": [{"role": "user"}]}', "a message is"],
      ['{"messages": [{"role": "ghost", "content": "x"}]}', "ghost"],
    ];
    for (const [text, says] of files) {
      await Deno.writeTextFile(`${folder}/x.json`, text);
      await assertThrows(() => talk.load(`${folder}/x.json`), "x.json", says);
    }
    assertEquals(talk.messages.length, 2);
  }));

Deno.test("documents are put as LongLoRA's scripts put them", () => {
  assertEquals(askAbout("M", "Q"), "M\nQ");
  const opening = (title: string) => askAbout("M", "Q", { type: "book", title }).split(".")[0];
  assertEquals([opening("Emma"), opening("")], [
    "Below is some paragraphs in the book, Emma",
    "Below is some paragraphs in the book",
  ]);
  for (const type of ["book", "paper", "material"] as const) {
    const asked = askAbout("M", "Q", { type });
    assert(
      asked.startsWith("Below is ") && asked.includes(`answer my question after the ${type}.\n M`),
      asked,
    );
    assert(asked.endsWith("\n M \n Now the material ends. Q"), type);
  }
});
