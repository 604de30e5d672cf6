import { randomWord } from "../shared/threefry.ts";
import type { Sampling } from "./sample.ts";

/**
 * Probabilities of the tokens that sampling keeps, in float64: the definition. 0 for the others.
 *
 * @param logits (V)
 * @param seen tokens that the repetition penalty is for
 */
export function keptProbabilitiesReference(
  logits: ArrayLike<number>,
  { temperature, topK, topP, minP, repetitionPenalty: penalty }: Sampling,
  seen: ReadonlySet<number> = new Set(),
): Float64Array {
  const x = Float64Array.from(logits, (logit, id) => {
    const penalised = seen.has(id) ? (logit > 0 ? logit / penalty : logit * penalty) : logit;
    return penalised / temperature;
  });
  const most = x.reduce((a, b) => Math.max(a, b));
  const weights = x.map((value) => Math.exp(value - most));
  const descending = [...x.keys()].sort((a, b) => x[b]! - x[a]!);
  const keepFrom = (least: number) => weights.forEach((_, id) => x[id]! < least && (weights[id] = 0));
  if (topK > 0 && topK < x.length) keepFrom(x[descending[topK - 1]!]!);
  if (topP < 1) {
    const wanted = topP * sum(weights);
    let mass = 0;
    const last = descending.find((id) => (mass += weights[id]!) >= wanted);
    keepFrom(x[last ?? descending.at(-1)!]!);
  }
  const kept = weights.map((weight) => weight >= minP ? weight : 0);
  const total = sum(kept);
  return kept.map((weight) => weight / total);
}

/** The uniform number in [0, 1) that the token at `position` of a sequence is drawn by. */
export function uniformOf(seed: number, sequence: number, position: number): number {
  return (randomWord(seed, sequence, 4 * position) >>> 8) / 2 ** 24;
}

/** The first id whose cumulative probability passes `uniform`, and how near that comes to the next id's. */
export function drawReference(
  probabilities: Float64Array,
  uniform: number,
): { token: number; margin: number } {
  let before = 0;
  let last = { token: 0, margin: 0 };
  for (const [token, probability] of probabilities.entries()) {
    if (probability === 0) continue;
    const after = before + probability;
    last = { token, margin: Math.min(uniform - before, after - uniform) };
    if (after > uniform) break;
    before = after;
  }
  return last;
}

function sum(values: Float64Array): number {
  return values.reduce((a, b) => a + b, 0);
}
