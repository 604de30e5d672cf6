/**
 * The kernels that a product can run on, and which serves what: every variant is a source, the tile of the result
 * that one workgroup makes, and what it needs of the device.
 */
import type { Gpu, Sharing } from "../gpu.ts";
import { chosenVariant, type Tunable } from "../tuning.ts";
import type { Kernel } from "../wgsl.ts";
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
  /** Whether every row of B is whole blocks of NF4. */
  readonly aligned: boolean;
}

/** One way to run products. */
export interface Variant {
  readonly name: string;
  /** Rows and columns of C that one workgroup makes. */
  readonly tile: { readonly rows: number; readonly columns: number };
  /** Whether it can run on this device, and serve this kind of product. */
  fits(gpu: Gpu, kind: ProductKind): boolean;
  /** Source and constants, but for the libraries by which operand B is bound. */
  program(kind: ProductKind): Program;
}

export interface Program {
  readonly kernel: Kernel;
  readonly constants: Readonly<Record<string, number>>;
}

/** A class of products; `shape` is one of its kind, for measuring. */
export interface MatmulTunable extends Tunable {
  readonly layout: Layout;
  readonly weight: WeightKind;
  readonly shape: ProductShape;
}

const SIZES = ["few rows", "narrow", "large", "medium"] as const;
type Size = typeof SIZES[number];

/** Rows, or columns, up to which a product is served by a tile of its own: a batch being decoded, a small LoRA rank. */
const FEW = 16;
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

/** Names of the variants to try first, by how the device shares operands. */
const DEFAULTS: Record<Sharing, Record<Size, string>> = {
  subgroup: {
    "few rows": "subgroup 16x32",
    narrow: "subgroup 32x16",
    large: "subgroup 32x32",
    medium: "subgroup 32x32",
  },
  workgroup: {
    "few rows": "workgroup 16x128",
    narrow: "workgroup 128x16",
    large: "workgroup 128x128",
    medium: "workgroup 64x64",
  },
};

/** The variant for a product: the tuned one of its class, else the default. */
export function variantFor(gpu: Gpu, kind: ProductKind, shape: ProductShape): Variant {
  const tunable = tunableOf(gpu, kind, sizeOf(shape));
  const name = chosenVariant(gpu.tuning, tunable);
  return variantsOf(gpu, kind).find((variant) => variant.name === name)!;
}

/** Every class of products with the variants that this device can run, the default first. */
export function matmulTunables(gpu: Gpu): readonly MatmulTunable[] {
  const kinds = [["nt", "dense"], ["nn", "dense"], ["tn", "dense"], ["nt", "nf4"], ["nn", "nf4"]] as const;
  return kinds.flatMap(([layout, weight]) =>
    SIZES.filter((size) => !(weight === "nf4" && size === "narrow")).map((size) => ({
      ...tunableOf(gpu, { layout, weight, aligned: true }, size),
      layout,
      weight,
      shape: exampleOf(gpu, size),
    }))
  );
}

function tunableOf(gpu: Gpu, kind: ProductKind, size: Size): Tunable {
  const names = variantsOf(gpu, kind).map(({ name }) => name);
  const wanted = DEFAULTS[gpu.sharing][size];
  const [first, ...others] = [wanted, ...names.filter((name) => name !== wanted)].filter((name) =>
    names.includes(name)
  );
  return { key: `matmul ${kind.layout} ${kind.weight} ${size}`, variants: [first!, ...others] };
}

function variantsOf(gpu: Gpu, kind: ProductKind): Variant[] {
  const own = gpu.sharing === "subgroup"
    ? [...BY_SUBGROUP, ...BY_WORKGROUP]
    : [...BY_WORKGROUP, ...BY_SUBGROUP];
  return own.filter((variant) => variant.fits(gpu, kind));
}

function sizeOf({ rows, columns }: ProductShape): Size {
  if (rows <= FEW) return "few rows";
  if (columns <= FEW) return "narrow";
  return rows * columns >= LARGE ? "large" : "medium";
}

/** Sizes of real models where a GPU is; on the CPU small ones of the same class. */
function exampleOf(gpu: Gpu, size: Size): ProductShape {
  const [columns, depth] = gpu.info.isSoftware ? [2048, 256] : [4096, 4096];
  switch (size) {
    case "few rows":
      return { rows: FEW, columns, depth };
    case "narrow":
      return { rows: columns, columns: FEW, depth };
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
    fits: (gpu) => gpu.info.subgroupSize >= 8,
    program: ({ layout, weight, aligned }) => ({
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
      constants: { GROUPS: groups, ...(weight === "nf4" ? { ALIGNED: Number(aligned) } : {}) },
    }),
  };
}

/** Lanes own rows and share columns. @param groups columns of a tile by 8 */
function narrowSubgroupTile(groups: number): Variant {
  return {
    name: `subgroup 32x${8 * groups}`,
    tile: { rows: 32, columns: 8 * groups },
    fits: (gpu, { weight }) => gpu.info.subgroupSize >= 8 && weight === "dense",
    program: ({ layout }) => ({
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
 * Threads own squares of the tile.
 * @param threads along the rows and the columns
 * @param quads of rows and of columns that each thread sums
 */
function workgroupTile({ threads: [THREAD_ROWS, THREAD_COLS], quads: [ROW_QUADS, COL_QUADS] }: {
  readonly threads: readonly [number, number];
  readonly quads: readonly [number, number];
}): Variant {
  const tile = { rows: 4 * THREAD_ROWS * ROW_QUADS, columns: 4 * THREAD_COLS * COL_QUADS };
  const threads = THREAD_ROWS * THREAD_COLS;
  /** 16 deep, 4 bytes each. */
  const tileBytes = 64 * (tile.rows + tile.columns);
  return {
    name: `workgroup ${tile.rows}x${tile.columns}`,
    tile,
    fits: (gpu) =>
      gpu.device.limits.maxComputeInvocationsPerWorkgroup >= threads &&
      gpu.device.limits.maxComputeWorkgroupStorageSize >= tileBytes + 64,
    program: ({ layout, weight, aligned }) => ({
      kernel: {
        name: `matmul_${layout}_${weight}_workgroup`,
        wgsl: workgroupWgsl,
        libraries: [
          resultWgsl,
          layout === "tn" ? operandAStridedWgsl : operandAWgsl,
          ...(weight === "dense"
            ? [layout === "nt" ? operandBWgsl : operandBStridedWgsl]
            : [layout === "nt" ? operandBNf4Wgsl : operandBNf4StridedWgsl, nf4WordsWgsl, nf4TableWgsl]),
        ],
      },
      constants: {
        THREAD_ROWS,
        THREAD_COLS,
        ROW_QUADS,
        COL_QUADS,
        ...(weight === "nf4" && layout === "nt" ? { ALIGNED: Number(aligned) } : {}),
      },
    }),
  };
}
