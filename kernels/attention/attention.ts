import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { type RowRange, rowsWithin } from "../shared/row_chunks.ts";
import { threadGrid } from "../shared/grid.ts";
import { ROW_ALIGNMENT, rowRanges, slices, type Tensor } from "../tensor.ts";
import type { AttentionMap } from "./map.ts";
import { HALVES, type Part, STATS, variantFor } from "./variants.ts";

/** Head counts of one attention layer. Query head h uses kv head floor(h / (heads / kvHeads)). */
export interface AttentionShape {
  readonly heads: number;
  readonly kvHeads: number;
  /** Elements of a head: a multiple of 4, 256 at most. */
  readonly headDim: number;
}

/** What becomes of the product of a query and a key, before what the query may not see is left out. */
export interface Scoring {
  /** Factor of the product; 1 / sqrt(headDim) unless given. */
  readonly scale?: number | undefined;
  /** Soft cap of the score, cap * tanh(score / cap); none unless given. */
  readonly cap?: number | undefined;
}

/** Tensors of the forward pass that {@linkcode attentionBackward} needs. */
export interface AttentionSaved {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly o: Tensor;
  readonly lse: Tensor;
}

/** Rows in one dispatch: its blocks of 8 stay below the 65535 workgroups of an axis. */
const LONGEST = 2 ** 18;
/** Most elements of q, so that LONGEST rows have fewer than 2^32 quads. */
const WIDEST = 2 ** 16;
/** Products of a head's length that a query and a key cost. */
const PRODUCTS: Record<Part, number> = { forward: 2, dq: 3, dkv: 4 };

/**
 * Causal attention over the rows of all sequences of a batch (flash attention, arXiv 2205.14135: no scores in memory).
 * @param q (rows, heads * headDim), with positions applied; with fewer rows than k, those are the last ones
 * @param k (rows, kvHeads * headDim), as v
 * @param map which keys each query sees; the second half of the query heads takes its shifted table
 * @param scoring scale and cap of the scores; the gradients must be given the same
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
  scoring: Scoring = {},
): { o: Tensor; lse: Tensor } {
  check({ q, k, v }, map, shape, Math.min(q.rows, map.rows));
  const o = gpu.empty(q.shape, q.dtype, "attention o");
  const lse = gpu.empty([q.rows, shape.heads], "f32", "attention lse");
  pass(gpu, "forward", { map, shape, scoring }, {
    byQuery: { q, o, lse },
    byKey: { k, v },
    table: { first: map.first },
    firstQuery: map.rows - q.rows,
  });
  return { o, lse };
}

/** Inputs of the backward pass of {@linkcode attention}, once {@linkcode attentionStats} has seen o. */
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
  scoring: Scoring = {},
): { dq: Tensor; dk: Tensor; dv: Tensor } {
  check({ q, k, v, o, dO }, map, shape, map.rows - map.before);
  const stats = gpu.empty([o.rows, 2 * shape.heads], "f32", "attention stats");
  attentionStats(gpu, dO, { o, lse }, shape, stats);
  const inputs = { q, k, v, dO, stats };
  const all = (tensor: Tensor) => ({ start: 0, end: tensor.rows });
  const dq = attentionBackwardQueries(gpu, inputs, map, shape, all(q), scoring);
  const { dk, dv } = attentionBackwardKeys(gpu, inputs, map, shape, all(k), scoring);
  stats.free();
  return { dq, dk, dv };
}

/**
 * Gradient of {@linkcode attention} for the queries of some rows.
 * @param range rows of q, from a multiple of {@linkcode ROW_ALIGNMENT} on
 * @param into overwritten with dq; a new tensor unless given
 * @returns dq (end - start, heads * headDim) in the dtype of q. The caller frees it
 * @throws {GpuError} if shapes or dtypes do not fit together
 */
export function attentionBackwardQueries(
  gpu: Gpu,
  { q, k, v, dO, stats }: AttentionBackwardInputs,
  map: AttentionMap,
  shape: AttentionShape,
  { start, end }: RowRange,
  scoring: Scoring = {},
  into?: Tensor,
): Tensor {
  check({ q, k, v, dO }, map, shape, map.rows - map.before);
  const dq = into ?? gpu.empty([end - start, q.width], q.dtype, "attention dq");
  pass(gpu, "dq", { map, shape, scoring }, {
    byQuery: { ...slices({ q, d_o: dO, stats }, { start, end }), dq },
    byKey: { k, v },
    table: { first: map.first },
    firstQuery: map.before + start,
  });
  return dq;
}

/**
 * Gradients of {@linkcode attention} for the keys and values of some rows.
 * @param range rows of k, from a multiple of {@linkcode ROW_ALIGNMENT} on
 * @param into overwritten with dk and dv; new tensors unless given
 * @returns dk and dv (end - start, kvHeads * headDim) in the dtype of k. The caller frees both
 * @throws {GpuError} if shapes or dtypes do not fit together
 */
export function attentionBackwardKeys(
  gpu: Gpu,
  { q, k, v, dO, stats }: AttentionBackwardInputs,
  map: AttentionMap,
  shape: AttentionShape,
  { start, end }: RowRange,
  scoring: Scoring = {},
  into?: { readonly dk: Tensor; readonly dv: Tensor },
): { dk: Tensor; dv: Tensor } {
  check({ q, k, v, dO }, map, shape, map.rows - map.before);
  const dk = into?.dk ?? gpu.empty([end - start, k.width], k.dtype, "attention dk");
  const dv = into?.dv ?? gpu.empty([end - start, v.width], v.dtype, "attention dv");
  pass(gpu, "dkv", { map, shape, scoring }, {
    byQuery: { q, d_o: dO, stats },
    byKey: { ...slices({ k, v }, { start, end }), dk, dv },
    table: { last: map.last },
    firstQuery: map.before,
    firstKey: start,
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
  const all = { d_o: dO, o, lse, stats };
  for (const range of rowRanges(Object.values(all), LONGEST)) {
    const pairs = (range.end - range.start) * heads;
    const groups = Math.ceil(pairs / 64);
    const x = Math.min(groups, 2 ** 15);
    gpu.run(STATS, slices(all, range), {
      grid: [x, Math.ceil(groups / x)],
      uniforms: { pairs },
      constants: { D4: headDim / 4 },
      formats: { X: o.format },
    });
  }
}

/** The tensors of a pass, by their names in its kernel. */
type Tensors = Readonly<Record<string, Tensor>>;

interface Pass {
  /** Tensors with a row for each query; q among them, or for each key; k and v among them. */
  readonly byQuery: Tensors & { readonly q: Tensor };
  readonly byKey: Tensors & { readonly k: Tensor; readonly v: Tensor };
  /** The table of the map that the kernel reads. */
  readonly table: Tensors;
  /** Which rows of the batch the first rows of the tensors are; 0 unless given. */
  readonly firstQuery?: number;
  readonly firstKey?: number;
}

/** Runs a kernel over all pairs of parts that see each other; later parts go on from what earlier ones gave. */
function pass(
  gpu: Gpu,
  part: Part,
  { map, shape, scoring }: { map: AttentionMap; shape: AttentionShape; scoring: Scoring },
  { byQuery, byKey, table, firstQuery = 0, firstKey = 0 }: Pass,
): void {
  const { format } = byQuery.q;
  const { scale = 1 / Math.sqrt(shape.headDim), cap } = scoring;
  const { kernel, block, takesHalves, names = {} } = variantFor(gpu, part, shape.headDim, format);
  const halves = takesHalves ? halvesOf(gpu, { ...byQuery, ...byKey }, shape) : {};
  const heads = takesHalves ? { HEADS: shape.heads, KV_HEADS: shape.kvHeads } : {};
  const side = part === "dkv" ? "keys" : "queries";
  const rowWork = PRODUCTS[part] * shape.heads * shape.headDim * map.reach;
  const longest = Math.min(LONGEST, rowsWithin(gpu.mostWork, rowWork));
  const ranges = {
    queries: rowRanges(withHalves(byQuery, halves), side === "queries" ? longest : LONGEST),
    keys: rowRanges(withHalves(byKey, halves), side === "keys" ? longest : LONGEST),
  };
  for (const mine of ranges[side]) {
    const pairs = side === "queries"
      ? ranges.keys.map((keys) => ({ queries: mine, keys }))
      : ranges.queries.map((queries) => ({ queries, keys: mine }));
    const seen = pairs.filter(({ queries, keys }) =>
      overlap({ queries: shift(queries, firstQuery), keys: shift(keys, firstKey) }, map)
    );
    seen.forEach(({ queries, keys }, turn) => {
      const tensors = {
        ...slices(byQuery, queries),
        ...slices(byKey, keys),
        ...table,
        ...wholeMatrices(halves, byQuery, queries),
        ...wholeMatrices(halves, byKey, keys),
      };
      gpu.run(kernel, renamed(tensors, names), {
        grid: [
          Math.ceil((mine.end - mine.start) / block.rows),
          side === "queries" ? shape.heads : shape.kvHeads,
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
          cap: cap ?? 0,
        },
        constants: { RESUME: turn > 0, CAPPED: cap !== undefined, ...heads },
        formats: { X: format },
        work: (mine.end - mine.start) * rowWork,
      });
    });
  }
  for (const tensor of Object.values(halves)) tensor.free();
}

/**
 * The factors of all products in f16, for matrix units: each head of a row with its own scale behind it
 * (attention_halves_matrix.wgsl), and rows up to a multiple of {@linkcode ROW_ALIGNMENT}, so that the last matrix is whole.
 * @returns by the tensors' names. The caller frees them
 */
function halvesOf(gpu: Gpu, tensors: Tensors, { heads, kvHeads, headDim }: AttentionShape): Tensors {
  using _ = gpu.memory.purpose("scratch");
  const halves: Record<string, Tensor> = {};
  for (const [name, ofRow] of [["q", heads], ["d_o", heads], ["k", kvHeads], ["v", kvHeads]] as const) {
    const x = tensors[name];
    if (!x) continue;
    const rows = Math.ceil(x.rows / ROW_ALIGNMENT) * ROW_ALIGNMENT;
    const to = halves[name] = gpu.empty([rows, ofRow * (headDim + 8)], "f16", `${name} in f16`);
    for (const { start, end } of rowRanges([x, to.slice(0, x.rows)])) {
      const range = { start, end: end === x.rows ? rows : end };
      const octets = (range.end - range.start) * ofRow * (headDim / 8 + 1);
      gpu.run(HALVES, { x: x.slice(start, end), halves: to.slice(range.start, range.end) }, {
        grid: threadGrid(octets),
        uniforms: { octets, rows: end - start, heads: ofRow },
        constants: { D8: headDim / 8 },
        formats: { X: x.format, H: "f16" },
      });
    }
  }
  return halves;
}

/** The tensors of a side, and the halves of those among them, cut to as many rows. */
function withHalves(side: Tensors, halves: Tensors): Tensor[] {
  return Object.entries(side).flatMap(([name, tensor]) =>
    halves[name] ? [tensor, halves[name].slice(0, tensor.rows)] : [tensor]
  );
}

/** The halves of a side's tensors for a range of rows, and up to the end of the last matrix. */
function wholeMatrices(halves: Tensors, side: Tensors, { start, end }: RowRange): Tensors {
  return Object.fromEntries(
    Object.entries(halves).filter(([name]) => side[name]).map(([name, tensor]) => [
      name,
      tensor.slice(start, Math.ceil(end / ROW_ALIGNMENT) * ROW_ALIGNMENT),
    ]),
  );
}

function renamed(tensors: Tensors, names: Readonly<Record<string, string>>): Tensors {
  return Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [names[name] ?? name, tensor]));
}

function shift({ start, end }: RowRange, by: number): RowRange {
  return { start: start + by, end: end + by };
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
  queries: number,
): void {
  if (heads % kvHeads !== 0 || headDim % 4 !== 0 || headDim > 256 || heads * headDim > WIDEST) {
    throw new GpuError(
      `Cannot attend with ${heads} heads of ${headDim} and ${kvHeads} kv heads: kv heads must divide the heads, and ` +
        `a head have a multiple of 4 elements, 256 at most, all heads ${WIDEST} at most`,
    );
  }
  for (const [name, tensor] of Object.entries(tensors)) {
    const width = (name === "k" || name === "v" ? kvHeads : heads) * headDim;
    const rows = name === "k" || name === "v" ? map.rows : queries;
    if (tensor.rows !== rows || tensor.width !== width || tensor.dtype !== tensors.q.dtype) {
      throw new GpuError(
        `Cannot attend: ${name} must be (${rows}, ${width}) ${tensors.q.dtype}, ` +
          `got (${tensor.rows}, ${tensor.width}) ${tensor.dtype}`,
      );
    }
  }
}
