/** Products in float64: y = x W^T, dx = dy W, dW = dy^T x, all row-major. */

export interface Sizes {
  /** Rows of x and y. */
  readonly M: number;
  /** Rows of W, columns of y. */
  readonly N: number;
  /** Columns of x and W. */
  readonly K: number;
}

type Values = ArrayLike<number>;

export function matmulReference(x: Values, weight: Values, { M, N, K }: Sizes): Float64Array {
  return product(M, N, K, (i, r) => x[i * K + r]!, (j, r) => weight[j * K + r]!);
}

export function matmulBackwardInputReference(dy: Values, weight: Values, { M, N, K }: Sizes): Float64Array {
  return product(M, K, N, (i, r) => dy[i * N + r]!, (j, r) => weight[r * K + j]!);
}

export function matmulBackwardWeightReference(dy: Values, x: Values, { M, N, K }: Sizes): Float64Array {
  return product(N, K, M, (i, r) => dy[r * N + i]!, (j, r) => x[r * K + j]!);
}

function product(
  rows: number,
  columns: number,
  depth: number,
  a: (row: number, r: number) => number,
  b: (column: number, r: number) => number,
): Float64Array {
  const result = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      let sum = 0;
      for (let r = 0; r < depth; r++) sum += a(i, r) * b(j, r);
      result[i * columns + j] = sum;
    }
  }
  return result;
}
