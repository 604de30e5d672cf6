/** Lines of JSON, and lists of objects. */
import { dirname } from "../../../checkpoint/deps.ts";
import { readRows } from "../../../data/rows.ts";
import { assert } from "../../support/assert_close.ts";
import { asText, mutateBytes, mutateJson, utf8 } from "../mutate.ts";
import type { Reader } from "../reader.ts";

const ROWS = [
  { text: 'Once upon a time \u{1f600}\n"there" \\ was \u00e9' },
  { instruction: "Add", input: "1 2", output: "3" },
  { input: "a", output: "b" },
  { conversations: [{ from: "human", value: "Hi" }, { from: "gpt", value: "Hello" }] },
  {
    messages: [{ role: "system", content: "s" }, { role: "user", content: "u" }, {
      role: "assistant",
      content: "a",
    }],
  },
  { text: "tab\tand a long line ".repeat(20) },
];
const TOKENS = [
  "{",
  "}",
  "[",
  "]",
  ",",
  ":",
  '"',
  "\\",
  "\n",
  "\r",
  "\t",
  "\ufeff",
  "null",
  "1e999",
  "\\u12",
  "\u0000",
]
  .map(utf8);
const HINTS = {
  keys: [
    "text",
    "input",
    "output",
    "instruction",
    "messages",
    "conversations",
    "role",
    "content",
    "from",
    "value",
  ],
  values: [
    '"user"',
    '"assistant"',
    '"system"',
    '"tool"',
    '[{"role":"user","content":"x"}]',
    '{"type":"text"}',
  ],
};

export const reader: Reader = {
  everyday: 400,
  accepted: [0.02, 0.95],
  make(dice) {
    const rows = Array.from({ length: 1 + dice.below(4) }, () => dice.pick(ROWS));
    const lines = rows.map((row) =>
      dice.chance(0.3) ? asText(mutateJson(dice, JSON.stringify(row), HINTS)) : JSON.stringify(row)
    );
    const end = dice.pick(["\n", "\n", "\r\n", "\n\n"]);
    const whole = utf8(
      dice.chance(0.3) ? `[${lines.join(dice.pick([",", ",\n", " ,\r\n "]))}]` : lines.join(end) + end,
    );
    return dice.chance(0.6) && whole.length < 20_000 ? mutateBytes(dice, whole, TOKENS) : whole;
  },
  read: (input, folder) => readAll(`${folder}/x.jsonl`, input),
};

/** Reads a file of rows, each of which must say where it stands. */
export async function readAll(path: string, input: Uint8Array): Promise<void> {
  Deno.writeFileSync(path, input);
  for await (const { where, row } of readRows(path)) {
    assert(where.startsWith(dirname(path)), `a row stands in ${where}`);
    assert(typeof row.kind === "string", "a row has no kind");
  }
}
