/** The float64 definition of SwiGLU that the kernels are tested against. */

/** gate / (1 + exp(-gate)) * up */
export function swiglu64(gate: ArrayLike<number>, up: ArrayLike<number>): Float64Array {
  return Float64Array.from(gate, (g, i) => g / (1 + Math.exp(-g)) * up[i]!);
}
