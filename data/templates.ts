/** The prompt forms that models are trained on, as text with the parts marked that are learnt. */
import { UserError } from "../errors.ts";

/** One turn of a conversation. */
export interface Message {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

/** A stretch of rendered text. */
export interface Segment {
  readonly text: string;
  /** Whether the model learns to write it: an answer and the end of its turn. */
  readonly isTarget: boolean;
}

/** How messages become text. */
export interface ChatTemplate {
  /** As saved with a model, so that inference can use the same. */
  readonly name: string;
  /** The whole conversation. What the model's texts begin with comes before it if `bos` says so. */
  render(messages: readonly Message[]): Segment[];
  readonly bos: boolean;
  /** Tokenize every segment on its own, as LongQLoRA does; else the whole, as a model reads it later. */
  readonly isSplit?: boolean;
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

/** The names of the built-in templates; `no` is a bare question and answer. */
export const TEMPLATE_NAMES = ["no", "llama-2", "llama-3", "mistral", "vicuna", "longqlora-vicuna"] as const;

export type TemplateName = (typeof TEMPLATE_NAMES)[number];

/** A built-in template for a tokenizer. */
export function builtInTemplate(name: TemplateName, { eos }: SpecialTokens): ChatTemplate {
  switch (name) {
    case "no":
      return { name, bos: true, render: (messages) => bare(messages, eos) };
    case "llama-2":
      return { name, bos: true, render: (messages) => bracketed(messages, { eos, next: "<s>", space: " " }) };
    case "mistral":
      return { name, bos: true, render: (messages) => bracketed(messages, { eos, next: "", space: "" }) };
    case "llama-3":
      return { name, bos: true, render: llama3 };
    case "vicuna":
      return { name, bos: true, render: (messages) => vicuna(messages, eos) };
    case "longqlora-vicuna":
      // LongQLoRA (component/dataset.py): turns on lines of their own, and no beginning-of-text token.
      return { name, bos: false, isSplit: true, render: (messages) => longQLoraVicuna(messages, eos) };
  }
}

/**
 * LongAlpaca's two prompts (LongLoRA, `supervised-fine-tune.py`): bare brackets, or with an input the Llama-2 chat form
 * with its system text. The answer and the end of text are learnt.
 */
export function longAlpaca(row: InstructionRow, { eos }: SpecialTokens): Segment[] {
  const { instruction, input, output } = row;
  const prompt = input
    ? `[INST] <<SYS>>\n${LLAMA2_SYSTEM}<</SYS>> \n\n ${instruction} \n${input} [/INST]`
    : `[INST]${instruction}[/INST]`;
  return [{ text: prompt, isTarget: false }, { text: output + eos, isTarget: true }];
}

/** A row of Alpaca's form. */
export interface InstructionRow {
  readonly instruction: string;
  readonly input: string;
  readonly output: string;
}

/** Question, a space, answer. Later turns follow in the same way. */
function bare(messages: readonly Message[], eos: string): Segment[] {
  return messages.map(({ role, content }) =>
    role === "assistant" ? target(content + eos) : given(`${content} `)
  );
}

/** `[INST] question [/INST] answer </s>`; a system text stands in the first question. */
function bracketed(
  messages: readonly Message[],
  { eos, next, space }: { readonly eos: string; readonly next: string; readonly space: string },
): Segment[] {
  const segments: Segment[] = [];
  let system = "";
  let isFirst = true;
  for (const { role, content } of messages) {
    if (role === "system") system = `<<SYS>>\n${content}\n<</SYS>>\n\n`;
    else if (role === "user") {
      segments.push(given(`${isFirst ? "" : next}[INST] ${system}${content} [/INST] `));
      system = "";
      isFirst = false;
    } else segments.push(target(`${content}${space}${eos}`));
  }
  return segments;
}

function llama3(messages: readonly Message[]): Segment[] {
  return messages.flatMap(({ role, content }) => [
    given(`<|start_header_id|>${role}<|end_header_id|>\n\n`),
    { text: `${content}<|eot_id|>`, isTarget: role === "assistant" },
  ]);
}

/** FastChat's vicuna_v1.1: turns on one line, `</s>` after each answer. */
function vicuna(messages: readonly Message[], eos: string): Segment[] {
  const { system, turns } = withSystem(messages, VICUNA_SYSTEM);
  return [
    given(`${system} `),
    ...turns.map(({ role, content }) =>
      role === "user" ? given(`USER: ${content} ASSISTANT:`) : target(` ${content}${eos}`)
    ),
  ];
}

function longQLoraVicuna(messages: readonly Message[], eos: string): Segment[] {
  const { system, turns } = withSystem(messages, VICUNA_SYSTEM);
  const segments: Segment[] = [];
  let before = `${system}\n`;
  for (const { role, content } of turns) {
    if (role === "user") segments.push(given(`${before}USER: ${content.trim()}\nASSISTANT: `));
    else segments.push(target(content.trim() + eos));
    before = "";
  }
  return segments;
}

function withSystem(
  messages: readonly Message[],
  usual: string,
): { system: string; turns: readonly Message[] } {
  const [first, ...rest] = messages;
  return first?.role === "system"
    ? { system: first.content, turns: rest }
    : { system: usual, turns: messages };
}

function given(text: string): Segment {
  return { text, isTarget: false };
}

function target(text: string): Segment {
  return { text, isTarget: true };
}

/**
 * Checks the turns of a conversation and drops what comes before the first question.
 * @throws {UserError} if two speakers of one kind follow each other, or nobody answers
 */
export function checkTurns(messages: readonly Message[], where: string): readonly Message[] {
  const system = messages[0]?.role === "system" ? [messages[0]] : [];
  const first = messages.findIndex(({ role }) => role === "user");
  const turns = first < 0 ? [] : messages.slice(first);
  turns.forEach(({ role }, i) => {
    const wanted = i % 2 === 0 ? "user" : "assistant";
    if (role !== wanted) {
      throw new UserError(
        `Cannot use ${where}: turn ${
          first + i + 1
        } is from "${role}", but user and assistant must take turns`,
      );
    }
  });
  if (!turns.some(({ role }) => role === "assistant")) {
    throw new UserError(`Cannot use ${where}: the conversation has no answer to learn from`);
  }
  return [...system, ...turns];
}
