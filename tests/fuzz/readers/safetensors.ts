/** Files of safetensors: right ones, changed in what the header says, in its text, or in their bytes. */
import { DTYPE_BYTES, isDtype } from "../../../checkpoint/dtype.ts";
import { SafetensorsFile } from "../../../checkpoint/safetensors.ts";
import { safetensorsBytes } from "../../checkpoint/support.ts";
import { assert } from "../../support/assert_close.ts";
import type { Dice } from "../dice.ts";
import { memoryFile } from "../memory_files.ts";
import { mutateBytes, utf8 } from "../mutate.ts";
import type { Reader } from "../reader.ts";

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

function isRecord(value: Json): value is { [key: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Number of keys in a value, inner ones included. */
function countKeys(value: Json): number {
  if (typeof value !== "object" || value === null) return 0;
  const inner = Object.values(value).reduce((sum: number, child) => sum + countKeys(child), 0);
  return inner + (Array.isArray(value) ? 0 : Object.keys(value).length);
}

function allText(value: Json): string[] {
  if (typeof value === "string") return [value];
  if (typeof value !== "object" || value === null) return [];
  return [...(Array.isArray(value) ? [] : Object.keys(value)), ...Object.values(value).flatMap(allText)];
}

/** The JSON value of a header if it has plain numbers, no duplicate keys and valid text; else undefined. */
function naiveJson(bytes: Uint8Array): { [key: string]: Json } | undefined {
  let plain = true;
  // The third argument of a reviver, with the source text, is not in TypeScript's library yet.
  const reviver = (_key: string, value: Json, context?: { source?: string }): Json => {
    if (typeof value === "number") plain &&= /^(0|[1-9][0-9]*)$/.test(context!.source!);
    return value;
  };
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    const root: Json = JSON.parse(text, reviver as (key: string, value: unknown) => unknown);
    const keysInText = text.match(/"(?:[^"\\]|\\.)*"[ \t\r\n]*:/gs)?.length ?? 0;
    const legal = text.startsWith("{") && plain && isRecord(root) && keysInText === countKeys(root) &&
      allText(root).every((part) => part.isWellFormed());
    return legal ? root as { [key: string]: Json } : undefined;
  } catch {
    return undefined;
  }
}

/** Begin and end of a legal tensor entry. */
function naiveSpan(value: Json): [number, number] | undefined {
  if (!isRecord(value) || Object.keys(value).sort().join() !== "data_offsets,dtype,shape") return undefined;
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== "string" || !isDtype(dtype) || !Array.isArray(shape) || !Array.isArray(offsets)) {
    return undefined;
  }
  if (shape.length > 8 || offsets.length !== 2) return undefined;
  if (![...shape, ...offsets].every((size) => Number.isSafeInteger(size))) return undefined;
  let count = 1n;
  for (const size of shape as number[]) {
    count *= BigInt(size);
    if (count > 9007199254740991n) return undefined;
  }
  const [begin, end] = offsets as [number, number];
  return BigInt(end) - BigInt(begin) === count * BigInt(DTYPE_BYTES[dtype]) ? [begin, end] : undefined;
}

/**
 * Says whether a header is legal in another way than our reader does: JSON.parse, a count of the keys in
 * the text to find duplicates, and a mark for each byte instead of sorted spans.
 */
function naivelyLegal(bytes: Uint8Array, dataLength: number): boolean {
  const root = naiveJson(bytes);
  if (root === undefined) return false;
  const owned = new Uint8Array(dataLength);
  const begins = new Set([0, dataLength]);
  const empty: number[] = [];
  for (const [name, value] of Object.entries(root)) {
    if (name === "__metadata__") {
      if (!isRecord(value) || !Object.values(value).every((item) => typeof item === "string")) return false;
      continue;
    }
    const span = naiveSpan(value);
    if (span === undefined || name.length > 1024 || span[1] > dataLength) return false;
    const [begin, end] = span;
    if (begin === end) empty.push(begin);
    else begins.add(begin);
    for (let at = begin; at < end; at++) if (++owned[at]! > 1) return false;
  }
  return owned.every((count) => count === 1) && empty.every((at) => begins.has(at));
}

interface Part {
  name: string;
  dtype: string;
  shape: (number | string)[];
  offsets: (number | string)[];
}

const NAMES = ["a", "b", "model.norm.weight", "__proto__", "constructor", "", "é", "\u{1f600}", "toString"];
const EXTREMES = [
  "-1",
  "-0",
  "1e3",
  "0.5",
  "00",
  "9007199254740991",
  "9007199254740992",
  "18446744073709551615",
  "4294967296",
  "1e400",
  "null",
  '"4"',
  "[1]",
  "{}",
  "true",
];

/** A legal set of tensors with names in random order. */
function makeParts(dice: Dice): Part[] {
  let begin = 0;
  const count = dice.below(5);
  const names = [...NAMES].sort(() => dice.below(3) - 1).slice(0, count);
  return names.map((name) => {
    const dtype = dice.pick(Object.keys(DTYPE_BYTES)) as keyof typeof DTYPE_BYTES;
    const shape = Array.from({ length: dice.below(4) }, () => dice.below(4));
    const end = begin + shape.reduce((product, size) => product * size, 1) * DTYPE_BYTES[dtype];
    const part = { name, dtype, shape, offsets: [begin, end] };
    begin = end;
    return part;
  });
}

/** Changes what the header says, keeping it JSON most of the time. */
function mutateParts(dice: Dice, parts: Part[]): void {
  if (parts.length === 0) return;
  const part = dice.pick(parts);
  const list = dice.chance(0.5) ? part.shape : part.offsets;
  switch (dice.below(9)) {
    case 0:
      list[dice.below(list.length + 1)] = dice.pick(EXTREMES);
      break;
    case 1:
      list.push(dice.below(4));
      break;
    case 2:
      list.pop();
      break;
    case 3:
      part.name = dice.pick(parts).name;
      break;
    case 4:
      part.dtype = dice.pick([...Object.keys(DTYPE_BYTES), "F4", "f32", "", "__proto__"]);
      break;
    case 5:
      parts.splice(dice.below(parts.length), 1);
      break;
    case 6:
      parts.push({ ...part, name: dice.pick(NAMES) });
      break;
    case 7: {
      const delta = dice.pick([-8, -4, -1, 1, 4, 8]);
      part.offsets = part.offsets.map((offset) =>
        typeof offset === "number" ? Math.abs(offset + delta) : offset
      );
      break;
    }
    default:
      parts.reverse();
  }
}

function encode(dice: Dice, parts: readonly Part[]): string {
  const space = () => dice.chance(0.05) ? dice.pick([" ", "\n", "\t", "\r", "\u00a0"]) : "";
  const members = parts.map(({ name, dtype, shape, offsets }) => {
    const fields = [`"dtype":${JSON.stringify(dtype)}`, `"shape":[${shape}]`, `"data_offsets":[${offsets}]`];
    if (dice.chance(0.03)) {
      fields.push(dice.pick(['"dtype":"F32"', '"extra":1', '"shape":[]', '"__proto__":{}']));
    }
    const order = dice.chance(0.5) ? fields : fields.reverse();
    return `${JSON.stringify(name)}${space()}:${space()}{${order.join(`,${space()}`)}}`;
  });
  if (dice.chance(0.3)) {
    const metadata = ['{"format":"pt"}', "{}", '{"a":"b","a":"c"}', '{"a":1}', "null", '{"__proto__":"x"}'];
    members.splice(dice.below(members.length + 1), 0, `"__metadata__":${dice.pick(metadata)}`);
  }
  return `{${members.join(`,${space()}`)}}${space()}`;
}

const TOKENS = [
  ...EXTREMES,
  "{",
  "}",
  "[",
  "]",
  ",",
  ":",
  '"',
  "\\u0061",
  "\\",
  '"a"',
  '"dtype":',
  " ",
  "\ud83d\ude00",
]
  .map(utf8);

/** A header and the length of its data: legal at first, then mutated by structure, by bytes, or not at all. */
function makeCase(dice: Dice): { bytes: Uint8Array; dataLength: number } {
  const parts = makeParts(dice);
  let dataLength = Math.max(0, ...parts.map(({ offsets }) => offsets[1] as number));
  const kind = dice.below(10);
  if (kind < 5) { for (let rounds = 1 + dice.below(2); rounds > 0; rounds--) mutateParts(dice, parts); }
  if (dice.chance(0.05)) dataLength = Math.max(0, dataLength + dice.pick([-8, -1, 1, 8]));
  let bytes: Uint8Array = utf8(encode(dice, parts));
  if (kind >= 5 && kind < 9) bytes = mutateBytes(dice, bytes, TOKENS);
  return { bytes, dataLength };
}

/** Whether a file is one of safetensors, by {@linkcode naivelyLegal}. */
function isRight(file: Uint8Array): boolean {
  if (file.length < 8) return false;
  const length = new DataView(file.buffer, file.byteOffset).getBigUint64(0, true);
  if (length > BigInt(file.length - 8)) return false;
  const end = 8 + Number(length);
  return naivelyLegal(file.subarray(8, end), file.length - end);
}

export const reader: Reader = {
  everyday: 5000,
  accepted: [0.1, 0.9],
  make(dice) {
    const { bytes, dataLength } = makeCase(dice);
    // Bytes of their own in each tensor, so that a wrong place shows.
    const data = Uint8Array.from({ length: dataLength }, (_, i) => i * 31 + 7);
    const whole = safetensorsBytes(bytes, data);
    return dice.chance(0.35) ? mutateBytes(dice, whole, TOKENS) : whole;
  },
  isRight,
  async read(input) {
    const file = await SafetensorsFile.open("x.safetensors", memoryFile(input));
    const dataStart = 8 + Number(new DataView(input.buffer, input.byteOffset).getBigUint64(0, true));
    const header = naiveJson(input.subarray(8, dataStart));
    for (const span of file.tensors.values()) {
      const read = await file.read(span);
      // Where a header is refused by the other checker, its answer says so.
      const [begin, end] = naiveSpan(header?.[span.name] ?? null) ?? [span.begin, span.end];
      const expected = input.subarray(dataStart + begin, dataStart + end);
      assert(read.length === expected.length, `${span.name} has ${read.length} bytes`);
      assert(read.every((byte, i) => byte === expected[i]), `${span.name} has other bytes`);
    }
  },
};
