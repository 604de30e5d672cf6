/** Log-probabilities of the tokens that were drawn. */

/** A token and the natural logarithm of its probability. */
export interface Logprob {
  /** Which token. */
  readonly id: number;
  /** At most 0; minus infinity for a token that cannot come. */
  readonly logprob: number;
}

/** A drawn token, and the likeliest at its place. */
export interface TokenLogprob extends Logprob {
  /** The likeliest first; the first id of equals. */
  readonly top: readonly Logprob[];
}

/**
 * The log-softmax of logits at a token and at the likeliest ones, in float64.
 *
 * @param logits (V) as the model gives them: temperature and the rest of the sampling do not count
 * @param count how many of the likeliest
 */
export function logprobsOf(logits: Float32Array, id: number, count: number): TokenLogprob {
  const max = logits.reduce((a, b) => Math.max(a, b));
  const logSum = max + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - max), 0));
  const top: Logprob[] = [];
  for (let each = 0; each < logits.length && count > 0; each++) {
    const logprob = logits[each]! - logSum;
    if (top.length === count && !(logprob > top[count - 1]!.logprob)) continue;
    const behind = top.findIndex((other) => logprob > other.logprob);
    top.splice(behind < 0 ? top.length : behind, 0, { id: each, logprob });
    if (top.length > count) top.pop();
  }
  return { id, logprob: logits[id]! - logSum, top };
}
