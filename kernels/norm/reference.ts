/** The float64 definitions of RMSNorm and LayerNorm that the kernels are tested against. */

/** RMSNorm: y[r, c] = x[r, c] / sqrt(mean_c(x[r, c]^2) + eps) * (offset + weight[c]), for `x` (rows, C) and `weight` (C). */
export function rmsNormReference(
  x: Float64Array,
  weight: Float64Array,
  eps: number,
  offset = 0,
): Float64Array {
  const width = weight.length;
  const y = new Float64Array(x.length);
  for (let base = 0; base < x.length; base += width) {
    let squares = 0;
    for (let c = 0; c < width; c++) squares += x[base + c]! ** 2;
    const rstd = 1 / Math.sqrt(squares / width + eps);
    for (let c = 0; c < width; c++) y[base + c] = x[base + c]! * rstd * (offset + weight[c]!);
  }
  return y;
}

/**
 * LayerNorm: y[r, c] = (x[r, c] - m[r]) / sqrt(mean_c((x[r, c] - m[r])^2) + eps) * weight[c] + bias[c] with m[r] = mean_c(x[r, c]),
 * for `x` (rows, C), `weight` and `bias` (C).
 */
export function layerNormReference(
  x: Float64Array,
  weight: Float64Array,
  bias: Float64Array,
  eps: number,
): Float64Array {
  const width = weight.length;
  const y = new Float64Array(x.length);
  for (let base = 0; base < x.length; base += width) {
    const row = x.subarray(base, base + width);
    const mean = row.reduce((sum, value) => sum + value, 0) / width;
    const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / width;
    for (let c = 0; c < width; c++) {
      y[base + c] = (row[c]! - mean) / Math.sqrt(variance + eps) * weight[c]! + bias[c]!;
    }
  }
  return y;
}
