import { BLOCK_ROWS, columnSum, LONGEST_RANGE } from "../elementwise/column_sum.ts";
import type { Gpu } from "../gpu.ts";
import { requireSameShape, requireVector, rowQuadsOf, THREADS, wrappedGrid } from "../shared/grid.ts";
import { rowRanges, type Tensor } from "../tensor.ts";
import type { Kernel } from "../wgsl.ts";

/** The kernels of a norm's gradient. */
export interface NormBackwardKernels {
  /** The op's name, for errors. */
  readonly op: string;
  /** Of (dy, x, weight, stats) to dx. */
  readonly backward: Kernel;
  /** Of (dy, x, stats) to the sums over blocks of rows. */
  readonly weightBackward: Kernel;
}

/** What a norm's backward pass needs back from the forward pass. */
export interface NormSaved {
  /** (rows, C), the input. */
  readonly x: Tensor;
  /** (C) f32 */
  readonly weight: Tensor;
  /** (rows) or (rows, S) f32, what the norm kept of each row. */
  readonly stats: Tensor;
}

/** Where a norm's gradients go besides a new tensor. */
export interface NormGradients {
  /** (rows, C), any format: the gradient of x is added to it in place, and it is returned. */
  readonly addTo?: Tensor;
  /** (C) f32: accumulated in place; sums run in a fixed order. */
  readonly dWeight?: Tensor | undefined;
}

/**
 * Gradient of a norm over rows, over as many ranges of rows as bindings ask for.
 *
 * @param dy (rows, C), any format
 * @returns dx (rows, C): `addTo`, or a new tensor in the format of `dy` that the caller frees
 * @throws {GpuError} if shapes differ
 */
export function normBackward(
  gpu: Gpu,
  kernels: NormBackwardKernels,
  dy: Tensor,
  saved: NormSaved,
  { addTo, dWeight }: NormGradients,
): Tensor {
  const { x, weight, stats } = saved;
  requireSameShape(kernels.op, dy, x);
  if (addTo) requireSameShape(kernels.op, addTo, x);
  if (dWeight) addWeightGradient(gpu, kernels, dy, saved, dWeight);
  const quads = rowQuadsOf(x);
  const dx = addTo ?? gpu.empty(x.shape, dy.dtype, "norm dx");
  for (const { start, end } of rowRanges([dy, x, stats, dx])) {
    const rows = end - start;
    const [dyPart, xPart, statsPart, dxPart] = [dy, x, stats, dx].map((tensor) => tensor.slice(start, end));
    gpu.run(kernels.backward, [dyPart!, xPart!, weight, statsPart!, dxPart!], {
      grid: wrappedGrid(rows),
      uniforms: { rows, quads },
      constants: { ADD: addTo ? 1 : 0 },
      formats: { Y: dy.format, X: x.format, D: dx.format },
    });
  }
  return dx;
}

/** Sums by blocks of rows first, then over the blocks: parallel, and the same every time. */
function addWeightGradient(
  gpu: Gpu,
  { op, weightBackward }: NormBackwardKernels,
  dy: Tensor,
  { x, stats }: NormSaved,
  dWeight: Tensor,
): void {
  requireVector(op, dWeight, x.width, "f32");
  const quads = rowQuadsOf(x);
  for (const { start, end } of rowRanges([dy, x, stats], LONGEST_RANGE)) {
    const rows = end - start;
    const blocks = Math.ceil(rows / BLOCK_ROWS);
    const partial = gpu.empty([blocks, x.width], "f32", "norm dWeight by block");
    const parts = [dy, x, stats].map((tensor) => tensor.slice(start, end));
    gpu.run(weightBackward, [...parts, partial], {
      grid: [Math.ceil(quads / THREADS), blocks],
      uniforms: { rows, quads },
      constants: { BLOCK_ROWS },
      formats: { Y: dy.format, X: x.format },
    });
    columnSum(gpu, partial, dWeight);
    partial.free();
  }
}
