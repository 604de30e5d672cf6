/** The float64 definitions of clipping and AdamW that the kernels are tested against. */
import { dynamicMap } from "../nf4/format.ts";
import type { AdamWOptions } from "./adamw.ts";

/** The 2-norm of all values of all vectors. */
export function globalNormReference(vectors: readonly ArrayLike<number>[]): number {
  let squares = 0;
  for (const vector of vectors) {
    for (let i = 0; i < vector.length; i++) squares += vector[i]! ** 2;
  }
  return Math.sqrt(squares);
}

/** One step of AdamW on float64 copies, in place, in the order of operations of torch.optim.AdamW. */
export function adamWReference(
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

/** Running means in 8 bits: element i of m is map[mCodes[i]] times the first of row floor(i / 256) of absmax. */
export interface States8bit {
  readonly mCodes: Uint8Array;
  readonly vCodes: Uint8Array;
  /** (blocks, 2): of m and of v. */
  readonly absmax: Float32Array;
}

const M_MAP = dynamicMap(true);
const V_MAP = dynamicMap(false);

/**
 * One step of AdamW with states in blocks of 256 codes, in place, in float64 but for the scales; bitsandbytes' blockwise
 * AdamW8bit.
 * @returns for each element how far m and v, in units of their block's largest, are from where the code would change
 */
export function adamW8bitReference(
  { param, grad }: Readonly<Record<"param" | "grad", Float64Array>>,
  { mCodes, vCodes, absmax }: States8bit,
  { learningRate, beta1, beta2, epsilon, weightDecay, step }: AdamWOptions,
): { mMargin: Float64Array; vMargin: Float64Array } {
  const [mMargin, vMargin] = [new Float64Array(param.length), new Float64Array(param.length)];
  for (let first = 0; first < param.length; first += 256) {
    const block = first / 256;
    const indices = Array.from({ length: Math.min(256, param.length - first) }, (_, i) => first + i);
    const m = indices.map((i) => beta1 * M_MAP[mCodes[i]!]! * absmax[2 * block]! + (1 - beta1) * grad[i]!);
    const v = indices.map((i) =>
      beta2 * V_MAP[vCodes[i]!]! * absmax[2 * block + 1]! + (1 - beta2) * grad[i]! ** 2
    );
    const [mMost, vMost] = [Math.max(...m.map(Math.abs)), Math.max(...v)];
    absmax.set([mMost, vMost], 2 * block);
    indices.forEach((i, j) => {
      const denominator = Math.sqrt(v[j]!) / Math.sqrt(1 - beta2 ** step) + epsilon;
      const updated = param[i]! - learningRate / (1 - beta1 ** step) * m[j]! / denominator;
      param[i] = updated * (1 - learningRate * weightDecay);
      const mean = nearest(M_MAP, m[j]! / (mMost || 1));
      const square = nearest(V_MAP, v[j]! / (vMost || 1));
      // The sign of a mean below zero is kept.
      mCodes[i] = m[j]! < 0 && M_MAP[mean.code] === 0 ? mean.code - 1 : mean.code;
      vCodes[i] = square.code;
      [mMargin[i], vMargin[i]] = [mean.margin, square.margin];
    });
  }
  return { mMargin, vMargin };
}

/** The nearest value of an ascending map; exactly between two, the one of even index. `margin`: to the nearest middle. */
function nearest(map: Float32Array, x: number): { code: number; margin: number } {
  let code = 0;
  while (code < 255 && !isBelowMiddle(map, code, x)) code++;
  const middles = [code - 1, code].filter((i) => i >= 0 && i < 255).map((i) => (map[i]! + map[i + 1]!) / 2);
  return { code, margin: Math.min(...middles.map((middle) => Math.abs(x - middle))) };
}

function isBelowMiddle(map: Float32Array, code: number, x: number): boolean {
  const middle = (map[code]! + map[code + 1]!) / 2;
  return x < middle || (x === middle && code % 2 === 0);
}
