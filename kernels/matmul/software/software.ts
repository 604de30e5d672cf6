import type { Layout } from "../../weight.ts";
import { runTile, type Tile } from "../run_tile.ts";
import tileOfWgsl from "../tile_of.wgsl" with { type: "text" };
import type { Variant } from "../variant.ts";
import narrowWgsl from "./narrow.wgsl" with { type: "text" };
import shareAWgsl from "./share_a.wgsl" with { type: "text" };
import shareATransposedWgsl from "./share_a_transposed.wgsl" with { type: "text" };
import tileWgsl from "./tile.wgsl" with { type: "text" };

/** Subgroups of 8, each for itself: for adapters that run on the CPU. */
export const BY_SUBGROUP: readonly Variant[] = [
  bySubgroup(4),
  bySubgroup(2),
  bySubgroup(1),
  narrowTile(1),
  narrowTile(2),
];

/** A tile of 32 columns whose lanes own columns and share rows. @param groups rows of the tile by 8 */
export function subgroupTile(groups: number, layout: Layout): Tile {
  return {
    name: "subgroup",
    family: "subgroup",
    rows: 8 * groups,
    columns: 32,
    threads: 8,
    wgsl: tileWgsl,
    libraries: [tileOfWgsl, layout === "tn" ? shareATransposedWgsl : shareAWgsl],
    constants: { GROUPS: groups },
  };
}

function bySubgroup(groups: number): Variant {
  return {
    name: `subgroup ${8 * groups}x32`,
    risk: "matmul by subgroups",
    fits: (gpu, { form }) => form.families.includes("subgroup") && gpu.info.subgroupSize >= 8,
    run: (gpu, product) => runTile(gpu, ({ layout }) => subgroupTile(groups, layout), product),
  };
}

/** Lanes own rows and share columns. @param groups columns of a tile by 8 */
function narrowTile(groups: number): Variant {
  const tile: Tile = {
    name: "narrow_subgroup",
    family: "narrow subgroup",
    rows: 32,
    columns: 8 * groups,
    threads: 8,
    wgsl: narrowWgsl,
    constants: { GROUPS: groups },
  };
  return {
    name: `subgroup 32x${8 * groups}`,
    risk: "matmul by subgroups",
    fits: (gpu, { form }) => form.families.includes("narrow subgroup") && gpu.info.subgroupSize >= 8,
    run: (gpu, product) => runTile(gpu, () => tile, product),
  };
}
