/** Answers in OpenAI's form: whole, and piece by piece. */
import type { Answer } from "../chat/engine.ts";
import type { AnswerLogprob, TextLogprob } from "../chat/text_logprobs.ts";

/** Objects of one endpoint's answers. */
export interface ReplyForm {
  /** The object of a whole answer. */
  whole(answer: Answer): object;
  /** Pieces that a stream begins with. */
  first(): readonly object[];
  /** A piece of a stream. `isAsked` says whether logprobs were asked for. */
  piece(text: string, logprobs: readonly AnswerLogprob[], isAsked: boolean): object;
  /** A stream's last piece. */
  last(reason: string): object;
  /** A piece with the counts of tokens, behind the last one if the client asked for it. */
  usage(answer: Answer): object;
}

/** Keys that all objects of an answer have. */
interface Frame {
  readonly id: string;
  readonly created: number;
  readonly model: string;
}

function frameOf(prefix: string, model: string): Frame {
  const id = `${prefix}-${crypto.randomUUID().replaceAll("-", "")}`;
  return { id, created: Math.floor(Date.now() / 1000), model };
}

function usageOf({ promptTokens, cachedTokens, completionTokens }: Answer): object {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  };
}

/** The form of `/v1/chat/completions`. */
export function chatForm(model: string): ReplyForm {
  const frame = frameOf("chatcmpl", model);
  const logprobsOf = (logprobs: readonly AnswerLogprob[]) => ({
    content: logprobs.map(chatLogprob),
    refusal: null,
  });
  const chunk = (delta: object, finish_reason: string | null = null, logprobs: object | null = null) => ({
    ...frame,
    object: "chat.completion.chunk",
    choices: [{ index: 0, delta, logprobs, finish_reason }],
  });
  return {
    whole: (answer) => ({
      ...frame,
      object: "chat.completion",
      choices: [{
        index: 0,
        message: { role: "assistant", content: answer.text, refusal: null },
        logprobs: answer.logprobs ? logprobsOf(answer.logprobs) : null,
        finish_reason: answer.finishReason,
      }],
      usage: usageOf(answer),
    }),
    first: () => [chunk({ role: "assistant", content: "" })],
    piece: (content, logprobs, isAsked) => chunk({ content }, null, isAsked ? logprobsOf(logprobs) : null),
    last: (reason) => chunk({}, reason),
    usage: (answer) => ({ ...frame, object: "chat.completion.chunk", choices: [], usage: usageOf(answer) }),
  };
}

/** The form of `/v1/completions`. */
export function completionForm(model: string): ReplyForm {
  const frame = { ...frameOf("cmpl", model), object: "text_completion" };
  let written = 0;
  const logprobsOf = (logprobs: readonly AnswerLogprob[]) => ({
    tokens: logprobs.map(({ text }) => text),
    token_logprobs: logprobs.map(({ logprob }) => finite(logprob)),
    // Of tokens with the same text the likeliest counts.
    top_logprobs: logprobs.map(({ top }) =>
      Object.fromEntries(top.map(({ text, logprob }) => [text, finite(logprob)]).reverse())
    ),
    text_offset: logprobs.map(({ text }) => (written += text.length) - text.length),
  });
  const chunk = (text: string, finish_reason: string | null, logprobs: object | null = null) => ({
    ...frame,
    choices: [{ index: 0, text, logprobs, finish_reason }],
  });
  return {
    whole: ({ text, finishReason, logprobs, ...counts }) => ({
      ...chunk(text, finishReason, logprobs ? logprobsOf(logprobs) : null),
      usage: usageOf({ text, finishReason, ...counts }),
    }),
    first: () => [],
    piece: (text, logprobs, isAsked) => chunk(text, null, isAsked ? logprobsOf(logprobs) : null),
    last: (reason) => chunk("", reason),
    usage: (answer) => ({ ...frame, choices: [], usage: usageOf(answer) }),
  };
}

function chatLogprob({ text, logprob, top }: AnswerLogprob): object {
  return { ...namedLogprob({ text, logprob }), top_logprobs: top.map(namedLogprob) };
}

function namedLogprob({ text, logprob }: TextLogprob): object {
  // A part of a character has bytes that are not known here.
  const bytes = text.includes("\ufffd") ? null : [...new TextEncoder().encode(text)];
  return { token: text, logprob: finite(logprob), bytes };
}

/** A logprob as JSON can have it: OpenAI's number stands for minus infinity. */
function finite(logprob: number): number {
  return Math.max(-9999, logprob);
}
