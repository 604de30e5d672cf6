/** Products on matrix units: which tiles there are, and what they are made of on one device. */
import type { Gpu } from "../../gpu.ts";
import { largestMagnitudes, matrixPieces, type MatrixUnit, matrixUnit } from "../../shared/matrix_unit.ts";
import { runTile, type Tile } from "../run_tile.ts";
import type { Product, ProductKind, Variant } from "../variant.ts";
import matrixWgsl from "./matrix.wgsl" with { type: "text" };
import rangeWgsl from "./range_matrix.wgsl" with { type: "text" };

/** Subgroups of a workgroup, down and across its tile. */
const [SUBGROUPS_DOWN, SUBGROUPS_ACROSS] = [2, 2];
const SUBGROUPS = SUBGROUPS_DOWN * SUBGROUPS_ACROSS;

/**
 * Matrices that a subgroup may sum, and the least depth of a step. More matrices do not fit in the registers of a GPU;
 * a processor's driver, which writes out the lanes of each product, takes minutes to compile more.
 */
const BOUNDS = { gpu: { most: 16, depth: 32 }, software: { most: 4, depth: 8 } } as const;

/** On matrix units, for operands of 16 bits. From the largest. */
export const BY_MATRIX: readonly Variant[] = [
  matrixTile(128, 128),
  matrixTile(128, 64),
  matrixTile(64, 64),
  matrixTile(32, 32),
];

/** Whether products of this kind may run on matrix units here. */
export function usesMatrices(gpu: Gpu, { format }: Pick<ProductKind, "format">): boolean {
  return format !== "f32" && matrixUnit(gpu.info) !== undefined && !gpu.refused.has("matmul by matrices");
}

/** Subgroups multiply matrices of f16, to whose range the operands are scaled first. */
function matrixTile(rows: number, columns: number): Variant {
  return {
    name: `matrix ${rows}x${columns}`,
    risk: "matmul by matrices",
    fits(gpu, kind) {
      const unit = matrixUnit(gpu.info);
      return kind.form.families.includes("matrix") && usesMatrices(gpu, kind) && unit !== undefined &&
        fitsDevice(gpu, unit, rows, columns);
    },
    run(gpu, product) {
      const scaled = scaledOperands(product);
      const largest = largestMagnitudes(gpu, scaled);
      const [A_SCALED, B_SCALED] = scaled.map(Boolean) as [boolean, boolean];
      const tile = tileOf(gpu, matrixUnit(gpu.info)!, rows, columns);
      runTile(gpu, tile, product, { tensors: { largest }, constants: { A_SCALED, B_SCALED } });
      largest.free();
    },
  };
}

/** Operands A and B where they have to be scaled: f16 and what is quantised are in range as they are. */
function scaledOperands({ a, b }: Product) {
  return [a.format !== "f16" && a, b.format !== undefined && b.format !== "f16" && b.tensors.b!] as const;
}

function tileOf(gpu: Gpu, unit: MatrixUnit, rows: number, columns: number): Tile {
  const { depth, matrices, blocks } = make(gpu, unit, rows, columns);
  const { libraries, constants } = matrixPieces(unit);
  return {
    name: `matrix_${rows}x${columns}`,
    family: "matrix",
    rows,
    columns,
    // As if subgroups had the 32 lanes that most GPUs' have.
    threads: 32 * SUBGROUPS,
    wgsl: matrixWgsl,
    libraries: [...libraries, rangeWgsl],
    constants: {
      ...constants,
      ROWS: rows,
      COLUMNS: columns,
      DEPTH: depth,
      SUBGROUPS_DOWN,
      SUBGROUPS_ACROSS,
      SUBGROUPS,
      DOWN: matrices[0],
      ACROSS: matrices[1],
      A_BLOCKS: blocks[0],
      B_BLOCKS: blocks[1],
    },
  };
}

/** Whether the matrices and lanes of the unit divide the tile, and the device has the memory for it. */
function fitsDevice(gpu: Gpu, unit: MatrixUnit, rows: number, columns: number): boolean {
  const { maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupStorageSize } = gpu.limits;
  const { depth, matrices: [down, across], blocks } = make(gpu, unit, rows, columns);
  const bytes = 2 * (rows + columns) * (depth + 8) + 4 * SUBGROUPS * unit.M * unit.N;
  return [down, across, ...blocks, depth / unit.K].every(Number.isInteger) &&
    down * across <= boundsOf(gpu).most &&
    SUBGROUPS * unit.lanes <= maxComputeInvocationsPerWorkgroup &&
    // The table of NF4 and what a compiler adds.
    bytes + 128 <= maxComputeWorkgroupStorageSize;
}

/** Sizes of a tile on one device. */
interface Made {
  /** Bytes of both operands in workgroup memory at once. */
  readonly depth: number;
  /** Matrices that a subgroup sums, down and across. */
  readonly matrices: readonly [number, number];
  /** Blocks of 4 x 4 of A and of B that a thread loads for one step. */
  readonly blocks: readonly [number, number];
}

function make(gpu: Gpu, { M, N, lanes }: MatrixUnit, rows: number, columns: number): Made {
  const threads = SUBGROUPS * lanes;
  // Every thread has a block of each operand to load.
  const depth = Math.max(boundsOf(gpu).depth, 16 * threads / Math.min(rows, columns));
  return {
    depth,
    matrices: [rows / SUBGROUPS_DOWN / M, columns / SUBGROUPS_ACROSS / N],
    blocks: [rows * depth / 16 / threads, columns * depth / 16 / threads],
  };
}

function boundsOf(gpu: Gpu) {
  return BOUNDS[gpu.info.isSoftware ? "software" : "gpu"];
}
