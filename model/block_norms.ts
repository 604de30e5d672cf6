/** Norms of what a block (attention or MLP) reads and of what it gives, each where its architecture has it. */
import { addInto } from "../kernels/elementwise/elementwise.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { Tensor } from "../kernels/tensor.ts";
import { free } from "./chunks.ts";
import type { LinearOptions } from "./linear.ts";
import type { LinearInput } from "./linear_input.ts";
import { type Norm, norm, normBackward, normInputGradient } from "./norm.ts";

/**
 * Says what a block reads: x normed, or x itself.
 * @param x (rows, C), borrowed
 * @param own undefined where no norm is before the block
 */
export function blockInput(x: Tensor, own: Norm | undefined): LinearInput {
  return own ? { x, norm: own } : x;
}

/**
 * Adds the gradient of a block through what it reads, as {@linkcode blockInput} says it.
 * @param backward computes dy (rows, C) from y
 * @param dx (rows, C): the gradient of x is added to it
 */
export function blockInputBackward(
  gpu: Gpu,
  x: Tensor,
  own: Norm | undefined,
  backward: (y: Tensor) => Tensor,
  dx: Tensor,
): void {
  if (!own) {
    const dy = backward(x);
    addInto(gpu, dx, dy);
    dy.free();
    return;
  }
  const { y, stats } = norm(gpu, x, own);
  const dy = backward(y);
  y.free();
  normBackward(gpu, dy, own, { x, stats }, { addTo: dx });
  free(dy, stats);
}

/**
 * Computes what is added to the residual stream.
 * @param own undefined where no norm is behind the block
 * @param run the block's last linear
 * @returns (rows, C), where `options` say
 */
export function blockOutput(
  gpu: Gpu,
  own: Norm | undefined,
  options: LinearOptions,
  run: (options: LinearOptions) => Tensor,
): Tensor {
  if (!own) return run(options);
  const { firstRow = 0, into, addTo, addend } = options;
  const product = run({ firstRow });
  const { y, stats } = norm(gpu, product, own, into);
  free(product, stats);
  if (addend) addInto(gpu, y, addend);
  if (!addTo) return y;
  addInto(gpu, addTo, y);
  y.free();
  return addTo;
}

/**
 * Runs {@linkcode blockOutput} backward as far as the block's last linear.
 * @param dOut (rows, C), borrowed
 * @param run the block's last linear, which gives what the norm reads
 * @param backward of that linear; gets its gradient (rows, C), borrowed
 */
export function blockOutputBackward<T>(
  gpu: Gpu,
  dOut: Tensor,
  own: Norm | undefined,
  run: () => Tensor,
  backward: (dOut: Tensor) => T,
): T {
  if (!own) return backward(dOut);
  const product = run();
  const gradient = normInputGradient(gpu, dOut, product, own);
  product.free();
  const result = backward(gradient);
  gradient.free();
  return result;
}
