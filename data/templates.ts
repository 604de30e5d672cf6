/** The prompt forms that models are trained on, as text with the parts marked that are learnt. */
import { quote } from "../text.ts";
import { UserError } from "../errors.ts";

/** The speaker of a turn. A `developer` is OpenAI's newer word for the system; a `tool` answers what an assistant called. */
export type Role = "system" | "developer" | "user" | "assistant" | "tool";

/** One turn of a conversation. */
export interface Message {
  /** The speaker. */
  readonly role: Role;
  /** Null where an assistant calls tools and says nothing. */
  readonly content: string | null;
  /** Calls of tools, their arguments as objects. */
  readonly tool_calls?: readonly object[];
  /** False for an answer that is not to be learnt; true unless given. */
  readonly isLearnt?: boolean;
  /** Whatever else the turn has, for a template that reads it. */
  readonly rest?: Readonly<Record<string, unknown>>;
}

/** Inputs of a template besides the turns. */
export interface Rendering {
  /** The row, for errors. */
  readonly where: string;
  /** Tools that may be called. */
  readonly tools?: readonly unknown[] | undefined;
}

/** A stretch of rendered text. */
export interface Segment {
  /** As it goes to the tokenizer. */
  readonly text: string;
  /** Whether the model learns to write it: an answer and the end of its turn. */
  readonly isTarget: boolean;
}

/** A chat template: messages to text. */
export interface ChatTemplate {
  /** As saved with a model, so that inference can use the same. */
  readonly name: string;
  /** The whole conversation. What the model's texts begin with comes before it if `bos` says so. */
  render(messages: readonly Message[], rendering?: Rendering): Segment[];
  /** A conversation up to where the assistant's next answer begins. */
  prompt(messages: readonly Message[], rendering?: Rendering): Segment[];
  /** Whether what the model's texts begin with comes first. */
  readonly bos: boolean;
  /** Tokenize every segment on its own, as LongQLoRA does; else the whole, as a model reads it later. */
  readonly isSplit?: boolean;
  /** Tokens that mark its turns, and that a tokenizer must have; none unless given. */
  readonly marks?: readonly string[];
}

/** The special tokens of a tokenizer, as text. */
export interface SpecialTokens {
  readonly bos: string;
  readonly eos: string;
  /** All that a chat template may name: `bos_token`, `pad_token` and so on. */
  readonly named?: Readonly<Record<string, string>>;
}

const VICUNA_SYSTEM = "A chat between a curious user and an artificial intelligence assistant. " +
  "The assistant gives helpful, detailed, and polite answers to the user's questions.";

/** Meta's published default for Llama-2-chat, which LongAlpaca's prompts carry word by word. */
const LLAMA2_SYSTEM =
  "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, " +
  "while being safe.  Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or " +
  "illegal content. Please ensure that your responses are socially unbiased and positive in nature.\n\n" +
  "If a question does not make any sense, or is not factually coherent, explain why instead of answering something " +
  "not correct. If you don't know the answer to a question, please don't share false information.\n";

/** Tokens that mark Llama-3's turns. */
const [HEADER, HEADER_END, TURN_END] = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"];

/** The names of the built-in templates; `no` is a bare question and answer. */
export const TEMPLATE_NAMES = ["no", "llama-2", "llama-3", "mistral", "vicuna", "longqlora-vicuna"] as const;

/** A built-in template. */
export type TemplateName = (typeof TEMPLATE_NAMES)[number];

/** A turn of text alone, which is what the built-in templates know. */
type TextMessage = Message & { readonly role: "system" | "user" | "assistant"; readonly content: string };

/** A built-in template for a tokenizer. @throws {UserError} from `render` if a turn calls a tool or answers a call */
export function builtInTemplate(name: TemplateName, specials: SpecialTokens): ChatTemplate {
  const { render, cue = "", ...template } = formOf(name, specials);
  const segments = (messages: readonly Message[], { where }: Rendering = { where: "the conversation" }) =>
    render(joinedSystem(messages.map((message, i) => asText(message, `${where}: turn ${i + 1}`, name))));
  return {
    ...template,
    render: segments,
    prompt: (messages, rendering) => {
      const before = segments(messages, rendering);
      const last = before.pop();
      // Where a text is tokenized as a whole, the space before an answer belongs to the answer's first token.
      const text = template.isSplit ? last?.text ?? "" : (last?.text ?? "").replace(/ $/, "");
      return [...before, given(text + cue)];
    },
  };
}

/** The built-in templates have one place for a system text: several become one, on lines of their own. */
function joinedSystem(messages: readonly TextMessage[]): readonly TextMessage[] {
  const turns = messages.filter((message) => !isSystem(message));
  const texts = messages.filter(isSystem).map(({ content }) => content);
  return texts.length < 2 ? messages : [{ role: "system", content: texts.join("\n") }, ...turns];
}

function asText(message: Message, where: string, name: TemplateName): TextMessage {
  const { content, tool_calls } = message;
  const role = isSystem(message) ? "system" : message.role;
  if (role !== "tool" && role !== "developer" && content !== null && !tool_calls) {
    return { ...message, role, content };
  }
  throw new UserError(
    `Cannot use ${where} ${
      role === "tool" ? "is from a tool" : "calls tools"
    }, for which the template "${name}" has no ` +
      "form. Set chat_template: model, if the model's own has one",
  );
}

/** Whether it is the system's turn. */
export function isSystem(message: Message | undefined): boolean {
  return message?.role === "system" || message?.role === "developer";
}

/** A question and its answer. */
export function exchange(question: string, answer: string): Message[] {
  return [{ role: "user", content: question }, { role: "assistant", content: answer }];
}

interface Form extends Omit<ChatTemplate, "render" | "prompt"> {
  render(messages: readonly TextMessage[]): Segment[];
  /** Text before an answer and after the question's own text; nothing unless given. */
  readonly cue?: string;
}

function formOf(name: TemplateName, { bos, eos }: SpecialTokens): Form {
  switch (name) {
    case "no":
      return { name, bos: true, render: (messages) => bare(messages, eos) };
    case "llama-2":
      return { name, bos: true, render: (messages) => bracketed(messages, { eos, next: bos, space: " " }) };
    case "mistral":
      return { name, bos: true, render: (messages) => bracketed(messages, { eos, next: "", space: "" }) };
    case "llama-3":
      return {
        name,
        bos: true,
        marks: [HEADER, HEADER_END, TURN_END],
        render: llama3,
        cue: `${HEADER}assistant${HEADER_END}\n\n`,
      };
    case "vicuna":
      return { name, bos: true, render: (messages) => vicuna(messages, eos) };
    case "longqlora-vicuna":
      // LongQLoRA (component/dataset.py): turns on lines of their own, and no beginning-of-text token.
      return { name, bos: false, isSplit: true, render: (messages) => longQLoraVicuna(messages, eos) };
  }
}

/**
 * LongAlpaca's two prompts (LongLoRA, `supervised-fine-tune.py`): bare brackets, or with an input the Llama-2 chat form
 * with its system text. The answer and the end of text are learnt. What LongAlpaca has not, stands as in Llama-2's form:
 * a system text of the row's own, and turns before.
 */
export function longAlpaca(row: InstructionRow, { bos, eos }: SpecialTokens): Segment[] {
  const { instruction, input, output, before = [] } = row;
  const given = before.find(isSystem)?.content;
  let system = given ? `${given}\n` : input ? LLAMA2_SYSTEM : "";
  const question = input ? `${instruction} \n${input}` : instruction;
  const turns = [...before.filter((message) => !isSystem(message)), ...exchange(question, output)];
  return turns.map(({ role, content }, i) => {
    if (role === "assistant") return { text: content + eos, isTarget: true };
    const prompt = system
      ? `[INST] <<SYS>>\n${system}<</SYS>> \n\n ${content} [/INST]`
      : `[INST]${content}[/INST]`;
    system = "";
    return { text: i === 0 ? prompt : bos + prompt, isTarget: false };
  });
}

/** A row of Alpaca's form. */
export interface InstructionRow {
  readonly instruction: string;
  readonly input: string;
  readonly output: string;
  /** The system's turn, and questions with their answers, all learnt. */
  readonly before?: readonly Message[];
}

/** Question, a space, answer. Later turns follow in the same way. */
function bare(messages: readonly TextMessage[], eos: string): Segment[] {
  return messages.map((message) =>
    message.role === "assistant" ? answer(message, message.content + eos) : given(`${message.content} `)
  );
}

/** `[INST] question [/INST] answer </s>`; a system text stands in the first question. */
function bracketed(
  messages: readonly TextMessage[],
  { eos, next, space }: { readonly eos: string; readonly next: string; readonly space: string },
): Segment[] {
  const segments: Segment[] = [];
  let system = "";
  let isFirst = true;
  for (const message of messages) {
    const { role, content } = message;
    if (role === "system") system = `<<SYS>>\n${content}\n<</SYS>>\n\n`;
    else if (role === "user") {
      segments.push(given(`${isFirst ? "" : next}[INST] ${system}${content} [/INST] `));
      system = "";
      isFirst = false;
    } else segments.push(answer(message, `${content}${space}${eos}`));
  }
  return segments;
}

function llama3(messages: readonly TextMessage[]): Segment[] {
  return messages.flatMap((message) => {
    const { role, content } = message;
    const text = content + TURN_END;
    return [
      given(`${HEADER}${role}${HEADER_END}\n\n`),
      role === "assistant" ? answer(message, text) : given(text),
    ];
  });
}

/** FastChat's vicuna_v1.1: turns on one line, `</s>` after each answer. */
function vicuna(messages: readonly TextMessage[], eos: string): Segment[] {
  const { system, turns } = withSystem(messages, VICUNA_SYSTEM);
  return [
    given(`${system} `),
    ...turns.map((turn) =>
      turn.role === "user"
        ? given(`USER: ${turn.content} ASSISTANT:`)
        : answer(turn, ` ${turn.content}${eos}`)
    ),
  ];
}

function longQLoraVicuna(messages: readonly TextMessage[], eos: string): Segment[] {
  const { system, turns } = withSystem(messages, VICUNA_SYSTEM);
  const segments: Segment[] = [];
  let before = `${system}\n`;
  for (const turn of turns) {
    const content = turn.content.trim();
    if (turn.role === "user") segments.push(given(`${before}USER: ${content}\nASSISTANT: `));
    else segments.push(answer(turn, content + eos));
    before = "";
  }
  return segments;
}

function withSystem(
  messages: readonly TextMessage[],
  usual: string,
): { system: string; turns: readonly TextMessage[] } {
  const [first, ...rest] = messages;
  return first?.role === "system"
    ? { system: first.content, turns: rest }
    : { system: usual, turns: messages };
}

function given(text: string): Segment {
  return { text, isTarget: false };
}

function answer({ isLearnt = true }: Message, text: string): Segment {
  return { text, isTarget: isLearnt };
}

/** Speakers whose turns may come before one's. */
const FOLLOWS: Readonly<Record<"user" | "assistant" | "tool", readonly (Role | undefined)[]>> = {
  user: [undefined, "assistant"],
  assistant: ["user", "tool"],
  tool: ["assistant", "tool"],
};

/**
 * Checks the turns of a conversation and drops what comes before the first question.
 * @throws {UserError} if turns do not follow each other as they must, or nobody answers
 */
export function checkTurns(messages: readonly Message[], where: string): readonly Message[] {
  const others = messages.findIndex((message) => !isSystem(message));
  const system = others < 0 ? [] : messages.slice(0, others);
  const first = messages.findIndex(({ role }) => role === "user");
  const turns = first < 0 ? [] : messages.slice(first);
  turns.forEach(({ role }, i) => {
    const before = turns[i - 1]?.role;
    if (role !== "system" && role !== "developer" && FOLLOWS[role].includes(before)) return;
    throw new UserError(
      `Cannot use ${where}: turn ${first + i + 1} is from ${quote(role)}${
        before ? ` and follows "${before}"` : ""
      }, but user ` +
        "and assistant must take turns, and tools answer the assistant",
    );
  });
  if (!turns.some(({ role }) => role === "assistant")) {
    throw new UserError(`Cannot use ${where}: the conversation has no answer to learn from`);
  }
  return [...system, ...turns];
}
