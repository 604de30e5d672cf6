import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { requireSameShape } from "../shared/grid.ts";
import type { Tensor } from "../tensor.ts";

/** Gives the tensor that a norm of `x` writes. @throws {GpuError} if `into` is of another shape or format than `x` */
export function normResult(gpu: Gpu, op: string, x: Tensor, into: Tensor | undefined): Tensor {
  if (!into) return gpu.empty(x.shape, x.dtype, op);
  requireSameShape(op, into, x);
  if (into.dtype === x.dtype) return into;
  throw new GpuError(`Cannot apply ${op}: its input is ${x.dtype}, but its result ${into.dtype}`);
}
