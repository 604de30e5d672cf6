/**
 * The kinds of value an option can hold. Each kind is a zod type that also reads the text forms people
 * have in older files and on command lines: `2e-4` in quotes, `True`, `embed,norm`, `None`.
 */
import * as z from "zod";
import { parse } from "yaml";

/** One kind of value: how to check it, and how to say what was wanted. */
export interface Kind<T> {
  /** Reads a YAML value or the text of a flag; its errors are not shown, {@linkcode Kind.wanted} is. */
  readonly type: z.ZodType<T>;
  /** Completes the sentence "must be ...". */
  readonly wanted: string;
  /** One word or two for `--help` and the option table. */
  readonly label: string;
  /** All values, where there are few. */
  readonly choices?: readonly string[];
  /** A value as people write it, where that is not what it is read as. */
  write?(value: T): unknown;
}

const NUMBER_TEXT = /^[+-]?(\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)([eE][+-]?\d+)?$/;

/** Turns text such as `2e-4` or `1_000` (PyYAML reads the first as text, the second as a number) into a number. */
function numberFromText(value: unknown): unknown {
  if (typeof value !== "string" || !NUMBER_TEXT.test(value.trim())) return value;
  return Number(value.trim().replaceAll("_", ""));
}

const TRUE_TEXT = new Set(["true", "yes", "on"]);
const FALSE_TEXT = new Set(["false", "no", "off"]);

/** Reads the words YAML 1.1 and Python call booleans; anything else is returned as it came. */
function booleanFromText(value: unknown): unknown {
  if (typeof value !== "string") return value;
  const word = value.trim().toLowerCase();
  return TRUE_TEXT.has(word) ? true : FALSE_TEXT.has(word) ? false : value;
}

function splitList(value: unknown): unknown {
  if (typeof value !== "string") return value;
  // A flag may be written as YAML has lists; names may end in brackets of their own.
  return value.trim().replace(/^\[(.*)\]$/s, "$1").split(",").map((item) => item.trim()).filter((item) =>
    item !== ""
  );
}

/** A whole number from `min` to `max`. */
export function whole(min: number, max: number = Number.MAX_SAFE_INTEGER): Kind<number> {
  const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
  return {
    type: z.preprocess(numberFromText, z.number().int().min(min).max(max)),
    wanted: `a whole number ${range}`,
    label: "whole number",
  };
}

/** Tokens: a whole number, or thousands as people say them: `32k` is 32,768. */
export function tokens(min: number, max: number): Kind<number> {
  const { type, wanted, ...rest } = whole(min, max);
  const read = (value: unknown) => {
    const [, thousands] = typeof value === "string" ? /^(\d+)k$/i.exec(value.trim()) ?? [] : [];
    return thousands === undefined ? value : 1024 * Number(thousands);
  };
  return { ...rest, type: z.preprocess(read, type), wanted: `${wanted}, or thousands as in 32k` };
}

/** A finite number; `above` and `below` exclude their end, `min` and `max` include it. */
export function real(
  range: { min?: number; above?: number; max?: number; below?: number } = {},
): Kind<number> {
  let type = z.number();
  const words: string[] = [];
  if (range.min !== undefined) (type = type.min(range.min), words.push(`at least ${range.min}`));
  if (range.above !== undefined) (type = type.gt(range.above), words.push(`above ${range.above}`));
  if (range.max !== undefined) (type = type.max(range.max), words.push(`at most ${range.max}`));
  if (range.below !== undefined) (type = type.lt(range.below), words.push(`below ${range.below}`));
  return {
    type: z.preprocess(numberFromText, type),
    wanted: ["a number", words.join(" and ")].filter((part) => part !== "").join(" "),
    label: "number",
  };
}

/** Steps: a whole number of at least 1, or a share of all steps between 0 and 1. */
export function steps(): Kind<number> {
  const [count, share] = [whole(1), real({ above: 0, below: 1 })];
  return {
    type: z.union([count.type, share.type]),
    wanted: `${count.wanted}, or a share of all steps above 0 and below 1`,
    label: "whole number, or share",
  };
}

/** `true` or `false`, also as the words `True`, `yes`, `on` and their opposites. */
export function flag(): Kind<boolean> {
  return {
    type: z.preprocess(booleanFromText, z.boolean()),
    wanted: "true or false",
    label: "true or false",
  };
}

const SIZE_TEXT = /^(\d+(?:\.\d+)?)\s*(?:([KMGT]i?)B?|B)$/i;
const SIZE_POWERS = ["", "k", "m", "g", "t"];

/** A size with its unit as bytes; anything else, a bare number too, stays as it is. */
function bytesFromText(value: unknown): unknown {
  const [, amount, unit = ""] = typeof value === "string" ? SIZE_TEXT.exec(value.trim()) ?? [] : [];
  if (amount === undefined) return value;
  const power = SIZE_POWERS.indexOf(unit[0]?.toLowerCase() ?? "");
  return Math.floor(Number(amount) * (unit.length === 2 ? 1024 : 1000) ** power);
}

/** Bytes in the largest unit that divides them: `24GiB`, `1500MB`. */
function sizeText(bytes: number): string {
  const units = SIZE_POWERS.flatMap((letter, power) =>
    letter === "" ? [{ name: "B", size: 1 }] : [1000, 1024].map((base) => ({
      name: `${letter.toUpperCase()}${base === 1024 ? "i" : ""}B`,
      size: base ** power,
    }))
  );
  const { name, size } = units.findLast(({ size }) => bytes % size === 0)!;
  return `${bytes / size}${name}`;
}

/** An amount of memory with its unit, in bytes. A bare number is refused: people who write 10 mean gigabytes. */
export function bytes(): Kind<number> {
  const read = (value: unknown) => typeof value === "string" ? bytesFromText(value) : String(value);
  return {
    type: z.preprocess(read, z.number().int().min(1)),
    wanted: "a size with its unit, such as 24GiB or 500MB",
    label: "size",
    write: sizeText,
  };
}

/** Text that is not empty. */
export function text(label = "text"): Kind<string> {
  return {
    type: z.string().trim().min(1),
    wanted: `${label} (in quotes where YAML would read it as something else)`,
    label,
  };
}

/** One of `choices`; booleans are read as the words they stand for, since `no` is false to older YAML. */
export function oneOf<const T extends string>(choices: readonly T[]): Kind<T> {
  const read = (value: unknown) => value === false ? "no" : typeof value === "string" ? value.trim() : value;
  return {
    type: z.preprocess(read, z.enum(choices)) as z.ZodType<T>,
    wanted: `one of ${choices.join(", ")}`,
    label: choices.join(", "),
    choices,
  };
}

/** A list of names, written as a YAML list or as text with commas. */
export function list(): Kind<readonly string[]> {
  return {
    type: z.preprocess(splitList, z.array(z.string().trim().min(1))),
    wanted: "a list of names, or names with commas between them",
    label: "list of names",
  };
}

/**
 * Names of modules as PEFT takes them: a list, also as text with commas; or text that is no list of names, which is one
 * regular expression. The words `all` and `all-linear` stand alone.
 */
export function moduleNames(): Kind<readonly string[] | string> {
  const read = (value: unknown) => {
    const parts = splitList(value);
    if (!Array.isArray(parts)) return value;
    const [only] = parts.length === 1 ? parts as readonly unknown[] : [];
    if (typeof only === "string" && /^all(-linear)?$/i.test(only.trim())) return "all-linear";
    const isList = typeof value !== "string" || parts.every((part) => /^[\w.-]+$/.test(part));
    return isList ? parts : value;
  };
  return {
    type: z.preprocess(read, z.union([z.array(z.string().trim().min(1)), z.string().trim().min(1)])),
    wanted: "names of modules in a list or with commas between them, all-linear, or one regular expression",
    label: "list of names, all-linear, or expression",
  };
}

/** A map from names or expressions to numbers; flags give it as JSON or YAML. */
export function numberMap(
  range: Parameters<typeof real>[0] = {},
  isWhole = false,
): Kind<Readonly<Record<string, number>>> {
  const one = isWhole ? whole(range.min ?? 0) : real(range);
  return {
    type: z.preprocess(mapFromText, z.record(z.string(), one.type)),
    wanted: `a map such as {q_proj: 8}, each value ${one.wanted}`,
    label: "map to numbers",
  };
}

/** A list of numbers, written as a YAML list or as text with commas. */
export function numbers(range: Parameters<typeof real>[0] = {}): Kind<readonly number[]> {
  return listOf(real(range));
}

/** A list of whole numbers of at least `min`, or one of them. */
export function wholes(min: number): Kind<readonly number[]> {
  return listOf(whole(min));
}

function listOf(one: Kind<number>): Kind<readonly number[]> {
  return {
    type: z.preprocess((value) => typeof value === "number" ? [value] : splitList(value), z.array(one.type)),
    wanted: `a list of numbers with commas between them, each ${one.wanted}`,
    label: "list of numbers",
  };
}

/** Parses a flag's text as JSON or YAML. */
function mapFromText(value: unknown): unknown {
  if (typeof value !== "string") return value;
  try {
    return parse(value, { maxAliasCount: 0 });
  } catch {
    return value;
  }
}

/** A small map from names to plain values, as `rope_scaling` in config.json; flags give it as JSON or YAML. */
export function map(): Kind<Readonly<Record<string, unknown>>> {
  const plain = z.union([z.string(), z.number(), z.boolean(), z.null(), z.array(z.number())]);
  return {
    type: z.preprocess(mapFromText, z.record(z.string(), plain)),
    wanted: 'a map such as {rope_type: "linear", factor: 4}',
    label: "map",
  };
}

/** `first` or, failing that, `second`. */
export function either<A, B>(first: Kind<A>, second: Kind<B>): Kind<A | B> {
  return {
    type: z.union([first.type, second.type]),
    wanted: `${first.wanted}, or ${second.wanted}`,
    label: `${first.label}, or ${second.label}`,
  };
}

const NOTHING = new Set(["", "none", "null", "~"]);

/** Text that stands for "not set" in YAML written for Python, and on command lines. */
export function isNothing(value: unknown): boolean {
  return value === null || value === undefined ||
    (typeof value === "string" && NOTHING.has(value.trim().toLowerCase()));
}
