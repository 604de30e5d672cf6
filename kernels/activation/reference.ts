/** The float64 definitions of SwiGLU, GEGLU and GELU that the kernels are tested against. */

/** SwiGLU: gate / (1 + exp(-gate)) * up. */
export function swigluReference(gate: ArrayLike<number>, up: ArrayLike<number>): Float64Array {
  return Float64Array.from(gate, (g, i) => g / (1 + Math.exp(-g)) * up[i]!);
}

/** GEGLU: gelu(gate) * up, with GELU by its tanh. */
export function gegluReference(gate: ArrayLike<number>, up: ArrayLike<number>): Float64Array {
  return geluReference(gate, "tanh").map((value, i) => value * up[i]!);
}

/** SwiGLU of rows (rows, 2 F) that are gate and up one after the other. @param width F */
export function fusedSwigluReference(fused: ArrayLike<number>, width: number): Float64Array {
  const half = (first: number) =>
    Float64Array.from(
      { length: fused.length / 2 },
      (_, i) => fused[2 * width * Math.floor(i / width) + first + i % width]!,
    );
  return swigluReference(half(0), half(width));
}

/** GELU: x / 2 * (1 + erf(x / sqrt(2))), or with `tanh` x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))). */
export function geluReference(x: ArrayLike<number>, form: "erf" | "tanh"): Float64Array {
  return Float64Array.from(x, (v) => {
    const inner = form === "erf"
      ? erfReference(v / Math.SQRT2)
      : Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3));
    return v / 2 * (1 + inner);
  });
}

/** The error function by its series of positive terms: 2 / sqrt(pi) exp(-z^2) sum_n 2^n z^(2n + 1) / (2n + 1)!!. */
function erfReference(z: number): number {
  if (!(Math.abs(z) < 6)) return Math.sign(z);
  let [sum, term] = [z, z];
  for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n++) sum += term *= 2 * z * z / (2 * n + 1);
  return 2 / Math.sqrt(Math.PI) * Math.exp(-z * z) * sum;
}
