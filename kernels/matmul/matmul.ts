import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { isNf4, nf4Operand, type Nf4Tensor } from "../nf4/nf4.ts";
import { rowRanges, type Tensor } from "../tensor.ts";
import type { Format, Kernel } from "../wgsl.ts";
import denseWgsl from "./dense.wgsl" with { type: "text" };
import operandAWgsl from "./operand_a.wgsl" with { type: "text" };
import operandAStridedWgsl from "./operand_a_strided.wgsl" with { type: "text" };
import operandBWgsl from "./operand_b.wgsl" with { type: "text" };
import operandBStridedWgsl from "./operand_b_strided.wgsl" with { type: "text" };
import resultWgsl from "./result.wgsl" with { type: "text" };
import shareAWgsl from "./share_a.wgsl" with { type: "text" };
import shareAStridedWgsl from "./share_a_strided.wgsl" with { type: "text" };
import subgroupWgsl from "./matmul_subgroup.wgsl" with { type: "text" };
import workgroupWgsl from "./matmul_workgroup.wgsl" with { type: "text" };

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
    for (const { start, end } of rowRanges([x, y])) {
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
    for (const { start, end } of rowRanges([dy, dx])) {
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
    for (const { start, end } of rowRanges([dy, x])) {
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

/** Which operands are transposed in memory: x W^T, dy W, dy^T x. */
type Layout = "nt" | "nn" | "tn";

/** Operand B: some rows of a matrix, and how a kernel reads them. */
interface OperandB {
  readonly start: number;
  readonly rows: number;
  readonly width: number;
  readonly name: string;
  readonly libraries: readonly string[];
  readonly tensors: readonly Tensor[];
  readonly format: Format | undefined;
  readonly firstQuad: number;
}

interface Product {
  readonly a: Tensor;
  readonly b: OperandB;
  readonly c: Tensor;
  /** Rows of C that are made. */
  readonly rows: number;
  /** Columns of C that are made, from column `cFirst` on. */
  readonly columns: number;
  readonly depth: number;
  /** First column of A that takes part. */
  readonly aFirst: number;
  readonly cFirst: number;
  readonly alpha: number;
  readonly beta: number;
}

/** Rows and columns of C that one workgroup makes. */
const TILES = { subgroup: { rows: 16, columns: 32 }, workgroup: { rows: 64, columns: 64 } } as const;

function run(
  gpu: Gpu,
  layout: Layout,
  { a, b, c, rows, columns, depth, aFirst, cFirst, alpha, beta }: Product,
): void {
  const tile = TILES[gpu.sharing];
  gpu.run(kernelOf(gpu, layout, b), [a, c, ...b.tensors], {
    grid: [Math.ceil(columns / tile.columns), Math.ceil(rows / tile.rows)],
    formats: { A: a.format, C: c.format, ...(b.format ? { B: b.format } : {}) },
    uniforms: {
      rows,
      cols: Math.ceil(columns / 4),
      depth: Math.ceil(depth / 4),
      depth_rows: depth,
      a_stride: a.width / 4,
      a_offset: aFirst / 4,
      b_stride: b.width / 4,
      b_rows: b.rows,
      b_first: b.firstQuad,
      c_stride: c.width / 4,
      c_offset: cFirst / 4,
      alpha,
      beta,
    },
  });
}

function kernelOf(gpu: Gpu, layout: Layout, b: OperandB): Kernel {
  const operandA = layout === "tn" ? operandAStridedWgsl : operandAWgsl;
  const operandB = layout === "nt" ? operandBWgsl : operandBStridedWgsl;
  const shareA = layout === "tn" ? shareAStridedWgsl : shareAWgsl;
  return {
    name: `matmul_${layout}_${b.name}_${gpu.sharing}`,
    wgsl: gpu.sharing === "subgroup" ? subgroupWgsl : workgroupWgsl,
    libraries: [
      resultWgsl,
      operandA,
      operandB,
      ...b.libraries,
      ...(gpu.sharing === "subgroup" ? [shareA] : []),
    ],
  };
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
    return { ...operand, start, rows, width: weight.shape[1], format: undefined };
  });
}

function denseOperand(rows: Tensor, start: number): OperandB {
  return {
    start,
    rows: rows.rows,
    width: rows.width,
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
