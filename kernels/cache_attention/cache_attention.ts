import type { AttentionShape, Scoring } from "../attention/attention.ts";
import { GpuError } from "../errors.ts";
import type { Gpu, Sharing } from "../gpu.ts";
import { CAP_SCORES } from "../shared/cap_scores.ts";
import { requireVector, threadGrid, wrappedGrid } from "../shared/grid.ts";
import reduceWgsl from "../shared/reduce.wgsl" with { type: "text" };
import { sharingOf } from "../shared/sharing.ts";
import { type Dtype, ROW_ALIGNMENT, rowRanges, slices, type Tensor } from "../tensor.ts";
import type { Format, Kernel } from "../wgsl.ts";
import appendWgsl from "./cache_append.wgsl" with { type: "text" };
import appendQ8Wgsl from "./cache_append_q8.wgsl" with { type: "text" };
import combineWgsl from "./cache_combine.wgsl" with { type: "text" };
import dequantiseWgsl from "./cache_dequantise.wgsl" with { type: "text" };
import placeWgsl from "./cache_place.wgsl" with { type: "text" };
import spanWgsl from "./cache_span.wgsl" with { type: "text" };
import subgroupWgsl from "./cache_split_subgroup.wgsl" with { type: "text" };
import workgroupWgsl from "./cache_split_workgroup.wgsl" with { type: "text" };
import codesQ8Wgsl from "./codes_q8.wgsl" with { type: "text" };
import scaleNoneWgsl from "./scale_none.wgsl" with { type: "text" };
import scaleQ8Wgsl from "./scale_q8.wgsl" with { type: "text" };

const APPEND = { name: "cache_append", wgsl: appendWgsl, libraries: [placeWgsl] };
/** The split kernels with what they read the cache by. */
const SPLIT = {
  subgroup: splitKernels("cache_attention", subgroupWgsl),
  workgroup: splitKernels("cache_attention_by_tiles", workgroupWgsl),
};

/** Workgroups that fill a device: a GPU has many cores, a software adapter few. */
const GROUPS = { subgroup: 16, workgroup: 1024 };
/** Keys of a split at least: below, putting splits together costs as much as they save. */
const LEAST_SPAN = 64;
/** Queries that share a load of keys and values at most, by elements of all: their sums are held in registers. */
const QUERY_ELEMENTS = 1024;
/** Threads that put one head's splits together, and that quantise one head: the most quads of a head. */
const COMBINE_LANES = 64;
const COMBINE = {
  name: "cache_combine",
  wgsl: combineWgsl,
  libraries: [reduceWgsl],
  constants: { LANES: COMBINE_LANES },
};
const APPEND_Q8 = {
  name: "cache_append_q8",
  wgsl: appendQ8Wgsl,
  libraries: [placeWgsl, codesQ8Wgsl, reduceWgsl],
  constants: { LANES: COMBINE_LANES },
};
const DEQUANTISE = { name: "cache_dequantise", wgsl: dequantiseWgsl, libraries: [codesQ8Wgsl] };
/** Bytes of keys that pass through workgroup memory at once. */
const TILE_BYTES = 4096;

export interface CacheAttentionOptions extends Scoring {
  /** Keys that some query may see: the largest position plus 1, or more. */
  readonly longest: number;
  /** Most keys that a query sees, itself included; all unless given. */
  readonly window?: number | undefined;
}

/** Window of a query that sees all keys: more than any cache has. */
const NO_WINDOW = 2 ** 32 - 1;

/** How a cache holds its elements: as floats, or in 8 bits with one f32 scale for each head of a row. */
export type CacheFormat = Format | "q8";

/**
 * Gives what a row of keys, or of values, is stored as. In 8 bits each head has `headDim / 4` words of four codes and then
 * its scale.
 */
export function cacheRow(
  format: CacheFormat,
  { kvHeads, headDim }: Pick<AttentionShape, "kvHeads" | "headDim">,
): { readonly width: number; readonly dtype: Dtype } {
  return format === "q8"
    ? { width: kvHeads * (headDim / 4 + 1), dtype: "u32" }
    : { width: kvHeads * headDim, dtype: format };
}

/** Keys and values of one layer: `capacity` rows for each sequence, one sequence after the other. */
export interface LayerCache {
  /** (sequences * capacity, width) as {@linkcode cacheRow} gives it, positions applied. */
  readonly k: Tensor;
  /** Like `k`. */
  readonly v: Tensor;
  /** A multiple of 64, so that no sequence's rows share an alignment unit. */
  readonly capacity: number;
}

/**
 * Writes the keys and values of new rows into the cache.
 *
 * @param k (sequences * rows of each, kvHeads * headDim), any format, positions applied
 * @param v like `k`
 * @param positions (rows) u32 in their sequences; rows at or past the capacity are left out
 * @throws {GpuError} if shapes do not fit
 */
export function appendToCache(gpu: Gpu, k: Tensor, v: Tensor, cache: LayerCache, positions: Tensor): void {
  const perSequence = rowsOfEach("appendToCache", k, cache, positions);
  const isQ8 = formatOf(cache.k) === "q8";
  if (
    (isQ8 ? headsQ8(k, cache.k) === null : k.width !== cache.k.width) || v.width !== k.width ||
    v.rows !== k.rows || v.dtype !== k.dtype
  ) {
    throw new GpuError(
      `Cannot apply appendToCache: keys [${k.shape}] ${k.dtype} and values [${v.shape}] ${v.dtype} do not make rows ` +
        `of a cache [${cache.k.shape}]`,
    );
  }
  if (isQ8) {
    const { capacity } = cache;
    appendQ8(gpu, k, cache.k, positions, { perSequence, capacity });
    appendQ8(gpu, v, cache.v, positions, { perSequence, capacity });
    return;
  }
  const quads = k.width / 4;
  for (const part of rowRanges([cache.k, cache.v])) {
    gpu.run(
      APPEND,
      { k, v, positions, ...slices({ cached_k: cache.k, cached_v: cache.v }, part) },
      {
        grid: threadGrid(k.rows * quads),
        uniforms: {
          rows: k.rows,
          per_row: quads,
          per_sequence: perSequence,
          capacity: cache.capacity,
          k_start: part.start,
          k_rows: part.end - part.start,
        },
        formats: { X: k.format, C: cache.k.format },
      },
    );
  }
}

/**
 * Quantises rows to those of a cache of 8 bits: each head by its largest magnitude.
 *
 * @param x (rows, kvHeads * headDim), any format
 * @param cached (rows, width) u32, overwritten
 * @throws {GpuError} if shapes do not fit
 */
export function quantiseRows(gpu: Gpu, x: Tensor, cached: Tensor): void {
  if (x.rows !== cached.rows || cached.dtype !== "u32" || headsQ8(x, cached) === null) {
    throw new GpuError(
      `Cannot quantise rows [${x.shape}] ${x.dtype} to rows [${cached.shape}] ${cached.dtype} of a cache of 8 bits`,
    );
  }
  const positions = gpu.tensor([x.rows], Uint32Array.from({ length: x.rows }, (_, row) => row));
  for (const { start, end } of rowRanges([x, cached])) {
    const rows = end - start;
    appendQ8(gpu, x.slice(start, end), cached.slice(start, end), positions.slice(0, rows), {
      perSequence: rows,
      capacity: rows,
    });
  }
  positions.free();
}

/**
 * Writes rows of a cache of 8 bits as floats.
 *
 * @param cached (rows, width) u32
 * @returns (rows, kvHeads * headDim) in `format`; the caller frees it
 * @throws {GpuError} if the rows are not of these heads
 */
export function dequantiseRows(
  gpu: Gpu,
  cached: Tensor,
  { kvHeads, headDim }: Pick<AttentionShape, "kvHeads" | "headDim">,
  format: Format,
): Tensor {
  const { width, dtype } = cacheRow("q8", { kvHeads, headDim });
  if (cached.width !== width || cached.dtype !== dtype) {
    throw new GpuError(
      `Cannot dequantise rows [${cached.shape}] ${cached.dtype}: they are not of ${kvHeads} heads of ${headDim} in 8 bits`,
    );
  }
  const x = gpu.empty([cached.rows, kvHeads * headDim], format, `${cached.label} as ${format}`);
  for (const part of rowRanges([cached, x])) {
    const quads = (part.end - part.start) * kvHeads * headDim / 4;
    gpu.run(DEQUANTISE, slices({ cached, x }, part), {
      grid: threadGrid(quads),
      constants: { D4: headDim / 4 },
      formats: { X: format },
      uniforms: { quads },
    });
  }
  return x;
}

function appendQ8(
  gpu: Gpu,
  x: Tensor,
  cached: Tensor,
  positions: Tensor,
  { perSequence, capacity }: { readonly perSequence: number; readonly capacity: number },
): void {
  const heads = headsQ8(x, cached)!;
  for (const { start, end } of rowRanges([cached])) {
    gpu.run(APPEND_Q8, { x, positions, cached: cached.slice(start, end) }, {
      grid: wrappedGrid(x.rows * heads),
      constants: { D4: x.width / heads / 4 },
      formats: { X: x.format },
      uniforms: {
        rows: x.rows,
        per_row: heads,
        per_sequence: perSequence,
        capacity,
        k_start: start,
        k_rows: end - start,
      },
    });
  }
}

function splitKernels(name: string, wgsl: string): Record<"floats" | "q8", Kernel> {
  return {
    floats: { name, wgsl, libraries: [spanWgsl, ...CAP_SCORES, scaleNoneWgsl] },
    q8: { name: `${name}_q8`, wgsl, libraries: [spanWgsl, ...CAP_SCORES, codesQ8Wgsl, scaleQ8Wgsl] },
  };
}

function formatOf({ dtype }: Tensor): CacheFormat {
  return dtype === "u32" ? "q8" : dtype;
}

/** The kv heads of rows `x` that are held as `cached` in 8 bits; null where they cannot be. */
function headsQ8(x: Tensor, cached: Tensor): number | null {
  // Each head has one word besides its quads.
  const heads = cached.width - x.width / 4;
  const quads = x.width / 4 / heads;
  return heads > 0 && Number.isInteger(quads) && quads <= COMBINE_LANES ? heads : null;
}

/**
 * Computes the attention of a few new rows of each sequence over its cache, which has their own keys and values already.
 * Each row sees the keys up to its own position. The keys are split among workgroups, so that one token of one sequence fills a GPU;
 * the heads of a kv head share every load.
 *
 * @param q (sequences * rows of each, heads * headDim), any format, positions applied
 * @param positions (rows of q) u32 in their sequences, ascending in each
 * @returns o like q; the caller frees it
 * @throws {GpuError} if shapes do not fit
 */
export function cacheAttention(
  gpu: Gpu,
  q: Tensor,
  cache: LayerCache,
  positions: Tensor,
  shape: AttentionShape,
  { longest, window = NO_WINDOW, scale = 1 / Math.sqrt(shape.headDim), cap }: CacheAttentionOptions,
): Tensor {
  const perSequence = rowsOfEach("cacheAttention", q, cache, positions);
  check(q, cache, shape, longest);
  const { heads, kvHeads, headDim } = shape;
  const mode = sharingOf(gpu, "cache attention");
  const pairs = q.rows * heads;
  const sharing = perSequence * heads / kvHeads;
  const QUERIES = Math.min(
    ...[8, 2 ** Math.floor(Math.log2(QUERY_ELEMENTS / headDim)), 2 ** Math.ceil(Math.log2(sharing))],
  );
  const rowGroups = kvHeads * Math.ceil(sharing / QUERIES);
  const sequences = q.rows / perSequence;
  const visible = visibleRanges(cache, sequences, longest);
  const fits = Math.floor(gpu.maxBindingBytes / (pairs * headDim * 4)) - visible.length;
  const span = spanOf(longest, Math.min(fits, Math.ceil(GROUPS[mode] / (rowGroups * sequences))));
  const ranges = visible.map((range) => ({
    ...range,
    splits: Math.ceil(Math.min(range.end - range.start, longest) / span),
  }));
  const splits = ranges.reduce((sum, range) => sum + range.splits, 0);
  const parts = gpu.empty([splits, pairs * headDim], "f32", "attention by splits");
  const stats = gpu.empty([splits, pairs * 2], "f32", "attention split stats");
  const format = formatOf(cache.k);
  let firstSplit = 0;
  for (const { start, end, splits } of ranges) {
    gpu.run(
      SPLIT[mode][format === "q8" ? "q8" : "floats"],
      { q, ...slices({ k: cache.k, v: cache.v }, { start, end }), positions, parts, stats },
      {
        grid: [splits, rowGroups, sequences],
        constants: { QUERIES, D4: headDim / 4, CAPPED: cap !== undefined, ...byMode(mode, cache, headDim) },
        formats: { X: q.format, ...(format === "q8" ? {} : { C: format }) },
        uniforms: {
          rows: q.rows,
          per_sequence: perSequence,
          heads,
          kv_heads: kvHeads,
          capacity: cache.capacity,
          k_start: start,
          k_rows: end - start,
          span,
          first_split: firstSplit,
          window,
          scale,
          cap: cap ?? 0,
        },
      },
    );
    firstSplit += splits;
  }
  const o = gpu.empty(q.shape, q.dtype, "attention o");
  gpu.run(COMBINE, { parts, stats, o }, {
    grid: wrappedGrid(pairs),
    constants: { D4: headDim / 4 },
    formats: { X: q.format },
    uniforms: { pairs, splits },
  });
  parts.free();
  stats.free();
  return o;
}

function byMode(mode: Sharing, { k }: LayerCache, headDim: number): Record<string, number> {
  if (mode === "subgroup") return { ROUNDS: Math.ceil(headDim / 32) };
  const keyBytes = headDim * { f32: 4, bf16: 2, f16: 2, q8: 1 }[formatOf(k)];
  return { TILE_KEYS: [32, 16, 8, 4].find((keys) => keys * keyBytes <= TILE_BYTES)! };
}

/** Keys of a split where there are to be `wanted` splits. */
function spanOf(longest: number, wanted: number): number {
  const splits = Math.max(1, Math.min(wanted, Math.ceil(longest / LEAST_SPAN)));
  return Math.ceil(longest / splits / LEAST_SPAN) * LEAST_SPAN;
}

/** The parts of the cache, each in one binding, that hold a key below `longest` of any sequence. */
function visibleRanges({ k, v, capacity }: LayerCache, sequences: number, longest: number) {
  return rowRanges([k, v]).filter(({ start, end }) =>
    Array.from({ length: sequences }, (_, b) => b * capacity)
      .some((base) => start < base + longest && end > base)
  );
}

function rowsOfEach(op: string, rows: Tensor, { k, v, capacity }: LayerCache, positions: Tensor): number {
  requireVector(op, positions, rows.rows, "u32");
  const sequences = k.rows / capacity;
  const fits = Number.isInteger(sequences) && capacity % ROW_ALIGNMENT === 0 && rows.rows % sequences === 0 &&
    v.rows === k.rows && v.width === k.width && v.dtype === k.dtype;
  if (fits) return rows.rows / sequences;
  throw new GpuError(
    `Cannot apply ${op}: ${rows.rows} rows do not belong to sequences of ${capacity} rows in a cache of keys ` +
      `[${k.shape}] ${k.dtype} and values [${v.shape}] ${v.dtype}`,
  );
}

function check(q: Tensor, { k, capacity }: LayerCache, shape: AttentionShape, longest: number): void {
  const { heads, kvHeads, headDim } = shape;
  if (heads % kvHeads !== 0 || headDim % 4 !== 0 || headDim > 4 * COMBINE_LANES) {
    throw new GpuError(
      `Cannot attend with ${heads} heads of ${headDim} and ${kvHeads} kv heads: kv heads must divide the heads, and a ` +
        `head have a multiple of 4 elements, ${4 * COMBINE_LANES} at most`,
    );
  }
  if (
    q.width !== heads * headDim || k.width !== cacheRow(formatOf(k), shape).width || longest < 1 ||
    longest > capacity
  ) {
    throw new GpuError(
      `Cannot attend: queries [${q.shape}] and keys [${k.shape}] are not of ${heads} and ${kvHeads} heads of ` +
        `${headDim}, or ${longest} keys are not within the capacity of ${capacity}`,
    );
  }
}
