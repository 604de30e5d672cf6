import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { quadsOf, requireVector, wrappedGrid } from "../shared/grid.ts";
import { REDUCE_64 } from "../shared/reduce.ts";
import { sumInto } from "../shared/sum.ts";
import { joined, rowRanges, type Tensor } from "../tensor.ts";
import clipWgsl from "./clip.wgsl" with { type: "text" };
import sumOfSquaresWgsl from "./sum_of_squares.wgsl" with { type: "text" };

const SUM_OF_SQUARES = { name: "sum_of_squares", wgsl: sumOfSquaresWgsl, ...REDUCE_64 };
const CLIP = { name: "clip", wgsl: clipWgsl };

/** Quads that one workgroup squares and adds up. */
const SPAN = 2048;

/** Places in the status of a step, f32 on the device: the optimiser obeys it, and it is read back once per step. */
export const STATUS = { gradNorm: 0, isFinite: 1, gradFactor: 2, length: 3 } as const;

export interface ClipOptions {
  /** Largest norm after clipping; 0 for no clipping. */
  readonly maxNorm: number;
  /** 1 / loss scale, over the number of accumulated batches if the loss was not divided by it. */
  readonly inverseScale: number;
}

/**
 * Computes the 2-norm of all gradients as one vector, and the factor that clips it.
 *
 * Writes to `status`: the norm times `inverseScale`, before clipping; 1 if no gradient is NaN or infinite, else 0;
 * the factor for the gradients, `inverseScale * min(1, maxNorm / (norm + 1e-6))`. Sums run in a fixed order.
 *
 * @param grads f32, of any shapes with multiples of 4 elements; neighbours are read in one dispatch
 * @param status see {@linkcode STATUS}
 * @throws {GpuError} if a type or size does not fit
 * @see torch.nn.utils.clip_grad_norm_
 */
export function globalNorm(
  gpu: Gpu,
  grads: readonly Tensor[],
  status: Tensor,
  { maxNorm, inverseScale }: ClipOptions,
): void {
  requireVector("globalNorm", status, STATUS.length, "f32");
  const parts = joined(grads)[0]!.flatMap((grad) => {
    if (grad.dtype !== "f32") {
      throw new GpuError(`Cannot apply globalNorm: "${grad.label}" is ${grad.dtype}, not f32`);
    }
    return rowRanges([grad]).map(({ start, end }) => grad.slice(start, end));
  });
  const spans = parts.map((part) => Math.ceil(quadsOf(part) / SPAN));
  const total = gpu.zeros([1], "f32", "sum of squares");
  if (parts.length > 0) {
    const sums = gpu.empty([spans.reduce((sum, count) => sum + count, 0)], "f32", "sums of squares");
    let first = 0;
    for (const [i, part] of parts.entries()) {
      gpu.run(SUM_OF_SQUARES, { g: part, sums }, {
        grid: wrappedGrid(spans[i]!),
        uniforms: { quads: quadsOf(part), first },
        constants: { SPAN },
      });
      first += spans[i]!;
    }
    sumInto(gpu, sums, total);
    sums.free();
  }
  gpu.run(CLIP, { squares: total, status }, {
    grid: [1],
    uniforms: { max_norm: maxNorm, inverse_scale: inverseScale },
  });
  total.free();
}
