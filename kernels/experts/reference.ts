/** The float64 definition of a mixture of experts, token by token. */

type Values = ArrayLike<number>;

/** Sizes of {@linkcode routeReference}. */
export interface RouteSizes {
  /** E */
  readonly experts: number;
  /** k */
  readonly perToken: number;
  readonly isNormalised: boolean;
}

/** One token's experts, in the order in which they are taken, and their weights. */
export interface TokenExperts {
  readonly experts: number[];
  readonly weights: number[];
}

/** Softmax over all logits of a token, then the k largest (of equals the lowest numbers), divided by their sum if asked. */
export function routeReference(
  logits: Values,
  { experts, perToken, isNormalised }: RouteSizes,
): TokenExperts[] {
  return Array.from({ length: logits.length / experts }, (_, token) => {
    const row = Array.from({ length: experts }, (_, e) => logits[token * experts + e]!);
    const most = Math.max(...row);
    const sum = row.reduce((all, logit) => all + Math.exp(logit - most), 0);
    const order = row.map((_, e) => e).sort((a, b) => row[b]! - row[a]! || a - b).slice(0, perToken);
    const shares = order.map((e) => Math.exp(row[e]! - most) / sum);
    const divisor = isNormalised ? shares.reduce((all, share) => all + share, 0) : 1;
    return { experts: order, weights: shares.map((share) => share / divisor) };
  });
}

/** The rows of each expert in the order of the table: pairs, token * k + place, sorted by expert and token. */
export function sortReference(tokens: readonly TokenExperts[]): number[] {
  const perToken = tokens[0]!.experts.length;
  const expertOf = tokens.flatMap(({ experts }) => experts);
  return expertOf.map((_, pair) => pair).sort((a, b) =>
    expertOf[a]! - expertOf[b]! || Math.floor(a / perToken) - Math.floor(b / perToken)
  );
}

/** out[t] = sum over its experts of w down[e](silu(gate[e](y[t])) up[e](y[t])). */
export function expertsReference(
  y: Values,
  tokens: readonly TokenExperts[],
  w: { readonly gate: Values; readonly up: Values; readonly down: Values },
  { C, F }: { readonly C: number; readonly F: number },
): Float64Array {
  const out = new Float64Array(tokens.length * C);
  const dot = (matrix: Values, row: number, values: Values, at: number, length: number) => {
    let sum = 0;
    for (let i = 0; i < length; i++) sum += matrix[row * length + i]! * values[at + i]!;
    return sum;
  };
  tokens.forEach(({ experts, weights }, t) =>
    experts.forEach((e, j) => {
      const hidden = Float64Array.from({ length: F }, (_, f) => {
        const gate = dot(w.gate, e * F + f, y, t * C, C);
        return gate / (1 + Math.exp(-gate)) * dot(w.up, e * F + f, y, t * C, C);
      });
      for (let c = 0; c < C; c++) out[t * C + c]! += weights[j]! * dot(w.down, e * C + c, hidden, 0, F);
    })
  );
  return out;
}
