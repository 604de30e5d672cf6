/** Conversations of any of the known forms to messages: ShareGPT's, OpenAI's, and what others write into theirs. */
import { quote, quoteNames, typeName } from "../text.ts";
import { UserError } from "../errors.ts";
import type { Message, Role } from "./templates.ts";

/** The speakers by the names that data sets give them. */
const ROLES: ReadonlyMap<unknown, Role> = new Map(
  Object.entries<readonly string[]>({
    system: ["system"],
    developer: ["developer"],
    user: ["user", "human", "prompter"],
    assistant: ["assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot", "function_call", "tool_call"],
    tool: ["tool", "ipython", "observation", "function", "function_response", "tool_response", "tool_result"],
  }).flatMap(([role, names]) => names.map((name) => [name, role as Role])),
);
/** ShareGPT's turns whose text is a call of a tool, in JSON. */
const CALLS: readonly unknown[] = ["function_call", "tool_call"];

/** Keys of a turn that are read here; the others are the template's. */
const READ = ["role", "from", "content", "value", "weight", "train", "training", "tool_calls"];

/** A list of turns. @throws {UserError} naming the turn and what is wrong with it */
export function messagesOf(turns: unknown, key: string, where: string): Message[] {
  if (!Array.isArray(turns) || turns.length === 0) {
    const found = Array.isArray(turns) ? "an empty one" : typeName(turns);
    throw new UserError(`Cannot use ${where}: "${key}" must be a list of turns, got ${found}`);
  }
  return turns.map((turn, i) => messageOf(turn, `${where}: turn ${i + 1}`));
}

function roleOf(name: unknown): Role | undefined {
  return ROLES.get(typeof name === "string" ? name.trim().toLowerCase() : name);
}

function messageOf(turn: unknown, where: string): Message {
  if (!isObject(turn)) {
    throw unusable(where, `must be an object with "role" and "content", got ${typeName(turn)}`);
  }
  const name = turn.role ?? turn.from;
  const role = roleOf(name);
  if (!role) {
    throw unusable(
      where,
      name === undefined || name === null
        ? `must have "role" (user, assistant, system or tool) and "content" (text), found ${
          quoteNames(Object.keys(turn))
        }`
        : `is from ${quote(name)}, which is none of ${quoteNames([...ROLES.keys()] as string[])}`,
    );
  }
  if (turn.function_call !== undefined && turn.function_call !== null) {
    throw unusable(where, 'has "function_call", OpenAI\'s old form. Write "tool_calls", a list of calls');
  }
  if ((turn.role ?? null) !== null && (turn.from ?? null) !== null && roleOf(turn.from) !== role) {
    throw unusable(where, 'has "role" and "from", and they differ: leave one of them out');
  }
  if ((turn.content ?? null) !== null && (turn.value ?? null) !== null && turn.content !== turn.value) {
    throw unusable(where, 'has "content" and "value", and they differ: leave one of them out');
  }
  const content = turn.content ?? turn.value ?? null;
  if (content === null && !("content" in turn || "value" in turn) && turn.tool_calls === undefined) {
    throw unusable(where, `must have "content" (text), found ${quoteNames(Object.keys(turn))}`);
  }
  const isCall = CALLS.includes(name);
  const tool_calls = isCall ? callsOf(content, where) : callsOf(turn.tool_calls, where);
  const rest = Object.entries(turn).filter(([key, value]) => !READ.includes(key) && value !== null);
  return {
    role,
    content: isCall ? "" : contentOf(content, where, { mayBeNull: tool_calls !== undefined }),
    ...(tool_calls && { tool_calls }),
    ...(isLearnt(turn, role, where) ? {} : { isLearnt: false }),
    ...(rest.length > 0 && { rest: Object.fromEntries(rest) }),
  };
}

/** Text, or OpenAI's list of parts, of which text can be used. Parts stand on lines of their own, as in vLLM and llama.cpp. */
function contentOf(
  content: unknown,
  where: string,
  { mayBeNull }: { readonly mayBeNull: boolean },
): string | null {
  if (typeof content === "string" || (content === null && mayBeNull)) return content;
  if (!Array.isArray(content)) {
    throw unusable(where, `must have text as its content, got ${typeName(content)}`);
  }
  return content.map((part) => {
    if (isObject(part) && part.type === "text" && typeof part.text === "string") return part.text;
    const kind = isObject(part) ? JSON.stringify(part.type) : typeName(part);
    throw unusable(where, `has a part of its content of type ${kind}. Only parts of type "text" can be used`);
  }).join("\n");
}

/**
 * Calls of tools as templates want them: arguments as an object, which OpenAI's form has as JSON in a string.
 * @param calls a list of calls, one call, or either of them as JSON
 */
function callsOf(calls: unknown, where: string): readonly object[] | undefined {
  const parsed = typeof calls === "string" ? parsedJson(calls, `${where} has a call of a tool that`) : calls;
  const list = Array.isArray(parsed) ? parsed : parsed === undefined || parsed === null ? [] : [parsed];
  if (list.length === 0) return undefined;
  return list.map((call) => {
    const { function: inner = call } = isObject(call) ? call : {};
    if (!isObject(call) || !isObject(inner) || typeof inner.name !== "string") {
      throw unusable(where, 'has a call of a tool without its "name"');
    }
    const given = inner.arguments ?? inner.parameters ?? {};
    const args = typeof given !== "string"
      ? given
      : given.trim() === ""
      ? {}
      : parsedJson(given, `${where} calls "${inner.name}" with arguments whose text`);
    if (!isObject(args)) throw unusable(where, `calls "${inner.name}" with arguments that are no object`);
    const { function: _, name: __, arguments: ___, parameters: ____, ...rest } = call;
    return { type: "function", ...rest, function: { name: inner.name, arguments: args } };
  });
}

/** The tools of a row: a list, or one as JSON; undefined where there are none. */
export function toolsOf(value: unknown, where: string): readonly unknown[] | undefined {
  const tools = typeof value === "string" && value.trim() !== ""
    ? parsedJson(value, `${where}: "tools"`)
    : value;
  if (tools === undefined || tools === null || tools === "") return undefined;
  if (!Array.isArray(tools)) {
    throw new UserError(`Cannot use ${where}: "tools" must be a list of tools, got ${typeName(tools)}`);
  }
  return tools.length === 0 ? undefined : tools;
}

/** LLaMA-Factory's turns before an exchange: questions with their answers. */
export function historyOf(value: unknown, where: string): Message[] {
  if (value === undefined || value === null) return [];
  const isPair = (pair: unknown): pair is [string, string] =>
    Array.isArray(pair) && pair.length === 2 && pair.every((text) => typeof text === "string");
  if (!Array.isArray(value) || !value.every(isPair)) {
    throw new UserError(`Cannot use ${where}: "history" must be a list of [question, answer], each text`);
  }
  return value.flatMap(([question, answer]) => [
    { role: "user", content: question },
    { role: "assistant", content: answer },
  ]);
}

/** Whether an answer is learnt: OpenAI's and Mistral's `weight`, Axolotl's `train` and `training`. */
function isLearnt(turn: Readonly<Record<string, unknown>>, role: Role, where: string): boolean {
  for (const key of ["train_detail", "training_detail"]) {
    if (turn[key] !== undefined && turn[key] !== null) {
      throw unusable(where, `has "${key}", but an answer is learnt as a whole or not at all`);
    }
  }
  let learnt = true;
  for (const key of ["weight", "train", "training"]) {
    const value = turn[key];
    if (value === undefined || value === null) continue;
    if (value !== 0 && value !== 1 && typeof value !== "boolean") {
      throw unusable(
        where,
        `has "${key}": ${quote(value)}, but an answer is learnt (1) or not (0), nothing between`,
      );
    }
    if (!value) learnt = false;
    else if (key !== "weight" && role !== "assistant") {
      throw unusable(
        where,
        `has "${key}": ${quote(value)}, but is from the ${role}: only answers can be learnt`,
      );
    }
  }
  return learnt;
}

function parsedJson(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new UserError(`Cannot use ${what} is not JSON: ${(cause as Error).message}`, { cause });
  }
}

function unusable(where: string, problem: string): UserError {
  return new UserError(`Cannot use ${where} ${problem}`);
}

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
