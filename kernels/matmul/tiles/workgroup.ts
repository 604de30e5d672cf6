import { runTile, type Tile } from "../run_tile.ts";
import type { Variant } from "../variant.ts";
import workgroupWgsl from "./workgroup.wgsl" with { type: "text" };

/** Tiles in workgroup memory: for GPUs. */
export const BY_WORKGROUP: readonly Variant[] = [
  workgroupTile({ threads: [16, 16], quads: [2, 2] }),
  workgroupTile({ threads: [16, 8], quads: [2, 2] }),
  workgroupTile({ threads: [8, 8], quads: [2, 2] }),
  workgroupTile({ threads: [16, 16], quads: [1, 1] }),
  workgroupTile({ threads: [8, 8], quads: [1, 2] }),
  workgroupTile({ threads: [4, 32], quads: [1, 1] }),
  workgroupTile({ threads: [32, 4], quads: [1, 1] }),
];

/**
 * Threads own squares of the tile; named by the tile and by what a thread sums.
 * @param threads along the rows and the columns
 * @param quads of rows and of columns that each thread sums
 */
function workgroupTile({ threads: [THREAD_ROWS, THREAD_COLS], quads: [ROW_QUADS, COL_QUADS] }: {
  readonly threads: readonly [number, number];
  readonly quads: readonly [number, number];
}): Variant {
  const [rows, columns] = [4 * THREAD_ROWS * ROW_QUADS, 4 * THREAD_COLS * COL_QUADS];
  const name = `workgroup ${rows}x${columns} ${4 * ROW_QUADS}x${4 * COL_QUADS}`;
  const threads = THREAD_ROWS * THREAD_COLS;
  /** Both operands 16 deep, and the table of NF4's values. */
  const storageBytes = 64 * (rows + columns) + 64;
  const tile: Tile = {
    name: name.replaceAll(" ", "_"),
    family: "workgroup",
    rows,
    columns,
    threads,
    wgsl: workgroupWgsl,
    constants: { THREAD_ROWS, THREAD_COLS, ROW_QUADS, COL_QUADS },
  };
  return {
    name,
    fits: ({ limits }, { form }) =>
      form.families.includes("workgroup") &&
      limits.maxComputeInvocationsPerWorkgroup >= threads &&
      limits.maxComputeWorkgroupStorageSize >= storageBytes,
    run: (gpu, product) => runTile(gpu, tile, product),
  };
}
