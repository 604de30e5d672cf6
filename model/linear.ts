import { columnSum } from "../kernels/elementwise/column_sum.ts";
import { dropout, type RowNumbers } from "../kernels/elementwise/dropout.ts";
import { addBias, addInto } from "../kernels/elementwise/elementwise.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { matmul, matmulBackwardInput, matmulBackwardWeight } from "../kernels/matmul/matmul.ts";
import type { Weight } from "../kernels/weight.ts";
import { product } from "../kernels/matvec/matvec.ts";
import type { Tensor } from "../kernels/tensor.ts";

/** The two factors of a LoRA update: y += scaling B A drop(x).   Hu et al. 2021, arXiv:2106.09685, section 4.1. */
export interface Lora {
  /** (R, K) f32; R is the rank rounded up to a multiple of 4, with rows of zeros that stay zero. */
  readonly A: Tensor;
  /** (N, R) f32 */
  readonly B: Tensor;
  /** Gradients; undefined where the adapter is only applied. */
  readonly gradA: Tensor | undefined;
  readonly gradB: Tensor | undefined;
  /** The rank without padding. */
  readonly rank: number;
  readonly scaling: number;
  /** Share of inputs dropped while training. */
  readonly dropout: number;
  /** Number of this module in the model: its dropout draws from a stream of its own. */
  readonly stream: number;
}

/** Key of dropout's random numbers: the same key gives the same mask, in the forward pass and when recomputing. */
export interface DropoutKey {
  readonly seed: number;
  /** Forward passes done before this one in the run. */
  readonly pass: number;
  /** Number of the first row in the whole batch, where a rank holds only some rows of it; 0 unless given. */
  readonly firstRow?: number;
}

/** A linear layer of a checkpoint, y = scale (x W^T + b), with what is trained of it. */
export interface Linear {
  /** Module name in the checkpoint, such as `model.layers.0.self_attn.q_proj`. */
  readonly name: string;
  readonly weight: Weight;
  readonly bias: Tensor | undefined;
  /** Gradients; undefined where the weight is frozen. */
  readonly weightGrad: Tensor | undefined;
  readonly biasGrad: Tensor | undefined;
  /** Factor of all that it gives; 1 unless given. */
  readonly scale?: number | undefined;
  lora: Lora | undefined;
}

/** Position of a product's rows in the batch, and its destination. */
export interface LinearOptions {
  /** Number in the batch of the first row of `x`, from which dropout draws; 0 unless given. */
  readonly firstRow?: number;
  /** (rows, N), overwritten; a new tensor in the format of `x` unless given. */
  readonly into?: Tensor;
  /** (rows, N): the result is added to it, in place of `into`. */
  readonly addTo?: Tensor;
}

/** @param x (rows, K)  @returns y (rows, N) */
export function linear(
  gpu: Gpu,
  x: Tensor,
  layer: Linear,
  key: DropoutKey | undefined,
  { firstRow = 0, into, addTo }: LinearOptions = {},
): Tensor {
  const { scale: alpha = 1 } = layer;
  const y = product(
    gpu,
    x,
    layer.weight,
    addTo ? { into: addTo, alpha, beta: 1 } : into ? { into, alpha } : { alpha },
  );
  if (layer.bias) addBias(gpu, y, layer.bias, alpha);
  if (layer.lora) {
    const { A, B, scaling } = layer.lora;
    const dropped = dropInput(gpu, x, layer.lora, key, firstRow);
    const h = product(gpu, dropped, A, { format: "f32" });
    product(gpu, h, B, { into: y, alpha: alpha * scaling, beta: 1 });
    h.free();
    if (dropped !== x) dropped.free();
  }
  return y;
}

/** Position of a gradient's rows in the batch, and its destination. */
export interface LinearBackwardOptions {
  /** As in {@linkcode LinearOptions}. */
  readonly firstRow?: number;
  /** (rows, K): the input's gradient is added to it; a new tensor unless given. */
  readonly addTo?: Tensor;
}

/**
 * Adds the layer's own gradients to what they hold.
 *
 * @param dy (rows, N)
 * @param x (rows, K), the input of the forward pass
 * @returns dx (rows, K)
 */
export function linearBackward(
  gpu: Gpu,
  dy: Tensor,
  x: Tensor,
  layer: Linear,
  key: DropoutKey | undefined,
  { firstRow = 0, addTo }: LinearBackwardOptions = {},
): Tensor {
  const { weight, weightGrad, biasGrad, lora, scale: alpha = 1 } = layer;
  if (weightGrad) matmulBackwardWeight(gpu, dy, x, { into: weightGrad, alpha, beta: 1 });
  if (biasGrad) columnSum(gpu, dy, biasGrad, alpha);
  const dx = matmulBackwardInput(gpu, dy, weight, addTo ? { into: addTo, alpha, beta: 1 } : { alpha });
  if (lora) {
    const scaled = { ...lora, scaling: alpha * lora.scaling };
    loraBackward(gpu, dy, x, scaled, (input) => dropInput(gpu, input, lora, key, firstRow), dx);
  }
  return dx;
}

/** dB += s dy^T h, dA += g^T drop(x), dx += drop(g A), with h = drop(x) A^T and g = s dy B. */
function loraBackward(
  gpu: Gpu,
  dy: Tensor,
  x: Tensor,
  { A, B, gradA, gradB, scaling }: Lora,
  drop: (input: Tensor) => Tensor,
  dx: Tensor,
): void {
  const dropped = drop(x);
  if (gradB) {
    const h = matmul(gpu, dropped, A, { format: "f32" });
    matmulBackwardWeight(gpu, dy, h, { into: gradB, alpha: scaling, beta: 1 });
    h.free();
  }
  const g = matmulBackwardInput(gpu, dy, B, { alpha: scaling, format: "f32" });
  if (gradA) matmulBackwardWeight(gpu, g, dropped, { into: gradA, beta: 1 });
  if (dropped === x) {
    matmulBackwardInput(gpu, g, A, { into: dx, beta: 1 });
  } else {
    dropped.free();
    const dDropped = matmulBackwardInput(gpu, g, A, { format: dx.format });
    const dInput = drop(dDropped);
    dDropped.free();
    addInto(gpu, dx, dInput);
    dInput.free();
  }
  g.free();
}

/** Rows of which a token has several, in an order of their own. */
export interface PairRows {
  /** Number of each: that of its token times rows of a token, and its place among these. */
  readonly numbers: RowNumbers;
  /** Rows of a token. */
  readonly perToken: number;
}

/**
 * Drops some inputs of LoRA in training.
 * @param firstRow number of the first token
 * @param pairs where x has several rows for each token
 * @returns `x` itself where nothing is dropped
 */
export function dropInput(
  gpu: Gpu,
  x: Tensor,
  lora: Lora,
  key: DropoutKey | undefined,
  firstRow: number,
  pairs?: PairRows,
): Tensor {
  if (!key || lora.dropout === 0) return x;
  const stream = streamOf(key, lora.stream);
  const first = ((key.firstRow ?? 0) + firstRow) * (pairs?.perToken ?? 1);
  return dropout(gpu, x, {
    p: lora.dropout,
    seed: key.seed,
    stream,
    offset: first * x.width,
    numbers: pairs?.numbers,
  });
}

/** More than the linears of any LLaMA, so that no two passes share a stream. */
const STREAMS_PER_PASS = 2048;

/** Number in a pass of the stream that is no linear's: the noise on the embeddings draws from it. */
export const NOISE_STREAM = STREAMS_PER_PASS - 1;

/** The stream of random numbers that something draws from in a pass, by its number there. */
export function streamOf({ pass }: DropoutKey, number: number): number {
  return (pass * STREAMS_PER_PASS + number) % 2 ** 32;
}
