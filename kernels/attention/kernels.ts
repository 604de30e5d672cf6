import type { Kernel } from "../wgsl.ts";
import dkvSubgroupWgsl from "./attention_dkv_subgroup.wgsl" with { type: "text" };
import dkvWorkgroupWgsl from "./attention_dkv_workgroup.wgsl" with { type: "text" };
import dqSubgroupWgsl from "./attention_dq_subgroup.wgsl" with { type: "text" };
import dqWorkgroupWgsl from "./attention_dq_workgroup.wgsl" with { type: "text" };
import statsWgsl from "./attention_stats.wgsl" with { type: "text" };
import forwardSubgroupWgsl from "./attention_subgroup.wgsl" with { type: "text" };
import tileWgsl from "./attention_tile.wgsl" with { type: "text" };
import forwardWorkgroupWgsl from "./attention_workgroup.wgsl" with { type: "text" };

/** A kernel, and what is fixed for a head size: its constants, and the rows that one of its workgroups takes. */
export interface Blocked {
  readonly kernel: Kernel;
  fix(headDim: number): { readonly rows: number; readonly constants: Readonly<Record<string, number>> };
}

/** Quads of the tile in attention_tile.wgsl. */
const TILE_QUADS = 528;

export const STATS: Kernel = { name: "attention stats", wgsl: statsWgsl };
/** Forward, by how the device shares operands. */
export const FORWARD = {
  subgroup: bySubgroup("attention", forwardSubgroupWgsl, [64, 64, 96]),
  workgroup: byWorkgroup("attention by tiles", forwardWorkgroupWgsl, 1, 2),
};
/** Gradient of the queries. */
export const DQ = {
  subgroup: bySubgroup("attention dq", dqSubgroupWgsl, [64, 64, 96]),
  workgroup: byWorkgroup("attention dq by tiles", dqWorkgroupWgsl, 2, 1),
};
/** Gradients of the keys and values. */
export const DKV = {
  subgroup: bySubgroup("attention dkv", dkvSubgroupWgsl, [32, 64, 96]),
  workgroup: byWorkgroup("attention dkv by tiles", dkvWorkgroupWgsl, 2, 2),
};

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
