/** Products of tiles: one workgroup for each, which sums over the depth or over a part of it. */
import type { Gpu, Sharing } from "../gpu.ts";
import { threadGrid } from "../shared/grid.ts";
import type { Tensor } from "../tensor.ts";
import type { TileFamily } from "../weight.ts";
import type { Constants, Kernel } from "../wgsl.ts";
import { operandA } from "./operands/a.ts";
import placementWgsl from "./placement.wgsl" with { type: "text" };
import storeWgsl from "./store.wgsl" with { type: "text" };
import sumPartsWgsl from "./sum_parts.wgsl" with { type: "text" };
import type { Product } from "./variant.ts";

const SUM_PARTS: Kernel = { name: "sum_product_parts", wgsl: sumPartsWgsl };

/** A kernel whose workgroups each make one tile of C. */
export interface Tile {
  /** In names of kernels. */
  readonly name: string;
  readonly family: TileFamily;
  /** Rows and columns of C that one workgroup makes. */
  readonly rows: number;
  readonly columns: number;
  /** Threads of that workgroup. */
  readonly threads: number;
  readonly wgsl: string;
  /** Pieces that it calls besides operands and store. */
  readonly libraries?: readonly string[];
  readonly constants: Constants;
}

/** Bindings of a tile besides the operands. */
export interface TileExtras {
  readonly tensors?: Readonly<Record<string, Tensor>>;
  readonly constants?: Constants;
}

/** Threads that keep an adapter busy: of a CPU a few subgroups, of a large GPU 512 on each of its cores. */
const BUSY: Record<Sharing, number> = { subgroup: 32, workgroup: 2 ** 16 };
/** Depth up to which a product is mostly the writing of its result. */
const SHORT = 64;
/** Tiles, one below the other, that share the columns of B in a processor's cache while C's rows stay in reach. */
const BAND = 16;
/** Shortest part of the depth that is worth a workgroup of its own. A multiple of an NF4 block. */
const LEAST_SPAN = 256;

/**
 * Records a product by tiles. Where there are too few of them to keep the device busy, several workgroups share the depth
 * of each, and a second dispatch sums their parts.
 */
export function runTile(gpu: Gpu, tile: Tile, product: Product, extras: TileExtras = {}): void {
  const { a, b, c, rows, columns, depth, alpha, beta } = product;
  const [down, across] = [Math.ceil(rows / tile.rows), Math.ceil(columns / tile.columns)];
  const cols = Math.ceil(columns / 4);
  const idle = Math.ceil(BUSY[gpu.sharing] / (down * across * tile.threads));
  const span = spanOf(depth, Math.min(idle, Math.floor(gpu.maxBindingBytes / (16 * rows * cols))));
  const parts = Math.ceil(depth / span);
  const sums = parts === 1 ? undefined : gpu.empty([parts * rows, 4 * cols], "f32", "parts of a product");
  const { into, ...result } = sums
    ? { into: sums, c_stride: cols, c_offset: 0, c_part: rows * cols, alpha: 1, beta: 0 }
    : { into: c, c_stride: c.width / 4, c_offset: product.cFirst / 4, c_part: 0, alpha, beta };
  gpu.run(kernelOf(tile, product), { a, c: into, ...b.tensors, ...extras.tensors }, {
    grid: [down, across, parts],
    constants: { ...extras.constants, ADDS: result.beta !== 0 },
    formats: { A: a.format, C: into.format, ...(b.format ? { B: b.format } : {}) },
    uniforms: {
      rows,
      cols,
      depth: Math.ceil(depth / 4),
      span: span / 4,
      depth_rows: depth,
      a_stride: a.width / 4,
      a_offset: product.aFirst / 4,
      b_stride: b.width / 4,
      b_rows: b.rows,
      b_first: b.firstQuad,
      band: depth <= SHORT ? 1 : BAND,
      ...result,
    },
    work: rows * columns * depth,
  });
  if (!sums) return;
  gpu.run(SUM_PARTS, { sums, c }, {
    grid: threadGrid(rows * cols),
    formats: { C: c.format },
    uniforms: { parts, rows, cols, c_stride: c.width / 4, c_offset: product.cFirst / 4, alpha, beta },
  });
  sums.free();
}

function kernelOf({ name, family, wgsl, libraries = [], constants }: Tile, { layout, b }: Product): Kernel {
  const pieces = b.form.pieces(family, layout, b.width);
  return {
    name: `matmul_${layout}_${b.name}_${name}`,
    wgsl,
    libraries: [
      ...libraries,
      storeWgsl,
      placementWgsl,
      operandA(layout),
      ...pieces.libraries,
      ...b.libraries,
    ],
    constants: { ...constants, ...pieces.constants, ...b.constants },
  };
}

/** Depth of one part, where `wanted` parts would keep the device busy: a multiple of LEAST_SPAN, or all of it. */
function spanOf(depth: number, wanted: number): number {
  const parts = Math.min(wanted, Math.floor(depth / LEAST_SPAN));
  return parts < 2 ? Math.ceil(depth / 4) * 4 : Math.ceil(depth / parts / LEAST_SPAN) * LEAST_SPAN;
}
