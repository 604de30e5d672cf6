/** Masks and inner products of a product by steps of their own: for variants that know none of them. */
import { dropout } from "../elementwise/dropout.ts";
import { addInto } from "../elementwise/elementwise.ts";
import type { Gpu } from "../gpu.ts";
import type { Tensor } from "../tensor.ts";
import { denseOperand } from "./operands/dense.ts";
import type { Product, ProductMask } from "./variant.ts";

/**
 * Records a product as several that ask for nothing but operands.
 * @param run records such a product
 */
export function runApart(gpu: Gpu, product: Product, run: (gpu: Gpu, product: Product) => void): void {
  const { mask, inner, ...plain } = product;
  if (mask) {
    const isB = plain.layout === "tn";
    const dropped = drop(gpu, isB ? plain.b.tensors.b! : plain.a, mask);
    run(gpu, isB ? { ...plain, b: { ...plain.b, tensors: { b: dropped } } } : { ...plain, a: dropped });
    dropped.free();
  } else {
    run(gpu, plain);
  }
  if (!inner) return;
  const { a, aFirst, depth, b, mask: innerMask } = inner;
  const added: Product = {
    ...plain,
    a,
    aFirst,
    depth,
    b: denseOperand(b),
    beta: 1,
    addend: undefined,
  };
  if (!innerMask) return run(gpu, added);
  // A mask is of whole rows of C.
  const whole = gpu.empty(plain.c.shape, plain.c.dtype, "inner product");
  run(gpu, { ...added, c: whole, beta: 0 });
  const dropped = drop(gpu, whole, innerMask);
  whole.free();
  addInto(gpu, plain.c, dropped);
  dropped.free();
}

function drop(gpu: Gpu, x: Tensor, mask: ProductMask): Tensor {
  return dropout(gpu, x, mask, { factor: 1 });
}
