import type { Gpu } from "../kernels/gpu.ts";
import { layerNorm, layerNormBackward } from "../kernels/norm/layer_norm.ts";
import { rmsNorm, rmsNormBackward } from "../kernels/norm/rms_norm.ts";
import type { Tensor } from "../kernels/tensor.ts";

/** A norm of a checkpoint with what is trained of it: LayerNorm where it has a bias, else RMSNorm. */
export interface Norm {
  /** Module name in the checkpoint, such as `model.layers.0.input_layernorm`. */
  readonly name: string;
  /** (C) f32 */
  readonly weight: Tensor;
  readonly bias: Tensor | undefined;
  /** Gradients; undefined where the weight is frozen. */
  readonly weightGrad: Tensor | undefined;
  readonly biasGrad: Tensor | undefined;
  /** Added under the root. */
  readonly eps: number;
  /** Added to each weight of an RMSNorm; 0 unless given. */
  readonly offset?: number | undefined;
}

/** A norm's results: the caller frees both. */
export interface Normed {
  /** (rows, C) */
  readonly y: Tensor;
  /** f32, a value or two for each row, for {@linkcode normBackward}. */
  readonly stats: Tensor;
}

/** @param x (rows, C)  @param into as `x`: overwritten; a new tensor unless given */
export function norm(gpu: Gpu, x: Tensor, { weight, bias, eps, offset }: Norm, into?: Tensor): Normed {
  if (bias) return layerNorm(gpu, x, { weight, bias, eps }, into);
  const { y, rstd } = rmsNorm(gpu, x, { weight, eps, offset }, into);
  return { y, stats: rstd };
}

/**
 * Adds the norm's own gradients to what they hold.
 *
 * @param dy (rows, C)
 * @param saved.x (rows, C), the input of the forward pass
 * @param options.addTo (rows, C): the input's gradient is added to it; a new tensor unless given
 * @param options.into (rows, C): overwritten with it, in place of `addTo`
 * @returns dx (rows, C)
 */
export function normBackward(
  gpu: Gpu,
  dy: Tensor,
  { weight, bias, weightGrad, biasGrad, offset }: Norm,
  { x, stats }: { readonly x: Tensor; readonly stats: Tensor },
  target: { readonly addTo?: Tensor; readonly into?: Tensor } = {},
): Tensor {
  if (bias) {
    const gradients = { ...target, dWeight: weightGrad, dBias: biasGrad };
    return layerNormBackward(gpu, dy, { x, weight, stats }, gradients);
  }
  const gradients = { ...target, ...(weightGrad && { dWeight: weightGrad }) };
  return rmsNormBackward(gpu, dy, { x, weight, rstd: stats, offset }, gradients);
}

/**
 * Computes the gradient of what a norm reads from that of what it gives. Adds the norm's own gradients to what they hold.
 * @param dy (rows, C) or rows of several heads, C of the norm each
 * @param x like `dy`, the input of the forward pass
 * @returns dx like `dy`
 */
export function normInputGradient(gpu: Gpu, dy: Tensor, x: Tensor, own: Norm): Tensor {
  const width = own.weight.size;
  const [input, gradient] = [x.asRows(width), dy.asRows(width)];
  const { y, stats } = norm(gpu, input, own);
  y.free();
  const dx = gpu.empty(x.shape, x.dtype, "gradient before norm");
  normBackward(gpu, gradient, own, { x: input, stats }, { into: dx.asRows(width) });
  stats.free();
  return dx;
}
