/** The float64 definitions of cross-entropy and the soft cap that the kernels are tested against. */

/** The soft cap: cap * tanh(y / cap). */
export function softCapReference(y: ArrayLike<number>, cap: number): Float64Array {
  return Float64Array.from(y, (value) => cap * Math.tanh(value / cap));
}

/** Loss of each row of `logits` (rows, width) over its first `vocabSize` columns; 0 where the label is `noLabel`. */
export function crossEntropyReference(
  logits: ArrayLike<number>,
  width: number,
  labels: ArrayLike<number>,
  vocabSize: number,
  noLabel: number,
): Float64Array {
  return Float64Array.from(labels, (label, row) => {
    if (label === noLabel) return 0;
    let most = -Infinity;
    for (let c = 0; c < vocabSize; c++) most = Math.max(most, logits[row * width + c]!);
    let sum = 0;
    for (let c = 0; c < vocabSize; c++) sum += Math.exp(logits[row * width + c]! - most);
    return Math.log(sum) + most - logits[row * width + label]!;
  });
}
