import type { AttentionShape, Scoring } from "../attention/attention.ts";
import { GpuError } from "../errors.ts";
import type { Gpu, Sharing } from "../gpu.ts";
import { CAP_SCORES } from "../shared/cap_scores.ts";
import reduceWgsl from "../shared/reduce.wgsl" with { type: "text" };
import { wrappedGrid } from "../shared/grid.ts";
import { sharingOf } from "../shared/sharing.ts";
import { rowRanges, slices, type Tensor } from "../tensor.ts";
import type { Kernel } from "../wgsl.ts";
import combineWgsl from "./cache_combine.wgsl" with { type: "text" };
import spanWgsl from "./cache_span.wgsl" with { type: "text" };
import subgroupWgsl from "./cache_split_subgroup.wgsl" with { type: "text" };
import workgroupWgsl from "./cache_split_workgroup.wgsl" with { type: "text" };
import { cacheRow, formatOf, type LayerCache, MOST_HEAD, rowsOfEach } from "./cache_rows.ts";
import codesQ8Wgsl from "./codes_q8.wgsl" with { type: "text" };
import scaleNoneWgsl from "./scale_none.wgsl" with { type: "text" };
import scaleQ8Wgsl from "./scale_q8.wgsl" with { type: "text" };
import sumsOfAllWgsl from "./sums_of_all.wgsl" with { type: "text" };
import sumsOfSplitWgsl from "./sums_of_split.wgsl" with { type: "text" };

const SPLIT = {
  subgroup: splitKernels("cache_attention", subgroupWgsl),
  workgroup: splitKernels("cache_attention_by_tiles", workgroupWgsl),
};

/** Workgroups that fill a device: a GPU has many cores, a software adapter few. */
const GROUPS = { subgroup: 16, workgroup: 1024 };
/** Keys of a split at least: below, putting splits together costs as much as they save. */
const LEAST_SPAN = 64;
/** Elements of a head's keys up to which they are not split: a further dispatch to put splits together takes longer. */
const WHOLE_ELEMENTS = 16384;
/** Queries that share a load of keys and values at most, by elements of all: their sums are held in registers. */
const QUERY_ELEMENTS = 1024;
const COMBINE = {
  name: "cache_combine",
  wgsl: combineWgsl,
  libraries: [reduceWgsl],
  // Threads that put one head's splits together: the most quads of a head.
  constants: { LANES: MOST_HEAD / 4 },
};
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

/** A kernel in all its forms: what it reads the cache by, and whether its sums are of a split of the keys or of all. */
function splitKernels(name: string, wgsl: string) {
  const kernel = (suffix: string, cached: readonly string[], sums: string): Kernel => ({
    name: `${name}${suffix}`,
    wgsl,
    libraries: [spanWgsl, ...CAP_SCORES, ...cached, sums],
  });
  const forms = (suffix: string, cached: readonly string[]) => ({
    split: kernel(suffix, cached, sumsOfSplitWgsl),
    whole: kernel(`${suffix}_whole`, cached, sumsOfAllWgsl),
  });
  return { floats: forms("", [scaleNoneWgsl]), q8: forms("_q8", [codesQ8Wgsl, scaleQ8Wgsl]) };
}

/**
 * Computes the attention of a few new rows of each sequence over its cache, which has their own keys and values already.
 * Each row sees the keys up to its own position. Many keys are split among workgroups, so that one token of one sequence
 * fills a GPU; the heads of a kv head share every load.
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
  // Each part of the cache may have as many splits as are wanted.
  const fits = Math.floor(gpu.maxBindingBytes / (pairs * headDim * 4 * visible.length));
  const isShort = Math.min(longest, window + perSequence - 1) * headDim <= WHOLE_ELEMENTS;
  const wanted = isShort ? 1 : Math.min(fits, Math.ceil(GROUPS[mode] / (rowGroups * sequences)));
  const span = spanOf(longest, wanted);
  const ranges = visible.map((range) => ({
    ...range,
    splits: Math.ceil(Math.min(range.end - range.start, longest) / span),
  }));
  const splits = ranges.reduce((sum, range) => sum + range.splits, 0);
  const o = gpu.empty(q.shape, q.dtype, "attention o");
  const sums = splits === 1 ? { o } : {
    parts: gpu.empty([splits, pairs * headDim], "f32", "attention by splits"),
    stats: gpu.empty([splits, pairs * 2], "f32", "attention split stats"),
  };
  const format = formatOf(cache.k);
  let firstSplit = 0;
  for (const { start, end, splits } of ranges) {
    gpu.run(
      SPLIT[mode][format === "q8" ? "q8" : "floats"][sums.o ? "whole" : "split"],
      { q, ...slices({ k: cache.k, v: cache.v }, { start, end }), positions, ...sums },
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
  if (sums.o) return o;
  const { parts, stats } = sums;
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

function check(q: Tensor, { k, capacity }: LayerCache, shape: AttentionShape, longest: number): void {
  const { heads, kvHeads, headDim } = shape;
  if (heads % kvHeads !== 0 || headDim % 4 !== 0 || headDim > MOST_HEAD) {
    throw new GpuError(
      `Cannot attend with ${heads} heads of ${headDim} and ${kvHeads} kv heads: kv heads must divide the heads, and a ` +
        `head have a multiple of 4 elements, ${MOST_HEAD} at most`,
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
