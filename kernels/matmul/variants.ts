/**
 * The kernels that a product can run on, and which serves what: every variant is a source, the tile of the result
 * that one workgroup makes, and what it needs of the device.
 */
import type { Gpu, Sharing } from "../gpu.ts";
import { matrixUnit } from "../shared/matrix_unit.ts";
import { BLOCK } from "../nf4/format.ts";
import { chosenVariant, type Tunable } from "../tuning.ts";
import type { Format, Kernel } from "../wgsl.ts";
import { MATRIX_TILES, matrixProgram, type MatrixTile, matrixTileFits } from "./matrix.ts";
import depthDenseWgsl from "./depth_dense.wgsl" with { type: "text" };
import depthNf4Wgsl from "./depth_nf4.wgsl" with { type: "text" };
import depthNf4StridedWgsl from "./depth_nf4_strided.wgsl" with { type: "text" };
import narrowSubgroupWgsl from "./narrow_subgroup.wgsl" with { type: "text" };
import nf4ShuffleWgsl from "../nf4/shuffle.wgsl" with { type: "text" };
import nf4TableWgsl from "../nf4/table.wgsl" with { type: "text" };
import nf4WordsWgsl from "./nf4_words.wgsl" with { type: "text" };
import operandAWgsl from "./operand_a.wgsl" with { type: "text" };
import operandAStridedWgsl from "./operand_a_strided.wgsl" with { type: "text" };
import operandBWgsl from "./operand_b.wgsl" with { type: "text" };
import operandBNf4Wgsl from "./operand_b_nf4.wgsl" with { type: "text" };
import operandBNf4StridedWgsl from "./operand_b_nf4_strided.wgsl" with { type: "text" };
import operandBStridedWgsl from "./operand_b_strided.wgsl" with { type: "text" };
import resultWgsl from "./result.wgsl" with { type: "text" };
import shareAWgsl from "./share_a.wgsl" with { type: "text" };
import shareAStridedWgsl from "./share_a_strided.wgsl" with { type: "text" };
import shareBWgsl from "./share_b.wgsl" with { type: "text" };
import shareBStridedWgsl from "./share_b_strided.wgsl" with { type: "text" };
import subgroupWgsl from "./matmul_subgroup.wgsl" with { type: "text" };
import workgroupWgsl from "./matmul_workgroup.wgsl" with { type: "text" };

/** Which operands are transposed in memory: x W^T, dy W, dy^T x. */
export type Layout = "nt" | "nn" | "tn";

/** How operand B lies in memory. */
export type WeightKind = "dense" | "nf4";

/** The sizes of a product: C (rows, columns) sums over `depth`. */
export interface ProductShape {
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
}

/** What a product asks of its kernel. */
export interface ProductKind {
  readonly layout: Layout;
  readonly weight: WeightKind;
  /** Weights of a row of B in NF4, counted from its first, that share a scale: a block where rows are whole blocks. */
  readonly stretch: number;
  /** Format of operand A. Matrix units round operands to f16, which is for those who work in 16 bits. */
  readonly format: Format;
}

/** One way to run products. */
export interface Variant {
  readonly name: string;
  /** Rows and columns of C that one workgroup makes. */
  readonly tile: { readonly rows: number; readonly columns: number };
  /** Threads of that workgroup. */
  readonly threads: number;
  /** Whether it can run on this device, and serve this kind of product. */
  fits(gpu: Gpu, kind: ProductKind): boolean;
  /** Whether it binds the largest magnitudes of both operands, last. */
  readonly isScaled?: boolean;
  /** Source and constants, but for the libraries by which operand B is bound. */
  program(gpu: Gpu, kind: ProductKind): Program;
}

export interface Program {
  readonly kernel: Kernel;
  readonly constants: Readonly<Record<string, number>>;
}

/** A class of products; `shape` is one of its kind, for measuring. */
export interface MatmulTunable extends Tunable {
  readonly layout: Layout;
  readonly weight: WeightKind;
  readonly format: Format;
  readonly shape: ProductShape;
}

const SIZES = ["8 rows", "16 rows", "8 columns", "16 columns", "large", "medium"] as const;

/** A product's size: rows or columns up to so many (a batch being decoded, a LoRA rank), else many or fewer of both. */
type Size = typeof SIZES[number];

/** Elements of C from which the largest tiles still make a few hundred workgroups. */
const LARGE = 2 ** 22;

/** Subgroups of 8, each for itself: for adapters that run on the CPU. */
const BY_SUBGROUP: readonly Variant[] = [
  subgroupTile(4),
  subgroupTile(2),
  subgroupTile(1),
  narrowSubgroupTile(1),
  narrowSubgroupTile(2),
];

/** Tiles in workgroup memory: for GPUs. */
const BY_WORKGROUP: readonly Variant[] = [
  workgroupTile({ threads: [16, 16], quads: [2, 2] }),
  workgroupTile({ threads: [16, 8], quads: [2, 2] }),
  workgroupTile({ threads: [8, 8], quads: [2, 2] }),
  workgroupTile({ threads: [16, 16], quads: [1, 1] }),
  workgroupTile({ threads: [8, 8], quads: [1, 2] }),
  workgroupTile({ threads: [4, 32], quads: [1, 1] }),
  workgroupTile({ threads: [32, 4], quads: [1, 1] }),
];

/** On matrix units, for operands of 16 bits. */
const BY_MATRIX: readonly Variant[] = MATRIX_TILES.map(matrixTile);

/** Names of the variants to try first on matrix units, where those are not the processor's. */
const MATRIX_DEFAULTS: Partial<Record<Size, string>> = { large: "matrix 128x128", medium: "matrix 64x64" };

/** Names of the variants to try first, by how the device shares operands. */
const DEFAULTS: Record<Sharing, Record<Size, string>> = {
  subgroup: {
    "8 rows": "subgroup 8x32",
    "16 rows": "subgroup 16x32",
    "8 columns": "subgroup 32x8",
    "16 columns": "subgroup 32x16",
    large: "subgroup 32x32",
    medium: "subgroup 32x32",
  },
  workgroup: {
    "8 rows": "workgroup 16x128 4x4",
    "16 rows": "workgroup 16x128 4x4",
    "8 columns": "workgroup 128x16 4x4",
    "16 columns": "workgroup 128x16 4x4",
    large: "workgroup 128x128 8x8",
    medium: "workgroup 64x64 8x8",
  },
};

/** The variant for a product: the tuned one of its class, else the default. */
export function variantFor(gpu: Gpu, kind: ProductKind, shape: ProductShape): Variant {
  const tunable = tunableOf(gpu, kind, sizeOf(shape));
  const name = chosenVariant(gpu.tuning, tunable);
  return variantsOf(gpu, kind).find((variant) => variant.name === name)!;
}

/**
 * Every class of products with the variants that this device can run, the default first. Products of 16-bit operands
 * are classes of their own where the device has matrix units.
 */
export function matmulTunables(gpu: Gpu): readonly MatmulTunable[] {
  const kinds = [["nt", "dense"], ["nn", "dense"], ["tn", "dense"], ["nt", "nf4"], ["nn", "nf4"]] as const;
  const formats = matrixUnit(gpu.info) ? ["f32", "bf16"] as const : ["f32"] as const;
  return formats.flatMap((format) =>
    kinds.flatMap(([layout, weight]) =>
      SIZES.filter((size) => !(weight === "nf4" && size.endsWith("columns"))).map((size) => ({
        ...tunableOf(gpu, { layout, weight, stretch: BLOCK, format }, size),
        layout,
        weight,
        format,
        shape: exampleOf(gpu, size),
      }))
    )
  );
}

function tunableOf(gpu: Gpu, kind: ProductKind, size: Size): Tunable {
  const names = variantsOf(gpu, kind).map(({ name }) => name);
  const onMatrices = usesMatrices(gpu, kind);
  const wanted = (onMatrices && !gpu.info.isSoftware && MATRIX_DEFAULTS[size]) || DEFAULTS[gpu.sharing][size];
  const [first, ...others] = [wanted, ...names.filter((name) => name !== wanted)].filter((name) =>
    names.includes(name)
  );
  const key = `matmul ${kind.layout} ${kind.weight} ${size}${onMatrices ? " 16-bit" : ""}`;
  return { key, variants: [first!, ...others] };
}

function usesMatrices(gpu: Gpu, { format }: ProductKind): boolean {
  return format !== "f32" && matrixUnit(gpu.info) !== undefined;
}

function variantsOf(gpu: Gpu, kind: ProductKind): Variant[] {
  const own = gpu.sharing === "subgroup"
    ? [...BY_SUBGROUP, ...BY_WORKGROUP, ...BY_MATRIX]
    : [...BY_WORKGROUP, ...BY_SUBGROUP, ...BY_MATRIX];
  return own.filter((variant) => variant.fits(gpu, kind));
}

function sizeOf({ rows, columns }: ProductShape): Size {
  if (rows <= 16) return rows <= 8 ? "8 rows" : "16 rows";
  if (columns <= 16) return columns <= 8 ? "8 columns" : "16 columns";
  return rows * columns >= LARGE ? "large" : "medium";
}

/** Sizes of real models where a GPU is; on the CPU small ones of the same class. */
function exampleOf(gpu: Gpu, size: Size): ProductShape {
  const [columns, depth] = gpu.info.isSoftware ? [2048, 256] : [4096, 4096];
  switch (size) {
    case "8 rows":
      return { rows: 8, columns, depth };
    case "16 rows":
      return { rows: 16, columns, depth };
    case "8 columns":
      return { rows: columns, columns: 8, depth };
    case "16 columns":
      return { rows: columns, columns: 16, depth };
    case "large":
      return { rows: columns, columns, depth };
    case "medium":
      return { rows: 512, columns, depth };
  }
}

/** Lanes own columns and share rows. @param groups rows of a tile by 8 */
function subgroupTile(groups: number): Variant {
  return {
    name: `subgroup ${8 * groups}x32`,
    tile: { rows: 8 * groups, columns: 32 },
    threads: 8,
    fits: (gpu) => gpu.info.subgroupSize >= 8,
    program: (_, { layout, weight, stretch }) => ({
      kernel: {
        name: `matmul_${layout}_${weight}_subgroup`,
        wgsl: subgroupWgsl,
        libraries: [
          resultWgsl,
          ...(layout === "tn" ? [operandAStridedWgsl, shareAStridedWgsl] : [operandAWgsl, shareAWgsl]),
          ...(weight === "dense"
            ? [depthDenseWgsl, layout === "nt" ? operandBWgsl : operandBStridedWgsl]
            : [layout === "nt" ? depthNf4Wgsl : depthNf4StridedWgsl, nf4WordsWgsl, nf4ShuffleWgsl]),
        ],
      },
      constants: { GROUPS: groups, ...(weight === "nf4" ? { STRETCH: stretch / 4 } : {}) },
    }),
  };
}

/** Lanes own rows and share columns. @param groups columns of a tile by 8 */
function narrowSubgroupTile(groups: number): Variant {
  return {
    name: `subgroup 32x${8 * groups}`,
    tile: { rows: 32, columns: 8 * groups },
    threads: 8,
    fits: (gpu, { weight }) => gpu.info.subgroupSize >= 8 && weight === "dense",
    program: (_, { layout }) => ({
      kernel: {
        name: `matmul_${layout}_dense_narrow_subgroup`,
        wgsl: narrowSubgroupWgsl,
        libraries: [
          resultWgsl,
          layout === "tn" ? operandAStridedWgsl : operandAWgsl,
          ...(layout === "nt" ? [operandBWgsl, shareBWgsl] : [operandBStridedWgsl, shareBStridedWgsl]),
        ],
      },
      constants: { GROUPS: groups },
    }),
  };
}

/**
 * Threads own squares of the tile; named by the tile and by what a thread sums.
 * @param threads along the rows and the columns
 * @param quads of rows and of columns that each thread sums
 */
function workgroupTile({ threads: [THREAD_ROWS, THREAD_COLS], quads: [ROW_QUADS, COL_QUADS] }: {
  readonly threads: readonly [number, number];
  readonly quads: readonly [number, number];
}): Variant {
  const tile = { rows: 4 * THREAD_ROWS * ROW_QUADS, columns: 4 * THREAD_COLS * COL_QUADS };
  const name = `workgroup ${tile.rows}x${tile.columns} ${4 * ROW_QUADS}x${4 * COL_QUADS}`;
  const threads = THREAD_ROWS * THREAD_COLS;
  const sizes = Object.entries({ THREAD_ROWS, THREAD_COLS, ROW_QUADS, COL_QUADS })
    .map(([constant, value]) => `const ${constant} = ${value}u;`).join("\n");
  /** Both operands 16 deep, and the table of NF4's values. */
  const storageBytes = 64 * (tile.rows + tile.columns) + 64;
  return {
    name,
    tile,
    threads,
    fits: ({ limits }) =>
      limits.maxComputeInvocationsPerWorkgroup >= threads &&
      limits.maxComputeWorkgroupStorageSize >= storageBytes,
    program: (_, { layout, weight, stretch }) => ({
      kernel: {
        name: `matmul_${layout}_${weight}_${name.replaceAll(" ", "_")}`,
        wgsl: workgroupWgsl,
        libraries: [sizes, ...blockLibraries(layout, weight)],
      },
      constants: {
        ROW_QUADS,
        COL_QUADS,
        ...(weight === "nf4" && layout === "nt" ? { STRETCH: stretch / 4 } : {}),
      },
    }),
  };
}

/** Subgroups multiply matrices of f16. */
function matrixTile(tile: MatrixTile): Variant {
  return {
    name: `matrix ${tile.rows}x${tile.columns}`,
    tile,
    // Four subgroups, of the 32 lanes that most GPUs have.
    threads: 128,
    fits: (gpu, kind) => usesMatrices(gpu, kind) && matrixTileFits(gpu, tile),
    isScaled: true,
    program(gpu, { layout, weight }) {
      const { kernel, constants } = matrixProgram(
        gpu,
        `matmul_${layout}_${weight}`,
        tile,
        blockLibraries(layout, weight),
      );
      // Its threads are at different quads of a block of NF4: each reads the scales at every step.
      return {
        kernel,
        constants: weight === "nf4" && layout === "nt" ? { ...constants, STRETCH: 1 } : constants,
      };
    },
  };
}

/** Result, and operands by blocks of 4 x 4. */
function blockLibraries(layout: Layout, weight: WeightKind): string[] {
  return [
    resultWgsl,
    layout === "tn" ? operandAStridedWgsl : operandAWgsl,
    ...(weight === "dense"
      ? [layout === "nt" ? operandBWgsl : operandBStridedWgsl]
      : [layout === "nt" ? operandBNf4Wgsl : operandBNf4StridedWgsl, nf4WordsWgsl, nf4TableWgsl]),
  ];
}
