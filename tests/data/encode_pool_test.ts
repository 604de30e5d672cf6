import { encodeRows } from "../../data/encode_pool.ts";
import { RowEncoder } from "../../data/encode.ts";
import { exchange } from "../../data/templates.ts";
import type { PlacedRow, Row } from "../../data/rows.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { GOLDEN } from "../support/files.ts";
import { integers } from "../support/random.ts";

async function withTemplate(chat_template: string): Promise<Tokenizer> {
  const json = JSON.parse(await Deno.readTextFile(`${GOLDEN}/mha/tokenizer.json`));
  return new Tokenizer(json, { bos_token: "<s>", eos_token: "</s>", chat_template });
}

async function* placed(rows: readonly Row[]): AsyncGenerator<PlacedRow> {
  for (const [i, row] of rows.entries()) yield { row, where: `file:${i + 1}` };
}

Deno.test("encodeRows() gives what one encoder gives, in the order of the rows, over many batches", async () => {
  const tokenizer = await Tokenizer.load(`${GOLDEN}/mha`);
  const lengths = integers(4, 60, 40_000);
  const rows: Row[] = Array.from(
    lengths,
    (length, i) =>
      i % 3 === 0
        ? { kind: "answer", messages: exchange(`q${i} `.repeat(length / 8), `a${i}`) }
        : { kind: "text", text: `t${i} `.repeat(1 + length / 4) },
  );
  const encoder = new RowEncoder(tokenizer);
  const got = await Array.fromAsync(encodeRows(placed(rows), tokenizer));
  assertEquals(got.length, rows.length);
  rows.forEach((row, i) => {
    const wanted = encoder.encode({ row, where: "" });
    assertEquals([got[i]!.ids.length, got[i]!.labels.length], [wanted.ids.length, wanted.labels.length]);
    assert(got[i]!.ids.every((id, t) => id === wanted.ids[t]), `ids of row ${i}`);
    assert(got[i]!.labels.every((label, t) => label === wanted.labels[t]), `labels of row ${i}`);
  });
});

Deno.test("encodeRows() stops a template that takes too long, and names the first row that is wrong", async () => {
  const chat: Row = {
    kind: "chat",
    messages: [{ role: "user", content: "q" }, { role: "assistant", content: "a" }],
  };
  const loops = await withTemplate(
    "{% for i in range(200000) %}{% set large = messages[0].content | upper | lower %}{% endfor %}",
  );
  const long: Row = {
    kind: "chat",
    messages: [{ role: "user", content: "q".repeat(300_000) }, { role: "assistant", content: "a" }],
  };
  await assertThrows(
    () => Array.fromAsync(encodeRows(placed([long]), loops, { template: "model", timeLimit: 4000 })),
    "Cannot tokenize file:1: no end after 5 s",
    "chat_template",
  );
  const tokenizer = await Tokenizer.load(`${GOLDEN}/mha`);
  const wrong: Row = { kind: "chat", messages: [{ role: "user", content: "q" }] };
  const text: Row = { kind: "text", text: "x".repeat(200_000) };
  await assertThrows(
    () => Array.fromAsync(encodeRows(placed([text, text, wrong, text]), tokenizer, { template: "no" })),
    "Cannot use file:3",
    "no answer",
  );
  await assertThrows(
    () => Array.fromAsync(encodeRows(placed([chat]), tokenizer, { template: "model" })),
    "no chat_template",
  );
});
