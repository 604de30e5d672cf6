import { attention, type AttentionShape, type Scoring } from "../kernels/attention/attention.ts";
import { makeAttentionMap } from "../kernels/attention/map.ts";
import { cacheAttention } from "../kernels/cache_attention/cache_attention.ts";
import { appendToCache, type CacheFormat, quantiseRows } from "../kernels/cache_attention/cache_rows.ts";
import { fillUniform } from "../kernels/elementwise/fill_random.ts";
import { embed } from "../kernels/embedding/embedding.ts";
import { GpuError } from "../kernels/errors.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { softCapInPlace } from "../kernels/loss/soft_cap.ts";
import { product } from "../kernels/matvec/matvec.ts";
import type { Qkv } from "../kernels/qkv/qkv.ts";
import type { RopeTable } from "../kernels/rope/rope.ts";
import { type LastTokens, sample, type Sampling } from "../kernels/sample/sample.ts";
import type { Tensor } from "../kernels/tensor.ts";
import { KvCache, kvCacheTokenBytes } from "./kv_cache.ts";
import { attentionShape } from "./attention.ts";
import type { DecoderLayer } from "./decoder_layer.ts";
import type { Linear } from "./linear.ts";
import { withFewRows } from "./linear_input.ts";
import { embeddingFactor, type LanguageModel, logitScale } from "./language_model.ts";
import { LayerRopes } from "./layer_ropes.ts";
import { applyRope } from "./pass.ts";
import { expertsPerToken } from "./tensors.ts";

/** Number of sequences, their longest length, and how their keys and values are held. */
export interface DecoderOptions {
  /** Sequences that are written side by side; 1 unless given. */
  readonly sequences?: number;
  /** Most tokens of a sequence, prompt and answer: memory for them is taken at once. */
  readonly capacity: number;
  /** Storage of keys and values; the activations' format unless given. */
  readonly cacheFormat?: CacheFormat | undefined;
}

/** Tokens of a prompt that go through the layers at once, which bounds the memory of activations. */
const PREFILL_ROWS = 1024;

/** Computes attention of one layer from new rows' queries, keys and values, and the layer's rotation. */
type Attend = (layer: number, rows: Qkv, table: RopeTable | null) => Tensor;

/** A sequence as the host knows it. */
interface Sequence {
  /** Its tokens, all that are known. */
  readonly ids: number[];
  /** How many tokens are in the cache: may be more than are known, while drawn tokens were not read yet. */
  cached: number;
}

/**
 * Writes sequences token by token: keys and values of what went before stay in a cache. Drawn tokens stay on the device,
 * where the next step finds them; the host may record many steps before it reads any.
 *
 * Positions are scaled as for sequences of `capacity` tokens. This matters for dynamic scaling and longrope alone, whose
 * angles depend on the length: all tokens then have the angles of the longest sequence there may be.
 */
export class Decoder {
  /** The model that writes. */
  readonly model: LanguageModel;
  /** Most tokens of a sequence. */
  readonly capacity: number;
  /**
   * Keys and values.
   * @internal
   */
  readonly cache: KvCache;
  readonly #gpu: Gpu;
  readonly #shape: AttentionShape;
  /** Scale and cap of the attention scores. */
  readonly #scoring: Scoring;
  readonly #ropes: LayerRopes;
  /** Most tokens that a query of each layer sees; null: all. */
  readonly #windows: readonly (number | null)[];
  readonly #sequences: readonly Sequence[];
  readonly #last: LastTokens;
  /** (sequences, C): what the layers gave for each sequence's last token. */
  #hidden: Tensor;

  /** Allocates the cache. @throws {GpuMemoryError} if it does not fit the device */
  constructor(
    model: LanguageModel,
    { sequences = 1, capacity, cacheFormat = model.parts.format }: DecoderOptions,
  ) {
    const { gpu, config } = model;
    this.model = model;
    this.capacity = capacity;
    this.#gpu = gpu;
    this.#shape = attentionShape(config);
    this.#scoring = { scale: config.attention_multiplier, cap: config.attn_logit_softcapping };
    this.cache = new KvCache(gpu, config, { sequences, capacity, format: cacheFormat });
    this.#ropes = new LayerRopes(gpu, config);
    this.#ropes.forLength(capacity);
    this.#windows = config.layers.map((layer) => layer.sliding_window);
    this.#sequences = Array.from({ length: sequences }, () => ({ ids: [], cached: 0 }));
    this.#last = {
      tokens: gpu.zeros([sequences], "u32", "last tokens"),
      positions: gpu.zeros([sequences], "u32", "last positions"),
      seen: gpu.zeros([sequences, Math.ceil(config.vocab_size / 32)], "u32", "seen tokens"),
    };
    this.#hidden = gpu.empty([sequences, config.hidden_size], model.parts.format, "last hidden states");
  }

  /** Sequences written side by side. */
  get sequences(): number {
    return this.#sequences.length;
  }

  /** Tokens of a sequence that the host knows. */
  ids(sequence: number): readonly number[] {
    return this.#sequences[sequence]!.ids;
  }

  /** Tokens of the longest sequence, drawn ones that were not read yet included. */
  get longest(): number {
    return Math.max(...this.#sequences.map(({ cached }) => cached));
  }

  /**
   * Adds tokens to a sequence. The next token drawn for it follows them.
   * @throws {GpuError} if there are none, or they pass the capacity
   */
  prefill(sequence: number, ids: ArrayLike<number>): void {
    const state = this.#sequences[sequence]!;
    for (let i = 0; i < ids.length; i++) state.ids.push(ids[i]!);
    const { cached } = state;
    const end = state.ids.length;
    if (end === cached || end > this.capacity) {
      throw new GpuError(
        `Cannot add ${ids.length} tokens to a sequence of ${cached}: it holds ${this.capacity}, and must get one`,
      );
    }
    for (let start = cached; start < end; start += PREFILL_ROWS) {
      this.#prefillChunk(sequence, start, Math.min(start + PREFILL_ROWS, end));
    }
    state.cached = end;
    this.#writeLast();
  }

  /** Runs the token that was drawn last of every sequence through the layers. */
  advance(): void {
    const longest = this.longest + 1;
    if (longest > this.capacity) {
      throw new GpuError(`Cannot write token ${longest}: the cache holds ${this.capacity}`);
    }
    const { tokens, positions } = this.#last;
    const attend: Attend = (layer, rows, table) => {
      const cache = this.cache.layers[layer]!;
      appendToCache(this.#gpu, rows, cache, positions, this.#shape, table);
      const window = this.#windows[layer] ?? undefined;
      return cacheAttention(this.#gpu, rows.q, cache, positions, this.#shape, {
        longest,
        window,
        ...this.#scoring,
      });
    };
    this.#hidden.free();
    this.#hidden = this.#layers(tokens, attend);
    for (const sequence of this.#sequences) sequence.cached++;
  }

  /** Logits of every sequence's next token, (sequences, V rounded up to a multiple of 4) f32; the caller frees them. */
  logits(): Tensor {
    const { head, norm: last } = this.model.parts;
    const options = { alpha: logitScale(this.model.config), format: "f32" } as const;
    const logits = withFewRows(
      this.#gpu,
      { x: this.#hidden, norm: last },
      [head],
      ({ x, input }) => product(this.#gpu, x, head.weight, { ...options, input }),
    );
    const { final_logit_softcapping: cap } = this.model.config;
    if (cap) softCapInPlace(this.#gpu, logits, cap);
    return logits;
  }

  /**
   * Draws the next token of every sequence; {@linkcode advance} goes on from it.
   * @param drawn (steps * sequences) u32: step `step` of it gets the tokens
   * @param kept (sequences, V rounded up to a multiple of 4) f32: gets the logits as the model gives them
   */
  sample(sampling: Sampling, drawn: Tensor, step: number, kept?: Tensor): void {
    const logits = this.logits();
    if (kept) this.#gpu.copy(logits, kept);
    sample(this.#gpu, logits, this.#last, sampling, {
      vocabSize: this.model.config.vocab_size,
      drawn,
      step,
    });
    logits.free();
  }

  /**
   * Accepts drawn tokens as a sequence's; what was drawn after them is forgotten. The sequence then waits for
   * {@linkcode prefill}.
   */
  accept(sequence: number, ids: readonly number[]): void {
    const state = this.#sequences[sequence]!;
    for (const id of ids) state.ids.push(id);
    state.cached = Math.min(state.cached, state.ids.length);
  }

  /** Forgets the tokens of a sequence from number `length` on. */
  truncate(sequence: number, length: number): void {
    const state = this.#sequences[sequence]!;
    state.ids.length = Math.min(length, state.ids.length);
    state.cached = Math.min(state.cached, length);
  }

  /**
   * Forgets `count` tokens of a sequence from number `start` on, and moves those behind them up to where they were: their
   * keys are rotated back by `count` positions, in 8 bits through f32. So a sequence can go on for ever in a cache of fixed size; its first tokens
   * are kept, since attention rests on them.
   *
   * @throws {GpuError} if the sequence does not have these tokens in the cache
   * @see Xiao et al. 2024, arXiv:2309.17453 (StreamingLLM: attention sinks, positions within the cache)
   */
  evict(sequence: number, start: number, count: number): void {
    const state = this.#sequences[sequence]!;
    const rest = state.cached - start - count;
    if (count < 1 || start < 0 || rest < 0) {
      throw new GpuError(
        `Cannot forget tokens ${start} to ${start + count} of a sequence of ${state.cached}`,
      );
    }
    state.ids.splice(start, count);
    state.cached -= count;
    if (rest > 0) this.#moveUp(sequence, start, count, rest);
    this.#writeLast();
  }

  /** Moves `rest` rows of a sequence's cache up by `count`, to `start`. */
  #moveUp(sequence: number, start: number, count: number, rest: number): void {
    const gpu = this.#gpu;
    const positions = gpu.zeros([rest], "u32", "rope shift");
    const shifts = this.#ropes.shiftsBy(count, this.capacity);
    shifts.perLayer.forEach((rope, layer) => {
      const { k, v } = this.cache.of(layer, sequence);
      for (const cached of [k, v]) {
        // A copy cannot overlap itself.
        const moved = gpu.empty([rest, cached.width], cached.dtype, "moved rows");
        gpu.copy(cached.slice(start + count, start + count + rest), moved);
        if (cached === k) {
          const isQ8 = this.cache.format === "q8";
          const keys = isQ8 ? this.cache.toFloats(moved, "f32") : moved;
          applyRope(gpu, [keys], { rope, positions }, this.#shape.headDim, { inverse: true });
          if (isQ8) {
            quantiseRows(gpu, keys, moved);
            keys.free();
          }
        }
        gpu.copy(moved, cached.slice(start, start + rest));
        moved.free();
      }
    });
    shifts.free();
    positions.free();
  }

  /** Fills the cache of all sequences with `length` random tokens, for measuring a step. */
  fillRandomly(length: number): void {
    const stream = 2 * this.cache.layers.length;
    this.cache.layers.forEach(({ k, v }, i) => {
      this.#fillRows(k, 2 * i);
      this.#fillRows(v, 2 * i + 1);
    });
    fillUniform(this.#gpu, this.#hidden, { seed: 1, stream, low: -1, high: 1 });
    for (const sequence of this.#sequences) {
      sequence.ids.length = 0;
      for (let i = 0; i < length; i++) sequence.ids.push(0);
      sequence.cached = length;
    }
    this.#writeLast();
  }

  /** Fills rows of the cache with uniform random numbers. */
  #fillRows(cached: Tensor, stream: number): void {
    const key = { seed: 1, stream, low: -1, high: 1 };
    if (this.cache.format !== "q8") return fillUniform(this.#gpu, cached, key);
    const { kvHeads, headDim } = this.#shape;
    const rows = this.#gpu.empty([cached.rows, kvHeads * headDim], "f32", "random rows");
    fillUniform(this.#gpu, rows, key);
    quantiseRows(this.#gpu, rows, cached);
    rows.free();
  }

  /** Bytes that a step of {@linkcode sample} and {@linkcode advance} cannot do without reading: weights, keys, values. */
  stepBytes(): number {
    const { head, embeddings } = this.model.parts;
    const linears = this.model.linears().reduce((sum, linear) => sum + bytesOf(linear), 0);
    const experts = this.model.parts.layers.reduce((sum, layer) => sum + this.#expertBytes(layer), 0);
    const tokens = this.#sequences.reduce((sum, { cached }) => sum + cached, 0);
    return linears + experts + head.weight.byteLength + this.sequences * embeddings.weight.rowBytes +
      tokens * kvCacheTokenBytes(this.model.config, this.cache.format);
  }

  /** Bytes of a layer's routers, and of as many of its experts as the sequences have at most. */
  #expertBytes({ routers, experts }: DecoderLayer): number {
    const perToken = expertsPerToken(this.model.config);
    return routers.reduce((sum, { weight }) => sum + weight.byteLength, 0) +
      experts.reduce(
        (sum, layer) => sum + bytesOf(layer) * Math.min(1, this.sequences * perToken / layer.modules.length),
        0,
      );
  }

  /** Frees the cache and all else that it holds; the model stays. */
  free(): void {
    this.cache.free();
    const { tokens, positions, seen } = this.#last;
    this.#ropes.free();
    for (const tensor of [this.#hidden, tokens, positions, seen]) tensor.free();
  }

  #prefillChunk(sequence: number, start: number, end: number): void {
    const gpu = this.#gpu;
    const rows = end - start;
    const ids = gpu.tensor([rows], Uint32Array.from(this.ids(sequence).slice(start, end)), {
      label: "prompt",
    });
    const positions = gpu.tensor([rows], Uint32Array.from({ length: rows }, (_, i) => start + i));
    const maps = new Map(
      [...new Set(this.#windows)].map((window) => [
        window,
        makeAttentionMap(gpu, { rows: end, starts: [0], window: window ?? undefined }),
      ]),
    );
    const attend: Attend = (layer, rows, table) => {
      appendToCache(gpu, rows, this.cache.of(layer, sequence), positions, this.#shape, table);
      const map = maps.get(this.#windows[layer]!)!;
      return this.cache.withRows({ layer, sequence, length: end }, rows.q.format, (keys, values) => {
        const { o, lse } = attention(gpu, rows.q, keys, values, map, this.#shape, this.#scoring);
        lse.free();
        return o;
      });
    };
    const hidden = this.#layers(ids, attend);
    gpu.copy(hidden.slice(rows - 1, rows), this.#hidden.slice(sequence, sequence + 1));
    for (const each of [ids, positions, ...maps.values(), hidden]) each.free();
  }

  /** The layers' last output (rows, C) for new tokens (rows). */
  #layers(tokens: Tensor, attend: Attend): Tensor {
    const { layers, embeddings, format } = this.model.parts;
    const x = embed(this.#gpu, tokens, embeddings.weight, format, embeddingFactor(this.model.parts));
    const tables = this.#ropes.forLength(this.capacity);
    layers.forEach((layer, number) => {
      layer.decode(this.#gpu, x, { attend: (rows) => attend(number, rows, tables[number]!) });
    });
    return x;
  }

  /** Writes the sequences' last positions and the tokens that they have seen to the device. */
  #writeLast(): void {
    const words = this.#last.seen.width;
    const seen = new Uint32Array(this.sequences * words);
    this.#sequences.forEach(({ ids }, row) => {
      for (const id of ids) seen[row * words + (id >>> 5)]! |= 1 << (id & 31);
    });
    // A sequence without tokens has its last one before position 0.
    const last = Uint32Array.from(this.#sequences, ({ cached }) => cached - 1);
    this.#gpu.write(this.#last.positions, last);
    this.#gpu.write(this.#last.seen, seen);
  }
}

/** Bytes of a weight and its LoRA factors. */
function bytesOf({ weight, lora }: Pick<Linear, "weight" | "lora">): number {
  return weight.byteLength + (lora ? lora.A.byteLength + lora.B.byteLength : 0);
}
