/** Products on matrix units: which tiles there are, and their source. */
import type { Gpu } from "../gpu.ts";
import { matrixLibraries, type MatrixUnit, matrixUnit } from "../shared/matrix_unit.ts";
import type { Program } from "./variants.ts";
import matrixWgsl from "./matmul_matrix.wgsl" with { type: "text" };
import rangeWgsl from "./range_matrix.wgsl" with { type: "text" };

/** How a workgroup makes its part of the result. */
export interface MatrixTile {
  readonly rows: number;
  readonly columns: number;
}

/** What a tile is made of on one device. */
interface Made {
  /** Of both operands in workgroup memory at once. */
  readonly depth: number;
  /** Matrices that a subgroup sums, down and across. */
  readonly matrices: readonly [number, number];
  /** Blocks of 4 x 4 of A and of B that a thread loads for one step. */
  readonly blocks: readonly [number, number];
}

/** Subgroups of a workgroup, down and across its tile. */
const [DOWN, ACROSS] = [2, 2];

/**
 * Matrices that a subgroup may sum, and the least depth of a step. More matrices do not fit in the registers of a GPU;
 * a processor's driver, which writes out the lanes of each product, takes minutes to compile more.
 */
const BOUNDS = { gpu: { most: 16, depth: 32 }, software: { most: 4, depth: 8 } } as const;

/** Tiles from the largest. */
export const MATRIX_TILES: readonly MatrixTile[] = [
  { rows: 128, columns: 128 },
  { rows: 128, columns: 64 },
  { rows: 64, columns: 64 },
  { rows: 32, columns: 32 },
];

/** Whether the device has matrix units whose matrices and lanes divide the tile, and the memory for it. */
export function matrixTileFits(gpu: Gpu, tile: MatrixTile): boolean {
  const unit = matrixUnit(gpu.info);
  if (!unit) return false;
  const { maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupStorageSize } = gpu.limits;
  const { depth, matrices: [down, across], blocks } = make(gpu, tile, unit);
  const bytes = 2 * (tile.rows + tile.columns) * (depth + 8) + 4 * DOWN * ACROSS * unit.M * unit.N;
  return [down, across, ...blocks, depth / unit.K].every(Number.isInteger) &&
    down * across <= boundsOf(gpu).most &&
    DOWN * ACROSS * unit.lanes <= maxComputeInvocationsPerWorkgroup &&
    // The table of NF4 and what a compiler adds.
    bytes + 128 <= maxComputeWorkgroupStorageSize;
}

/** The program of a tile; `libraries` read the operands and store the result. */
export function matrixProgram(
  gpu: Gpu,
  name: string,
  tile: MatrixTile,
  libraries: readonly string[],
): Program {
  const unit = matrixUnit(gpu.info)!;
  const { depth, matrices, blocks } = make(gpu, tile, unit);
  const sizes = `const ROWS = ${tile.rows}u;
const COLUMNS = ${tile.columns}u;
const DEPTH = ${depth}u;
const SUBGROUPS_DOWN = ${DOWN}u;
const SUBGROUPS_ACROSS = ${ACROSS}u;
const SUBGROUPS = ${DOWN * ACROSS}u;`;
  return {
    kernel: {
      name: `${name}_matrix_${tile.rows}x${tile.columns}`,
      wgsl: matrixWgsl,
      libraries: [sizes, ...matrixLibraries(unit), rangeWgsl, ...libraries],
    },
    constants: { DOWN: matrices[0], ACROSS: matrices[1], A_BLOCKS: blocks[0], B_BLOCKS: blocks[1] },
  };
}

function make(gpu: Gpu, { rows, columns }: MatrixTile, { M, N, lanes }: MatrixUnit): Made {
  const threads = DOWN * ACROSS * lanes;
  // Every thread has a block of each operand to load.
  const depth = Math.max(boundsOf(gpu).depth, 16 * threads / Math.min(rows, columns));
  return {
    depth,
    matrices: [rows / DOWN / M, columns / ACROSS / N],
    blocks: [rows * depth / 16 / threads, columns * depth / 16 / threads],
  };
}

function boundsOf(gpu: Gpu) {
  return BOUNDS[gpu.info.isSoftware ? "software" : "gpu"];
}
