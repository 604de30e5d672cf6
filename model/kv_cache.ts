import {
  type CacheFormat,
  cacheRow,
  dequantiseRows,
  type LayerCache,
} from "../kernels/cache_attention/cache_rows.ts";
import { cast } from "../kernels/elementwise/elementwise.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { bytesPerElement, ROW_ALIGNMENT, type Tensor } from "../kernels/tensor.ts";
import type { Format } from "../kernels/wgsl.ts";
import type { ModelConfig } from "./model_config.ts";

/** Size of a cache. */
export interface KvCacheSize {
  readonly sequences: number;
  /** Tokens of each sequence; rounded up to a multiple of 64. */
  readonly capacity: number;
  /** Storage format of keys and values. */
  readonly format: CacheFormat;
}

/** Bytes on the device of the keys and values of all layers. */
export function kvCacheBytes(config: ModelConfig, { sequences, capacity, format }: KvCacheSize): number {
  return sequences * rowsFor(capacity) * kvCacheTokenBytes(config, format);
}

/** Bytes of the keys and values of one token in all layers. */
export function kvCacheTokenBytes(config: ModelConfig, format: CacheFormat): number {
  const { width, dtype } = cacheRow(format, headsOf(config));
  return 2 * config.num_hidden_layers * width * bytesPerElement(dtype);
}

function headsOf({ num_key_value_heads, head_dim }: ModelConfig) {
  return { kvHeads: num_key_value_heads, headDim: head_dim };
}

/** Keys and values of all layers for the tokens that sequences have so far; memory for `capacity` is taken at once. */
export class KvCache {
  readonly sequences: number;
  readonly layers: readonly LayerCache[];
  readonly format: CacheFormat;
  readonly #gpu: Gpu;
  readonly #heads: { readonly kvHeads: number; readonly headDim: number };
  readonly #bytes: number;

  constructor(gpu: Gpu, config: ModelConfig, size: KvCacheSize) {
    const capacity = rowsFor(size.capacity);
    this.#gpu = gpu;
    this.#heads = headsOf(config);
    this.sequences = size.sequences;
    this.format = size.format;
    const { width, dtype } = cacheRow(size.format, this.#heads);
    const shape = [size.sequences * capacity, width];
    this.#bytes = kvCacheBytes(config, size);
    this.layers = Array.from({ length: config.num_hidden_layers }, () => ({
      k: gpu.empty(shape, dtype, "cached keys"),
      v: gpu.empty(shape, dtype, "cached values"),
      capacity,
    }));
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** The cache of one sequence in one layer, borrowed. */
  of(layer: number, sequence: number): LayerCache {
    const { k, v, capacity } = this.layers[layer]!;
    const [start, end] = [sequence * capacity, (sequence + 1) * capacity];
    return { k: k.slice(start, end), v: v.slice(start, end), capacity };
  }

  /**
   * Lends the first `length` keys and values of one sequence in one layer, each (length, kvHeads * headDim) in `format`, to
   * `use`. A cache of another format has them twice meanwhile.
   */
  withRows<T>(
    { layer, sequence, length }: {
      readonly layer: number;
      readonly sequence: number;
      readonly length: number;
    },
    format: Format,
    use: (k: Tensor, v: Tensor) => T,
  ): T {
    const cache = this.of(layer, sequence);
    const [k, v] = [cache.k.slice(0, length), cache.v.slice(0, length)];
    if (this.format === format) return use(k, v);
    const [wideK, wideV] = [k, v].map((rows) => this.toFloats(rows, format));
    const result = use(wideK!, wideV!);
    wideK!.free();
    wideV!.free();
    return result;
  }

  /** Rows as floats, (rows, kvHeads * headDim); the caller frees them. */
  toFloats(rows: Tensor, format: Format): Tensor {
    return this.format === "q8"
      ? dequantiseRows(this.#gpu, rows, this.#heads, format)
      : cast(this.#gpu, rows, format);
  }

  free(): void {
    for (const { k, v } of this.layers) {
      k.free();
      v.free();
    }
  }
}

function rowsFor(capacity: number): number {
  return Math.ceil(capacity / ROW_ALIGNMENT) * ROW_ALIGNMENT;
}
