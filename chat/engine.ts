/** A model that answers: prompt in, text out as it is written. */
import { answerEnds, chatTemplateOf, encodePrompt, type TemplateChoice } from "../data/encode.ts";
import type { ChatTemplate, Message } from "../data/templates.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import type { CacheFormat } from "../kernels/cache_attention/cache_rows.ts";
import type { Gpu, GpuOptions } from "../kernels/gpu.ts";
import { openGpu } from "../kernels/open.ts";
import type { Quantisation } from "../kernels/quantisation.ts";
import type { Sampling } from "../kernels/sample/sample.ts";
import type { Format } from "../kernels/wgsl.ts";
import { contextLength } from "../model/positions.ts";
import { checkOptions, endIds } from "../model/generate.ts";
import { type OpenModel, openModel } from "../model/load/open.ts";
import { formatCount } from "../text.ts";
import { type ConversationCache, RollingCache, type Sinks, WholeCache } from "./cache.ts";
import { readGenerationConfig } from "./generation_config.ts";
import { type AnswerLogprob, LogprobQueue } from "./text_logprobs.ts";
import { TextStream } from "./text_stream.ts";

/** Which model answers, and how it is held. */
export interface EngineOptions {
  /** Folder of the base or merged model. */
  readonly baseModel: string;
  /** Folder of an adapter to put on top of it. */
  readonly peftModel?: string | null;
  /** Context the positions are scaled for, in tokens; the adapter's or the model's own unless given. */
  readonly contextSize?: number | null;
  /** Quantisation of the base's linears while loading; "none" unless given. */
  readonly quantisation?: Quantisation;
  /** Format of activations; f32 unless given. */
  readonly format?: Format;
  /** Storage of keys and values; the activations' format unless given. */
  readonly cacheFormat?: CacheFormat | undefined;
  /** The chat template; the tokenizer's own unless given, else a bare question. */
  readonly chatTemplate?: TemplateChoice | null;
  /** Tokens of a prompt and its answer at most, where they may pass the context: to see what comes of it. */
  readonly mostTokens?: number;
  /** Keep these tokens of a conversation alone, which may then be of any length; all unless given. */
  readonly sinks?: Sinks;
  /** Options of the device; its defaults unless given. */
  readonly gpuOptions?: GpuOptions;
  /** Told of every tensor loaded. */
  readonly onLoad?: (tensor: string, done: number, total: number) => void;
}

/** Options of one answer. What is not given is as `generation_config.json` or the engine has it. */
export interface AnswerOptions extends Partial<Sampling> {
  /** Most tokens to write; what the context leaves unless given. */
  readonly maxNewTokens?: number;
  /** Texts that end the answer, and are no part of it. */
  readonly stop?: readonly string[];
  /** Go on behind the tokens that end a text; false unless given. */
  readonly ignoreEnd?: boolean;
  /** Tell the logprob of each token, and of this many of the likeliest at its place: slower. None unless given. */
  readonly topLogprobs?: number | undefined;
  /** Called with the answer's text as it is written, and with the logprobs of its tokens if they were asked for. */
  readonly onText?: (text: string, logprobs: readonly AnswerLogprob[]) => void;
  /** Called while the prompt is read: how many of its tokens are. */
  readonly onPrompt?: ((done: number, total: number) => void) | undefined;
  /** Ends the answer early. */
  readonly signal?: AbortSignal | undefined;
}

/** A finished answer. */
export interface Answer {
  /** Without special tokens, and without the stop text. */
  readonly text: string;
  /** Its tokens, without the one that ended it; those of a stop text are among them. */
  readonly ids: readonly number[];
  /** Logprobs of its tokens, without the one that ended it; undefined unless asked for. */
  readonly logprobs?: readonly AnswerLogprob[];
  /** `stop` at an end-of-text token or a stop text, `length` at the limit, `cancelled` by the signal. */
  readonly finishReason: "stop" | "length" | "cancelled";
  /** Tokens of the prompt. */
  readonly promptTokens: number;
  /** Tokens of the prompt whose keys and values were there from before. */
  readonly cachedTokens: number;
  /** Tokens written, the one that ended the answer included. */
  readonly completionTokens: number;
  /** Seconds from the call to the first token. */
  readonly promptSeconds: number;
  /** Seconds from the first token to the last. */
  readonly writeSeconds: number;
}

/** LongLoRA's defaults (`inference.py`). */
const SAMPLING = { temperature: 0.6, topP: 0.9 } as const;

/** Holds one model on one device, and the keys and values of the last conversation. Answers one prompt at a time. */
export class Engine {
  /** Tokens that a prompt and its answer may have together. */
  readonly contextSize: number;
  /** Ids are below it. */
  readonly vocabSize: number;
  /** The model's, or its adapter's own. */
  readonly tokenizer: Tokenizer;
  /** Writes conversations. */
  readonly template: ChatTemplate;
  /** Notes for the user on positions, adapter and template. */
  readonly notes: readonly string[];
  readonly #gpu: Gpu;
  readonly #open: OpenModel;
  readonly #stopIds: readonly number[];
  readonly #sampling: Partial<Sampling>;
  readonly #cache: ConversationCache;
  readonly #isEndless: boolean;

  private constructor(parts: {
    readonly gpu: Gpu;
    readonly open: OpenModel;
    readonly tokenizer: Tokenizer;
    readonly template: ChatTemplate;
    readonly stopIds: readonly number[];
    readonly sampling: Partial<Sampling>;
    readonly notes: readonly string[];
    readonly options: EngineOptions;
  }) {
    this.#gpu = parts.gpu;
    this.#open = parts.open;
    this.tokenizer = parts.tokenizer;
    this.template = parts.template;
    this.notes = parts.notes;
    this.#stopIds = parts.stopIds;
    this.#sampling = parts.sampling;
    const { mostTokens, sinks, cacheFormat } = parts.options;
    this.contextSize = mostTokens ?? contextLength(parts.open.config);
    this.#isEndless = sinks !== undefined;
    this.#cache = sinks
      ? new RollingCache(parts.open.model, sinks, { cacheFormat })
      : new WholeCache(parts.open.model, this.contextSize, { cacheFormat });
    this.vocabSize = parts.open.config.vocab_size;
  }

  /** Loads a model. @throws {UserError} if a file is missing or damaged, or the parts are not of one model */
  static async open(options: EngineOptions): Promise<Engine> {
    const { baseModel, chatTemplate = null } = options;
    const peftModel = options.peftModel ?? undefined;
    const tokenizer = await Tokenizer.load(baseModel, peftModel);
    const isBare = chatTemplate === null && tokenizer.chatTemplate === undefined;
    const template = chatTemplateOf(tokenizer, isBare ? "no" : chatTemplate ?? "model");
    const generation = await readGenerationConfig(baseModel);
    const { onLoad, gpuOptions, sinks, ...rest } = options;
    const gpu = await openGpu(gpuOptions);
    try {
      const open = await openModel(gpu, { ...rest, ...(onLoad ? { onProgress: onLoad } : {}) });
      checkSinks(sinks, contextLength(open.config));
      const bareNote = "The model has no chat template: what you write is continued as plain text. " +
        "Set --chat_template if it was trained with one";
      return new Engine({
        gpu,
        open,
        tokenizer,
        template,
        notes: isBare ? [...open.notes, bareNote] : open.notes,
        stopIds: [
          ...new Set([
            ...endIds(open.config),
            ...generation.stopIds,
            tokenizer.eosId,
            ...answerEnds(tokenizer, template),
          ]),
        ],
        sampling: { ...SAMPLING, ...generation.sampling },
        options,
      });
    } catch (error) {
      gpu.close();
      throw error;
    }
  }

  /** Token ids of a conversation, up to where the answer begins. @throws {UserError} if the template refuses it */
  promptOf(messages: readonly Message[]): number[] {
    return encodePrompt(this.tokenizer, this.template, messages);
  }

  /** Gives the tokens that may stand behind a prompt of `tokens`; without bound where the conversation has no end. */
  roomBehind(tokens: number): number {
    return this.#isEndless ? Infinity : this.contextSize - tokens;
  }

  /**
   * Refuses a prompt that leaves no room for an answer.
   * @throws {UserError} naming both lengths
   */
  checkLength(tokens: number, maxNewTokens = 1): void {
    if (maxNewTokens <= this.roomBehind(tokens)) return;
    throw new UserError(
      `The prompt has ${formatCount(tokens)} tokens, and with ${
        formatCount(maxNewTokens)
      } for the answer passes ` +
        `the context of ${formatCount(this.contextSize)}. Shorten it, ${
          maxNewTokens > 1 ? "ask for fewer, " : ""
        }or take a model of a longer context`,
      { kind: "usage" },
    );
  }

  /**
   * Writes what follows a prompt. What its beginning shares with the prompt and answer before is not read again.
   *
   * @param prompt token ids, one or more
   * @throws {UserError} if the prompt and `maxNewTokens` pass the context, or an option is out of range
   */
  async answer(prompt: readonly number[], options: AnswerOptions = {}): Promise<Answer> {
    const { onText, onPrompt, signal, stop = [], ignoreEnd = false, maxNewTokens, topLogprobs, ...given } =
      options;
    this.checkLength(prompt.length, maxNewTokens);
    const sampling = { ...this.#sampling, ...definedOf(given) };
    const limit = maxNewTokens ?? Math.min(this.contextSize, this.roomBehind(prompt.length));
    checkOptions({ ...sampling, topLogprobs, maxNewTokens: limit });
    const start = performance.now();
    const cachedTokens = await this.#cache.read(prompt, limit, { onPrompt, signal });
    const stream = new TextStream(this.tokenizer, stop);
    const ending = new AbortController();
    const either = signal ? AbortSignal.any([signal, ending.signal]) : ending.signal;
    const stopIds = ignoreEnd ? [] : this.#stopIds;
    const waiting = new LogprobQueue();
    const logprobs: AnswerLogprob[] = [];
    let text = "";
    let [first, last] = [start, start];
    let isEnded = false;
    const show = (piece: string, isLast = false) => {
      text += piece;
      const fresh = waiting.take(text.length, isLast);
      logprobs.push(...fresh);
      if (piece !== "" || fresh.length > 0) onText?.(piece, fresh);
    };
    if (!signal?.aborted) {
      await this.#cache.write({
        ...sampling,
        maxNewTokens: limit,
        stopIds,
        topLogprobs,
        signal: either,
        onTokens: (ids, _, drawn) => {
          last = performance.now();
          if (stream.length === 0) first = last;
          if (stream.isStopped) return;
          isEnded = stopIds.includes(ids.at(-1)!);
          const written = isEnded ? ids.slice(0, -1) : ids;
          if (topLogprobs === undefined) show(stream.push(written));
          else {
            for (const [i, id] of written.entries()) {
              if (stream.isStopped) break;
              waiting.add(drawn[i]!, stream);
              show(stream.push([id]), stream.isStopped);
            }
          }
          if (stream.isStopped) ending.abort();
        },
      });
    }
    show(stream.finish(), true);
    const isStopped = isEnded || stream.isStopped;
    return {
      text,
      ids: stream.ids,
      ...(topLogprobs === undefined ? {} : { logprobs }),
      finishReason: isStopped ? "stop" : signal?.aborted ? "cancelled" : "length",
      promptTokens: prompt.length,
      cachedTokens,
      completionTokens: stream.length + (isEnded && !stream.isStopped ? 1 : 0),
      promptSeconds: (first - start) / 1000,
      writeSeconds: (last - first) / 1000,
    };
  }

  /** Bytes on the device now. */
  get memoryBytes(): number {
    return this.#gpu.memory.liveBytes;
  }

  /** Frees the model and the device. */
  [Symbol.dispose](): void {
    this.#cache.free();
    this.#gpu.close();
  }
}

/** The settings that are given: an `undefined` is none. */
function definedOf(sampling: Partial<Sampling>): Partial<Sampling> {
  return Object.fromEntries(Object.entries(sampling).filter(([, value]) => value !== undefined));
}

/** @throws {UserError} if a cache of these tokens has positions that the model was not made for, or too few to read by */
function checkSinks(sinks: Sinks | undefined, context: number): void {
  if (!sinks) return;
  const { startSize, recentSize } = sinks;
  if (startSize + recentSize > context) {
    throw new UserError(
      `The first ${formatCount(startSize)} and the last ${
        formatCount(recentSize)
      } tokens together pass the context of ` +
        `${formatCount(context)}: lower recent_size`,
      { kind: "usage" },
    );
  }
}
