/** Answers of the server's paths. */
import type { Answer, AnswerOptions } from "../chat/engine.ts";
import { DeviceLostError, GpuMemoryError } from "../kernels/errors.ts";
import { type BodyLimits, readJson } from "./body.ts";
import { DocumentReader } from "./documents.ts";
import { ApiError, apiErrorOf } from "./errors.ts";
import { Metrics } from "./metrics.ts";
import { type Place, Queue, QueueFullError } from "./queue.ts";
import { chatForm, completionForm, type ReplyForm } from "./replies.ts";
import {
  type Answerer,
  type AnswerRequest,
  countTokens,
  readChat,
  readCompletion,
  type RequestRules,
} from "./requests.ts";

/** Bounds of requests. */
export interface ApiLimits {
  /** Requests that may wait for their turn. */
  readonly queueSize: number;
  readonly maxMessages: number;
  /** Bytes of a body; what a document of the model's whole context may take, unless given. */
  readonly maxBodyBytes: number | null;
  /** Bytes of a body with a PDF. */
  readonly maxDocumentBytes: number;
  /** Time in which a body must come. */
  readonly readTimeoutMs: number;
}

/** Calls by which the server tells its owner. */
export interface ApiHooks {
  /** Called with each answer that was written. */
  onAnswer?(answer: Answer, seed: number): void;
  /** Called with what went wrong without the client's fault; not for clients. */
  onProblem(text: string): void;
  /** Called when the device is lost: nothing can be answered any more. */
  onLost(error: Error): void;
}

/** A model that is served. */
export interface ServedModel {
  readonly answerer: Answerer;
  /** Its name for clients. */
  readonly name: string;
  /** Sampling and length unless a request says otherwise. */
  readonly defaults: AnswerOptions;
}

/** Least bytes of a body's limit, and bytes that a token's text may take in JSON. */
const BODY_BYTES = 2 ** 20;
const TOKEN_BYTES = 16;
/** Time after which a stream without news shows that it lives. */
const ALIVE_MS = 10_000;
/** Time after which the status of an answer goes ahead. */
const AHEAD_MS = 500;
/** Documents that may wait: each is in memory. */
const DOCUMENTS_WAITING = 2;

/** Answers requests that were let in; all of them on one model, one after the other. */
export class Api {
  readonly metrics = new Metrics();
  readonly #limits: ApiLimits;
  readonly #hooks: ApiHooks;
  readonly #queue: Queue;
  readonly #documents = new DocumentReader(DOCUMENTS_WAITING);
  readonly #stopping = new AbortController();
  readonly #startedAt = Math.floor(Date.now() / 1000);
  #model: ServedModel | undefined;
  #isLost = false;

  constructor(limits: ApiLimits, hooks: ApiHooks) {
    this.#limits = limits;
    this.#hooks = hooks;
    this.#queue = new Queue(limits.queueSize);
  }

  /** Begins to answer with a model. */
  serve(model: ServedModel): void {
    this.#model = model;
  }

  /** Ends all answers, and gives no more. */
  stop(): void {
    this.#stopping.abort();
    this.#documents.stop();
  }

  health(): Response {
    const status = this.#isLost ? "device lost" : this.#model ? "ok" : "loading the model";
    return Response.json({ status }, { status: status === "ok" ? 200 : 503 });
  }

  models(): Response {
    return Response.json({ object: "list", data: [this.#card()] });
  }

  model(name: string): Response {
    const card = this.#card();
    if (name === card.id) return Response.json(card);
    throw new ApiError(404, "This model is not served here", { param: "model", code: "model_not_found" });
  }

  /** Facts that the page shows, and limits that it keeps to. */
  props(): Response {
    const { answerer, name, defaults } = this.#served();
    return Response.json({
      model: name,
      context_size: answerer.contextSize,
      chat_template: answerer.template.name,
      max_tokens: defaults.maxNewTokens ?? null,
      max_messages: this.#limits.maxMessages,
      max_body_bytes: this.#bodyLimits().maxBytes,
      max_document_bytes: this.#limits.maxDocumentBytes,
    });
  }

  metricsText(): Response {
    const { metrics } = this;
    metrics.set("longreach_requests_running", this.#queue.running);
    metrics.set("longreach_requests_waiting", this.#queue.waiting);
    metrics.set("longreach_device_bytes", this.#model?.answerer.memoryBytes ?? 0);
    return new Response(metrics.toString(), { headers: { "content-type": "text/plain; version=0.0.4" } });
  }

  async tokenize(request: Request): Promise<Response> {
    const rules = this.#rules();
    return Response.json({ count: countTokens(await readJson(request, this.#bodyLimits()), rules) });
  }

  /** The text of a PDF, which comes as base64 in `data`. */
  async extract(request: Request): Promise<Response> {
    this.#served();
    const { maxDocumentBytes: maxBytes, readTimeoutMs: timeoutMs } = this.#limits;
    using place = this.#enter(this.#documents.queue);
    const { signal } = this.#stopping;
    await this.#turn(place, signal);
    const { data } = await readJson(request, { maxBytes, timeoutMs });
    if (typeof data !== "string") {
      throw new ApiError(400, "Invalid value for 'data': must be base64", { param: "data" });
    }
    return Response.json(await this.#documents.read(data, signal));
  }

  chat(request: Request): Promise<Response> {
    return this.#answer(request, readChat, chatForm);
  }

  completion(request: Request): Promise<Response> {
    return this.#answer(request, readCompletion, completionForm);
  }

  #card() {
    const { name, answerer } = this.#served();
    return {
      id: name,
      object: "model",
      created: this.#startedAt,
      owned_by: "longreach",
      max_model_len: answerer.contextSize,
    };
  }

  #served(): ServedModel {
    if (this.#model && !this.#isLost && !this.#stopping.signal.aborted) return this.#model;
    throw this.#unavailable();
  }

  #unavailable(): ApiError {
    if (this.#stopping.signal.aborted) {
      return new ApiError(503, "The server is stopping", { code: "stopping" });
    }
    if (this.#isLost) {
      return new ApiError(503, "The device was lost: start the server again", { code: "device_lost" });
    }
    if (this.#model) return new ApiError(499, "The client went away");
    return new ApiError(503, "The model is being loaded", {
      code: "loading",
      headers: { "retry-after": "5" },
    });
  }

  #rules(): RequestRules {
    const { answerer, name, defaults } = this.#served();
    return { answerer, modelName: name, defaults, maxMessages: this.#limits.maxMessages };
  }

  #bodyLimits(): BodyLimits {
    const { maxBodyBytes, readTimeoutMs } = this.#limits;
    const { contextSize } = this.#served().answerer;
    return {
      maxBytes: maxBodyBytes ?? Math.max(BODY_BYTES, TOKEN_BYTES * contextSize),
      timeoutMs: readTimeoutMs,
    };
  }

  #enter(queue: Queue): Place {
    try {
      return queue.enter();
    } catch (error) {
      if (!(error instanceof QueueFullError)) throw error;
      throw new ApiError(503, error.message, {
        code: "queue_full",
        headers: { "retry-after": String(error.seconds) },
      });
    }
  }

  /** Waits for a request's turn. @throws {ApiError} if it is not to come any more */
  async #turn(place: Place, signal: AbortSignal): Promise<void> {
    const start = performance.now();
    try {
      await place.turn(signal);
    } catch (error) {
      throw signal.aborted ? this.#unavailable() : error;
    } finally {
      this.metrics.add("longreach_queue_seconds_total", (performance.now() - start) / 1000);
    }
  }

  async #answer(
    request: Request,
    read: (body: Record<string, unknown>, rules: RequestRules) => AnswerRequest,
    formOf: (model: string) => ReplyForm,
  ): Promise<Response> {
    const rules = this.#rules();
    const asked = read(await readJson(request, this.#bodyLimits()), rules);
    const form = formOf(rules.modelName);
    const place = this.#enter(this.#queue);
    return asked.isStream ? this.#stream(asked, form, place) : await this.#whole(asked, form, place);
  }

  /**
   * One object. Whether the client is still there is told by a response that has begun, and by nothing before: so where
   * the object takes its time, its status goes ahead, and what fails then breaks the connection.
   */
  async #whole(asked: AnswerRequest, form: ReplyForm, place: Place): Promise<Response> {
    const gone = new AbortController();
    const signal = AbortSignal.any([gone.signal, this.#stopping.signal]);
    const write = async () => {
      using _ = place;
      await this.#turn(place, signal);
      return JSON.stringify(form.whole(await this.#write(asked, { signal })));
    };
    const written = write();
    const headers = { "content-type": "application/json" };
    const early = await within(written, AHEAD_MS);
    if (early !== undefined) return new Response(early, { headers });
    const body = new ReadableStream<Uint8Array>({
      start: (controller) =>
        void written.then((text) => {
          controller.enqueue(new TextEncoder().encode(text));
          controller.close();
        }).catch((error) => {
          // The client cannot be told any more.
          if (!signal.aborted) this.#hooks.onProblem(apiErrorOf(error, this.#hooks.onProblem).message);
          controller.error(error);
        }),
      cancel: () => gone.abort(),
    });
    return new Response(body, { headers });
  }

  /** Server-sent events: what is written, and comments that tell how far the prompt is read. */
  #stream(asked: AnswerRequest, form: ReplyForm, place: Place): Response {
    const gone = new AbortController();
    const signal = AbortSignal.any([gone.signal, this.#stopping.signal]);
    const encoder = new TextEncoder();
    const run = async (controller: ReadableStreamDefaultController<Uint8Array>) => {
      const put = (text: string) => {
        try {
          if (!gone.signal.aborted) controller.enqueue(encoder.encode(`${text}\n\n`));
        } catch {
          gone.abort();
        }
      };
      const send = (data: object) => put(`data: ${JSON.stringify(data)}`);
      put(`: waiting behind ${place.ahead}`);
      const alive = setInterval(() => put(": alive"), ALIVE_MS);
      try {
        using _ = place;
        await this.#turn(place, signal);
        form.first().forEach(send);
        const isAsked = asked.options.topLogprobs !== undefined;
        const answer = await this.#write(asked, {
          signal,
          onText: (text, logprobs) => send(form.piece(text, logprobs, isAsked)),
          onPrompt: (done, total) => put(`: read ${done} of ${total}`),
        });
        send(form.last(answer.finishReason));
        if (asked.includesUsage) send(form.usage(answer));
        put("data: [DONE]");
      } catch (error) {
        send(apiErrorOf(error, this.#hooks.onProblem).body);
      } finally {
        clearInterval(alive);
        if (!gone.signal.aborted) controller.close();
      }
    };
    const stream = new ReadableStream<Uint8Array>({
      start: (controller) => void run(controller),
      cancel: () => gone.abort(),
    });
    return new Response(stream, { headers: { "content-type": "text/event-stream; charset=utf-8" } });
  }

  /** @throws {ApiError} also where the client went away, or the server stops */
  async #write({ prompt, options }: AnswerRequest, more: AnswerOptions): Promise<Answer> {
    const { answerer } = this.#served();
    const { metrics } = this;
    try {
      const answer = await answerer.answer(prompt, { ...options, ...more });
      metrics.add("longreach_answers_total", 1, { finish_reason: answer.finishReason });
      metrics.add("longreach_prompt_tokens_total", answer.promptTokens);
      metrics.add("longreach_cached_tokens_total", answer.cachedTokens);
      metrics.add("longreach_completion_tokens_total", answer.completionTokens);
      metrics.add("longreach_prompt_seconds_total", answer.promptSeconds);
      metrics.add("longreach_write_seconds_total", answer.writeSeconds);
      this.#hooks.onAnswer?.(answer, options.seed);
      if (answer.finishReason === "cancelled") throw this.#unavailable();
      return answer;
    } catch (error) {
      if (error instanceof DeviceLostError) {
        this.#isLost = true;
        this.#hooks.onLost(error);
        throw this.#unavailable();
      }
      if (error instanceof GpuMemoryError) {
        throw new ApiError(503, "The device has no room for a prompt and an answer of this length", {
          code: "out_of_memory",
        });
      }
      throw error;
    }
  }
}

/** Gives a promise's value if it comes within some time, else undefined. */
async function within<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  const { promise: late, resolve } = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => resolve(undefined), ms);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
