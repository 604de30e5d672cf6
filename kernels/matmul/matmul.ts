import { GpuError } from "../errors.ts";
import type { Gpu, Sharing } from "../gpu.ts";
import { isNf4, nf4Operand, type Nf4Tensor } from "../nf4/nf4.ts";
import { BLOCK as NF4_BLOCK } from "../nf4/format.ts";
import { threadGrid } from "../shared/grid.ts";
import { largestMagnitudes } from "../shared/matrix_unit.ts";
import { rowsWithin } from "../shared/row_chunks.ts";
import { rowRanges, type Tensor } from "../tensor.ts";
import type { Format, Kernel } from "../wgsl.ts";
import denseWgsl from "./dense.wgsl" with { type: "text" };
import sumPartsWgsl from "./sum_parts.wgsl" with { type: "text" };
import { type Layout, type ProductShape, variantFor, type WeightKind } from "./variants.ts";

const SUM_PARTS: Kernel = { name: "sum_product_parts", wgsl: sumPartsWgsl };

/** A matrix (N, K) of a linear layer: dense, or frozen in NF4. */
export type Weight = Tensor | Nf4Tensor;

export interface ProductOptions {
  /** Where the result goes; a new tensor unless given. */
  readonly into?: Tensor;
  /** Factor of the product. */
  readonly alpha?: number;
  /** Factor of what `into` holds; 0 leaves it unread. */
  readonly beta?: number;
  /** Format of a new result; that of the left operand unless given. */
  readonly format?: Format;
}

/**
 * y = alpha x W^T + beta y, a linear layer.
 *
 * @param x (M, K)
 * @param weight (N, K)
 * @returns y (M, N rounded up to a multiple of 4; columns past N hold a copy of column N - 1)
 * @throws {GpuError} if the shapes do not fit or K is not a multiple of 4
 */
export function matmul(gpu: Gpu, x: Tensor, weight: Weight, options: ProductOptions = {}): Tensor {
  const [rows, depth] = [x.rows, x.width];
  const [outputs, width] = shapeOf(weight);
  const columns = Math.ceil(outputs / 4) * 4;
  const y = options.into ?? gpu.empty([rows, columns], options.format ?? x.format, "y");
  expect(
    "matmul",
    depth === width && depth % 4 === 0 && y.rows === rows && y.width === columns,
    x,
    weight,
    y,
  );
  for (const part of partsOf(weight)) {
    for (const { start, end } of rowRanges([x, y], rowsWithin(gpu.mostWork, part.rows * depth))) {
      run(gpu, "nt", {
        a: x.slice(start, end),
        b: part,
        c: y.slice(start, end),
        rows: end - start,
        columns: part.rows,
        depth,
        aFirst: 0,
        cFirst: part.start,
        alpha: options.alpha ?? 1,
        beta: options.beta ?? 0,
      });
    }
  }
  return y;
}

/**
 * dx = alpha dy W + beta dx, the gradient of {@linkcode matmul} for its input.
 *
 * @param dy (M, N rounded up to a multiple of 4; columns past N are 0)
 * @param weight (N, K)
 * @returns dx (M, K)
 */
export function matmulBackwardInput(
  gpu: Gpu,
  dy: Tensor,
  weight: Weight,
  options: ProductOptions = {},
): Tensor {
  const [outputs, width] = shapeOf(weight);
  const dx = options.into ?? gpu.empty([dy.rows, width], options.format ?? dy.format, "dx");
  const fits = dy.width === Math.ceil(outputs / 4) * 4 && width % 4 === 0 && dx.rows === dy.rows &&
    dx.width === width;
  expect("matmulBackwardInput", fits, dy, weight, dx);
  for (const part of partsOf(weight)) {
    for (const { start, end } of rowRanges([dy, dx], rowsWithin(gpu.mostWork, part.rows * width))) {
      run(gpu, "nn", {
        a: dy.slice(start, end),
        b: part,
        c: dx.slice(start, end),
        rows: end - start,
        columns: width,
        depth: part.rows,
        aFirst: part.start,
        cFirst: 0,
        alpha: options.alpha ?? 1,
        beta: part.start === 0 ? options.beta ?? 0 : 1,
      });
    }
  }
  return dx;
}

/**
 * dW = alpha dy^T x + beta dW, the gradient of {@linkcode matmul} for its weight.
 *
 * @param dy (M, N rounded up to a multiple of 4)
 * @param x (M, K)
 * @param options.into dW (N, K) f32
 * @returns dW
 */
export function matmulBackwardWeight(
  gpu: Gpu,
  dy: Tensor,
  x: Tensor,
  options: ProductOptions & { readonly into: Tensor },
): Tensor {
  const { into: dWeight, alpha = 1, beta = 0 } = options;
  const fits = dy.rows === x.rows && x.width % 4 === 0 && dWeight.width === x.width &&
    dy.width === Math.ceil(dWeight.rows / 4) * 4;
  expect("matmulBackwardWeight", fits, dy, x, dWeight);
  for (const part of partsOf(dWeight)) {
    for (const { start, end } of rowRanges([dy, x], rowsWithin(gpu.mostWork, part.rows * x.width))) {
      const rows = x.slice(start, end);
      run(gpu, "tn", {
        a: dy.slice(start, end),
        b: denseOperand(rows, 0),
        c: dWeight.slice(part.start, part.start + part.rows),
        rows: part.rows,
        columns: x.width,
        depth: end - start,
        aFirst: part.start,
        cFirst: 0,
        alpha,
        beta: start === 0 ? beta : 1,
      });
    }
  }
  return dWeight;
}

/** Operand B: some rows of a matrix, and how a kernel reads them. */
interface OperandB {
  readonly start: number;
  readonly rows: number;
  readonly width: number;
  readonly kind: WeightKind;
  /** Tells apart what is bound in different ways. */
  readonly name: string;
  readonly libraries: readonly string[];
  readonly tensors: readonly Tensor[];
  readonly format: Format | undefined;
  readonly firstQuad: number;
}

interface Product extends ProductShape {
  readonly a: Tensor;
  readonly b: OperandB;
  readonly c: Tensor;
  /** First column of A that takes part. */
  readonly aFirst: number;
  /** First column of C that is made. */
  readonly cFirst: number;
  readonly alpha: number;
  readonly beta: number;
}

/** Threads that keep an adapter busy: of a CPU a few subgroups, of a large GPU 512 on each of its cores. */
const BUSY: Record<Sharing, number> = { subgroup: 32, workgroup: 2 ** 16 };
/** Depth up to which a product is mostly the writing of its result. */
const SHORT = 64;
/** Tiles, one below the other, that share the columns of B in a processor's cache while C's rows stay in reach. */
const BAND = 16;
/** Shortest stretch of the depth that is worth a workgroup of its own. A multiple of an NF4 block. */
const LEAST_SPAN = 256;

function run(gpu: Gpu, layout: Layout, product: Product): void {
  const { a, b, c, rows, columns, depth, alpha, beta } = product;
  const kind = { layout, weight: b.kind, stretch: stretchOf(b.width), format: a.format };
  const { tile, threads, program, isScaled } = variantFor(gpu, kind, product);
  const [down, across] = [Math.ceil(rows / tile.rows), Math.ceil(columns / tile.columns)];
  const cols = Math.ceil(columns / 4);
  const idle = Math.ceil(BUSY[gpu.sharing] / (down * across * threads));
  const span = spanOf(depth, Math.min(idle, Math.floor(gpu.maxBindingBytes / (16 * rows * cols))));
  const parts = Math.ceil(depth / span);
  const sums = parts === 1 ? undefined : gpu.empty([parts * rows, 4 * cols], "f32", "parts of a product");
  const result = sums
    ? { c: sums, c_stride: cols, c_offset: 0, c_part: rows * cols, alpha: 1, beta: 0 }
    : { c, c_stride: c.width / 4, c_offset: product.cFirst / 4, c_part: 0, alpha, beta };
  const { c: into, ...uniforms } = result;
  const { kernel, constants } = program(gpu, kind);
  const range = isScaled ? rangeOf(gpu, a, b) : undefined;
  const bound = {
    ...kernel,
    name: `${kernel.name}_${b.name}`,
    libraries: [...kernel.libraries ?? [], ...b.libraries],
  };
  gpu.run(bound, [a, into, ...b.tensors, ...(range ? [range.largest] : [])], {
    grid: [down, across, parts],
    constants: { ...constants, ...range?.constants, ADDS: Number(uniforms.beta !== 0) },
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
      ...uniforms,
    },
    work: rows * columns * depth,
  });
  range?.largest.free();
  if (!sums) return;
  gpu.run(SUM_PARTS, [sums, c], {
    grid: threadGrid(rows * cols),
    formats: { C: c.format },
    uniforms: { parts, rows, cols, c_stride: c.width / 4, c_offset: product.cFirst / 4, alpha, beta },
  });
  sums.free();
}

/** What a kernel needs to bring both operands into the range of f16; those of f16 and NF4 are there. */
function rangeOf(gpu: Gpu, a: Tensor, b: OperandB) {
  const scaled = [a.format !== "f16" && a, b.format && b.format !== "f16" && b.tensors[0]!] as const;
  const [A_SCALED, B_SCALED] = scaled.map((tensor) => tensor ? 1 : 0) as [number, number];
  return { largest: largestMagnitudes(gpu, scaled), constants: { A_SCALED, B_SCALED } };
}

/** The largest power of two that divides both a row and an NF4 block. */
function stretchOf(width: number): number {
  let stretch = NF4_BLOCK;
  while (width % stretch !== 0) stretch /= 2;
  return stretch;
}

/** Depth of one part, where `wanted` parts would keep the device busy: a multiple of LEAST_SPAN, or all of it. */
function spanOf(depth: number, wanted: number): number {
  const parts = Math.min(wanted, Math.floor(depth / LEAST_SPAN));
  return parts < 2 ? Math.ceil(depth / 4) * 4 : Math.ceil(depth / parts / LEAST_SPAN) * LEAST_SPAN;
}

function shapeOf(weight: Weight): [number, number] {
  return isNf4(weight) ? [...weight.shape] : [weight.rows, weight.width];
}

function partsOf(weight: Weight): OperandB[] {
  if (!isNf4(weight)) {
    return weight.segments.map(({ start, rows }) => denseOperand(weight.slice(start, start + rows), start));
  }
  return weight.codes.segments.map(({ start, rows }) => {
    const operand = nf4Operand(weight, start, start + rows);
    return { ...operand, kind: "nf4", start, rows, width: weight.shape[1], format: undefined };
  });
}

function denseOperand(rows: Tensor, start: number): OperandB {
  return {
    start,
    rows: rows.rows,
    width: rows.width,
    kind: "dense",
    name: "dense",
    libraries: [denseWgsl],
    tensors: [rows],
    format: rows.format,
    firstQuad: 0,
  };
}

function expect(op: string, fits: boolean, left: Tensor, right: Weight, result: Tensor): void {
  if (fits) return;
  throw new GpuError(
    `Cannot apply ${op}: [${left.shape}] "${left.label}" and [${right.shape}] "${right.label}" do not make ` +
      `[${result.shape}], with every row a multiple of 4 long`,
  );
}
