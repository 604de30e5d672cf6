import type { Layout } from "../../weight.ts";
import innerWgsl from "../operands/inner.wgsl" with { type: "text" };
import innerLinesWgsl from "../operands/inner_lines.wgsl" with { type: "text" };
import pairWgsl from "../operands/pair.wgsl" with { type: "text" };
import quadsWgsl from "../operands/quads.wgsl" with { type: "text" };
import { runTile, type Tile } from "../run_tile.ts";
import tileOfWgsl from "../tile_of.wgsl" with { type: "text" };
import type { InnerProduct, Variant } from "../variant.ts";
import directWgsl from "./direct.wgsl" with { type: "text" };
import workgroupWgsl from "./workgroup.wgsl" with { type: "text" };

/** Tiles in workgroup memory, or in the first cache: for GPUs. */
export const BY_WORKGROUP: readonly Variant[] = [
  byWorkgroup({ threads: [16, 16], quads: [2, 1] }),
  byWorkgroup({ threads: [16, 16], quads: [1, 1] }),
  byWorkgroup({ threads: [16, 16], quads: [2, 1], step: 2 }),
  byWorkgroup({ threads: [16, 16], quads: [2, 2], step: 2 }),
  byWorkgroup({ threads: [32, 8], quads: [1, 1] }),
  byWorkgroup({ threads: [8, 32], quads: [1, 1] }),
  byWorkgroup({ threads: [4, 32], quads: [1, 1] }),
  byWorkgroup({ threads: [32, 4], quads: [1, 1] }),
  direct(8, 8),
  direct(4, 16),
];

/** Shape of a tile in workgroup memory. */
interface TileShape {
  /** Threads along the rows and the columns. */
  readonly threads: readonly [number, number];
  /** Quads of rows and of columns that each thread sums. */
  readonly quads: readonly [number, number];
  /** Quads along the depth in a step: 4 unless given, or 2, which takes half of the memory. */
  readonly step?: 2 | 4;
}

/** Threads own squares of the tile; named by the tile, by what a thread sums, and by the depth of a step if it is 8. */
export function workgroupTile(
  { threads: [THREAD_ROWS, THREAD_COLS], quads, step: STEP = 4 }: TileShape,
  layout: Layout,
  inner?: InnerProduct,
): Tile {
  const [ROW_QUADS, COL_QUADS] = quads;
  const [rows, columns] = [4 * THREAD_ROWS * ROW_QUADS, 4 * THREAD_COLS * COL_QUADS];
  const name = `workgroup ${rows}x${columns} ${4 * ROW_QUADS}x${4 * COL_QUADS}${STEP === 2 ? " by 8" : ""}`;
  const threads = THREAD_ROWS * THREAD_COLS;
  return {
    name: name.replaceAll(" ", "_"),
    family: "workgroup",
    rows,
    columns,
    threads,
    wgsl: workgroupWgsl,
    libraries: [tileOfWgsl, quadsWgsl, pairWgsl, ...(inner ? [innerLinesWgsl, innerWgsl] : [])],
    constants: {
      ...alongDepth(layout),
      FIRST_PAIR: inner ? 0 : 1,
      DROPS_INNER: inner?.mask !== undefined,
      THREAD_ROWS,
      THREAD_COLS,
      ROW_QUADS,
      COL_QUADS,
      STEP,
      A_LOADS: Math.ceil(rows * STEP / threads),
      B_LOADS: Math.ceil(columns * STEP / threads),
      LANE_COLS: Math.min(8, THREAD_COLS),
    },
  };
}

function byWorkgroup(shape: TileShape): Variant {
  const { name, rows, columns, threads } = workgroupTile(shape, "nt");
  /** Both operands of two steps, each quad of the depth with its padding, and the table of NF4's values. */
  const storageBytes = 2 * (shape.step ?? 4) * 16 * (rows + 4 + columns + 4) + 64;
  return {
    name: name.replaceAll("_", " "),
    fuses: true,
    fits: ({ limits }, { form }) =>
      form.families.includes("workgroup") &&
      limits.maxComputeInvocationsPerWorkgroup >= threads &&
      limits.maxComputeWorkgroupStorageSize >= storageBytes,
    run: (gpu, product) => runTile(gpu, ({ layout, inner }) => workgroupTile(shape, layout, inner), product),
  };
}

/** Without workgroup memory: each thread sums 4 x 4. @param threadRows threads along the rows */
export function directTile(threadRows: number, threadColumns: number, layout: Layout): Tile {
  const [rows, columns] = [4 * threadRows, 4 * threadColumns];
  return {
    name: `direct_${rows}x${columns}`,
    family: "workgroup",
    rows,
    columns,
    threads: threadRows * threadColumns,
    wgsl: directWgsl,
    libraries: [tileOfWgsl, quadsWgsl],
    constants: { ...alongDepth(layout), THREAD_ROWS: threadRows, THREAD_COLS: threadColumns },
  };
}

function direct(threadRows: number, threadColumns: number): Variant {
  const { name } = directTile(threadRows, threadColumns, "nt");
  return {
    name: name.replaceAll("_", " "),
    fits: (_, { form }) => form.families.includes("workgroup"),
    run: (gpu, product) =>
      runTile(gpu, ({ layout }) => directTile(threadRows, threadColumns, layout), product),
  };
}

/** Whether the operands' quads lie along the depth. */
function alongDepth(layout: Layout) {
  return { A_ALONG: layout !== "tn", B_ALONG: layout === "nt" };
}
