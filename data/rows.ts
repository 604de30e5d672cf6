/** The rows of a training file, whatever its format, and what kind of row each is. */
import { distance } from "fastest-levenshtein";
import { UserError } from "../errors.ts";
import { uncompressedName } from "./compression.ts";
import { refuseForeign } from "./foreign.ts";
import { quoted, readObjects, readText, typeName } from "./jsonl.ts";
import type { InstructionRow, Message } from "./templates.ts";

/** What a row is to be trained on. */
export type Row =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "instruction"; readonly values: InstructionRow }
  | { readonly kind: "answer"; readonly input: string; readonly output: string }
  | { readonly kind: "chat"; readonly messages: readonly Message[] };

/** A row and where it stands, for errors: `file:line`. */
export interface PlacedRow {
  readonly where: string;
  readonly row: Row;
}

/** What is looked for, in this order: a row with several of them is the first. */
const WANTED = {
  conversations: '"conversations" or "messages" (a list of {"role", "content"})',
  instruction: '"instruction" and "output", "input" if there is one',
  answer: '"input" and "output"',
  text: '"text"',
} as const;

/**
 * Reads a file row by row: `.jsonl` and `.json` (a list, or one object per line), `.txt` and `.md` (a document each), all
 * of these also as `.gz`; `.parquet`; or a folder of them, see {@linkcode dataAmong}, in the order of their names.
 *
 * @throws {UserError} naming `file:line`, the keys found and the keys wanted if a row is of no known kind
 */
export async function* readRows(path: string): AsyncGenerator<PlacedRow> {
  for (const file of await dataFilesOf(path)) {
    for await (const { where, value } of objectsOf(file)) yield { where, row: rowOf(value, where) };
  }
}

/** The data of a folder and the folders in it, or the file itself. */
export async function dataFilesOf(path: string): Promise<string[]> {
  const info = await Deno.stat(path).catch(() => undefined);
  if (!info?.isDirectory) return [path];
  const names = dataAmong(await Array.fromAsync(filesIn(path)));
  if (names.length === 0) {
    throw new UserError(`Cannot use "${path}": the folder has no .jsonl, .json, .parquet, .txt or .md file`);
  }
  return names.sort().map((name) => `${path}/${name}`);
}

/** Names of the files in a folder and below, links to files too: the hub's cache has nothing else. */
async function* filesIn(folder: string, prefix = ""): AsyncGenerator<string> {
  for await (const { name, isFile, isDirectory, isSymlink } of Deno.readDir(`${folder}/${prefix}`)) {
    if (name.startsWith(".")) continue;
    if (isDirectory) yield* filesIn(folder, `${prefix}${name}/`);
    else if (isFile || isSymlink) yield prefix + name;
  }
}

/** What is about the data and none of it. */
const ABOUT = /(^|\/)((readme|license|changelog)\.(md|txt)|dataset_(info|infos|dict)\.json|state\.json)$/i;
/** A split in a name as the hub's data sets have them: `data/train-00000-of-00002.parquet`, `test.jsonl`. */
const split = (names: string) => new RegExp(`(^|[/_.-])(${names})([/_.-])`, "i");
const TRAIN = split("train");
const HELD_OUT = split("test|validation|valid|val|dev|eval");

/** The data among files: all that can be read, but where there is a training split nothing that is held out from it. */
export function dataAmong(names: readonly string[]): string[] {
  const readable = names.filter((name) => kindOf(name) !== undefined && !ABOUT.test(name));
  return readable.some((name) => TRAIN.test(name))
    ? readable.filter((name) => !HELD_OUT.test(name))
    : readable;
}

/** How a file's rows are read, by its name; undefined where that does not tell. */
export function kindOf(name: string): "json" | "parquet" | "text" | undefined {
  if (/\.parquet$/i.test(name)) return "parquet";
  const plain = uncompressedName(name);
  if (/\.jsonl?$/i.test(plain)) return "json";
  return /\.(txt|md)$/i.test(plain) ? "text" : undefined;
}

async function* objectsOf(file: string): AsyncGenerator<{ where: string; value: Record<string, unknown> }> {
  const kind = kindOf(file);
  if (kind === undefined) refuseForeign(file);
  if (kind === "text") {
    yield { where: file, value: { text: await readText(file) } };
  } else if (kind === "parquet") {
    const { readParquet } = await import("./parquet.ts");
    yield* readParquet(file);
  } else yield* readObjects(file);
}

/** Says what kind of row an object is. @throws {UserError} if it is none */
export function rowOf(value: Readonly<Record<string, unknown>>, where: string): Row {
  const turns = value.conversations ?? value.messages;
  if (turns !== undefined) return { kind: "chat", messages: messagesOf(turns, where) };
  const has = (key: string) => Object.hasOwn(value, key);
  if (has("instruction") && has("output")) {
    return {
      kind: "instruction",
      values: {
        instruction: text(value, "instruction", where),
        input: has("input") && value.input !== null ? text(value, "input", where) : "",
        output: text(value, "output", where),
      },
    };
  }
  if (has("input") && has("output")) {
    return { kind: "answer", input: text(value, "input", where), output: text(value, "output", where) };
  }
  if (has("text")) return { kind: "text", text: text(value, "text", where) };
  throw unknownRow(Object.keys(value), where);
}

/** OpenAI's and Long-LLM's `role`/`content`, and ShareGPT's `from`/`value`. */
function messagesOf(turns: unknown, where: string): Message[] {
  if (!Array.isArray(turns) || turns.length === 0) {
    throw new UserError(
      `Cannot use ${where}: "conversations" must be a list of turns, got ${typeName(turns)}`,
    );
  }
  return turns.map((turn, i) => {
    const role = ROLES.get(turn?.role ?? turn?.from);
    const content = turn?.content ?? turn?.value;
    if (role && typeof content === "string") return { role, content };
    throw new UserError(
      `Cannot use ${where}: turn ${
        i + 1
      } must have "role" (user, assistant or system) and "content" (text), ` +
        `found ${turn && typeof turn === "object" ? quoted(Object.keys(turn)) : typeName(turn)}`,
    );
  });
}

const ROLES = new Map<unknown, Message["role"]>([
  ["system", "system"],
  ["user", "user"],
  ["human", "user"],
  ["assistant", "assistant"],
  ["gpt", "assistant"],
]);

function text(value: Readonly<Record<string, unknown>>, key: string, where: string): string {
  const found = value[key];
  if (typeof found === "string") return found;
  throw new UserError(`Cannot use ${where}: "${key}" must be text, got ${typeName(found)}`);
}

function unknownRow(found: readonly string[], where: string): UserError {
  const wanted = ["text", "input", "output", "instruction", "conversations", "messages"];
  const meant =
    found.flatMap((name) =>
      wanted.filter((key) => name !== key && distance(key, name.trim().toLowerCase()) <= 2)
    )[0];
  return new UserError(
    `Cannot use ${where}: it has ${found.length > 0 ? quoted(found) : "no keys"}, but a row needs ` +
      `${Object.values(WANTED).join("; or ")}` + (meant ? `. Is "${meant}" meant?` : ""),
  );
}
