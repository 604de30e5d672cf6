import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { rowRanges, type Tensor } from "../tensor.ts";
import type { Kernel } from "../wgsl.ts";
import type { AttentionMap } from "./map.ts";
import dkvSubgroupWgsl from "./attention_dkv_subgroup.wgsl" with { type: "text" };
import dqSubgroupWgsl from "./attention_dq_subgroup.wgsl" with { type: "text" };
import dkvWorkgroupWgsl from "./attention_dkv_workgroup.wgsl" with { type: "text" };
import dqWorkgroupWgsl from "./attention_dq_workgroup.wgsl" with { type: "text" };
import forwardWorkgroupWgsl from "./attention_workgroup.wgsl" with { type: "text" };
import tileWgsl from "./attention_tile.wgsl" with { type: "text" };
import forwardSubgroupWgsl from "./attention_subgroup.wgsl" with { type: "text" };
import statsWgsl from "./attention_stats.wgsl" with { type: "text" };

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

/** A range of rows. */
interface Rows {
  readonly start: number;
  readonly end: number;
}

/** A kernel, and what is fixed for a head size: its constants, and the rows that one of its workgroups takes. */
interface Blocked {
  readonly kernel: Kernel;
  fix(headDim: number): { readonly rows: number; readonly constants: Readonly<Record<string, number>> };
}

const STATS: Kernel = { name: "attention stats", wgsl: statsWgsl };
const FORWARD = {
  subgroup: bySubgroup("attention", forwardSubgroupWgsl, [64, 64, 96]),
  workgroup: byWorkgroup("attention by tiles", forwardWorkgroupWgsl, 1, 2),
};
const DQ = {
  subgroup: bySubgroup("attention dq", dqSubgroupWgsl, [64, 64, 96]),
  workgroup: byWorkgroup("attention dq by tiles", dqWorkgroupWgsl, 2, 1),
};
const DKV = {
  subgroup: bySubgroup("attention dkv", dkvSubgroupWgsl, [32, 64, 96]),
  workgroup: byWorkgroup("attention dkv by tiles", dkvWorkgroupWgsl, 2, 2),
};

/** Quads of the tile in attention_tile.wgsl. */
const TILE_QUADS = 528;
/** Rows in one dispatch: its blocks of 8 stay below the 65535 workgroups of an axis. */
const LONGEST = 2 ** 18;
/** Of q, in elements, so that LONGEST rows have fewer than 2^32 quads. */
const WIDEST = 2 ** 16;

/**
 * Causal attention over the rows of all sequences of a batch (flash attention, arXiv 2205.14135: no scores in memory).
 * @param q (rows, heads * headDim), with positions applied
 * @param k (rows, kvHeads * headDim), as v
 * @param map which keys each query sees; the second half of the query heads is its shifted set
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
  check({ q, k, v }, map, shape);
  const { heads } = shape;
  const o = gpu.empty(q.shape, q.dtype, "attention o");
  const lse = gpu.empty([q.rows, heads], "f32", "attention lse");
  const keyRanges = rowRanges([k, v], LONGEST);
  for (const queries of rowRanges([q, o, lse], LONGEST)) {
    keyRanges.filter((keys) => overlap(queries, keys, map)).forEach((keys, turn) => {
      const [qPart, oPart, lsePart] = cut([q, o, lse], queries);
      const [kPart, vPart] = cut([k, v], keys);
      launch(gpu, FORWARD[gpu.sharing], [qPart!, kPart!, vPart!, map.first, oPart!, lsePart!], {
        queries,
        keys,
        grid: [queries, heads],
        resume: turn > 0,
        shape,
        map,
        scale,
      });
    });
  }
  return { o, lse };
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
  const { heads, kvHeads } = shape;
  const stats = rowStats(gpu, dO, o, lse, shape);
  const dq = gpu.empty(q.shape, q.dtype, "attention dq");
  const dk = gpu.empty(k.shape, k.dtype, "attention dk");
  const dv = gpu.empty(v.shape, v.dtype, "attention dv");
  const byQuery = [q, dO, stats, dq];
  const byKey = [k, v, dk, dv];
  const common = { shape, map, scale };
  for (const queries of rowRanges(byQuery, LONGEST)) {
    const [qPart, dOPart, statsPart, dqPart] = cut(byQuery, queries);
    rowRanges([k, v], LONGEST).filter((keys) => overlap(queries, keys, map)).forEach((keys, turn) => {
      const [kPart, vPart] = cut([k, v], keys);
      launch(gpu, DQ[gpu.sharing], [qPart!, kPart!, vPart!, dOPart!, statsPart!, map.first, dqPart!], {
        queries,
        keys,
        grid: [queries, heads],
        resume: turn > 0,
        ...common,
      });
    });
  }
  for (const keys of rowRanges(byKey, LONGEST)) {
    const [kPart, vPart, dkPart, dvPart] = cut(byKey, keys);
    rowRanges([q, dO, stats], LONGEST).filter((queries) => overlap(queries, keys, map)).forEach(
      (queries, turn) => {
        const [qPart, dOPart, statsPart] = cut([q, dO, stats], queries);
        launch(gpu, DKV[gpu.sharing], [
          qPart!,
          kPart!,
          vPart!,
          dOPart!,
          statsPart!,
          map.last,
          dkPart!,
          dvPart!,
        ], {
          queries,
          keys,
          grid: [keys, kvHeads],
          resume: turn > 0,
          ...common,
        });
      },
    );
  }
  stats.free();
  return { dq, dk, dv };
}

/** (rows, 2 * heads) f32: for each row and head lse and the sum of dO * O. */
function rowStats(gpu: Gpu, dO: Tensor, o: Tensor, lse: Tensor, { heads, headDim }: AttentionShape): Tensor {
  const stats = gpu.empty([o.rows, 2 * heads], "f32", "attention stats");
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
  return stats;
}

interface AttentionLaunch {
  readonly queries: Rows;
  readonly keys: Rows;
  /** The rows that the workgroups share out, and the heads. */
  readonly grid: readonly [Rows, number];
  /** Whether the outputs hold what came from earlier rows. */
  readonly resume: boolean;
  readonly shape: AttentionShape;
  readonly map: AttentionMap;
  readonly scale: number;
}

function launch(
  gpu: Gpu,
  { kernel, fix }: Blocked,
  tensors: readonly Tensor[],
  { queries, keys, grid: [shared, heads], resume, shape, map, scale }: AttentionLaunch,
): void {
  const { rows, constants } = fix(shape.headDim);
  gpu.run(kernel, tensors, {
    grid: [Math.ceil((shared.end - shared.start) / rows), heads],
    uniforms: {
      heads: shape.heads,
      kv_heads: shape.kvHeads,
      rows: map.rows,
      q_start: queries.start,
      q_rows: queries.end - queries.start,
      k_start: keys.start,
      k_rows: keys.end - keys.start,
      scale,
    },
    constants: { ...constants, RESUME: resume ? 1 : 0 },
    formats: { X: tensors[0]!.format },
  });
}

/**
 * @param largest head sizes up to which a lane holds 4, 3 and 2 rows: more rows share a load, but take longer to
 * compile (1 s or so at these), and from some point on spill
 */
function bySubgroup(name: string, wgsl: string, largest: readonly [number, number, number]): Blocked {
  return {
    kernel: { name, wgsl },
    fix(headDim) {
      const R = 4 - largest.filter((limit) => headDim > limit).length;
      return { rows: 8 * R, constants: { D4: headDim / 4, R } };
    },
  };
}

/**
 * @param PRODUCTS pairs of rows that the kernel multiplies into scores
 * @param STAGED kinds of rows that it sums by weights
 */
function byWorkgroup(name: string, wgsl: string, PRODUCTS: number, STAGED: number): Blocked {
  return {
    kernel: { name, wgsl, libraries: [tileWgsl] },
    fix(headDim) {
      const D4 = headDim / 4;
      const CHUNK = [8, 7, 6, 5, 4, 3, 2, 1].find((quads) => D4 % quads === 0)!;
      const STAGE = [32, 16, 8].find((rows) => rows * D4 <= TILE_QUADS)!;
      return { rows: 32, constants: { D4, CHUNK, STAGE, PRODUCTS, STAGED, SUMS: Math.ceil(D4 / 8) } };
    },
  };
}

function cut(tensors: readonly Tensor[], { start, end }: Rows): Tensor[] {
  return tensors.map((tensor) => tensor.slice(start, end));
}

/** Whether any of the queries sees any of the keys. */
function overlap(queries: Rows, keys: Rows, { tables: { first }, rows }: AttentionMap): boolean {
  const firstKey = Math.min(first[queries.start]!, first[rows + queries.start]!);
  return keys.start < queries.end && keys.end > firstKey;
}

function check(
  tensors: { q: Tensor; k: Tensor; v: Tensor; o?: Tensor; dO?: Tensor },
  map: AttentionMap,
  { heads, kvHeads, headDim }: AttentionShape,
): void {
  if (heads % kvHeads !== 0 || headDim % 4 !== 0 || headDim > 256 || heads * headDim > WIDEST) {
    throw new GpuError(
      `Cannot attend with ${heads} heads of ${headDim} and ${kvHeads} kv heads: kv heads must divide the heads, and ` +
        `a head have a multiple of 4 elements, 256 at most, all heads ${WIDEST} at most`,
    );
  }
  for (const [name, tensor] of Object.entries(tensors)) {
    const width = (name === "k" || name === "v" ? kvHeads : heads) * headDim;
    if (tensor.rows !== map.rows || tensor.width !== width || tensor.dtype !== tensors.q.dtype) {
      throw new GpuError(
        `Cannot attend: ${name} must be (${map.rows}, ${width}) ${tensors.q.dtype}, ` +
          `got (${tensor.rows}, ${tensor.width}) ${tensor.dtype}`,
      );
    }
  }
}
