/** The rows of a training file, whatever its format, and what kind of row each is. */
import { quote, quoteNames, typeName } from "../text.ts";
import { isMisspelt } from "../nearest.ts";
import { UserError } from "../errors.ts";
import { uncompressedName } from "./compression.ts";
import { refuseForeign } from "./foreign.ts";
import { readObjects, readText } from "./jsonl.ts";
import { historyOf, isObject, messagesOf, toolsOf } from "./messages.ts";
import { exchange, type InstructionRow, isSystem, type Message } from "./templates.ts";
import { UnusedKeys } from "./unused_keys.ts";

/** One row of training data, by its kind. */
export type Row =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "instruction"; readonly values: InstructionRow }
  /** A question and its answer, with what stands before them. */
  | { readonly kind: "answer"; readonly messages: readonly Message[] }
  /** A text and how it goes on, which is learnt. */
  | { readonly kind: "completion"; readonly prompt: string; readonly completion: string }
  | { readonly kind: "chat"; readonly messages: readonly Message[]; readonly tools?: readonly unknown[] };

/** A row and where it stands, for errors: `file:line`. */
export interface PlacedRow {
  readonly where: string;
  readonly row: Row;
}

/** Keys that decide a row's kind, in this order: a row with several of them is the first. */
const WANTED = {
  conversations: '"conversations" or "messages" (a list of {"role", "content"})',
  instruction: '"instruction" and "output", "input" if there is one',
  answer: '"input" and "output"',
  completion: '"prompt" and "completion"',
  text: '"text"',
} as const;

/** Hooks for keys that are no row's own. */
export interface RowReading {
  /** Counts keys that nothing reads. */
  readonly unused?: UnusedKeys;
  /** Whether the template of conversations reads a key of a row or a turn, such as `tools`; none unless given. */
  readonly templateReads?: (key: string) => boolean;
}

/**
 * Reads a file row by row: `.jsonl` and `.json` (a list, or one object per line), `.txt` and `.md` (a document each), all
 * of these also as `.gz`; `.parquet`; `.pdf` (a document); or a folder of them, see {@linkcode dataAmong}, in the order of
 * their names.
 *
 * @throws {UserError} naming `file:line`, the keys found and the keys wanted if a row is of no known kind
 */
export async function* readRows(path: string, reading: RowReading = {}): AsyncGenerator<PlacedRow> {
  for (const file of await dataFilesOf(path)) {
    for await (const { where, value } of objectsOf(file)) yield { where, row: rowOf(value, where, reading) };
  }
}

/** The data of a folder and the folders in it, or the file itself. */
export async function dataFilesOf(path: string): Promise<string[]> {
  const info = await Deno.stat(path).catch(() => undefined);
  if (!info?.isDirectory) return [path];
  const all = await Array.fromAsync(filesIn(path));
  const names = dataAmong(all);
  if (names.length === 0) {
    all.forEach((name) => refuseForeign(`${path}/${name}`));
    throw new UserError(
      `Cannot use "${path}": the folder has no .jsonl, .json, .parquet, .txt, .md or .pdf file`,
    );
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

/** Files about the data that hold none of it. */
const ABOUT = /(^|\/)((readme|license|changelog)\.(md|txt)|dataset_(info|infos|dict)\.json|state\.json)$/i;
/** A split in a name as the hub's data sets have them: `data/train-00000-of-00002.parquet`, `test.jsonl`. */
const split = (names: string) => new RegExp(`(^|[/_.-])(${names})([/_.-])`, "i");
const TRAIN = split("train");
const HELD_OUT = split("test|validation|valid|val|dev|eval");

/**
 * The data among files: all that can be read, but where there is a training split nothing that is held out from it, and
 * no PDF beside its own text.
 */
export function dataAmong(names: readonly string[]): string[] {
  const hasText = (name: string) => names.includes(name.replace(/\.pdf$/i, ".txt"));
  const readable = names.filter((name) =>
    kindOf(name) !== undefined && !ABOUT.test(name) && !(kindOf(name) === "pdf" && hasText(name))
  );
  return readable.some((name) => TRAIN.test(name))
    ? readable.filter((name) => !HELD_OUT.test(name))
    : readable;
}

/** The reader of a file's rows, by its name; undefined where that does not tell. */
export function kindOf(name: string): "json" | "parquet" | "text" | "pdf" | undefined {
  if (/\.parquet$/i.test(name)) return "parquet";
  if (/\.pdf$/i.test(name)) return "pdf";
  const plain = uncompressedName(name);
  if (/\.jsonl?$/i.test(plain)) return "json";
  return /\.(txt|md)$/i.test(plain) ? "text" : undefined;
}

async function* objectsOf(file: string): AsyncGenerator<{ where: string; value: Record<string, unknown> }> {
  const kind = kindOf(file);
  if (kind === undefined) refuseForeign(file);
  if (kind === "text") {
    yield { where: file, value: { text: await readText(file) } };
  } else if (kind === "pdf") {
    const { readPdf } = await import("./pdf/convert.ts");
    yield { where: file, value: { text: (await readPdf(file)).text } };
  } else if (kind === "parquet") {
    const { readParquet } = await import("./parquet.ts");
    yield* readParquet(file);
  } else yield* readObjects(file);
}

/**
 * Says what kind of row an object is. A key whose value is null, or empty, is as good as absent.
 * @throws {UserError} if it is none, or holds what cannot be learnt
 */
export function rowOf(
  value: Readonly<Record<string, unknown>>,
  where: string,
  { unused = new UnusedKeys(), templateReads = () => false }: RowReading = {},
): Row {
  const fields = new Fields(value, where);
  refusePreferences(fields);
  const row = chatOf(fields, templateReads) ?? instructionOf(fields) ?? answerOf(fields) ??
    completionOf(fields) ??
    textOf(fields);
  if (!row) throw unknownRow(fields);
  for (const key of fields.unused()) unused.add(key);
  if (row.kind === "chat") countUnusedOfTurns(row.messages, { unused, templateReads });
  return row;
}

/** The keys of a row, and which of them have been read. */
class Fields {
  readonly present: ReadonlySet<string>;
  readonly #read = new Set<string>();

  constructor(readonly value: Readonly<Record<string, unknown>>, readonly where: string) {
    this.present = new Set(
      Object.keys(value).filter((key) => value[key] !== null && value[key] !== undefined),
    );
  }

  has(...keys: readonly string[]): boolean {
    return keys.every((key) => this.present.has(key));
  }

  /** The value, undefined where it is null. */
  read(key: string): unknown {
    this.#read.add(key);
    return this.value[key] ?? undefined;
  }

  text(key: string): string {
    const found = this.read(key);
    if (typeof found === "string") return found;
    throw new UserError(`Cannot use ${this.where}: "${key}" must be text, got ${typeName(found)}`);
  }

  /** Text that may be missing, and then is "". */
  optionalText(key: string): string {
    return this.has(key) ? this.text(key) : "";
  }

  unused(): string[] {
    return [...this.present].filter((key) => !this.#read.has(key) && !isEmpty(this.value[key]));
  }
}

function isEmpty(value: unknown): boolean {
  return value === "" || (Array.isArray(value) && value.length === 0);
}

/** Rows of which one answer is to be preferred to another. */
function refusePreferences({ present, value, where }: Fields): void {
  const keys = ["chosen", "rejected", "preferred_output", "non_preferred_output", "kto_tag"];
  const found = keys.filter((key) => present.has(key));
  const isLabelled = present.has("completion") && typeof value.label === "boolean";
  if (found.length === 0 && !isLabelled) return;
  throw new UserError(
    `Cannot use ${where}: it has ${
      quoteNames(isLabelled ? ["label"] : found)
    }, so it is for learning preferences (DPO, KTO), ` +
      "which is not done here. Keep the good answers alone, as rows of one of the other forms",
  );
}

function chatOf(fields: Fields, templateReads: (key: string) => boolean): Row | undefined {
  const key = ["conversations", "messages"].find((key) => fields.has(key));
  const isCompletion = Array.isArray(fields.value.prompt) && Array.isArray(fields.value.completion);
  if (key === undefined && !isCompletion) return undefined;
  const { where } = fields;
  const turns = key !== undefined ? messagesOf(fields.read(key), key, where) : [
    ...messagesOf(fields.read("prompt"), "prompt", where).map((message) => ({ ...message, isLearnt: false })),
    ...messagesOf(fields.read("completion"), "completion", where),
  ];
  const tools = templateReads("tools") ? toolsOf(fields.read("tools"), where) : undefined;
  // A system turn of the conversation's own comes before the row's, as in LLaMA-Factory.
  const messages = isSystem(turns[0]) ? turns : [...systemOf(fields), ...turns];
  return { kind: "chat", messages, ...(tools && { tools }) };
}

function systemOf(fields: Fields): Message[] {
  const content = fields.optionalText("system");
  return content === "" ? [] : [{ role: "system", content }];
}

function instructionOf(fields: Fields): Row | undefined {
  if (!fields.has("instruction", "output")) return undefined;
  return {
    kind: "instruction",
    values: {
      instruction: fields.text("instruction"),
      input: fields.optionalText("input"),
      output: fields.text("output"),
      before: [...systemOf(fields), ...historyOf(fields.read("history"), fields.where)],
    },
  };
}

function answerOf(fields: Fields): Row | undefined {
  if (!fields.has("input", "output")) return undefined;
  const messages = [
    ...systemOf(fields),
    ...historyOf(fields.read("history"), fields.where),
    ...exchange(fields.text("input"), fields.text("output")),
  ];
  return { kind: "answer", messages };
}

function completionOf(fields: Fields): Row | undefined {
  if (!fields.has("prompt", "completion")) return undefined;
  return { kind: "completion", prompt: fields.text("prompt"), completion: fields.text("completion") };
}

function textOf(fields: Fields): Row | undefined {
  return fields.has("text") ? { kind: "text", text: fields.text("text") } : undefined;
}

function countUnusedOfTurns(
  messages: readonly Message[],
  { unused, templateReads }: Required<RowReading>,
): void {
  const keys = new Set(messages.flatMap(({ rest = {} }) => Object.keys(rest)));
  for (const key of keys) if (!templateReads(key)) unused.add(`${key} of turns`);
  if (messages.find((message) => !isSystem(message))?.role === "assistant") {
    unused.add("turns before the first question");
  }
}

/** Names of a question and its answer in other data sets. */
const QUESTIONS = [
  "instruction",
  "question",
  "query",
  "prompt",
  "problem",
  "input",
  "user",
  "human",
  "source",
];
const ANSWERS = ["output", "answer", "response", "completion", "solution", "assistant", "target", "chosen"];
/** And a text. */
const TEXTS = ["content", "contents", "document", "article", "body", "passage", "raw_content"];

function unknownRow({ present, value, where }: Fields): UserError {
  const found = [...present];
  const nulls = Object.keys(value).filter((key) => !present.has(key));
  return new UserError(
    `Cannot use ${where}: it has ${found.length > 0 ? quoteNames(found) : "no keys"}` +
      (nulls.length > 0 ? ` (${quoteNames(nulls)}: null)` : "") +
      `, but a row needs ${Object.values(WANTED).join("; or ")}${remedyFor(found, value)}`,
  );
}

function remedyFor(found: readonly string[], value: Readonly<Record<string, unknown>>): string {
  const hasAny = (...keys: string[]) => keys.some((key) => found.includes(key));
  if (hasAny("role", "from") && hasAny("content", "value")) {
    return '. It is one turn: put the turns of a conversation into a list, {"messages": [...]}, as one row';
  }
  const list = found.find((key) => {
    const items = value[key];
    return Array.isArray(items) && isObject(items[0]);
  });
  if (list !== undefined) return `. If the rows are in ${quote(list)}, save that list alone`;
  const wanted = [
    "text",
    "input",
    "output",
    "instruction",
    "conversations",
    "messages",
    "prompt",
    "completion",
  ];
  for (const name of found) {
    const meant = wanted.find((key) => name !== key && isMisspelt(name, key));
    if (meant) return `. Is "${meant}" meant?`;
  }
  const question = QUESTIONS.find((key) => found.includes(key));
  const answer = ANSWERS.find((key) => found.includes(key));
  if (question && answer) {
    const renamed = question === "instruction"
      ? [[answer, "output"]]
      : [[question, "input"], [answer, "output"]].filter(([from, to]) => from !== to);
    return `. Rename ${renamed.map(([from, to]) => `"${from}" to "${to}"`).join(" and ")}`;
  }
  const text = TEXTS.find((key) => found.includes(key));
  return text ? `. Rename "${text}" to "text"` : "";
}
