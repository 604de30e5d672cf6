/** Products on matrix units: the tiles that there are, and the kernel for each. */
import { matrixTypes, type MatrixUnit } from "../shared/matrix.ts";
import type { Kernel } from "../wgsl.ts";
import matrixWgsl from "./matmul_matrix.wgsl" with { type: "text" };
import rangeWgsl from "./range_matrix.wgsl" with { type: "text" };

/** How a workgroup shares out its part of the result. */
export interface MatrixTile {
  readonly rows: number;
  readonly columns: number;
  /** Its subgroups, down and across. */
  readonly subgroups: readonly [number, number];
  /** Of both operands in workgroup memory at once. */
  readonly depth: number;
}

/** Tiles by name. */
export const MATRIX_TILES = {
  "matrix 128x128": { rows: 128, columns: 128, subgroups: [2, 2], depth: 32 },
  "matrix 128x64": { rows: 128, columns: 64, subgroups: [2, 2], depth: 32 },
  "matrix 64x64": { rows: 64, columns: 64, subgroups: [2, 2], depth: 32 },
  "matrix 32x32": { rows: 32, columns: 32, subgroups: [2, 2], depth: 64 },
} as const satisfies Record<string, MatrixTile>;

/** The kernel of a tile on a unit, and what it is made with. The operands' libraries go with it. */
export function matrixKernel(
  name: string,
  { rows, columns, subgroups: [down, across], depth }: MatrixTile,
  unit: MatrixUnit,
  libraries: readonly string[],
): { kernel: Kernel; constants: Readonly<Record<string, number>> } {
  const threads = down * across * unit.lanes;
  const sizes = `const ROWS = ${rows}u;
const COLUMNS = ${columns}u;
const DEPTH = ${depth}u;
const SUBGROUPS_DOWN = ${down}u;
const SUBGROUPS_ACROSS = ${across}u;
const SUBGROUPS = ${down * across}u;`;
  return {
    kernel: { name, wgsl: matrixWgsl, libraries: [sizes, matrixTypes(unit), rangeWgsl, ...libraries] },
    constants: {
      DOWN: rows / down / unit.M,
      ACROSS: columns / across / unit.N,
      A_BLOCKS: rows * depth / 16 / threads,
      B_BLOCKS: columns * depth / 16 / threads,
    },
  };
}
