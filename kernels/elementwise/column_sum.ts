import type { Gpu } from "../gpu.ts";
import { requireVector, rowQuadsOf, THREADS } from "../shared/grid.ts";
import { rowRanges, type Tensor } from "../tensor.ts";
import columnSumWgsl from "./column_sum.wgsl" with { type: "text" };

const COLUMN_SUM = { name: "column_sum", wgsl: columnSumWgsl };

/** Rows that one thread adds up: few enough to keep rounding small, enough for the sums to be few. */
export const BLOCK_ROWS = 64;

/** Most rows of one dispatch: a block each workgroup along y, as many as WebGPU allows. */
export const LONGEST_RANGE = BLOCK_ROWS * 65535;

/**
 * Adds `factor` times the sum of each column to `into`: the gradient of a bias.
 *
 * @param x (rows, N), any format
 * @param into (N) f32, accumulated in place
 * @throws {GpuError} if N is not a multiple of 4, or `into` not (N) f32
 */
export function columnSum(gpu: Gpu, x: Tensor, into: Tensor, factor = 1): void {
  requireVector("columnSum", into, x.width, "f32");
  for (const { start, end } of rowRanges([x], LONGEST_RANGE)) {
    sumBlocks(gpu, x.slice(start, end), into, factor);
  }
}

function sumBlocks(gpu: Gpu, x: Tensor, into: Tensor, factor: number): void {
  const quads = rowQuadsOf(x);
  const blocks = Math.ceil(x.rows / BLOCK_ROWS);
  const isLast = blocks === 1;
  const sums = isLast ? into : gpu.empty([blocks, x.width], "f32", "column sums");
  gpu.run(COLUMN_SUM, { x, sums }, {
    grid: [Math.ceil(quads / THREADS), blocks],
    uniforms: { rows: x.rows, quads, factor },
    constants: { BLOCK_ROWS, ADD: isLast },
    formats: { X: x.format },
  });
  if (isLast) return;
  sumBlocks(gpu, sums, into, factor);
  sums.free();
}
