/** Products on matrix units: which tiles there are, and what they are made of on one device. */
import type { Gpu } from "../../gpu.ts";
import { type MatrixUnit, matrixUnit, onUnit, unitConstants } from "../../shared/matrix_unit.ts";
import { halvesFirst } from "../halves_first.ts";
import aFactorsWgsl from "../operands/a_factors_matrix.wgsl" with { type: "text" };
import { innerOctetPieces } from "../operands/octets.ts";
import { runTile, type Tile } from "../run_tile.ts";
import tileOfWgsl from "../tile_of.wgsl" with { type: "text" };
import type { Product, ProductKind, Variant } from "../variant.ts";
import matrixWgsl from "./matrix.wgsl" with { type: "text" };

/** Shape of a tile on matrix units. */
interface TileShape {
  readonly rows: number;
  readonly columns: number;
  /** Subgroups of a workgroup, down and across the tile. */
  readonly subgroups: readonly [number, number];
  /** Depth of a step; more where each thread would not have a pack of each operand to load. */
  readonly depth: number;
}

/**
 * Matrices that a subgroup may sum. More do not fit in the registers of a GPU; a processor's driver, which writes out the
 * lanes of each product, takes minutes to compile more.
 */
const MOST_MATRICES = { gpu: 16, software: 4 } as const;

/** Most matrices of a row that leave through workgroup memory together: fewer barriers, more memory. */
const MOST_STAGED = 4;

/** On matrix units, for operands of 16 bits. From the largest. */
export const BY_MATRIX: readonly Variant[] = [
  matrixTile(128, 256, [2, 4]),
  matrixTile(128, 128, [2, 4]),
  matrixTile(128, 128, [2, 2]),
  matrixTile(128, 128, [2, 2], 16),
  matrixTile(64, 128, [2, 2]),
  matrixTile(128, 64, [2, 2]),
  matrixTile(64, 64, [2, 4]),
  matrixTile(64, 64, [2, 2]),
  matrixTile(32, 32, [2, 2], 8),
].flatMap((tile) => [tile, halvesFirst(tile)]);

/** Whether products of this kind may run on matrix units here. */
export function usesMatrices(gpu: Gpu, { format }: Pick<ProductKind, "format">): boolean {
  return format !== "f32" && matrixUnit(gpu.info) !== undefined && !gpu.refused.has("matmul by matrices");
}

/** Named by the tile, by its subgroups if they are not the usual 8 of a large one or 4 of others, and by its depth if that is 16. */
function matrixTile(
  rows: number,
  columns: number,
  subgroups: readonly [number, number],
  depth = 32,
): Variant {
  const shape: TileShape = { rows, columns, subgroups, depth };
  const count = subgroups[0] * subgroups[1];
  const by = count === (rows * columns >= 2 ** 14 ? 8 : 4) ? "" : ` by ${count}`;
  const name = `matrix ${rows}x${columns}${by}${depth === 16 ? " depth 16" : ""}`;
  return {
    name,
    fuses: true,
    risk: "matmul by matrices",
    fits(gpu, kind) {
      const unit = matrixUnit(gpu.info);
      return kind.form.families.includes("matrix") && usesMatrices(gpu, kind) && unit !== undefined &&
        make(gpu, unit, shape) !== undefined;
    },
    run(gpu, product) {
      const unit = matrixUnit(gpu.info)!;
      const made = make(gpu, unit, shape)!;
      runTile(gpu, (each) => tileOf(name, unit, shape, made, each), product);
    },
  };
}

/** Sizes of a tile on one device. */
interface Made {
  readonly depth: number;
  /** Matrices that a subgroup sums, down and across. */
  readonly matrices: readonly [number, number];
  /** Packs of A and of B (an octet of two lines) that a thread loads for one step. */
  readonly packs: readonly [number, number];
  /** Matrices of a row that leave together. */
  readonly staged: number;
}

function tileOf(
  name: string,
  unit: MatrixUnit,
  shape: TileShape,
  made: Made,
  { layout, inner, aFactors }: Product,
): Tile {
  const { rows, columns, subgroups: [down, across] } = shape;
  const { depth, matrices, packs, staged } = made;
  const { wgsl, libraries } = onUnit(unit, matrixWgsl);
  const pieces = inner && innerOctetPieces(layout);
  return {
    // With factors it is another kernel of the same constants.
    name: `${name}${aFactors ? " of halves" : ""}`.replaceAll(" ", "_"),
    family: "matrix",
    rows,
    columns,
    // As if subgroups had the 32 lanes that most GPUs' have.
    threads: 32 * down * across,
    wgsl,
    libraries: [
      ...libraries,
      tileOfWgsl,
      ...(pieces?.libraries ?? []),
      aFactors ? aFactorsWgsl : "fn a_factor(row: u32) -> f32 { return 1.0; }",
    ],
    constants: {
      ...unitConstants(unit),
      ...pieces?.constants,
      FIRST_PAIR: inner ? 0 : 1,
      DROPS_INNER: inner?.mask !== undefined,
      ROWS: rows,
      COLUMNS: columns,
      DEPTH: depth,
      SUBGROUPS_DOWN: down,
      SUBGROUPS_ACROSS: across,
      SUBGROUPS: down * across,
      DOWN: matrices[0],
      STAGED: staged,
      ROUNDS: matrices[1] / staged,
      A_PACKS: packs[0],
      B_PACKS: packs[1],
      A_ALONG: layout !== "tn",
    },
  };
}

/** Sizes of the tile here; `undefined` unless matrices and lanes divide it, and the device has the memory for it. */
function make(gpu: Gpu, { M, N, K, lanes }: MatrixUnit, shape: TileShape): Made | undefined {
  const { rows, columns, subgroups: [down, across] } = shape;
  const threads = down * across * lanes;
  const depth = Math.max(shape.depth, 16 * threads / Math.min(rows, columns));
  const matrices = [rows / down / M, columns / across / N] as const;
  const packs = [rows * depth / 16 / threads, columns * depth / 16 / threads] as const;
  const { maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupStorageSize } = gpu.limits;
  // Besides the operands: the table of NF4, the largest magnitudes and what a compiler adds.
  const left = maxComputeWorkgroupStorageSize - 2 * (rows + columns) * (depth + 8) - 192;
  const staged = Array.from({ length: MOST_STAGED }, (_, i) => MOST_STAGED - i)
    .find((staged) => matrices[1] % staged === 0 && down * across * M * 4 * (staged * N + 4) <= left);
  const most = MOST_MATRICES[gpu.info.isSoftware ? "software" : "gpu"];
  // Threads that share quads of a turned operand are depth / 8 lanes apart.
  const isWhole = [...matrices, ...packs, depth / K, depth / 8, lanes / (depth / 4)].every(Number.isInteger);
  return isWhole && staged && matrices[0] * matrices[1] <= most &&
      threads <= maxComputeInvocationsPerWorkgroup
    ? { depth, matrices, packs, staged }
    : undefined;
}
