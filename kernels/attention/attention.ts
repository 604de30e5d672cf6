import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { largestMagnitudes } from "../shared/matrix_unit.ts";
import { type RowRange, rowsWithin } from "../shared/row_chunks.ts";
import { rowRanges, type Tensor } from "../tensor.ts";
import type { AttentionMap } from "./map.ts";
import { type Part, STATS, variantFor } from "./variants.ts";

/** Head counts of one attention layer. Query head h uses kv head floor(h / (heads / kvHeads)). */
export interface AttentionShape {
  readonly heads: number;
  readonly kvHeads: number;
  /** Elements of a head: a multiple of 4, 256 at most. */
  readonly headDim: number;
}

/** What {@linkcode attentionBackward} needs of the forward pass. */
export interface AttentionSaved {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly o: Tensor;
  readonly lse: Tensor;
}

/** Rows in one dispatch: its blocks of 8 stay below the 65535 workgroups of an axis. */
const LONGEST = 2 ** 18;
/** Of q, in elements, so that LONGEST rows have fewer than 2^32 quads. */
const WIDEST = 2 ** 16;
/** Products of a head's length that a query and a key cost. */
const PRODUCTS: Record<Part, number> = { forward: 2, dq: 3, dkv: 4 };

/**
 * Causal attention over the rows of all sequences of a batch (flash attention, arXiv 2205.14135: no scores in memory).
 * @param q (rows, heads * headDim), with positions applied; with fewer rows than k, those are the last ones
 * @param k (rows, kvHeads * headDim), as v
 * @param map which keys each query sees; the second half of the query heads takes its shifted table
 * @param scale factor of the scores
 * @returns o like q, and lse (rows, heads): f32, each row's log of the sum of exponentials. The caller frees both
 * @throws {GpuError} if shapes or dtypes do not fit together
 */
export function attention(
  gpu: Gpu,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  map: AttentionMap,
  shape: AttentionShape,
  scale = 1 / Math.sqrt(shape.headDim),
): { o: Tensor; lse: Tensor } {
  check({ q, k, v }, map, shape, Math.min(q.rows, map.rows));
  const o = gpu.empty(q.shape, q.dtype, "attention o");
  const lse = gpu.empty([q.rows, shape.heads], "f32", "attention lse");
  pass(gpu, "forward", { map, shape, scale }, {
    byQuery: [q, o, lse],
    byKey: [k, v],
    firstQuery: map.rows - q.rows,
    bind: ([q, o, lse], [k, v]) => [q, k, v, map.first, o, lse],
  });
  return { o, lse };
}

/** What the gradients of {@linkcode attention} are made from, once {@linkcode attentionStats} has seen o. */
export interface AttentionBackwardInputs {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  /** Gradient of o, in its shape and dtype. */
  readonly dO: Tensor;
  /** (rows, 2 * heads) f32 */
  readonly stats: Tensor;
}

/**
 * Gradients of {@linkcode attention}; the probabilities are computed again from lse.
 * @param dO gradient of o, in its shape and dtype
 * @returns dq, dk, dv like q, k, v. The caller frees them
 * @throws {GpuError} if shapes or dtypes do not fit together
 */
export function attentionBackward(
  gpu: Gpu,
  dO: Tensor,
  { q, k, v, o, lse }: AttentionSaved,
  map: AttentionMap,
  shape: AttentionShape,
  scale = 1 / Math.sqrt(shape.headDim),
): { dq: Tensor; dk: Tensor; dv: Tensor } {
  check({ q, k, v, o, dO }, map, shape);
  const stats = gpu.empty([o.rows, 2 * shape.heads], "f32", "attention stats");
  attentionStats(gpu, dO, { o, lse }, shape, stats);
  const inputs = { q, k, v, dO, stats };
  const all = { start: 0, end: map.rows };
  const dq = attentionBackwardQueries(gpu, inputs, map, shape, all, scale);
  const { dk, dv } = attentionBackwardKeys(gpu, inputs, map, shape, all, scale);
  stats.free();
  return { dq, dk, dv };
}

/**
 * Gradient of {@linkcode attention} for the queries of some rows.
 * @param range rows of the batch, from a multiple of {@linkcode ROW_ALIGNMENT} on
 * @returns dq (end - start, heads * headDim) in the dtype of q. The caller frees it
 * @throws {GpuError} if shapes or dtypes do not fit together
 */
export function attentionBackwardQueries(
  gpu: Gpu,
  { q, k, v, dO, stats }: AttentionBackwardInputs,
  map: AttentionMap,
  shape: AttentionShape,
  { start, end }: RowRange,
  scale = 1 / Math.sqrt(shape.headDim),
): Tensor {
  check({ q, k, v, dO }, map, shape);
  const dq = gpu.empty([end - start, q.width], q.dtype, "attention dq");
  pass(gpu, "dq", { map, shape, scale }, {
    byQuery: [q.slice(start, end), dO.slice(start, end), stats.slice(start, end), dq],
    byKey: [k, v],
    firstQuery: start,
    bind: ([q, dO, stats, dq], [k, v]) => [q, k, v, dO, stats, map.first, dq],
  });
  return dq;
}

/**
 * Gradients of {@linkcode attention} for the keys and values of some rows.
 * @param range rows of the batch, from a multiple of {@linkcode ROW_ALIGNMENT} on
 * @returns dk and dv (end - start, kvHeads * headDim) in the dtype of k. The caller frees both
 * @throws {GpuError} if shapes or dtypes do not fit together
 */
export function attentionBackwardKeys(
  gpu: Gpu,
  { q, k, v, dO, stats }: AttentionBackwardInputs,
  map: AttentionMap,
  shape: AttentionShape,
  { start, end }: RowRange,
  scale = 1 / Math.sqrt(shape.headDim),
): { dk: Tensor; dv: Tensor } {
  check({ q, k, v, dO }, map, shape);
  const dk = gpu.empty([end - start, k.width], k.dtype, "attention dk");
  const dv = gpu.empty([end - start, v.width], v.dtype, "attention dv");
  pass(gpu, "dkv", { map, shape, scale }, {
    byQuery: [q, dO, stats],
    byKey: [k.slice(start, end), v.slice(start, end), dk, dv],
    firstKey: start,
    bind: ([q, dO, stats], [k, v, dk, dv]) => [q, k, v, dO, stats, map.last, dk, dv],
  });
  return { dk, dv };
}

/**
 * For each row and head lse and the sum of dO * O: all that the backward pass needs of o.
 * @param dO (rows, heads * headDim), of any rows of the batch; o and lse of the same rows
 * @param stats (rows, 2 * heads) f32, overwritten
 */
export function attentionStats(
  gpu: Gpu,
  dO: Tensor,
  { o, lse }: Pick<AttentionSaved, "o" | "lse">,
  { heads, headDim }: AttentionShape,
  stats: Tensor,
): void {
  const all = [dO, o, lse, stats];
  for (const range of rowRanges(all, LONGEST)) {
    const pairs = (range.end - range.start) * heads;
    const groups = Math.ceil(pairs / 64);
    const x = Math.min(groups, 2 ** 15);
    gpu.run(STATS, cut(all, range), {
      grid: [x, Math.ceil(groups / x)],
      uniforms: { pairs },
      constants: { D4: headDim / 4 },
      formats: { X: o.format },
    });
  }
}

interface Pass<Q extends readonly Tensor[], K extends readonly Tensor[]> {
  readonly byQuery: Q;
  readonly byKey: K;
  /** Which rows of the batch the first rows of the tensors are; 0 unless given. */
  readonly firstQuery?: number;
  readonly firstKey?: number;
  /** The kernel's tensors from the parts of both. */
  bind(query: Q, key: K): Tensor[];
}

/** Runs a kernel over all pairs of parts that see each other; later parts go on from what earlier ones gave. */
function pass<const Q extends readonly Tensor[], const K extends readonly Tensor[]>(
  gpu: Gpu,
  part: Part,
  { map, shape, scale }: { map: AttentionMap; shape: AttentionShape; scale: number },
  { byQuery, byKey, firstQuery = 0, firstKey = 0, bind }: Pass<Q, K>,
): void {
  const { format } = byQuery[0]!;
  const { kernel, block, constants, isScaled } = variantFor(gpu, part, shape.headDim, format);
  // The values of f16 are in its range as they are.
  const range = isScaled
    ? {
      largest: largestMagnitudes(gpu, [byQuery[0]!, byKey[0]!, byKey[1]!].map((x) => format !== "f16" && x)),
      SCALED: format === "f16" ? 0 : 1,
    }
    : undefined;
  const own = part === "dkv" ? "keys" : "queries";
  const rowWork = PRODUCTS[part] * shape.heads * shape.headDim * map.reach;
  const longest = Math.min(LONGEST, rowsWithin(gpu.mostWork, rowWork));
  const ranges = {
    queries: rowRanges(byQuery, own === "queries" ? longest : LONGEST),
    keys: rowRanges(byKey, own === "keys" ? longest : LONGEST),
  };
  for (const mine of ranges[own]) {
    const pairs = own === "queries"
      ? ranges.keys.map((keys) => ({ queries: mine, keys }))
      : ranges.queries.map((queries) => ({ queries, keys: mine }));
    const seen = pairs.filter(({ queries, keys }) =>
      overlap({ queries: shift(queries, firstQuery), keys: shift(keys, firstKey) }, map)
    );
    seen.forEach(({ queries, keys }, turn) => {
      const tensors = bind(cut(byQuery, queries), cut(byKey, keys));
      gpu.run(kernel, range ? [...tensors, range.largest] : tensors, {
        grid: [
          Math.ceil((mine.end - mine.start) / block.own),
          own === "queries" ? shape.heads : shape.kvHeads,
        ],
        uniforms: {
          heads: shape.heads,
          kv_heads: shape.kvHeads,
          rows: map.rows,
          q_start: firstQuery + queries.start,
          q_rows: queries.end - queries.start,
          k_start: firstKey + keys.start,
          k_rows: keys.end - keys.start,
          scale,
        },
        constants: { ...constants, RESUME: turn > 0 ? 1 : 0, ...(range ? { SCALED: range.SCALED } : {}) },
        formats: { X: format },
        work: (mine.end - mine.start) * rowWork,
      });
    });
  }
  range?.largest.free();
}

function shift({ start, end }: RowRange, by: number): RowRange {
  return { start: start + by, end: end + by };
}

function cut<T extends readonly Tensor[]>(tensors: T, { start, end }: RowRange): T {
  return tensors.map((tensor) => tensor.slice(start, end)) as readonly Tensor[] as T;
}

/** Whether any of the queries sees any of the keys. */
function overlap(
  { queries, keys }: { queries: RowRange; keys: RowRange },
  { tables: { first }, rows }: AttentionMap,
): boolean {
  const firstKey = Math.min(first[queries.start]!, first[rows + queries.start]!);
  return keys.start < queries.end && keys.end > firstKey;
}

function check(
  tensors: { q: Tensor; k: Tensor; v: Tensor; o?: Tensor; dO?: Tensor },
  map: AttentionMap,
  { heads, kvHeads, headDim }: AttentionShape,
  queries = map.rows,
): void {
  if (heads % kvHeads !== 0 || headDim % 4 !== 0 || headDim > 256 || heads * headDim > WIDEST) {
    throw new GpuError(
      `Cannot attend with ${heads} heads of ${headDim} and ${kvHeads} kv heads: kv heads must divide the heads, and ` +
        `a head have a multiple of 4 elements, 256 at most, all heads ${WIDEST} at most`,
    );
  }
  for (const [name, tensor] of Object.entries(tensors)) {
    const width = (name === "k" || name === "v" ? kvHeads : heads) * headDim;
    const rows = name === "q" ? queries : map.rows;
    if (tensor.rows !== rows || tensor.width !== width || tensor.dtype !== tensors.q.dtype) {
      throw new GpuError(
        `Cannot attend: ${name} must be (${rows}, ${width}) ${tensors.q.dtype}, ` +
          `got (${tensor.rows}, ${tensor.width}) ${tensor.dtype}`,
      );
    }
  }
}
