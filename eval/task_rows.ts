/** Rows of evaluation data in their published formats, each key checked as it is read. */
import { type PlacedObject, readObjects } from "../data/jsonl.ts";
import { FILE_LIMITS, readWholeText } from "../data/file_bytes.ts";
import { UserError } from "../errors.ts";
import { quote, quoteNames, typeName } from "../text.ts";

/** One row, and where it stands. */
export class TaskRow {
  readonly #value: Readonly<Record<string, unknown>>;

  constructor(readonly where: string, value: PlacedObject["value"]) {
    this.#value = value;
  }

  /** A key that must hold text. */
  text(key: string): string {
    const value = this.#get(key);
    if (typeof value === "string") return value;
    throw this.refusal(`"${key}" must be text, got ${typeName(value)}`);
  }

  /** A key that must hold a number. */
  number(key: string): number {
    const value = this.#get(key);
    if (typeof value === "number") return value;
    throw this.refusal(`"${key}" must be a number, got ${typeName(value)}`);
  }

  /** A key that must hold one text or more, in a list; numbers among them are written out. */
  texts(key: string): string[] {
    const value = this.#get(key);
    const isText = (item: unknown) => typeof item === "string" || typeof item === "number";
    if (Array.isArray(value) && value.length > 0 && value.every(isText)) return value.map(String);
    throw this.refusal(`"${key}" must be a list of texts, got ${quote(value)}`);
  }

  /** A key that holds texts, or one of them alone. */
  oneOrMore(key: string): string[] {
    const value = this.#get(key);
    return typeof value === "string" || typeof value === "number" ? [String(value)] : this.texts(key);
  }

  /** Tells whether a key is there and holds something. */
  has(key: string): boolean {
    return (this.#value[key] ?? null) !== null;
  }

  refusal(what: string): UserError {
    return new UserError(`Cannot use ${this.where}: ${what}`);
  }

  #get(key: string): unknown {
    if (Object.hasOwn(this.#value, key)) return this.#value[key];
    throw this.refusal(
      `it lacks "${key}". It has ${quoteNames(Object.keys(this.#value)) || "no keys"}`,
    );
  }
}

/** The rows of a file. @throws {UserError} naming `file:line` if it is missing or has no rows, or one is no object */
export async function* readTaskRows(path: string): AsyncGenerator<TaskRow> {
  for await (const { where, value } of readObjects(path)) yield new TaskRow(where, value);
}

/** A template in which `{name}` stands for a value. */
export function filled(template: string, values: Readonly<Record<string, string>>): string {
  return template.replace(/\{(\w+)\}/g, (whole, name: string) => values[name] ?? whole);
}

/** Reads prompts by task. @throws {UserError} if it is no JSON object of texts with `{context}` */
export async function readPrompts(path: string): Promise<Readonly<Record<string, string>>> {
  const refuse = (what: string) =>
    new UserError(
      `Cannot use the prompts "${path}": ${what}. It is a JSON object with a text for each task, in which {context} and ` +
        "{input} stand for those of a row",
      { kind: "usage" },
    );
  let prompts: unknown;
  try {
    prompts = JSON.parse(await readWholeText(path, FILE_LIMITS.config));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw refuse("it is not JSON");
  }
  if (typeof prompts !== "object" || prompts === null || Array.isArray(prompts)) {
    throw refuse("it is not an object");
  }
  for (const [task, prompt] of Object.entries(prompts)) {
    if (typeof prompt !== "string" || !prompt.includes("{context}")) {
      throw refuse(`${quote(task)} has no {context}`);
    }
  }
  return prompts as Record<string, string>;
}
