/** A model's own chat template: `@huggingface/jinja` renders it, within bounds, and is used nowhere else. */
import { commonPrefix } from "./common_prefix.ts";
import { causeText } from "../text.ts";
import { Environment, Interpreter, Template } from "@huggingface/jinja";
import { UserError } from "../errors.ts";
import type { ChatTemplate, Message, Rendering, Segment, SpecialTokens } from "./templates.ts";

/** Characters of a template, and of space at one place in it, whose square the parser takes. */
const LONGEST_TEMPLATE = 2 ** 20;
const LONGEST_SPACE = 10_000;
/** Steps of one rendering: real templates take some dozens for a turn. */
const MOST_STEPS = 2_000_000;
/** Items of a list, and the steps that a loop takes for each, were its body empty. */
const MOST_ITEMS = 1_000_000;
const STEPS_PER_ITEM = 4;
/** Statements and expressions within each other. */
const DEEPEST = 400;
/** Characters that one filter may write, reckoned beforehand. */
const MOST_PRODUCT = 2 ** 28;
/** Characters of what is written, and of any text on the way, beyond four times those of the row. */
const LONGEST_OUTPUT = 2 ** 20;

/**
 * A Jinja chat template as `tokenizer_config.json` holds it. What is learnt of an answer is found by rendering the
 * conversation up to it, with the cue to answer, and through it: no markers are searched for, so text that looks like
 * one changes nothing.
 *
 * @throws {UserError} if the template cannot be parsed; from `render`, naming the row, if it refuses the row or takes too
 * much
 */
export function jinjaTemplate(source: string, specials: SpecialTokens): ChatTemplate {
  const { parsed } = parse(source);
  /** Writes the first turns of a conversation, with the cue to answer or without. */
  const writer = (messages: readonly Message[], rendering: Rendering) => {
    const turns = messages.map((message, i) => turnOf(message, source, `${rendering.where}: turn ${i + 1}`));
    const variables = {
      tools: rendering.tools ?? null,
      ...specials.named,
      bos_token: specials.bos,
      eos_token: specials.eos,
    };
    const longest = LONGEST_OUTPUT + 4 * JSON.stringify([turns, variables]).length;
    return (count: number, add_generation_prompt: boolean): string => {
      try {
        return new BoundedInterpreter(
          globals({ ...variables, messages: turns.slice(0, count), add_generation_prompt }),
          longest,
        ).run(parsed).value as string;
      } catch (cause) {
        throw new UserError(`Cannot use ${rendering.where}: the model's chat template ${problem(cause)}`, {
          cause,
        });
      }
    };
  };
  return {
    name: "model",
    // transformers tokenizes what a template writes as it is: a template writes bos_token itself, or means none.
    bos: false,
    render: (messages, rendering = { where: "a conversation" }) =>
      segmentsOf(messages, rendering, writer(messages, rendering)),
    prompt: (messages, rendering = { where: "a conversation" }) => [
      { text: writer(messages, rendering)(messages.length, true), isTarget: false },
    ],
  };
}

function parse(source: string): Template {
  const refuse = (what: string, cause?: unknown) =>
    new UserError(`Cannot use the model's chat template: ${what}`, { cause });
  if (source.length > LONGEST_TEMPLATE) {
    throw refuse(`it has ${source.length} characters, more than ${LONGEST_TEMPLATE}`);
  }
  if (longestSpace(source) > LONGEST_SPACE) {
    throw refuse(`it has more than ${LONGEST_SPACE} characters of space in one place`);
  }
  try {
    return new Template(source);
  } catch (cause) {
    throw refuse(
      cause instanceof RangeError ? "it nests too deeply" : causeText(cause, "it ends too early"),
      cause,
    );
  }
}

function longestSpace(text: string): number {
  let [longest, length] = [0, 0];
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    const isSpace = code <= 0x20 || (code >= 0x80 && text[i]!.trim() === "");
    length = isSpace ? length + 1 : 0;
    longest = Math.max(longest, length);
  }
  return longest;
}

/** A turn as Hugging Face's templates expect it. */
function turnOf({ role, content, tool_calls, rest }: Message, source: string, where: string): object {
  if (tool_calls && !source.includes("tool_calls")) {
    throw new UserError(
      `Cannot use ${where} calls tools, which the model's chat template does not write. Leave such rows out`,
    );
  }
  // Models that were trained before OpenAI renamed it know the system only.
  const known = role === "developer" && !source.includes("developer") ? "system" : role;
  return { ...rest, role: known, content, ...(tool_calls && { tool_calls }) };
}

/** The globals that `Template.render` gives every template, with a range that is bounded before it is made. */
function globals(variables: Readonly<Record<string, unknown>>): Environment {
  const environment = new Environment();
  const all: Record<string, unknown> = {
    ...{ true: true, false: false, none: null, True: true, False: false, None: null },
    raise_exception: (message: unknown) => {
      throw new TemplateRefusal(String(message));
    },
    range,
    strftime_now: (format: unknown) => CLOCK.render({ format }),
    ...variables,
  };
  for (const [name, value] of Object.entries(all)) environment.set(name, value);
  return environment;
}

const CLOCK = new Template("{{ strftime_now(format) }}");

function range(first: number, last?: number, step = 1): number[] {
  const [start, stop] = last === undefined ? [0, first] : [first, last];
  const count = Math.max(0, Math.ceil((stop - start) / step));
  if (!Number.isFinite(count)) throw new Error("range() wants whole numbers and a step that is not 0");
  if (count > MOST_ITEMS) throw new TemplateExcess(`makes a list of ${count} items, more than ${MOST_ITEMS}`);
  return Array.from({ length: count }, (_, i) => start + i * step);
}

/** A template's own `raise_exception`. */
class TemplateRefusal extends Error {}
/** A template that takes too much. */
class TemplateExcess extends Error {}

/** Ends a template whose lists, texts or steps grow beyond what any conversation needs. */
class BoundedInterpreter extends Interpreter {
  #steps = 0;
  #depth = 0;
  /** Lists that loops go through. */
  readonly #iterables = new Set<Statement | undefined>();
  readonly #sizes = new WeakMap<Value, number>();

  constructor(environment: Environment, readonly longest: number) {
    super(environment);
  }

  override evaluate(statement: Statement | undefined, environment: Environment): Value {
    this.#take(1);
    const node = statement as Node | undefined;
    if (node?.type === "For") this.#iterables.add(node.iterable).add(node.iterable?.lhs);
    this.#refuseProducts(node, environment);
    if (this.#depth === DEEPEST) {
      throw new TemplateExcess(`calls itself without end, or nests more than ${DEEPEST} deep`);
    }
    this.#depth++;
    let result: Value;
    try {
      result = super.evaluate(statement, environment);
    } finally {
      this.#depth--;
    }
    const size = this.#sizeOf(result);
    if (size > this.longest) throw new TemplateExcess(`writes more than ${this.longest} characters`);
    if (isList(result)) {
      const { length } = result.value;
      if (length > MOST_ITEMS) throw new TemplateExcess(`makes a list of more than ${MOST_ITEMS} items`);
      if (this.#iterables.has(statement)) this.#take(length * STEPS_PER_ITEM);
    }
    return result;
  }

  #take(steps: number): void {
    this.#steps += steps;
    if (this.#steps > MOST_STEPS) throw new TemplateExcess(`takes more than ${MOST_STEPS} steps`);
  }

  /** Before they are made: texts that take one text many times, or are indented. */
  #refuseProducts(node: Node | undefined, environment: Environment): void {
    const call = node?.type === "FilterExpression"
      ? node.filter
      : node?.type === "CallExpression"
      ? node
      : undefined;
    const name = call?.callee?.value ?? call?.callee?.property?.value;
    if (!call?.args || !GROWING.includes(name)) return;
    const operand = node!.operand ?? call.callee!.object;
    const size = this.#sizeOf(this.evaluate(operand, environment)) + 1;
    for (const arg of call.args) {
      const value = this.evaluate(
        arg.type === "KeywordArgumentExpression" ? arg.value as Node : arg,
        environment,
      );
      const factor = typeof value.value === "number" ? value.value : this.#sizeOf(value);
      if (size * factor > MOST_PRODUCT) throw new TemplateExcess(`may write ${size * factor} characters`);
    }
  }

  /** Characters and items in a value, however deep and however often; of a namespace, which changes, none. */
  #sizeOf(value: Value | undefined): number {
    if (typeof value?.value === "string") return value.value.length;
    if (value === undefined || typeof value.value !== "object" || value.value === null) return 0;
    if (value.type === "NamespaceValue") return 0;
    const known = this.#sizes.get(value);
    if (known !== undefined) return known;
    const items = value.value instanceof Map ? [...value.value.values()] : value.value as Value[];
    let size = items.length;
    for (const item of items) size += this.#sizeOf(item);
    this.#sizes.set(value, size);
    return size;
  }
}

type Statement = Parameters<Interpreter["evaluate"]>[0];
type Value = ReturnType<Interpreter["evaluate"]>;
/** The parts of the library's statements that are looked at. */
type Node = NonNullable<Statement> & {
  readonly iterable?: Node;
  readonly lhs?: Node;
  readonly operand?: Node;
  readonly filter?: Node;
  readonly callee?: Node;
  readonly object?: Node;
  readonly property?: Node;
  readonly args?: readonly Node[];
  readonly value?: unknown;
};

/** Filters and methods that may write far more than they are given. */
const GROWING: readonly unknown[] = ["replace", "join", "indent", "tojson"];

function isList(value: Value): value is Value & { readonly value: readonly unknown[] } {
  return value.type === "ArrayValue" || value.type === "TupleValue";
}

function problem(cause: unknown): string {
  if (cause instanceof TemplateRefusal) return `refuses it: ${cause.message}`;
  if (cause instanceof TemplateExcess) return cause.message;
  if (cause instanceof RangeError) return `nests too deeply, or writes too much (${cause.message})`;
  return `cannot be rendered: ${causeText(cause, "a part of it is not what it is used as")}`;
}

function segmentsOf(
  messages: readonly Message[],
  { where }: Rendering,
  render: (count: number, cue: boolean) => string,
): Segment[] {
  const whole = render(messages.length, false);
  const segments: Segment[] = [];
  let at = 0;
  for (const [i, { role, isLearnt = true }] of messages.entries()) {
    if (role !== "assistant") continue;
    const start = commonPrefix(render(i, true), whole);
    const end = commonPrefix(render(i + 1, false), whole);
    if (start < at || end <= start) {
      throw new UserError(
        `Cannot use ${where}: the answers cannot be found in what the model's chat template writes, as it changes earlier ` +
          "turns when later ones follow. Set chat_template to one of the built-in templates",
      );
    }
    segments.push({ text: whole.slice(at, start), isTarget: false });
    segments.push({ text: whole.slice(start, end), isTarget: isLearnt });
    at = end;
  }
  if (at < whole.length) segments.push({ text: whole.slice(at), isTarget: false });
  return segments.filter(({ text }) => text !== "");
}
