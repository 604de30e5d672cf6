/** Compressed lines of JSON. */
import { gzipSync } from "../deps.ts";
import { mutateBytes, utf8 } from "../mutate.ts";
import type { Reader } from "../reader.ts";
import { readAll } from "./jsonl.ts";

const LINES = Array.from(
  { length: 40 },
  (_, i) => JSON.stringify({ text: `line ${i * 7919} of some ${i ** 5}` }) + "\n",
);
const WHOLE = new Uint8Array(gzipSync(LINES.join("")));
const SOURCES = [
  WHOLE,
  new Uint8Array([...gzipSync(LINES[0]!), ...gzipSync(LINES[1]!)]),
  new Uint8Array(gzipSync(`{"text":"${"a".repeat(100_000)}"}`)),
];
const TOKENS = [
  WHOLE.slice(0, 10),
  Uint8Array.of(0x1f, 0x8b),
  Uint8Array.of(0),
  new Uint8Array(8).fill(255),
  utf8("{}\n"),
];

export const reader: Reader = {
  everyday: 200,
  accepted: [0.01, 0.6],
  make: (dice) => mutateBytes(dice, dice.pick(SOURCES), TOKENS),
  read: (input, folder) => readAll(`${folder}/x.jsonl.gz`, input),
};
