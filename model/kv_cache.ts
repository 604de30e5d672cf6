import type { LayerCache } from "../kernels/cache_attention/cache_attention.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { bytesPerElement, ROW_ALIGNMENT } from "../kernels/tensor.ts";
import type { Format } from "../kernels/wgsl.ts";
import type { ModelConfig } from "./model_config.ts";

/** Size of a cache. */
export interface KvCacheSize {
  readonly sequences: number;
  /** Tokens of each sequence; rounded up to a multiple of 64. */
  readonly capacity: number;
  /** Storage format of keys and values. */
  readonly format: Format;
}

/** Bytes on the device of the keys and values of all layers. */
export function kvCacheBytes(config: ModelConfig, { sequences, capacity, format }: KvCacheSize): number {
  return 2 * config.num_hidden_layers * sequences * rowsFor(capacity) * config.num_key_value_heads *
    config.head_dim * bytesPerElement(format);
}

/** Keys and values of all layers for the tokens that sequences have so far; memory for `capacity` is taken at once. */
export class KvCache {
  readonly sequences: number;
  readonly layers: readonly LayerCache[];
  readonly #bytes: number;

  constructor(gpu: Gpu, config: ModelConfig, size: KvCacheSize) {
    const capacity = rowsFor(size.capacity);
    const shape = [size.sequences * capacity, config.num_key_value_heads * config.head_dim];
    this.sequences = size.sequences;
    this.#bytes = kvCacheBytes(config, size);
    this.layers = Array.from({ length: config.num_hidden_layers }, () => ({
      k: gpu.empty(shape, size.format, "cached keys"),
      v: gpu.empty(shape, size.format, "cached values"),
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
