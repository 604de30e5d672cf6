import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { quadsOf, requireSameShape, requireVector, threadGrid } from "../shared/grid.ts";
import { joined, rowRanges, slices, type Tensor } from "../tensor.ts";
import adamWWgsl from "./adamw.wgsl" with { type: "text" };
import { STATUS } from "./global_norm.ts";

const ADAMW = { name: "adamw", wgsl: adamWWgsl };

/** A trained tensor, its gradient, and the running means of the gradient and of its square: one shape, f32. */
export interface AdamWState {
  readonly param: Tensor;
  readonly grad: Tensor;
  readonly m: Tensor;
  readonly v: Tensor;
}

export interface AdamWOptions {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  /** Number of this step, from 1. */
  readonly step: number;
}

/**
 * Takes one step of AdamW, in place on every `param`, `m` and `v`; those that lie side by side are one dispatch. Multiplies the gradient by the factor in `status`, and
 * leaves every byte as it was if `status` says that some gradient was not finite.
 *
 * @param status see {@linkcode STATUS}, written by `globalNorm`
 * @throws {GpuError} if shapes or types do not fit, or `step` is below 1
 * @see Loshchilov and Hutter, 2019, arXiv:1711.05101; torch.optim.AdamW
 */
export function adamW(
  gpu: Gpu,
  states: readonly AdamWState[],
  status: Tensor,
  options: AdamWOptions,
): void {
  const { learningRate, beta1, beta2, epsilon, weightDecay, step } = options;
  requireVector("adamW", status, STATUS.length, "f32");
  if (!(step >= 1)) throw new GpuError(`Cannot apply adamW: steps count from 1, got ${step}`);
  for (const { param, grad, m, v } of states) {
    for (const tensor of [param, grad, m, v]) {
      requireSameShape("adamW", tensor, param);
      if (tensor.dtype !== "f32") {
        throw new GpuError(`Cannot apply adamW: "${tensor.label}" is ${tensor.dtype}, not f32`);
      }
    }
    quadsOf(param);
  }
  const lists = (["param", "grad", "m", "v"] as const).map((name) => states.map((state) => state[name]));
  const [params, grads, ms, vs] = joined(...lists) as [Tensor[], Tensor[], Tensor[], Tensor[]];
  const parts = params.flatMap((param, i) => {
    const state = { param, grad: grads[i]!, m: ms[i]!, v: vs[i]! };
    return rowRanges(Object.values(state)).map((range) => slices(state, range));
  });
  for (const part of parts) {
    const quads = quadsOf(part.param);
    gpu.run(ADAMW, { ...part, status }, {
      grid: threadGrid(quads),
      uniforms: {
        quads,
        one_minus_beta1: 1 - beta1,
        one_minus_beta2: 1 - beta2,
        step_size: learningRate / (1 - beta1 ** step),
        inverse_root: 1 / Math.sqrt(1 - beta2 ** step),
        epsilon,
        decay: learningRate * weightDecay,
      },
    });
  }
}
