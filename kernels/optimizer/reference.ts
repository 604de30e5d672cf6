/** The float64 definitions of clipping and AdamW that the kernels are tested against. */
import type { AdamWOptions } from "./adamw.ts";

/** The 2-norm of all values of all vectors. */
export function globalNorm64(vectors: readonly ArrayLike<number>[]): number {
  let squares = 0;
  for (const vector of vectors) {
    for (let i = 0; i < vector.length; i++) squares += vector[i]! ** 2;
  }
  return Math.sqrt(squares);
}

/** One step of AdamW on float64 copies, in place, in the order of operations of torch.optim.AdamW. */
export function adamW64(
  { param, grad, m, v }: Readonly<Record<"param" | "grad" | "m" | "v", Float64Array>>,
  { learningRate, beta1, beta2, epsilon, weightDecay, step }: AdamWOptions,
): void {
  for (let i = 0; i < param.length; i++) {
    param[i]! *= 1 - learningRate * weightDecay;
    m[i] = beta1 * m[i]! + (1 - beta1) * grad[i]!;
    v[i] = beta2 * v[i]! + (1 - beta2) * grad[i]! ** 2;
    const denominator = Math.sqrt(v[i]!) / Math.sqrt(1 - beta2 ** step) + epsilon;
    param[i]! -= learningRate / (1 - beta1 ** step) * m[i]! / denominator;
  }
}
