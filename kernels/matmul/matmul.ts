import { type DropoutKey, requireMask } from "../elementwise/dropout.ts";
import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { type RowRange, rowsWithin } from "../shared/row_chunks.ts";
import { rowRanges, Tensor } from "../tensor.ts";
import type { Operand, Weight } from "../weight.ts";
import type { Format } from "../wgsl.ts";
import { denseOperand } from "./operands/dense.ts";
import { merged } from "./merge.ts";
import { type InnerProduct, LATER, type Product } from "./variant.ts";
import { runProduct, takesBlocks } from "./variants.ts";

/** A second product, f32, summed before the product of an op and rounded with it once. */
export interface InnerFactors {
  /** (M, R), or the columns from `first` on of a wider tensor. */
  readonly x: Tensor;
  /** First column of `x`, a multiple of 4; 0 unless given. */
  readonly first?: number;
  /** (N, R) to {@linkcode matmul}, (R, K) to {@linkcode matmulBackwardInput}. */
  readonly weight: Tensor;
  /** Elements of its result that count as 0. */
  readonly mask?: DropoutKey | undefined;
}

export interface ProductOptions {
  /** Tensor for the result; a new one unless given. */
  readonly into?: Tensor | undefined;
  /** First column of `into` that is written, a multiple of 4: `into` may then be wider, and its other columns stay. */
  readonly first?: number;
  /** Factor of the product. */
  readonly alpha?: number;
  /** Factor of what is added: `addend`, or what `into` holds; 0 leaves it unread. */
  readonly beta?: number;
  /** Added `beta` times, of the shape of the result and other memory. */
  readonly addend?: Tensor | undefined;
  /** Format of a new result; that of the left operand unless given. */
  readonly format?: Format;
}

/** Options of products with an inner one. */
export interface InnerOptions extends ProductOptions {
  readonly inner?: InnerFactors | undefined;
}

/** Options of products whose x is masked. */
export interface MaskOptions {
  /** Elements of x that count as 0; the others are not scaled. */
  readonly mask?: DropoutKey | undefined;
}

/** One of several products that {@linkcode matmuls} makes. */
export interface MatmulCall extends InnerOptions, MaskOptions {
  /** (M, K) */
  readonly x: Tensor;
  /** (N, K) */
  readonly weight: Weight;
}

/**
 * y = alpha (x W^T + inner) + beta y, a linear layer.
 *
 * @param x (M, K)
 * @param weight (N, K)
 * @returns y (M, N rounded up to a multiple of 4; columns past N hold a copy of column N - 1)
 * @throws {GpuError} if the shapes do not fit or K is not a multiple of 4
 */
export function matmul(
  gpu: Gpu,
  x: Tensor,
  weight: Weight,
  options: MaskOptions & InnerOptions = {},
): Tensor {
  return matmuls(gpu, [{ x, weight, ...options }])[0]!;
}

/** Several of {@linkcode matmul}, none of which reads what another gives: in one dispatch where their memory allows. */
export function matmuls(gpu: Gpu, calls: readonly MatmulCall[]): Tensor[] {
  const made = calls.map((call) => matmulProducts(gpu, call));
  record(gpu, made.map(({ products }) => products));
  return made.map(({ result }) => result);
}

function matmulProducts(gpu: Gpu, { x, weight, ...options }: MatmulCall): Made {
  const { alpha = 1, beta = 0, addend, inner, mask, first = 0 } = options;
  const [rows, depth] = [x.rows, x.width];
  const [outputs, width] = shapeOf(weight);
  const columns = Math.ceil(outputs / 4) * 4;
  const y = options.into ?? gpu.empty([rows, columns], options.format ?? x.format, "y");
  const fits = depth === width && depth % 4 === 0 && y.rows === rows && holds(y, columns, options.first);
  expect("matmul", fits, x, weight, y);
  expectAddend("matmul", y, addend);
  expectInner("matmul", y, inner, inner?.weight.rows === outputs && inner.weight.width);
  if (mask) requireMask("matmul", mask, x.size);
  const products = operandsOf(weight).flatMap((part) =>
    rangesOf([x, y, addend, inner?.x], rowsWithin(gpu.mostWork, part.rows * depth)).map((range): Product => {
      const factors = inner?.weight.slice(part.start, part.start + part.rows);
      return {
        layout: "nt",
        a: x.slice(range.start, range.end),
        b: part,
        c: y.slice(range.start, range.end),
        rows: range.end - range.start,
        columns: part.rows,
        depth,
        aFirst: 0,
        cFirst: first + part.start,
        alpha,
        beta,
        addend: addend?.slice(range.start, range.end),
        mask: mask && maskFrom(mask, range.start * depth),
        inner: inner && innerOf(inner, range, factors!, factors!.width),
      };
    })
  );
  return { result: y, products };
}

/** One of several products that {@linkcode matmulBackwardInputs} makes. */
export interface BackwardInputCall extends InnerOptions {
  /** (M, N rounded up to a multiple of 4; columns past N are 0) */
  readonly dy: Tensor;
  /** (N, K) */
  readonly weight: Weight;
}

/**
 * dx = alpha (dy W + inner) + beta dx, the gradient of {@linkcode matmul} for its input.
 *
 * @param dy (M, N rounded up to a multiple of 4; columns past N are 0)
 * @param weight (N, K)
 * @returns dx (M, K), or `into`
 */
export function matmulBackwardInput(
  gpu: Gpu,
  dy: Tensor,
  weight: Weight,
  options: InnerOptions = {},
): Tensor {
  return matmulBackwardInputs(gpu, [{ dy, weight, ...options }])[0]!;
}

/** Several of {@linkcode matmulBackwardInput}, none of which reads what another gives: in one dispatch where their memory allows. */
export function matmulBackwardInputs(gpu: Gpu, calls: readonly BackwardInputCall[]): Tensor[] {
  const made = calls.map((call) => backwardInputProducts(gpu, call));
  record(gpu, made.map(({ products }) => products));
  return made.map(({ result }) => result);
}

function backwardInputProducts(gpu: Gpu, { dy, weight, ...options }: BackwardInputCall): Made {
  const { alpha = 1, beta = 0, addend, inner, first = 0 } = options;
  const [outputs, width] = shapeOf(weight);
  const dx = options.into ?? gpu.empty([dy.rows, width], options.format ?? dy.format, "dx");
  const fits = dy.width === Math.ceil(outputs / 4) * 4 && width % 4 === 0 && dx.rows === dy.rows &&
    holds(dx, width, options.first);
  expect("matmulBackwardInput", fits, dy, weight, dx);
  expectAddend("matmulBackwardInput", dx, addend);
  expectInner("matmulBackwardInput", dx, inner, inner?.weight.width === width && inner.weight.rows);
  const products = operandsOf(weight).flatMap((part) =>
    rangesOf([dy, dx, addend, inner?.x], rowsWithin(gpu.mostWork, part.rows * width)).map((
      range,
    ): Product => ({
      layout: "nn",
      a: dy.slice(range.start, range.end),
      b: part,
      c: dx.slice(range.start, range.end),
      rows: range.end - range.start,
      columns: width,
      depth: part.rows,
      aFirst: part.start,
      cFirst: first,
      alpha,
      beta,
      addend: addend?.slice(range.start, range.end),
      inner: inner && innerOf(inner, range, inner.weight, inner.weight.rows),
      ...(part.start > 0 && LATER),
    }))
  );
  return { result: dx, products };
}

/** One of several products that {@linkcode matmulBackwardWeights} makes. */
export interface BackwardWeightCall extends MaskOptions, Pick<ProductOptions, "alpha" | "beta"> {
  /** (M, N rounded up to a multiple of 4), or the columns from `dyFirst` on of a wider tensor */
  readonly dy: Tensor;
  /** First column of `dy`, a multiple of 4. */
  readonly dyFirst?: number;
  /** (M, K), or the columns from `xFirst` on of a wider tensor */
  readonly x: Tensor;
  /** First column of `x`, a multiple of 4. */
  readonly xFirst?: number;
  /** dW (N, K) f32 */
  readonly into: Tensor;
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
  options: Omit<BackwardWeightCall, "dy" | "x">,
): Tensor {
  return matmulBackwardWeights(gpu, [{ dy, x, ...options }])[0]!;
}

/** Several of {@linkcode matmulBackwardWeight}: in one dispatch where their memory allows. */
export function matmulBackwardWeights(gpu: Gpu, calls: readonly BackwardWeightCall[]): Tensor[] {
  const made = calls.map((call) => backwardWeightProducts(gpu, call));
  record(gpu, made.map(({ products }) => products));
  return made.map(({ result }) => result);
}

function backwardWeightProducts(
  gpu: Gpu,
  { dy, x, into: dWeight, alpha = 1, beta = 0, mask, ...given }: BackwardWeightCall,
): Made {
  const { dyFirst = 0, xFirst = 0 } = given;
  const columns = dWeight.width;
  const fits = dy.rows === x.rows && x.width % 4 === 0 && holds(x, columns, given.xFirst) &&
    holds(dy, Math.ceil(dWeight.rows / 4) * 4, given.dyFirst);
  expect("matmulBackwardWeight", fits, dy, x, dWeight);
  if (mask) requireMask("matmulBackwardWeight", mask, x.size);
  const products = operandsOf(dWeight).flatMap((part) =>
    rangesOf([dy, x], rowsWithin(gpu.mostWork, part.rows * columns)).map(({ start, end }): Product => ({
      layout: "tn",
      a: dy.slice(start, end),
      b: { ...denseOperand(x.slice(start, end)), firstQuad: xFirst / 4 },
      c: dWeight.slice(part.start, part.start + part.rows),
      rows: part.rows,
      columns,
      depth: end - start,
      aFirst: dyFirst + part.start,
      cFirst: 0,
      alpha,
      beta: start === 0 ? beta : 1,
      mask: mask && maskFrom(mask, start * x.width),
    }))
  );
  return { result: dWeight, products };
}

/** A call's result, and the products that make it, in their order. */
interface Made {
  readonly result: Tensor;
  readonly products: readonly Product[];
}

/** Records the products of several calls: of all calls at once where they are alike. */
function record(gpu: Gpu, calls: readonly (readonly Product[])[]): void {
  const [first] = calls as [readonly Product[]];
  if (calls.some(({ length }) => length !== first.length)) {
    return calls.forEach((products) => products.forEach((product) => runProduct(gpu, product)));
  }
  first.forEach((_, i) => {
    const alike = calls.map((products) => products[i]!);
    const one = alike.length > 1 && takesBlocks(gpu, alike[0]!) ? merged(gpu, alike) : undefined;
    if (one) runProduct(gpu, one);
    else alike.forEach((product) => runProduct(gpu, product));
  });
}

/** Whether a tensor is `columns` wide, or has so many from column `first` on. */
/** Whether rows have room for so many columns from `first` on: all of them unless given. */
export function holds({ width }: Tensor, columns: number, first?: number): boolean {
  return first === undefined ? width === columns : first % 4 === 0 && first + columns <= width;
}

function rangesOf(tensors: readonly (Tensor | undefined)[], longest: number): RowRange[] {
  return rowRanges(tensors.filter((tensor) => tensor !== undefined), longest);
}

/** The mask of what begins so many elements further on. */
function maskFrom(mask: DropoutKey, elements: number): DropoutKey {
  return { ...mask, offset: (mask.offset ?? 0) + elements };
}

/** The inner product of some rows. */
function innerOf(
  { x, first = 0, mask }: InnerFactors,
  { start, end }: RowRange,
  weight: Tensor,
  depth: number,
): InnerProduct {
  return {
    a: x.slice(start, end),
    aFirst: first,
    depth,
    b: weight,
    mask: mask && maskFrom(mask, start * weight.width),
  };
}

function shapeOf(weight: Weight): [number, number] {
  return weight instanceof Tensor ? [weight.rows, weight.width] : [...weight.shape];
}

/** Runs of a weight's rows, each in one binding, as products read them. */
export function operandsOf(weight: Weight): readonly Operand[] {
  if (!(weight instanceof Tensor)) return weight.operands();
  return weight.segments.map(({ start, rows }) => denseOperand(weight.slice(start, start + rows), start));
}

function expectAddend(op: string, result: Tensor, addend: Tensor | undefined): void {
  if (!addend || addend.rows === result.rows && addend.width === result.width) return;
  throw new GpuError(
    `Cannot apply ${op}: "${addend.label}" [${addend.shape}] cannot be added to [${result.shape}]`,
  );
}

/** @param depth of the inner product; false where its weight does not fit the result */
/**
 * @param depth of the inner product; false where its factors do not fit
 * @throws {GpuError} if it does not make the result
 */
export function expectInner(
  op: string,
  result: Tensor,
  inner: InnerFactors | undefined,
  depth: number | false | undefined,
): void {
  if (!inner) return;
  const { x, first = 0, weight } = inner;
  const fits = depth && depth % 4 === 0 && first % 4 === 0 && x.rows === result.rows &&
    first + depth <= x.width;
  if (fits && x.format === "f32" && weight.format === "f32") return;
  throw new GpuError(
    `Cannot apply ${op}: the inner product of [${x.shape}] "${x.label}", from column ${first} on, and [${weight.shape}] ` +
      `"${weight.label}" does not make [${result.shape}] in f32`,
  );
}

function expect(op: string, fits: boolean, left: Tensor, right: Weight, result: Tensor): void {
  if (fits) return;
  throw new GpuError(
    `Cannot apply ${op}: [${left.shape}] "${left.label}" and [${right.shape}] "${right.label}" do not make ` +
      `[${result.shape}], with every row a multiple of 4 long`,
  );
}
