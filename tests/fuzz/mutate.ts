/** Ways to damage an input: by bytes, by tokens of its language, by the structure of its JSON. */
import type { Dice } from "./dice.ts";

/** Text as bytes. */
export function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Bytes as text, whatever they are. */
export function asText(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

/** Damages bytes in one to four ways: flips, overwritten, removed, repeated and inserted stretches. */
export function mutateBytes(dice: Dice, source: Uint8Array, tokens: readonly Uint8Array[]): Uint8Array {
  let bytes = [...source];
  for (let rounds = 1 + dice.below(4); rounds > 0 && bytes.length > 0; rounds--) {
    const at = dice.below(bytes.length);
    const length = 1 + dice.below(Math.min(16, bytes.length - at));
    switch (dice.below(6)) {
      case 0:
        bytes[at]! ^= 1 << dice.below(8);
        break;
      case 1:
        bytes[at] = dice.below(256);
        break;
      case 2:
        bytes.splice(at, length);
        break;
      case 3:
        bytes.splice(dice.below(bytes.length), 0, ...bytes.slice(at, at + length));
        break;
      case 4:
        bytes.splice(at, dice.chance(0.5) ? 0 : length, ...dice.pick(tokens));
        break;
      default:
        bytes = bytes.slice(0, dice.chance(0.1) ? at : bytes.length);
    }
  }
  return Uint8Array.from(bytes);
}

/** Damages a text in one to four ways, by stretches up to the next space or line end, and by tokens. */
export function mutateText(dice: Dice, source: string, tokens: readonly string[]): string {
  let text = source;
  for (let rounds = 1 + dice.below(4); rounds > 0 && text.length > 0; rounds--) {
    const at = dice.below(text.length);
    const stop = dice.chance(0.5) ? text.indexOf("\n", at + 1) : text.indexOf(" ", at + 1);
    const end = stop < 0 ? Math.min(text.length, at + 8) : stop;
    const token = dice.pick(tokens);
    switch (dice.below(6)) {
      case 0:
        text = text.slice(0, at) + text.slice(end);
        break;
      case 1:
        text = text.slice(0, at) + text.slice(at, end) + text.slice(at);
        break;
      case 2:
        text = text.slice(0, at) + token + text.slice(at);
        break;
      case 3:
        text = text.slice(0, at) + token + text.slice(end);
        break;
      case 4: {
        const to = dice.below(text.length);
        text = text.slice(0, to) + text.slice(at, end) + text.slice(to);
        break;
      }
      default:
        text = dice.chance(0.02)
          ? text.slice(0, at) + token.repeat(1 + dice.below(20_000)) + text.slice(at)
          : text.slice(0, dice.chance(0.1) ? at : text.length);
    }
  }
  return text;
}

/** JSON as written: keys may occur twice, and numbers may be what no number of JavaScript is. */
type Node =
  | { readonly kind: "object"; entries: [key: string, value: Node][] }
  | { readonly kind: "list"; items: Node[] }
  | { readonly kind: "raw"; text: string };

function nodeOf(value: unknown): Node {
  if (Array.isArray(value)) return { kind: "list", items: value.map(nodeOf) };
  if (typeof value !== "object" || value === null) return { kind: "raw", text: JSON.stringify(value) };
  return { kind: "object", entries: Object.entries(value).map(([key, each]) => [key, nodeOf(each)]) };
}

function textOf(node: Node): string {
  if (node.kind === "raw") return node.text;
  if (node.kind === "list") return `[${node.items.map(textOf)}]`;
  return `{${node.entries.map(([key, value]) => `${JSON.stringify(key)}:${textOf(value)}`)}}`;
}

/** Values that readers get wrong, as they stand in a file. */
const ODD_VALUES = [
  "null",
  "true",
  "false",
  "0",
  "1",
  "-1",
  "-0",
  "0.5",
  "1e3",
  "1e-300",
  "1e308",
  "1e400",
  "-1e400",
  "NaN",
  "Infinity",
  "16777216",
  "16777217",
  "2147483648",
  "4294967296",
  "9007199254740991",
  "9007199254740993",
  "18446744073709551616",
  '""',
  '"0"',
  '"1"',
  '" "',
  '"\\u0000"',
  '"\\ud800"',
  '"\\u001b[2J"',
  '"\\n"',
  '"../x"',
  '"__proto__"',
  '"constructor"',
  '"(a+)+$"',
  "[]",
  "{}",
  "[[]]",
  "[null]",
  '[""]',
  "[0]",
  '{"":0}',
  '{"__proto__":{"polluted":1}}',
  '{"constructor":{"prototype":{"polluted":1}}}',
  '{"toString":1}',
  '{"length":1e9}',
];
const ODD_KEYS = ["__proto__", "constructor", "prototype", "toString", "length", "", "0", "hasOwnProperty"];
const DEPTHS = [3, 30, 300, 1500, 6000, 100_000];

function deep(dice: Dice): string {
  const depth = dice.pick(DEPTHS);
  const [open, close] = dice.pick([["[", "]"], ['{"a":', "}"], ['[{"a":', "}]"]]);
  return open!.repeat(depth) + dice.pick(["", "0", '"a"', "null"]) +
    (dice.chance(0.9) ? close!.repeat(depth) : "");
}

function oddValue(dice: Dice, values: readonly string[]): string {
  if (dice.chance(0.02)) return deep(dice);
  if (dice.chance(0.02)) return JSON.stringify("a".repeat(1 + dice.below(50_000)));
  return dice.pick(values.length > 0 && dice.chance(0.5) ? values : ODD_VALUES);
}

/** A node at random, those near the root as often as those in long lists. */
function somewhere(dice: Dice, root: Node): Node {
  let node = root;
  for (;;) {
    const children = node.kind === "list"
      ? node.items
      : node.kind === "object"
      ? node.entries.map(([, value]) => value)
      : [];
    if (children.length === 0 || dice.chance(0.3)) return node;
    node = dice.pick(children);
  }
}

/** Changes a number or a text a little. */
function nudged(dice: Dice, text: string): string {
  const value: unknown = (() => {
    try {
      return JSON.parse(text);
    } catch {
      return text;
    }
  })();
  if (typeof value === "number") {
    return String(dice.pick([value + 1, value - 1, -value, value * 2, value / 2, value + 0.5, value * 1e6]));
  }
  if (typeof value !== "string") return text;
  const at = dice.below(value.length + 1);
  const piece = dice.pick([
    "\u0000",
    "\n",
    ".",
    "/",
    "\\",
    "*",
    "(",
    "a",
    "\u{1f600}",
    "\ud83d",
    " ",
    "^",
    "$",
  ]);
  return JSON.stringify(
    dice.chance(0.3) ? value.slice(0, at) : value.slice(0, at) + piece + value.slice(at + dice.below(2)),
  );
}

/** What a reader of JSON looks at: keys that may be added, and values that are worth trying, as JSON text. */
export interface JsonHints {
  readonly keys?: readonly string[];
  readonly values?: readonly string[];
}

function mutateNode(dice: Dice, root: Node, { keys = [], values = [] }: JsonHints): Node {
  const node = somewhere(dice, root);
  const value = (): Node => ({ kind: "raw", text: oddValue(dice, values) });
  const key = () => keys.length > 0 && dice.chance(0.7) ? dice.pick(keys) : dice.pick(ODD_KEYS);
  if (node.kind === "raw") {
    node.text = dice.chance(0.4) ? nudged(dice, node.text) : oddValue(dice, values);
    return root;
  }
  const length = node.kind === "list" ? node.items.length : node.entries.length;
  const at = dice.below(length + 1);
  switch (dice.below(7)) {
    case 0: // Another value in its place.
      if (node.kind === "list") node.items[at] = value();
      else if (at < length) node.entries[at]![1] = value();
      else return value();
      break;
    case 1:
      if (node.kind === "list") node.items.splice(at, 1);
      else node.entries.splice(at, 1);
      break;
    case 2: // A second one.
      if (length === 0) break;
      if (node.kind === "list") node.items.splice(at, 0, dice.pick(node.items));
      else {
        const [name, each] = dice.pick(node.entries);
        node.entries.splice(at, 0, [name, dice.chance(0.5) ? each : value()]);
      }
      break;
    case 3:
      if (node.kind === "list") node.items.splice(at, 0, value());
      else node.entries.splice(at, 0, [key(), value()]);
      break;
    case 4: // What stands elsewhere.
      if (length === 0) break;
      if (node.kind === "list") node.items[at % length] = structuredClone(somewhere(dice, root));
      else node.entries[at % length]![1] = structuredClone(somewhere(dice, root));
      break;
    case 5:
      if (node.kind === "object" && length > 0) node.entries[at % length]![0] = key();
      else if (length > 0 && node.kind === "list") {
        node.items[at % length] = { kind: "list", items: [node.items[at % length]!] };
      }
      break;
    default:
      if (dice.chance(0.2)) return { kind: "list", items: [root] };
      if (node.kind === "list") node.items.reverse();
      else node.entries.reverse();
  }
  return root;
}

const JSON_TOKENS = [
  "{",
  "}",
  "[",
  "]",
  ",",
  ":",
  '"',
  "\\",
  "\\u00",
  "0",
  "-",
  "e",
  ".",
  "NaN",
  "\n",
  "\t",
  "\ufeff",
]
  .map(utf8);

/** Damages a JSON text in one to four places: its structure, most of the time, or its bytes. */
export function mutateJson(dice: Dice, source: string, hints: JsonHints = {}): Uint8Array {
  let root = nodeOf(JSON.parse(source));
  for (let rounds = 1 + dice.below(4); rounds > 0; rounds--) root = mutateNode(dice, root, hints);
  const bytes = utf8(dice.chance(0.1) ? source : textOf(root));
  return dice.chance(0.1) && bytes.length < 20_000 ? mutateBytes(dice, bytes, JSON_TOKENS) : bytes;
}
