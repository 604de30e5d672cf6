/** `chat`: a conversation on the terminal. */
import { Conversation } from "../chat/conversation.ts";
import type { Answer, AnswerOptions, Engine } from "../chat/engine.ts";
import { readMaterial } from "../chat/material.ts";
import { UserError } from "../errors.ts";
import { formatBytes, formatCount, formatTable } from "../text.ts";
import { text } from "../train_args/values.ts";
import {
  type AnswerFlags,
  MOST_TOKENS,
  noteUnknown,
  openEngine,
  samplingOf,
  sinksOf,
  withAnswerFlags,
  withSinkFlags,
} from "./answer_flags.ts";
import { booleanFlag, type BuiltCommand, newCommand, optionalFlag } from "./flags.ts";
import { nearest } from "../nearest.ts";
import { paint } from "./format.ts";
import { describeAnswer } from "./inference.ts";
import type { Io, Lines } from "./io.ts";
import { narrowFetched } from "./permissions.ts";

/** The command. Without a terminal each line of stdin is a question. */
export function build(summary: string, io: Io): BuiltCommand {
  return withSinkFlags(withAnswerFlags(newCommand("chat", summary, io, {
    examples: [
      "chat --base_model models/long",
      "chat --base_model org/model --peft_model output/long --file book.pdf --compare",
    ],
  })))
    .addOption(
      optionalFlag("system", "text that tells the model how to answer", text(), "the template's own"),
    )
    .addOption(optionalFlag("file", "document for the first question: .txt or .pdf", text("path"), "none"))
    .addOption(booleanFlag("compare", "let the base without the adapter answer, too", false))
    .action(async ({ json: _, ...flags }) => {
      if (flags.compare && flags.peft_model === null) {
        throw new UserError("--compare needs --peft_model: it lets the base answer beside the adapter");
      }
      using engine = await openEngine(io, flags, sinksOf(flags));
      // Beyond its own context the base answers too, as far as it can.
      using base = flags.compare
        ? await openEngine(io, baseOf(flags), { mostTokens: engine.contextSize, ...sinksOf(flags) })
        : undefined;
      narrowFetched();
      const speakers: Speaker[] = base
        ? [{ name: "base", engine: base }, { name: "extended", engine }]
        : [{ name: "", engine }];
      const repl = new Repl(io, speakers, flags);
      if (flags.file !== null) await repl.attach(flags.file);
      await repl.run();
    });
}

/** The same model as its makers left it. */
function baseOf<T extends AnswerFlags>(flags: T): T {
  return { ...flags, peft_model: null, context_size: null };
}

interface Speaker {
  /** Shown before its answers where there are several. */
  readonly name: string;
  readonly engine: Engine;
}

const COMMANDS = {
  help: "this list",
  reset: "forget the conversation",
  system: "TEXT: tell the model how to answer; without text, no more",
  file: "PATH: a .txt or .pdf that the next question is about",
  save: "PATH: write the conversation as JSON, a row of training data",
  load: "PATH: go on with a conversation that was saved",
  stats: "tokens, context and memory",
  exit: "end; Ctrl-D too",
} as const;

/** Reads lines, answers them, and obeys `/commands`. */
class Repl {
  readonly #io: Io;
  readonly #speakers: readonly Speaker[];
  readonly #options: AnswerOptions & { readonly seed: number };
  /** One for each speaker: each remembers its own answers. */
  readonly #conversations: readonly Conversation[];
  readonly #lines: Lines;
  #answering: AbortController | undefined;
  #last: readonly Answer[] = [];

  constructor(io: Io, speakers: readonly Speaker[], flags: AnswerFlags & { readonly system: string | null }) {
    this.#io = io;
    this.#speakers = speakers;
    this.#options = { ...samplingOf(flags), maxNewTokens: flags.max_gen_len ?? MOST_TOKENS };
    this.#conversations = speakers.map(() => new Conversation(flags.system));
    this.#lines = io.lines({
      prompt: "> ",
      complete: (line) =>
        Object.keys(COMMANDS).map((name) => `/${name} `).filter((name) => name.startsWith(line)),
      onInterrupt: () => this.#answering ? this.#answering.abort() : this.#lines.close(),
    });
  }

  /** Until `/exit`, the end of the input, or Ctrl-C where nothing is written. */
  async run(): Promise<void> {
    const lines = this.#lines;
    if (this.#io.isTerminal) this.#io.err('Ask, or type "/help". Ctrl-C ends an answer, Ctrl-D the chat.');
    lines.ask();
    for await (const line of lines) {
      const isOver = await this.#obey(line.trim()).catch((error) => {
        if (!(error instanceof UserError)) throw error;
        this.#io.err(error.message);
        return false;
      });
      if (isOver) break;
      lines.ask();
    }
    lines.close();
  }

  /** Reads a document for the next question. */
  async attach(path: string): Promise<void> {
    const material = await readMaterial(path);
    const { engine } = this.#speakers.at(-1)!;
    const { length } = engine.tokenizer.encode(material, { bos: false });
    engine.checkLength(length);
    for (const conversation of this.#conversations) conversation.attach(material);
    this.#io.err(
      `${path}: ${formatCount(length)} tokens of ${formatCount(engine.contextSize)}; ask about it`,
    );
  }

  /** @returns whether the chat is over */
  async #obey(line: string): Promise<boolean> {
    if (line === "") return false;
    if (!line.startsWith("/")) {
      await this.#ask(line);
      return false;
    }
    const [, name = "", rest = ""] = /^\/(\S*)\s*(.*)$/s.exec(line)!;
    const needsPath = () => {
      if (rest === "") throw new UserError(`/${name} needs a path, as in: /${name} notes.txt`);
      return rest;
    };
    switch (name) {
      case "help":
        this.#io.err(formatTable(Object.entries(COMMANDS).map(([name, what]) => [`/${name}`, what])));
        return false;
      case "reset":
        this.#conversations.forEach((each) => each.reset());
        this.#io.err("Forgotten");
        return false;
      case "system":
        this.#conversations.forEach((each) => each.setSystem(rest === "" ? null : rest));
        return false;
      case "file":
        await this.attach(needsPath());
        return false;
      case "save":
        await this.#conversations.at(-1)!.save(needsPath());
        this.#io.err(`Saved in ${rest}`);
        return false;
      case "load":
        for (const each of this.#conversations) await each.load(needsPath());
        this.#io.err(`${this.#conversations[0]!.messages.length} messages`);
        return false;
      case "stats":
        this.#showStats();
        return false;
      case "exit":
      case "quit":
        return true;
      default: {
        const near = nearest(name, Object.keys(COMMANDS));
        throw new UserError(`There is no /${name}: ${near ? `did you mean /${near}?` : "/help lists them"}`);
      }
    }
  }

  async #ask(question: string): Promise<void> {
    const prompts = this.#speakers.map(({ engine }, i) =>
      engine.promptOf(this.#conversations[i]!.with(question))
    );
    this.#speakers.forEach(({ engine }, i) => engine.checkLength(prompts[i]!.length));
    noteUnknown(this.#io, this.#speakers.at(-1)!.engine, prompts.at(-1)!, "the conversation");
    this.#answering = new AbortController();
    try {
      const answers: Answer[] = [];
      for (const [i, { name, engine }] of this.#speakers.entries()) {
        if (name !== "") this.#io.err(paint(`${name}:`, "bold", this.#io.color));
        answers.push(await this.#write(engine, prompts[i]!));
        this.#conversations[i]!.add(question, answers.at(-1)!.text);
      }
      this.#last = answers;
    } finally {
      this.#answering = undefined;
    }
  }

  async #write(engine: Engine, prompt: readonly number[]): Promise<Answer> {
    const room = engine.roomBehind(prompt.length);
    const answer = await engine.answer(prompt, {
      ...this.#options,
      maxNewTokens: Math.max(1, Math.min(this.#options.maxNewTokens!, room)),
      signal: this.#answering!.signal,
      onText: (piece) => this.#io.print(piece),
    });
    this.#io.print("\n");
    this.#io.err(paint(describeAnswer(answer, this.#options.seed), "dim", this.#io.color));
    return answer;
  }

  #showStats(): void {
    this.#speakers.forEach(({ name, engine }, i) => {
      const turns = this.#conversations[i]!.messages.length;
      const used = this.#last[i] ? this.#last[i].promptTokens + this.#last[i].completionTokens : 0;
      this.#io.err(
        `${name === "" ? "" : `${name}: `}${turns} messages, ${formatCount(used)} of ` +
          `${formatCount(engine.contextSize)} tokens, ${
            formatBytes(engine.memoryBytes)
          } on the device, template ` +
          `${engine.template.name}, seed ${this.#options.seed}`,
      );
    });
  }
}
