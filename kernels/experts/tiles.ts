/** Which tiles work on the rows of experts. */
import type { Gpu } from "../gpu.ts";
import type { Tile } from "../matmul/run_tile.ts";
import { subgroupTile } from "../matmul/software/software.ts";
import { directTile, workgroupTile } from "../matmul/tiles/workgroup.ts";
import { sharingOf } from "../shared/sharing.ts";
import type { Layout } from "../weight.ts";

/** Rows of the tiles that there are. */
const ROWS = { subgroup: [8, 16, 32], workgroup: [16, 64] } as const;

/** Chooses the rows of a tile where experts have `rows` rows on average: as few as hold these, or the most. */
export function tileRowsFor(gpu: Gpu, rows: number): number {
  const sizes = ROWS[sharingOf(gpu, "matmul")];
  return sizes.find((size) => rows <= size) ?? sizes.at(-1)!;
}

/** The tile of so many rows. */
export function tileOf(gpu: Gpu, rows: number, layout: Layout): Tile {
  if (sharingOf(gpu, "matmul") === "subgroup") return subgroupTile(rows / 8, layout);
  return rows === 16
    ? directTile(4, 16, layout)
    : workgroupTile({ threads: [16, 16], quads: [1, 1], step: 2 }, layout);
}

/** The tile of a product over the rows of each expert. */
export function depthTile(gpu: Gpu): Tile {
  return tileOf(gpu, ROWS[sharingOf(gpu, "matmul")].at(-1)!, "tn");
}
