/** Products of tiles: one workgroup for each, which sums over the depth or over a part of it. */
import { MASK, maskUniforms } from "../elementwise/dropout.ts";
import type { Gpu, Sharing } from "../gpu.ts";
import { threadGrid } from "../shared/grid.ts";
import keepAllWgsl from "../shared/keep_all.wgsl" with { type: "text" };
import type { Pieces, TileFamily } from "../weight.ts";
import type { Constants, Kernel } from "../wgsl.ts";
import { runInnerApart } from "./apart.ts";
import addCWgsl from "./add_c.wgsl" with { type: "text" };
import addDWgsl from "./add_d.wgsl" with { type: "text" };
import { operandA } from "./operands/a.ts";
import { octetPieces } from "./operands/octets.ts";
import placementWgsl from "./placement.wgsl" with { type: "text" };
import storeWgsl from "./store.wgsl" with { type: "text" };
import sumPartsWgsl from "./sum_parts.wgsl" with { type: "text" };
import type { Blocks, Product } from "./variant.ts";

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

const ONE: Blocks = { count: 1, aStep: 0, bStep: 0, cStep: 0, innerAStep: 0, innerBStep: 0 };
const NO_MASK = { p: 0, seed: 0, stream: 0 };

/** Threads that keep an adapter busy: of a CPU a few subgroups, of a large GPU 256 on each of its cores. */
const BUSY: Record<Sharing, number> = { subgroup: 32, workgroup: 2 ** 15 };
/** Depth up to which a product is mostly the writing of its result. */
const SHORT = 64;
/** Tiles, one below the other, that share the columns of B in a processor's cache while C's rows stay in reach. */
const BAND = 16;
/** Shortest part of the depth that is worth a workgroup of its own. A multiple of an NF4 block. */
const LEAST_SPAN = 256;

/**
 * Records a product by tiles. Where there are too few of them to keep the device busy, several workgroups share the depth
 * of each, and a second dispatch sums their parts. An inner product with which a kernel would bind more than the device
 * lets it comes after.
 * @param tileOf makes the tile for a product
 */
export function runTile(gpu: Gpu, tileOf: (product: Product) => Tile, product: Product): void {
  const tile = tileOf(product);
  const { a, b, c, rows, columns, depth, alpha, beta, inner, aFactors, addend, blocks = ONE } = product;
  const [down, across] = [Math.ceil(rows / tile.rows), Math.ceil(columns / tile.columns)];
  const cols = Math.ceil(columns / 4);
  const idle = Math.ceil(BUSY[gpu.sharing] / (blocks.count * down * across * tile.threads));
  const room = Math.floor(gpu.maxBindingBytes / (16 * blocks.count * rows * cols));
  const span = spanOf(depth, Math.min(idle, room));
  const parts = Math.ceil(depth / span);
  const adds = parts === 1 && beta !== 0;
  const bound = 2 + Object.keys(b.tensors).length + (aFactors ? 1 : 0) + (adds && addend ? 1 : 0);
  // Several products as one have dense weights, which are one buffer.
  if (inner && bound + 2 > gpu.limits.maxStorageBuffersPerShaderStage) {
    return runInnerApart(gpu, { ...product, inner }, (gpu, each) => runTile(gpu, tileOf, each));
  }
  const sums = parts === 1
    ? undefined
    : gpu.empty([blocks.count * parts * rows, 4 * cols], "f32", "parts of a product");
  const result = resultOf(product);
  const { into, ...where } = sums
    ? {
      into: sums,
      c_stride: cols,
      c_offset: 0,
      c_part: rows * cols,
      c_block: parts * rows * cols,
      alpha: 1,
      beta: 0,
    }
    : { into: c, ...result.where, c_part: 0, alpha, beta };
  const mask = product.mask ?? inner?.mask;
  const { kernel, constants } = kernelOf(tile, product, adds ? result.addend : addCWgsl);
  const tensors = {
    a,
    c: into,
    ...b.tensors,
    ...(aFactors && { a_factors: aFactors }),
    ...(inner && { inner_a: inner.a, inner_b: inner.b }),
    ...(adds && result.tensors),
  };
  gpu.run(kernel, tensors, {
    grid: [down, across, blocks.count * parts],
    constants: { ...constants, ADDS: adds },
    formats: {
      A: a.format,
      C: into.format,
      ...(b.format ? { B: b.format } : {}),
      ...(adds && result.formats),
    },
    uniforms: {
      rows,
      cols,
      depth: Math.ceil(depth / 4),
      span: span / 4,
      parts,
      depth_rows: depth,
      a_stride: a.width / 4,
      a_offset: product.aFirst / 4,
      b_stride: b.width / 4,
      b_rows: b.rows,
      b_first: b.firstQuad,
      band: depth <= SHORT ? 1 : BAND,
      a_block: blocks.aStep / 4,
      b_block: blocks.bStep / 4,
      inner_a_block: blocks.innerAStep / 4,
      inner_b_block: blocks.innerBStep / 4,
      inner_depth: (inner?.depth ?? 0) / 4,
      inner_a_stride: (inner?.a.width ?? 0) / 4,
      inner_a_offset: (inner?.aFirst ?? 0) / 4,
      inner_b_stride: (inner?.b.width ?? 0) / 4,
      ...maskUniforms(mask ?? NO_MASK),
      mask_step: mask?.streamStep ?? 0,
      ...where,
    },
    work: blocks.count * rows * columns * depth,
  });
  if (!sums) return;
  const sumParts: Kernel = {
    name: "sum_product_parts",
    wgsl: sumPartsWgsl,
    libraries: [beta === 0 ? addCWgsl : result.addend],
  };
  gpu.run(sumParts, { sums, c, ...(beta !== 0 && result.tensors) }, {
    grid: threadGrid(blocks.count * rows * cols),
    constants: { ADDS: beta !== 0 },
    formats: { C: c.format, ...(beta !== 0 && result.formats) },
    uniforms: { blocks: blocks.count, parts, rows, cols, ...result.where, alpha, beta },
  });
  sums.free();
}

/** Where a product's result goes, and what it is added to. */
function resultOf({ c, cFirst, addend, blocks = ONE }: Product) {
  return {
    where: { c_stride: c.width / 4, c_offset: cFirst / 4, c_block: blocks.cStep / 4 },
    addend: addend ? addDWgsl : addCWgsl,
    tensors: addend ? { d: addend } : {},
    formats: addend ? { D: addend.format } : {},
  };
}

function kernelOf(
  { name, family, wgsl, libraries = [], constants }: Tile,
  product: Product,
  addend: string,
): { readonly kernel: Kernel; readonly constants: Constants } {
  const { layout, b, mask, inner } = product;
  const [ofA, ofB] = [piecesOfA(family, product), piecesOfB(family, product)];
  const masks = mask || inner?.mask ? MASK : [keepAllWgsl];
  return {
    kernel: {
      name: ["matmul", layout, b.name, name, ofA.name, ofB.name].filter(Boolean).join("_"),
      wgsl,
      libraries: [
        ...libraries,
        storeWgsl,
        placementWgsl,
        addend,
        ...masks,
        ...ofA.libraries,
        ...ofB.libraries,
        ...b.libraries,
      ],
      constants: { ...constants, ...ofA.constants, ...ofB.constants, ...b.constants },
    },
    constants: {
      DROPS_A: mask !== undefined && layout !== "tn",
      DROPS_B: mask !== undefined && layout === "tn",
    },
  };
}

function piecesOfA(family: TileFamily, { layout, a, aFirst: first, blocks = ONE }: Product): Pieces {
  if (family !== "matrix") return { libraries: [operandA(layout)] };
  const { format, width } = a;
  return octetPieces("a", { format, isTurned: layout === "tn", width, first, step: blocks.aStep });
}

function piecesOfB(family: TileFamily, { layout, b, blocks = ONE }: Product): Pieces {
  const { format } = b;
  return b.form.pieces(
    family,
    layout,
    b.width,
    format && { format, first: 4 * b.firstQuad, step: blocks.bStep },
  );
}

/** Depth of one part, where `wanted` parts would keep the device busy: a multiple of LEAST_SPAN, or all of it. */
function spanOf(depth: number, wanted: number): number {
  const parts = Math.min(wanted, Math.floor(depth / LEAST_SPAN));
  return parts < 2 ? Math.ceil(depth / 4) * 4 : Math.ceil(depth / parts / LEAST_SPAN) * LEAST_SPAN;
}
