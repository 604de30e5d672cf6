import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { rowsWithin } from "../shared/row_chunks.ts";
import { rowRanges, Tensor } from "../tensor.ts";
import type { Operand, Weight } from "../weight.ts";
import type { Format } from "../wgsl.ts";
import { denseOperand } from "./operands/dense.ts";
import { runProduct } from "./variants.ts";

export interface ProductOptions {
  /** Tensor for the result; a new one unless given. */
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
  for (const part of operandsOf(weight)) {
    for (const { start, end } of rowRanges([x, y], rowsWithin(gpu.mostWork, part.rows * depth))) {
      runProduct(gpu, {
        layout: "nt",
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
  for (const part of operandsOf(weight)) {
    for (const { start, end } of rowRanges([dy, dx], rowsWithin(gpu.mostWork, part.rows * width))) {
      runProduct(gpu, {
        layout: "nn",
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
  for (const part of operandsOf(dWeight)) {
    for (const { start, end } of rowRanges([dy, x], rowsWithin(gpu.mostWork, part.rows * x.width))) {
      const rows = x.slice(start, end);
      runProduct(gpu, {
        layout: "tn",
        a: dy.slice(start, end),
        b: denseOperand(rows),
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

function shapeOf(weight: Weight): [number, number] {
  return weight instanceof Tensor ? [weight.rows, weight.width] : [...weight.shape];
}

/** Runs of a weight's rows, each in one binding, as products read them. */
export function operandsOf(weight: Weight): readonly Operand[] {
  if (!(weight instanceof Tensor)) return weight.operands();
  return weight.segments.map(({ start, rows }) => denseOperand(weight.slice(start, start + rows), start));
}

function expect(op: string, fits: boolean, left: Tensor, right: Weight, result: Tensor): void {
  if (fits) return;
  throw new GpuError(
    `Cannot apply ${op}: [${left.shape}] "${left.label}" and [${right.shape}] "${right.label}" do not make ` +
      `[${result.shape}], with every row a multiple of 4 long`,
  );
}
