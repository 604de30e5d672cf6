import { BLOCK_ROWS, columnSum, LONGEST_RANGE } from "../elementwise/column_sum.ts";
import type { Gpu } from "../gpu.ts";
import { requireSameShape, requireVector, rowQuadsOf, THREADS, wrappedGrid } from "../shared/grid.ts";
import { rowRanges, slices, type Tensor } from "../tensor.ts";
import type { Kernel } from "../wgsl.ts";

/** Kernels of a norm's gradient. */
export interface NormBackwardKernels {
  /** The op's name, for errors. */
  readonly op: string;
  /** (dy, x, weight, stats) -> dx */
  readonly backward: Kernel;
  /** (dy, x, stats) -> the weight's gradient, summed over each block of rows. */
  readonly weightBackward: Kernel;
}

/** Values of the forward pass that a norm's gradient needs. */
export interface NormSaved {
  /** (rows, C), the input. */
  readonly x: Tensor;
  /** (C) f32 */
  readonly weight: Tensor;
  /** (rows) or (rows, S) f32, the statistics of each row. */
  readonly stats: Tensor;
}

/** Tensors that a norm's gradients are added to. */
export interface NormGradients {
  /** (rows, C), any format: the gradient of x is added to it in place, and it is returned. */
  readonly addTo?: Tensor;
  /** (rows, C), any format, other memory than that of dy: overwritten, in place of `addTo`. */
  readonly into?: Tensor;
  /** (C) f32: accumulated in place; sums run in a fixed order. */
  readonly dWeight?: Tensor | undefined;
}

/**
 * Computes the gradient of a norm over rows.
 *
 * @param dy (rows, C), any format
 * @param uniforms what the kernel of x's gradient reads besides its size
 * @returns dx (rows, C): `addTo`, `into`, or a new tensor in the format of `dy` that the caller frees
 * @throws {GpuError} if shapes differ
 */
export function normBackward(
  gpu: Gpu,
  kernels: NormBackwardKernels,
  dy: Tensor,
  saved: NormSaved,
  { addTo, into, dWeight }: NormGradients,
  uniforms: Readonly<Record<string, number>> = {},
): Tensor {
  const { x, weight, stats } = saved;
  requireSameShape(kernels.op, dy, x);
  for (const given of [addTo, into]) if (given) requireSameShape(kernels.op, given, x);
  if (dWeight) addWeightGradient(gpu, kernels, dy, saved, dWeight);
  const quads = rowQuadsOf(x);
  const dx = addTo ?? into ?? gpu.empty(x.shape, dy.dtype, "norm dx");
  for (const range of rowRanges([dy, x, stats, dx])) {
    const rows = range.end - range.start;
    gpu.run(kernels.backward, { ...slices({ dy, x, stats, dx }, range), w: weight }, {
      grid: wrappedGrid(rows),
      uniforms: { rows, quads, ...uniforms },
      constants: { ADD: addTo !== undefined },
      formats: { Y: dy.format, X: x.format, D: dx.format },
    });
  }
  return dx;
}

/** Sums over blocks of rows first, then over the blocks: parallel, and in the same order every time. */
function addWeightGradient(
  gpu: Gpu,
  { op, weightBackward }: NormBackwardKernels,
  dy: Tensor,
  { x, stats }: NormSaved,
  dWeight: Tensor,
): void {
  requireVector(op, dWeight, x.width, "f32");
  const quads = rowQuadsOf(x);
  for (const range of rowRanges([dy, x, stats], LONGEST_RANGE)) {
    const rows = range.end - range.start;
    const blocks = Math.ceil(rows / BLOCK_ROWS);
    const partial = gpu.empty([blocks, x.width], "f32", "norm dWeight by block");
    gpu.run(weightBackward, { ...slices({ dy, x, stats }, range), partial }, {
      grid: [Math.ceil(quads / THREADS), blocks],
      uniforms: { rows, quads },
      constants: { BLOCK_ROWS },
      formats: { Y: dy.format, X: x.format },
    });
    columnSum(gpu, partial, dWeight);
    partial.free();
  }
}
