/** Bodies of OpenAI's requests to what the engine is asked. */
import { z } from "zod";
import type { AnswerOptions, Engine } from "../chat/engine.ts";
import { messagesOf } from "../data/messages.ts";
import { isSystem, type Message } from "../data/templates.ts";
import { quote } from "../text.ts";
import { ApiError, apiErrorOf } from "./errors.ts";

/** A model as requests need it; tests have another one than the engine. */
export type Answerer = Pick<
  Engine,
  "answer" | "promptOf" | "tokenizer" | "template" | "contextSize" | "vocabSize" | "memoryBytes"
>;

/** Bounds of a request, and what holds where it says nothing. */
export interface RequestRules {
  readonly answerer: Answerer;
  /** The model's name for clients. */
  readonly modelName: string;
  /** Sampling and `maxNewTokens` unless a request says otherwise. */
  readonly defaults: AnswerOptions;
  readonly maxMessages: number;
}

/** A request that can be answered. */
export interface AnswerRequest {
  readonly prompt: readonly number[];
  readonly options: AnswerOptions & { readonly seed: number; readonly maxNewTokens: number };
  readonly isStream: boolean;
  /** A stream ends with the counts of tokens. */
  readonly includesUsage: boolean;
}

/** Parameters that this server does not have, and the values with which they ask for nothing. */
const NEUTRAL: Readonly<Record<string, readonly unknown[]>> = {
  audio: [],
  best_of: [1],
  echo: [false],
  frequency_penalty: [0],
  function_call: ["none", "auto"],
  functions: [[]],
  logit_bias: [{}],
  modalities: [["text"]],
  n: [1],
  parallel_tool_calls: [true, false],
  prediction: [],
  presence_penalty: [0],
  reasoning_effort: ["none"],
  response_format: [{ type: "text" }],
  service_tier: ["auto", "default"],
  store: [false],
  suffix: [""],
  tool_choice: ["none", "auto"],
  tools: [[]],
  verbosity: ["medium"],
  web_search_options: [],
};
/** Letters of a parameter's name in an error. */
const LONGEST_NAME = 100;
/** Parameters that tell the server about the client, and ask for nothing. */
const IGNORED: readonly string[] = [
  "metadata",
  "prompt_cache_key",
  "prompt_cache_retention",
  "safety_identifier",
  "user",
];

const count = (most: number) => z.number().int().min(0).max(most);
/** Texts that end an answer: four in OpenAI's form, some more for others. */
const stops = z.array(z.string().min(1)).max(16);

/** Parameters of both kinds of requests. */
const COMMON = {
  model: z.string().optional(),
  stream: z.boolean().optional(),
  stream_options: z.strictObject({
    include_usage: z.boolean().optional(),
    include_obfuscation: z.literal(false).optional(),
  }).optional(),
  max_tokens: z.number().int().min(1).optional(),
  temperature: z.number().refine((value) => value === 0 || value >= 0.01, "must be 0, or 0.01 and more").max(
    2,
  )
    .optional(),
  top_p: z.number().min(0).max(1).optional(),
  top_k: count(1e6).optional(),
  min_p: z.number().min(0).max(1).optional(),
  repetition_penalty: z.number().positive().max(100).optional(),
  seed: count(2 ** 32 - 1).optional(),
  stop: z.union([z.string().min(1).transform((text) => [text]), stops]).optional(),
  ignore_eos: z.boolean().optional(),
};

const CHAT = z.strictObject({
  ...COMMON,
  messages: z.array(z.looseObject({ role: z.enum(["system", "developer", "user", "assistant"]) })).min(1),
  max_completion_tokens: z.number().int().min(1).optional(),
  logprobs: z.boolean().optional(),
  top_logprobs: count(20).optional(),
});

const COMPLETION = z.strictObject({
  ...COMMON,
  prompt: z.unknown(),
  logprobs: count(20).optional(),
});

const TOKENIZE = z.strictObject({
  model: z.string().optional(),
  content: z.string().optional(),
  messages: CHAT.shape.messages.optional(),
});

/** Reads a request to `/v1/chat/completions`. @throws {ApiError} naming the parameter that is wrong */
export function readChat(body: Record<string, unknown>, rules: RequestRules): AnswerRequest {
  const request = parse(CHAT, body, rules);
  const { logprobs = false, top_logprobs, max_completion_tokens, max_tokens } = request;
  if (top_logprobs !== undefined && !logprobs) {
    throw invalid("top_logprobs", "needs logprobs: true");
  }
  if (
    max_tokens !== undefined && max_completion_tokens !== undefined && max_tokens !== max_completion_tokens
  ) {
    throw invalid("max_tokens", "differs from max_completion_tokens: leave one of them out");
  }
  const prompt = promptOf(request.messages, rules);
  return asked({ ...request, max_tokens: max_completion_tokens ?? max_tokens }, prompt, "messages", {
    rules,
    topLogprobs: logprobs ? top_logprobs ?? 0 : undefined,
  });
}

/** Reads a request to `/v1/completions`. @throws {ApiError} naming the parameter that is wrong */
export function readCompletion(body: Record<string, unknown>, rules: RequestRules): AnswerRequest {
  const request = parse(COMPLETION, body, rules);
  const prompt = idsOf(request.prompt, rules.answerer);
  return asked(request, prompt, "prompt", { rules, topLogprobs: request.logprobs });
}

/** Reads a request to `/tokenize`. @returns the tokens of a conversation, or of a text with nothing around it */
export function countTokens(body: Record<string, unknown>, rules: RequestRules): number {
  const { content, messages } = parse(TOKENIZE, body, rules);
  if ((content === undefined) === (messages === undefined)) {
    throw invalid("content", "or messages must be given");
  }
  if (messages) return promptOf(messages, rules).length;
  return telling("content", () => rules.answerer.tokenizer.encode(content!, { bos: false }).length);
}

function parse<T>(schema: z.ZodType<T>, body: Record<string, unknown>, { modelName }: RequestRules): T {
  const entries = Object.entries(body).filter(([name, value]) => value !== null && !IGNORED.includes(name));
  for (const [name, value] of entries) {
    const neutral = Object.hasOwn(NEUTRAL, name) ? NEUTRAL[name]! : undefined;
    if (!neutral || neutral.some((each) => quote(each) === quote(value))) continue;
    const only = neutral[0] === undefined || typeof neutral[0] === "object"
      ? ""
      : `: it can only be ${quote(neutral[0])}`;
    throw new ApiError(400, `Unsupported parameter: '${name}' is not implemented here${only}`, {
      param: name,
      code: "unsupported_parameter",
    });
  }
  const given = Object.fromEntries(entries.filter(([name]) => !Object.hasOwn(NEUTRAL, name)));
  const { data, error } = schema.safeParse(given);
  if (error) {
    const [issue] = error.issues;
    const path = issue!.path.join(".");
    if (issue!.code !== "unrecognized_keys") {
      if (isMissing(given, issue!.path)) throw missing(path);
      throw invalid(path || "body", issue!.message);
    }
    const name = [...path === "" ? [] : [path], issue.keys[0]].join(".").slice(0, LONGEST_NAME);
    throw new ApiError(400, `Unknown parameter: '${name}'`, { param: name, code: "unknown_parameter" });
  }
  const { model } = given;
  if (model !== undefined && model !== modelName) {
    throw new ApiError(404, `The model ${quote(model)} is not served here: it is ${quote(modelName)}`, {
      param: "model",
      code: "model_not_found",
    });
  }
  return data;
}

/** Whether the body has nothing at a path. */
function isMissing(body: unknown, path: readonly PropertyKey[]): boolean {
  return path.length > 0 && path.reduce<unknown>((value, key) => (value as never)?.[key], body) === undefined;
}

function missing(param: string): ApiError {
  return new ApiError(400, `Missing required parameter: '${param}'`, {
    param,
    code: "missing_required_parameter",
  });
}

function invalid(param: string, problem: string): ApiError {
  return new ApiError(400, `Invalid value for '${param}': ${problem}`, { param, code: "invalid_value" });
}

/** Runs `read`; what it throws names the parameter. */
function telling<T>(param: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw apiErrorOf(error, () => {}, param);
  }
}

/** Token ids of a conversation, its turns checked. */
function promptOf(given: readonly object[], { answerer, maxMessages }: RequestRules): number[] {
  if (given.length > maxMessages) {
    throw invalid("messages", `there are ${given.length}, and ${maxMessages} are the most`);
  }
  return telling("messages", () => {
    const messages = messagesOf(given, "messages", "the conversation");
    // A model's own template says itself what it refuses.
    checkOrder(messages, answerer.template.name !== "model");
    return answerer.promptOf(messages);
  });
}

/** @param isStrict whether user and assistant must take turns, behind the system's words */
function checkOrder(messages: readonly Message[], isStrict: boolean): void {
  for (const [i, { role, tool_calls }] of messages.entries()) {
    if (tool_calls) throw invalid(`messages.${i}.tool_calls`, "this server has no tools");
    if (!isStrict) continue;
    const before = messages[i - 1];
    const isFirst = before === undefined || isSystem(before);
    const follows = isSystem(messages[i]) ? isFirst : isFirst ? role === "user" : role !== before.role;
    if (follows) continue;
    throw invalid(
      `messages.${i}.role`,
      `"${role}" ${
        before ? `after "${before.role}"` : "first"
      }; user and assistant must take turns, behind the system`,
    );
  }
  if (messages.at(-1)!.role !== "user") {
    throw invalid(`messages.${messages.length - 1}.role`, "the last message must be the user's");
  }
}

/** Token ids of a prompt: text, ids, or a list with one of them. */
function idsOf(prompt: unknown, { tokenizer, vocabSize }: Answerer): number[] {
  const [only, ...others] = Array.isArray(prompt) && typeof prompt[0] !== "number" ? prompt : [prompt];
  if (others.length > 0) throw invalid("prompt", "one prompt a request, as n is 1");
  if (typeof only === "string") return telling("prompt", () => tokenizer.encode(only));
  if (!Array.isArray(only)) throw invalid("prompt", "must be text or a list of token ids");
  const wrong = only.find((id) => !(Number.isInteger(id) && id >= 0 && id < vocabSize));
  if (wrong !== undefined) throw invalid("prompt", `${quote(wrong)} is no token id below ${vocabSize}`);
  return only;
}

function asked(
  request: z.infer<z.ZodObject<typeof COMMON>>,
  prompt: readonly number[],
  param: string,
  { rules, topLogprobs }: { readonly rules: RequestRules; readonly topLogprobs: number | undefined },
): AnswerRequest {
  const { answerer: { contextSize }, defaults } = rules;
  if (prompt.length === 0) throw invalid(param, "it has no tokens");
  const room = contextSize - prompt.length;
  const { max_tokens, stream = false, stream_options } = request;
  if (room < (max_tokens ?? 1)) {
    throw new ApiError(
      400,
      `The model's context is ${contextSize} tokens, and the prompt has ${prompt.length}` +
        (room > 0 ? `: ${max_tokens} more do not fit behind it` : ": no room is left for an answer"),
      { param: room > 0 ? "max_tokens" : param, code: "context_length_exceeded" },
    );
  }
  if (stream_options && !stream) throw invalid("stream_options", "needs stream: true");
  const sampling = {
    temperature: request.temperature,
    topP: request.top_p,
    topK: request.top_k,
    minP: request.min_p,
    repetitionPenalty: request.repetition_penalty,
    seed: request.seed,
    stop: request.stop,
    ignoreEnd: request.ignore_eos,
    topLogprobs,
  };
  const given = Object.fromEntries(Object.entries(sampling).filter(([, value]) => value !== undefined));
  return {
    prompt,
    options: {
      seed: crypto.getRandomValues(new Uint32Array(1))[0]!,
      ...defaults,
      ...given,
      maxNewTokens: max_tokens ?? Math.min(room, defaults.maxNewTokens ?? room),
    },
    isStream: stream,
    includesUsage: stream_options?.include_usage ?? false,
  };
}
