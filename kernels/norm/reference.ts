/** The float64 definition of RMSNorm that the kernels are tested against. */

/** y[r, c] = x[r, c] / sqrt(mean_c(x[r, c]^2) + eps) * weight[c], for `x` (rows, C) and `weight` (C). */
export function rmsNorm64(x: Float64Array, weight: Float64Array, eps: number): Float64Array {
  const width = weight.length;
  const y = new Float64Array(x.length);
  for (let base = 0; base < x.length; base += width) {
    let squares = 0;
    for (let c = 0; c < width; c++) squares += x[base + c]! ** 2;
    const rstd = 1 / Math.sqrt(squares / width + eps);
    for (let c = 0; c < width; c++) y[base + c] = x[base + c]! * rstd * weight[c]!;
  }
  return y;
}
