/** Keys and values of a conversation, which its next prompt begins with. */
import { commonPrefix } from "../data/common_prefix.ts";
import { Decoder, type DecoderOptions } from "../model/decoder.ts";
import { continueAll, type GenerateOptions } from "../model/generate.ts";
import type { LanguageModel } from "../model/language_model.ts";

/** Told and asked while a prompt is read. */
export interface ReadHooks {
  /** Called after each piece: how many of the prompt's tokens are read. */
  readonly onPrompt?: ((done: number, total: number) => void) | undefined;
  /** Ends the reading between two pieces. */
  readonly signal?: AbortSignal | undefined;
}

/** Options of writing behind a prompt. */
export type WriteOptions = GenerateOptions & { readonly maxNewTokens: number };

/** Cache of one conversation at a time. */
export interface ConversationCache {
  /**
   * Reads a prompt, of which nothing is read again that is there from before.
   * @param room tokens that will be written behind it
   * @returns how many of its tokens were there
   */
  read(prompt: readonly number[], room: number, hooks: ReadHooks): Promise<number>;
  /** Writes behind the prompt that was read last. */
  write(options: WriteOptions): Promise<void>;
  /** Frees the memory on the device. */
  free(): void;
}

/** How a cache holds keys and values. */
export type CacheOptions = Pick<DecoderOptions, "cacheFormat">;

/** Tokens of a prompt after which the signal is looked at. */
const PROMPT_PIECE = 1024;

/** Tokens that a cache holds at least, where the context has as many. */
const MIN_CAPACITY = 1024;

/** A cache that holds all of a conversation. */
export class WholeCache implements ConversationCache {
  readonly #model: LanguageModel;
  readonly #mostTokens: number;
  readonly #options: CacheOptions;
  #decoder: Decoder | undefined;

  /** @param mostTokens tokens that a prompt and its answer may have together */
  constructor(model: LanguageModel, mostTokens: number, options: CacheOptions = {}) {
    this.#model = model;
    this.#mostTokens = mostTokens;
    this.#options = options;
  }

  async read(prompt: readonly number[], room: number, { onPrompt, signal }: ReadHooks): Promise<number> {
    const decoder = this.#decoderFor(prompt.length + room);
    // The last token goes through the layers in any case: the answer begins with what they give for it.
    const shared = commonPrefix(decoder.ids(0), prompt.slice(0, -1));
    decoder.truncate(0, shared);
    for (let at = shared; at < prompt.length && !signal?.aborted; at += PROMPT_PIECE) {
      const end = Math.min(at + PROMPT_PIECE, prompt.length);
      decoder.prefill(0, prompt.slice(at, end));
      await this.#model.gpu.settle();
      onPrompt?.(end, prompt.length);
    }
    return shared;
  }

  async write(options: WriteOptions): Promise<void> {
    await continueAll(this.#decoder!, options);
  }

  free(): void {
    this.#decoder?.free();
  }

  /** The decoder, made anew where it does not hold `tokens`: twice as large, so that all is read again no more than once. */
  #decoderFor(tokens: number): Decoder {
    const known = this.#decoder;
    if (known && known.capacity >= tokens) return known;
    known?.free();
    this.#decoder = undefined;
    const wanted = Math.max(tokens, known ? 2 * known.capacity : MIN_CAPACITY);
    const capacity = Math.min(this.#mostTokens, wanted);
    return this.#decoder = new Decoder(this.#model, { ...this.#options, capacity });
  }
}

/** Tokens that a {@linkcode RollingCache} keeps. */
export interface Sinks {
  /** First tokens of the conversation, on which attention rests. */
  readonly startSize: number;
  /** Last tokens. */
  readonly recentSize: number;
}

/** Share of the recent tokens that is forgotten at once: each time moves all others. */
const EVICTED_SHARE = 0.25;

/**
 * A cache of fixed size for a conversation without end: its first tokens and its last ones, at positions as if nothing
 * stood between. What was forgotten in between is not known any more.
 *
 * @see Xiao et al. 2024, arXiv:2309.17453 (StreamingLLM), which LongLoRA ships as `--enable_streaming`
 */
export class RollingCache implements ConversationCache {
  readonly #decoder: Decoder;
  readonly #sinks: Sinks;
  /** All tokens of the conversation, forgotten ones too. */
  #history: number[] = [];

  constructor(model: LanguageModel, sinks: Sinks, options: CacheOptions = {}) {
    this.#sinks = sinks;
    this.#decoder = new Decoder(model, { ...options, capacity: sinks.startSize + sinks.recentSize });
  }

  async read(prompt: readonly number[], _room: number, { onPrompt, signal }: ReadHooks): Promise<number> {
    const shared = this.#backTo(commonPrefix(this.#history, prompt.slice(0, -1)));
    const piece = Math.max(1, Math.min(PROMPT_PIECE, Math.floor(this.#sinks.recentSize / 2)));
    for (let at = shared; at < prompt.length && !signal?.aborted; at += piece) {
      const ids = prompt.slice(at, at + piece);
      this.#makeRoom(ids.length);
      this.#decoder.prefill(0, ids);
      this.#history.push(...ids);
      await this.#decoder.model.gpu.settle();
      onPrompt?.(Math.min(at + piece, prompt.length), prompt.length);
    }
    return shared;
  }

  async write({ onTokens, maxNewTokens, seed = 0, ...options }: WriteOptions): Promise<void> {
    const decoder = this.#decoder;
    for (let left = maxNewTokens, part = 0; left > 0 && !options.signal?.aborted; part++) {
      if (part > 0) {
        this.#makeRoom(1);
        // The token drawn last goes through the layers.
        decoder.prefill(0, []);
      }
      const room = Math.min(left, Math.max(1, decoder.capacity - decoder.ids(0).length));
      const [ids] = await continueAll(decoder, {
        ...options,
        maxNewTokens: room,
        // Random numbers belong to a seed and a position, and positions come again.
        seed: (seed + part) % 2 ** 32,
        ...(onTokens ? { onTokens } : {}),
      });
      this.#history.push(...ids!);
      left -= room;
      if (options.stopIds?.includes(ids!.at(-1)!)) return;
    }
  }

  free(): void {
    this.#decoder.free();
  }

  /** Forgets the conversation behind its first `length` tokens, as far as they are still known; else all of it. */
  #backTo(length: number): number {
    const decoder = this.#decoder;
    const kept = decoder.ids(0).length - (this.#history.length - length);
    const isKnown = kept > this.#sinks.startSize || this.#history.length === decoder.ids(0).length;
    decoder.truncate(0, isKnown ? kept : 0);
    this.#history.length = isKnown ? length : 0;
    return this.#history.length;
  }

  /** Forgets tokens behind the first ones until `count` more have room. */
  #makeRoom(count: number): void {
    const { startSize, recentSize } = this.#sinks;
    const { length } = this.#decoder.ids(0);
    const excess = length + count - this.#decoder.capacity;
    if (excess <= 0) return;
    // The last token may not be in the cache yet.
    const most = length - startSize - 1;
    this.#decoder.evict(
      0,
      startSize,
      Math.min(most, Math.max(excess, Math.floor(EVICTED_SHARE * recentSize))),
    );
  }
}
