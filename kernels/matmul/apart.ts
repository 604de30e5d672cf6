/** Masks and inner products of a product by steps of their own: for variants that know none, or bind too much with them. */
import { dropout } from "../elementwise/dropout.ts";
import { addInto } from "../elementwise/elementwise.ts";
import type { Gpu } from "../gpu.ts";
import type { Tensor } from "../tensor.ts";
import { denseOperand } from "./operands/dense.ts";
import type { InnerProduct, Product, ProductMask } from "./variant.ts";

/** Records one product. */
type Run = (gpu: Gpu, product: Product) => void;

/**
 * Records a product as several that ask for nothing but operands.
 * @param run records such a product
 */
export function runApart(gpu: Gpu, { mask, ...product }: Product, run: Run): void {
  const { inner } = product;
  if (inner) {
    return runInnerApart(gpu, { ...product, mask, inner }, (gpu, each) => runApart(gpu, each, run));
  }
  if (!mask) return run(gpu, product);
  const isB = product.layout === "tn";
  const dropped = drop(gpu, isB ? product.b.tensors.b! : product.a, mask);
  run(gpu, isB ? { ...product, b: { ...product.b, tensors: { b: dropped } } } : { ...product, a: dropped });
  dropped.free();
}

/**
 * Records a product without its inner one, and then that. Not for several products as one.
 * @param run records a product without an inner one
 */
export function runInnerApart(
  gpu: Gpu,
  { inner, ...plain }: Product & { readonly inner: InnerProduct },
  run: Run,
): void {
  run(gpu, plain);
  const { a, aFirst, depth, b, mask } = inner;
  const added: Product = {
    ...plain,
    mask: undefined,
    a,
    aFirst,
    depth,
    b: denseOperand(b),
    beta: 1,
    addend: undefined,
  };
  if (!mask) return run(gpu, added);
  // A mask is of whole rows of C.
  const whole = gpu.empty(plain.c.shape, plain.c.dtype, "inner product");
  run(gpu, { ...added, c: whole, beta: 0 });
  const dropped = drop(gpu, whole, mask);
  whole.free();
  addInto(gpu, plain.c, dropped);
  dropped.free();
}

function drop(gpu: Gpu, x: Tensor, mask: ProductMask): Tensor {
  return dropout(gpu, x, mask, { factor: 1 });
}
