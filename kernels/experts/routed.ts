/** What lies between the products of experts, and what comes behind them. */
import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import sigmoidWgsl from "../activation/sigmoid.wgsl" with { type: "text" };
import type { GatedInputs } from "../activation/gated.ts";
import { quadsOf, rowQuadsOf, threadGrid, wrappedGrid } from "../shared/grid.ts";
import { REDUCE_64 } from "../shared/reduce.ts";
import { rowRanges, type Tensor } from "../tensor.ts";
import combineWgsl from "./combine.wgsl" with { type: "text" };
import type { Routing } from "./routing.ts";
import swigluWgsl from "./routed_swiglu.wgsl" with { type: "text" };
import swigluBackwardWgsl from "./routed_swiglu_backward.wgsl" with { type: "text" };
import tableWgsl from "./table.wgsl" with { type: "text" };

const COMBINE = { name: "combine_experts", wgsl: combineWgsl, libraries: [tableWgsl] };
const SWIGLU = { name: "routed_swiglu", wgsl: swigluWgsl, libraries: [sigmoidWgsl, tableWgsl] };
const SWIGLU_BACKWARD = {
  ...REDUCE_64,
  name: "routed_swiglu_backward",
  wgsl: swigluBackwardWgsl,
  libraries: [...REDUCE_64.libraries, sigmoidWgsl, tableWgsl],
};

/**
 * Computes w silu(gate) up, with the weight w of the row's expert.
 *
 * @param inputs (T k, F) each, rows as the table has them
 * @param weights (T k) f32 by pair
 * @returns (T k, F) in the format of `gate`; the caller frees it
 * @throws {GpuError} if shapes differ
 */
export function routedSwiglu(gpu: Gpu, { gate, up }: GatedInputs, weights: Tensor, routing: Routing): Tensor {
  requireRows("routedSwiglu", routing, gate, up);
  const y = gpu.empty(gate.shape, gate.dtype, "routed swiglu");
  gpu.run(SWIGLU, { gate, up, y, weights, table: routing.table }, {
    grid: threadGrid(quadsOf(y)),
    uniforms: { quads: quadsOf(y), row_quads: rowQuadsOf(y), pairs: y.rows },
    formats: { X: gate.format },
  });
  return y;
}

/**
 * Runs {@linkcode routedSwiglu} backward: `gate` becomes its gradient, and so does `up`.
 *
 * @param dy (T k, F), any format
 * @returns the gradient of the weights, (T k) f32 by pair; the caller frees it
 * @throws {GpuError} if shapes differ
 */
export function routedSwigluBackwardInPlace(
  gpu: Gpu,
  dy: Tensor,
  { gate, up }: GatedInputs,
  weights: Tensor,
  routing: Routing,
): Tensor {
  requireRows("routedSwigluBackwardInPlace", routing, dy, gate, up);
  const dWeights = gpu.empty([gate.rows], "f32", "gradient of the weights of experts");
  gpu.run(SWIGLU_BACKWARD, { dy, gate, up, weights, d_weights: dWeights, table: routing.table }, {
    grid: wrappedGrid(gate.rows),
    uniforms: { rows: gate.rows, row_quads: rowQuadsOf(gate) },
    formats: { Y: dy.format, X: gate.format },
  });
  return dWeights;
}

/**
 * Sums the rows of each token's experts.
 *
 * @param x (T k, C), rows as the table has them
 * @param y (T, C), overwritten
 * @param options.adds adds to what `y` holds instead
 * @throws {GpuError} if shapes differ
 */
export function combine(
  gpu: Gpu,
  x: Tensor,
  y: Tensor,
  routing: Routing,
  { adds = false }: { readonly adds?: boolean } = {},
): void {
  requireRows("combine", routing, x);
  if (y.rows !== routing.tokens || y.width !== x.width) {
    throw new GpuError(`Cannot apply combine: [${x.shape}] does not make [${y.shape}] "${y.label}"`);
  }
  for (const { start, end } of rowRanges([y])) {
    const part = y.slice(start, end);
    const quads = quadsOf(part);
    gpu.run(COMBINE, { x, y: part, table: routing.table }, {
      grid: threadGrid(quads),
      constants: { ADDS: adds },
      uniforms: { quads, row_quads: rowQuadsOf(y), k: routing.perToken, pairs: x.rows, first: start },
      formats: { X: x.format, Y: y.format },
    });
  }
}

function requireRows(op: string, { tokens, perToken }: Routing, ...tensors: readonly Tensor[]): void {
  const wrong = tensors.find(({ rows, width }) => rows !== tokens * perToken || width !== tensors[0]!.width);
  if (!wrong) return;
  throw new GpuError(
    `Cannot apply ${op}: "${wrong.label}" is [${wrong.shape}], not ${perToken} rows for each of ${tokens} tokens`,
  );
}
