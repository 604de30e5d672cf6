/** Parquet files: metadata at the end, pages of columns before it. */
import { GOLDEN } from "../../support/files.ts";
import { mutateBytes } from "../mutate.ts";
import type { Reader } from "../reader.ts";
import { readAll } from "./jsonl.ts";

const SOURCES = ["brotli", "conversations", "gzip", "lz4", "snappy", "zstd"]
  .map((name) => Deno.readFileSync(`${GOLDEN}/parquet/${name}.parquet`));
const TOKENS = [
  ...Array.from({ length: 64 }, (_, byte) => Uint8Array.of(byte * 4)),
  Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0x0f),
  Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
  Uint8Array.of(0x80, 0x80, 0x80, 0x80, 0x01),
  new TextEncoder().encode("PAR1"),
];

export const reader: Reader = {
  everyday: 150,
  accepted: [0.02, 0.95],
  make(dice) {
    const source = dice.pick(SOURCES);
    if (dice.chance(0.4)) return mutateBytes(dice, source, TOKENS);
    // The metadata alone: the pages are most of the bytes.
    const length = new DataView(source.buffer).getUint32(source.length - 8, true);
    const start = source.length - 8 - length;
    const metadata = mutateBytes(dice, source.subarray(start, start + length), TOKENS);
    const whole = new Uint8Array([...source.subarray(0, start), ...metadata, ...source.subarray(-8)]);
    new DataView(whole.buffer).setUint32(whole.length - 8, metadata.length, true);
    return whole;
  },
  read: (input, folder) => readAll(`${folder}/x.parquet`, input),
};
