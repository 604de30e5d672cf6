/** What a row of keys and values in a cache is, and how new rows come into it. */
import type { AttentionShape } from "../attention/attention.ts";
import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import type { Qkv } from "../qkv/qkv.ts";
import { requireTable, type RopeTable, WORDS } from "../rope/rope.ts";
import { requireVector, threadGrid, wrappedGrid } from "../shared/grid.ts";
import reduceWgsl from "../shared/reduce.wgsl" with { type: "text" };
import { type Dtype, ROW_ALIGNMENT, rowRanges, slices, type Tensor } from "../tensor.ts";
import type { Format, Kernel } from "../wgsl.ts";
import appendWgsl from "./cache_append.wgsl" with { type: "text" };
import appendQ8Wgsl from "./cache_append_q8.wgsl" with { type: "text" };
import dequantiseWgsl from "./cache_dequantise.wgsl" with { type: "text" };
import placeWgsl from "./cache_place.wgsl" with { type: "text" };
import codesQ8Wgsl from "./codes_q8.wgsl" with { type: "text" };
import rotateNoneWgsl from "./rotate_none.wgsl" with { type: "text" };
import rotateRopeWgsl from "./rotate_rope.wgsl" with { type: "text" };

const APPEND = {
  floats: appendKernels("cache_append", appendWgsl),
  q8: appendKernels("cache_append_q8", appendQ8Wgsl, [codesQ8Wgsl, reduceWgsl]),
};
const DEQUANTISE = { name: "cache_dequantise", wgsl: dequantiseWgsl, libraries: [codesQ8Wgsl] };

/** Elements of a head at most: a workgroup of 64 threads has them all. */
export const MOST_HEAD = 256;

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
 * Writes the keys and values of new rows into the cache, and rotates by the rows' positions: keys on the way, queries in
 * place.
 *
 * @param rows q (sequences * rows of each, heads * headDim), k and v (..., kvHeads * headDim), of one format
 * @param positions (rows) u32 in their sequences; keys and values of rows at or past the capacity are left out
 * @param table angles of the positions; null where the layer does not rotate: queries then stay as they are
 * @throws {GpuError} if shapes do not fit
 */
export function appendToCache(
  gpu: Gpu,
  { q, k, v }: Qkv,
  cache: LayerCache,
  positions: Tensor,
  shape: AttentionShape,
  table: RopeTable | null,
): void {
  const perSequence = rowsOfEach("appendToCache", k, cache, positions);
  const { heads, kvHeads, headDim } = shape;
  const row = cacheRow(formatOf(cache.k), shape);
  if (
    k.width !== kvHeads * headDim || cache.k.width !== row.width || headDim % 4 !== 0 ||
    headDim > MOST_HEAD || q.width !== heads * headDim ||
    [q, v].some(({ rows, dtype }) => rows !== k.rows || dtype !== k.dtype) ||
    v.width !== k.width
  ) {
    throw new GpuError(
      `Cannot apply appendToCache: queries [${q.shape}] ${q.dtype}, keys [${k.shape}] ${k.dtype} and values ` +
        `[${v.shape}] ${v.dtype} do not make ${heads} and ${kvHeads} heads of ${headDim}, and rows of a cache ` +
        `[${cache.k.shape}]`,
    );
  }
  if (table) requireTable(table, headDim);
  for (const range of rowRanges([q, k, v, positions])) {
    const rows = slices({ q, k, v, positions }, range);
    rowRanges([cache.k, cache.v]).forEach((part, number) => {
      const cached = slices({ k: cache.k, v: cache.v }, part);
      const place = { firstRow: range.start, perSequence, capacity: cache.capacity, start: part.start };
      // Queries are rotated once.
      append(gpu, rows, cached, place, { headDim, heads: number === 0 ? heads : 0, table });
    });
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
  const headDim = x.width / headsQ8(x, cached)!;
  const positions = gpu.tensor([x.rows], Uint32Array.from({ length: x.rows }, (_, row) => row));
  for (const { start, end } of rowRanges([x, cached])) {
    const rows = end - start;
    const place = { firstRow: 0, perSequence: rows, capacity: rows, start: 0 };
    const given = { k: x.slice(start, end), positions: positions.slice(0, rows) };
    append(gpu, given, { k: cached.slice(start, end) }, place, { headDim, heads: 0, table: null });
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

/** Where new rows belong. */
interface Place {
  /** Number of the first of them among those of all sequences. */
  readonly firstRow: number;
  readonly perSequence: number;
  readonly capacity: number;
  /** First row of the part of the cache. */
  readonly start: number;
}

/** Heads of new rows, and how they rotate. */
interface Heads {
  readonly headDim: number;
  /** Those of queries, to rotate. */
  readonly heads: number;
  readonly table: RopeTable | null;
}

/** Records one dispatch for rows and a part of the cache in one binding each. Without values, k is all there is. */
function append(
  gpu: Gpu,
  { q, k, v, positions }: { readonly q?: Tensor; k: Tensor; readonly v?: Tensor; readonly positions: Tensor },
  cached: { readonly k: Tensor; readonly v?: Tensor },
  { firstRow, perSequence, capacity, start }: Place,
  { headDim, heads, table }: Heads,
): void {
  const { rows, format } = k;
  const isQ8 = formatOf(cached.k) === "q8";
  const D4 = headDim / 4;
  const kvHeads = k.width / headDim;
  const perRow = isQ8 ? kvHeads : kvHeads * D4;
  const halfWords = (table?.cos.width ?? 0) / 2;
  const rotating = rows * heads * halfWords;
  const LANES = 8 * Math.ceil(D4 / 8);
  const VALUES = v ? 1 : 0;
  const kernels = APPEND[isQ8 ? "q8" : "floats"][table ? "rotated" : "given"];
  gpu.run(
    kernels[format === "f32" ? "f32" : "halves"],
    {
      k,
      positions,
      cached_k: cached.k,
      ...(v && { v, cached_v: cached.v! }),
      ...(table && { q: q!, cosines: table.cos, sines: table.sin }),
    },
    {
      grid: isQ8
        ? wrappedGrid(rows * kvHeads * (1 + VALUES) + Math.ceil(rotating / LANES))
        : threadGrid(rows * perRow + rotating),
      constants: isQ8 ? { D4, LANES, VALUES } : table ? { D4 } : {},
      formats: { X: format, ...(!isQ8 && { C: cached.k.format }) },
      uniforms: {
        rows,
        first_row: firstRow,
        per_row: perRow,
        per_sequence: perSequence,
        capacity,
        k_start: start,
        k_rows: cached.k.rows,
        heads,
        half_words: halfWords,
      },
    },
  );
}

/** The kernels of a form of cache: whether they rotate, and by words of which format they read new rows. */
function appendKernels(name: string, wgsl: string, libraries: readonly string[] = []) {
  const kernel = (suffix: string, rotation: string, word: string): Kernel => ({
    name: `${name}${suffix}`,
    wgsl,
    libraries: [...libraries, placeWgsl, rotation, word],
  });
  return {
    rotated: {
      f32: kernel("_rope_f32", rotateRopeWgsl, WORDS.f32),
      halves: kernel("_rope_16", rotateRopeWgsl, WORDS.bf16),
    },
    given: {
      f32: kernel("_f32", rotateNoneWgsl, WORDS.f32),
      halves: kernel("_16", rotateNoneWgsl, WORDS.bf16),
    },
  };
}

/**
 * The form of keys and values that a tensor holds.
 * @internal
 */
export function formatOf({ dtype }: Tensor): CacheFormat {
  return dtype === "u32" ? "q8" : dtype;
}

/** The kv heads of rows `x` that are held as `cached` in 8 bits; null where they cannot be. */
function headsQ8(x: Tensor, cached: Tensor): number | null {
  // Each head has one word besides its quads.
  const heads = cached.width - x.width / 4;
  const quads = x.width / 4 / heads;
  return heads > 0 && Number.isInteger(quads) && 4 * quads <= MOST_HEAD ? heads : null;
}

/**
 * Counts the new rows of each sequence.
 * @throws {GpuError} if rows, positions and cache do not belong together
 * @internal
 */
export function rowsOfEach(
  op: string,
  rows: Tensor,
  { k, v, capacity }: LayerCache,
  positions: Tensor,
): number {
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
