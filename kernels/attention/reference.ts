import type { KeyTables } from "./map.ts";

/** Head counts of one attention layer. */
interface Shape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/** Rows of all sequences: q, o and their gradients (rows, heads * headDim); k, v (rows, kvHeads * headDim). */
type Values = ArrayLike<number>;

export interface AttentionInputs64 {
  readonly q: Values;
  readonly k: Values;
  readonly v: Values;
}

/** Factor of the scores, 1 / sqrt(headDim) unless given, and their soft cap, cap * tanh(score / cap). */
interface Scoring64 {
  readonly scale?: number | undefined;
  readonly cap?: number | undefined;
}

function capped(score: number, cap: number | undefined): number {
  return cap === undefined ? score : cap * Math.tanh(score / cap);
}

/**
 * Causal softmax attention in float64: the definition. Query head h uses kv head floor(h / (heads / kvHeads)) and
 * sees the keys first[set(h)](i) to i; the second half of the query heads is the shifted set.
 * @returns o (rows, heads * headDim) and the log of each row's sum of exponentials, lse (rows, heads)
 */
export function attentionReference(
  { q, k, v }: AttentionInputs64,
  { first }: Pick<KeyTables, "first">,
  { heads, kvHeads, headDim }: Shape,
  { scale = 1 / Math.sqrt(headDim), cap }: Scoring64 = {},
): { o: Float64Array; lse: Float64Array } {
  const rows = first.length / 2;
  const o = new Float64Array(rows * heads * headDim);
  const lse = new Float64Array(rows * heads);
  for (let h = 0; h < heads; h++) {
    const kvHead = Math.floor(h / (heads / kvHeads));
    const set = 2 * h < heads ? 0 : 1;
    for (let i = 0; i < rows; i++) {
      const at = (i * heads + h) * headDim;
      const from = first[set * rows + i]!;
      const weights = new Float64Array(i + 1 - from);
      for (let j = from; j <= i; j++) {
        const key = (j * kvHeads + kvHead) * headDim;
        let dot = 0;
        for (let c = 0; c < headDim; c++) dot += q[at + c]! * k[key + c]!;
        weights[j - from] = capped(dot * scale, cap);
      }
      const most = weights.reduce((a, b) => Math.max(a, b));
      let sum = 0;
      for (const x of weights) sum += Math.exp(x - most);
      lse[i * heads + h] = most + Math.log(sum);
      for (let j = from; j <= i; j++) {
        const key = (j * kvHeads + kvHead) * headDim;
        const weight = Math.exp(weights[j - from]! - most) / sum;
        for (let c = 0; c < headDim; c++) o[at + c]! += weight * v[key + c]!;
      }
    }
  }
  return { o, lse };
}

/** The gradients of sum(dO * o) in float64, by the chain rule through each row's probabilities. */
export function attentionBackwardReference(
  dO: Values,
  { q, k, v }: AttentionInputs64,
  { first }: Pick<KeyTables, "first">,
  { heads, kvHeads, headDim }: Shape,
  { scale = 1 / Math.sqrt(headDim), cap }: Scoring64 = {},
): { dq: Float64Array; dk: Float64Array; dv: Float64Array } {
  const rows = first.length / 2;
  const dq = new Float64Array(rows * heads * headDim);
  const dk = new Float64Array(rows * kvHeads * headDim);
  const dv = new Float64Array(rows * kvHeads * headDim);
  const { lse } = attentionReference({ q, k, v }, { first }, { heads, kvHeads, headDim }, { scale, cap });
  for (let h = 0; h < heads; h++) {
    const kvHead = Math.floor(h / (heads / kvHeads));
    const set = 2 * h < heads ? 0 : 1;
    for (let i = 0; i < rows; i++) {
      const at = (i * heads + h) * headDim;
      const from = first[set * rows + i]!;
      const p = new Float64Array(i + 1 - from);
      const dp = new Float64Array(i + 1 - from);
      const slope = new Float64Array(i + 1 - from).fill(1);
      let mean = 0;
      for (let j = from; j <= i; j++) {
        const key = (j * kvHeads + kvHead) * headDim;
        let dot = 0;
        for (let c = 0; c < headDim; c++) {
          dot += q[at + c]! * k[key + c]!;
          dp[j - from]! += dO[at + c]! * v[key + c]!;
        }
        const score = capped(dot * scale, cap);
        if (cap !== undefined) slope[j - from] = 1 - (score / cap) ** 2;
        p[j - from] = Math.exp(score - lse[i * heads + h]!);
        mean += p[j - from]! * dp[j - from]!;
      }
      for (let j = from; j <= i; j++) {
        const key = (j * kvHeads + kvHead) * headDim;
        const ds = p[j - from]! * (dp[j - from]! - mean) * slope[j - from]! * scale;
        for (let c = 0; c < headDim; c++) {
          dq[at + c]! += ds * k[key + c]!;
          dk[key + c]! += ds * q[at + c]!;
          dv[key + c]! += p[j - from]! * dO[at + c]!;
        }
      }
    }
  }
  return { dq, dk, dv };
}
