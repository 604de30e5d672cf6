/** The turns of a chat, and its file. */
import { writeFileAtomic } from "../checkpoint/atomic.ts";
import { FILE_LIMITS, readWholeText } from "../data/file_bytes.ts";
import type { Message } from "../data/templates.ts";
import { UserError } from "../errors.ts";
import { quote } from "../text.ts";
import { askAbout } from "./material.ts";

const ROLES: readonly unknown[] = ["system", "user", "assistant"];

/** The turns so far, with a document where one waits for its question. */
export class Conversation {
  #turns: Message[] = [];
  #system: string | null;
  #material: string | null = null;

  constructor(system: string | null = null) {
    this.#system = system;
  }

  /** All turns, the system's first. */
  get messages(): readonly Message[] {
    return this.#system === null ? this.#turns : [{ role: "system", content: this.#system }, ...this.#turns];
  }

  /** Whether a document waits for its question. */
  get hasMaterial(): boolean {
    return this.#material !== null;
  }

  /** The turns with one more question, behind the document where one waits; nothing is kept yet. */
  with(question: string): readonly Message[] {
    const content = this.#material === null ? question : askAbout(this.#material, question);
    return [...this.messages, { role: "user", content }];
  }

  /** Keeps a question and its answer. */
  add(question: string, answer: string): void {
    this.#turns.push(this.with(question).at(-1)!, { role: "assistant", content: answer });
    this.#material = null;
  }

  /** Puts a document before the next question. */
  attach(material: string): void {
    this.#material = material;
  }

  /** Sets or takes away the system's text. */
  setSystem(text: string | null): void {
    this.#system = text;
  }

  /** Forgets all turns and the document; the system's text stays. */
  reset(): void {
    this.#turns = [];
    this.#material = null;
  }

  /** Writes `{"messages": [...]}`, which is also a row of training data. */
  async save(path: string): Promise<void> {
    await writeFileAtomic(path, `${JSON.stringify({ messages: this.messages })}\n`);
  }

  /** Takes the turns of a file that {@linkcode save} wrote. @throws {UserError} if it is none */
  async load(path: string): Promise<void> {
    const text = await readWholeText(path, FILE_LIMITS.tokenizer);
    let messages: unknown;
    try {
      messages = (JSON.parse(text) as { messages?: unknown } | null)?.messages;
    } catch (cause) {
      throw new UserError(`Cannot load "${path}": it is not JSON (${(cause as Error).message})`, { cause });
    }
    const turns = Array.isArray(messages) ? messages as Partial<Message>[] : undefined;
    const wrong = turns?.find(({ role, content } = {}) =>
      !ROLES.includes(role) || typeof content !== "string"
    );
    if (turns === undefined || wrong !== undefined) {
      throw new UserError(
        `Cannot load "${path}": ${
          wrong === undefined ? "it has no list of messages" : `a message is ${quote(wrong)}`
        }; wanted are {"messages": [{"role": "user", "content": "..."}, ...]}`,
      );
    }
    const all = turns as readonly Message[];
    this.#system = all[0]?.role === "system" ? all[0].content : null;
    this.#turns = all.filter(({ role }) => role !== "system").map(({ role, content }) => ({ role, content }));
    this.#material = null;
  }
}
