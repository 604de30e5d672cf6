import { columnSum } from "../kernels/elementwise/column_sum.ts";
import {
  dropout,
  type DropoutKey as Mask,
  keptFactor,
  type RowNumbers,
} from "../kernels/elementwise/dropout.ts";
import { addBias, addInto } from "../kernels/elementwise/elementwise.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { decodeAhead } from "../kernels/matmul/decode_ahead.ts";
import {
  matmulBackwardInput,
  matmulBackwardInputs,
  matmulBackwardWeight,
  matmulBackwardWeights,
  matmuls,
} from "../kernels/matmul/matmul.ts";
import type { Weight } from "../kernels/weight.ts";
import { MATVEC_ROWS, matvecs } from "../kernels/matvec/matvec.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { Format } from "../kernels/wgsl.ts";
import { type LinearInput, sourceOf, type VectorRows, withFewRows, withRows } from "./linear_input.ts";

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
  /** The weight as floats, while a layer's products read it; see {@linkcode withFloats}. */
  floats?: Tensor | undefined;
}

/**
 * Decodes the weights of linears for all products until the result is disposed of: each once, and those of one shape side
 * by side, so that they are multiplied with the same rows in one dispatch.
 * @param use rows and format of what they multiply
 */
export function withFloats(
  gpu: Gpu,
  layers: readonly Linear[],
  use: { readonly rows: number; readonly format: Format },
): Disposable {
  const floats = decodeAhead(gpu, layers.map(({ weight }) => weight), use);
  layers.forEach((layer, i) => layer.floats = floats[i]);
  return {
    [Symbol.dispose]() {
      for (const layer of layers) {
        layer.floats?.free();
        layer.floats = undefined;
      }
    },
  };
}

/** Position of a product's rows in the batch, and its destination. */
export interface LinearOptions {
  /** Number in the batch of the first row of `x`, from which dropout draws; 0 unless given. */
  readonly firstRow?: number;
  /** (rows, N), overwritten; a new tensor in the format of `x` unless given. */
  readonly into?: Tensor;
  /** (rows, N): the result is added to it, in place of `into`. */
  readonly addTo?: Tensor;
  /** (rows, N) of other memory: added to the result. */
  readonly addend?: Tensor;
}

/** @param input (rows, K)  @returns y (rows, N) */
export function linear(
  gpu: Gpu,
  input: LinearInput,
  layer: Linear,
  key: DropoutKey | undefined,
  { firstRow = 0, ...target }: LinearOptions = {},
): Tensor {
  return linears(gpu, input, [layer], key, { firstRow, targets: [target] })[0]!;
}

/** Position of rows that several linears read, and what each does with its result. */
export interface LinearsOptions extends Pick<LinearOptions, "firstRow"> {
  /** One for each linear; new tensors unless given. */
  readonly targets?: readonly Omit<LinearOptions, "firstRow">[];
}

/** Runs linears on the same rows. @param input (rows, K)  @returns y (rows, N) of each */
export function linears(
  gpu: Gpu,
  input: LinearInput,
  layers: readonly Linear[],
  key: DropoutKey | undefined,
  options: LinearsOptions = {},
): Tensor[] {
  if (sourceOf(input).rows > MATVEC_ROWS) {
    return withRows(gpu, input, (x) => linearsOfManyRows(gpu, x, layers, key, options));
  }
  const run = (rows: VectorRows): Tensor[] => linearsOfFewRows(gpu, rows, layers, key, options);
  // Dropout reads a tensor.
  return key ? withRows(gpu, input, (x) => run({ x })) : withFewRows(gpu, input, layers, run);
}

function linearsOfManyRows(
  gpu: Gpu,
  x: Tensor,
  layers: readonly Linear[],
  key: DropoutKey | undefined,
  { firstRow = 0, targets = [] }: LinearsOptions,
): Tensor[] {
  const low = lowRank(gpu, x, layers, key, firstRow);
  const calls = layers.map((layer, i) => {
    const { weight, floats, lora, scale: alpha = 1 } = layer;
    const { into, addTo, addend } = targets[i] ?? {};
    return {
      x,
      weight: floats ?? weight,
      alpha,
      inner: low && lora && { x: low.h, first: low.firsts[i]!, weight: lora.B },
      ...(addTo ? { into: addTo, beta: 1 } : { into, addend, beta: addend ? 1 : 0 }),
    };
  });
  const ys = matmuls(gpu, calls);
  low?.h.free();
  layers.forEach(({ bias, scale = 1 }, i) => bias && addBias(gpu, ys[i]!, bias, scale));
  return ys;
}

/** Runs linears on so few rows that the time is that of reading weights, as when text is written. */
function linearsOfFewRows(
  gpu: Gpu,
  rows: VectorRows,
  layers: readonly Linear[],
  key: DropoutKey | undefined,
  { firstRow = 0, targets = [] }: LinearsOptions,
): Tensor[] {
  const low = lowRankOfFewRows(gpu, rows, layers, key, firstRow);
  const calls = layers.map(({ weight, floats, lora, scale: alpha = 1 }, i) => {
    const { into, addTo } = targets[i] ?? {};
    return {
      weight: floats ?? weight,
      alpha,
      inner: low && lora && { x: low.h, first: low.firsts[i]!, weight: lora.B },
      ...(addTo ? { into: addTo, beta: 1 } : { into }),
    };
  });
  const ys = matvecs(gpu, rows.x, calls, rows.input);
  low?.h.free();
  layers.forEach(({ bias, scale = 1 }, i) => {
    const addend = targets[i]?.addend;
    if (addend) addInto(gpu, ys[i]!, addend);
    if (bias) addBias(gpu, ys[i]!, bias, scale);
  });
  return ys;
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
  options: LinearBackwardOptions = {},
): Tensor {
  return linearsBackward(gpu, [dy], x, [layer], key, options);
}

/**
 * Runs {@linkcode linears} backward: adds the layers' own gradients to what they hold.
 *
 * @param dys (rows, N) of each
 * @param x (rows, K), the input of the forward pass
 * @returns dx (rows, K), of all together
 */
export function linearsBackward(
  gpu: Gpu,
  dys: readonly Tensor[],
  x: Tensor,
  layers: readonly Linear[],
  key: DropoutKey | undefined,
  { firstRow = 0, addTo }: LinearBackwardOptions = {},
): Tensor {
  layers.forEach(({ weightGrad, biasGrad, scale: alpha = 1 }, i) => {
    if (weightGrad) matmulBackwardWeight(gpu, dys[i]!, x, { into: weightGrad, alpha, beta: 1 });
    if (biasGrad) columnSum(gpu, dys[i]!, biasGrad, alpha);
  });
  const low = loraBackward(gpu, dys, x, layers, key, firstRow);
  let dx = addTo;
  layers.forEach(({ weight, floats, lora, scale: alpha = 1 }, i) => {
    const inner = low && lora && {
      x: low.g,
      first: low.firsts[i]!,
      weight: lora.A,
      mask: maskOf(lora, key, firstRow, x),
    };
    dx = matmulBackwardInput(gpu, dys[i]!, floats ?? weight, {
      ...(dx && { into: dx, beta: 1 }),
      alpha,
      inner,
    });
  });
  low?.g.free();
  return dx!;
}

/** Places of the ranks of several adapters in rows that have all of them, and how many columns that makes. */
function ranksOf(layers: readonly Linear[]): { readonly firsts: readonly number[]; readonly width: number } {
  let width = 0;
  const firsts = layers.map(({ lora }) => (width += lora?.A.rows ?? 0) - (lora?.A.rows ?? 0));
  return { firsts, width };
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
  const mask = maskOf(lora, key, firstRow, x, pairs?.perToken);
  return mask ? dropout(gpu, x, { ...mask, numbers: pairs?.numbers }) : x;
}

/** h = s / (1 - p) drop(x) A^T of every adapter, side by side, (rows, ranks) f32, with drop() a mask of 0 and 1. */
function lowRank(
  gpu: Gpu,
  x: Tensor,
  layers: readonly Linear[],
  key: DropoutKey | undefined,
  firstRow: number,
): { readonly h: Tensor; readonly firsts: readonly number[] } | undefined {
  const { firsts, width } = ranksOf(layers);
  if (width === 0) return undefined;
  const h = gpu.empty([x.rows, width], "f32", "h");
  const calls = layers.flatMap(({ lora }, i) =>
    lora
      ? [{
        x,
        weight: lora.A,
        alpha: factorOf(lora, key),
        mask: maskOf(lora, key, firstRow, x),
        into: h,
        first: firsts[i]!,
      }]
      : []
  );
  matmuls(gpu, calls);
  return { h, firsts };
}

/** {@linkcode lowRank} of few rows: several in one product where nothing is dropped, and the factors A lie side by side. */
function lowRankOfFewRows(
  gpu: Gpu,
  { x, input }: VectorRows,
  layers: readonly Linear[],
  key: DropoutKey | undefined,
  firstRow: number,
): { readonly h: Tensor; readonly firsts: readonly number[] } | undefined {
  const { firsts, width } = ranksOf(layers);
  if (width === 0) return undefined;
  const h = gpu.empty([x.rows, width], "f32", "h");
  const loras = layers.flatMap(({ lora }, i) =>
    lora ? [{ lora, call: { weight: lora.A, alpha: lora.scaling, into: h, first: firsts[i]! } }] : []
  );
  if (!key) {
    matvecs(gpu, x, loras.map(({ call }) => call), input);
    return { h, firsts };
  }
  for (const { lora, call } of loras) {
    const dropped = dropInput(gpu, x, lora, key, firstRow);
    matvecs(gpu, dropped, [call]);
    if (dropped !== x) dropped.free();
  }
  return { h, firsts };
}

/**
 * dB += dy^T h, dA += g^T drop(x), with h as in the forward pass and g = s / (1 - p) dy B.
 * @returns g of every adapter, side by side, (rows, ranks) f32
 */
function loraBackward(
  gpu: Gpu,
  dys: readonly Tensor[],
  x: Tensor,
  layers: readonly Linear[],
  key: DropoutKey | undefined,
  firstRow: number,
): { readonly g: Tensor; readonly firsts: readonly number[] } | undefined {
  const { firsts, width } = ranksOf(layers);
  if (width === 0) return undefined;
  const adapted = layers.flatMap(({ lora, scale: alpha = 1 }, i) =>
    lora ? [{ lora, alpha, dy: dys[i]!, first: firsts[i]! }] : []
  );
  const trained = adapted.filter(({ lora }) => lora.gradA);
  if (trained.length > 0) {
    const { h } = lowRank(gpu, x, layers, key, firstRow)!;
    matmulBackwardWeights(
      gpu,
      trained.map(({ lora, alpha, dy, first }) => (
        { dy, x: h, xFirst: first, into: lora.gradB!, alpha, beta: 1 }
      )),
    );
    h.free();
  }
  const g = gpu.empty([x.rows, width], "f32", "g");
  matmulBackwardInputs(
    gpu,
    adapted.map(({ lora, dy, first }) => ({
      dy,
      weight: lora.B,
      into: g,
      first,
      alpha: factorOf(lora, key),
    })),
  );
  matmulBackwardWeights(
    gpu,
    trained.map(({ lora, alpha, first }) => {
      const mask = maskOf(lora, key, firstRow, x);
      return { dy: g, dyFirst: first, x, into: lora.gradA!, alpha, beta: 1, mask };
    }),
  );
  return { g, firsts };
}

/** Scaling of the update, over what dropout keeps. */
function factorOf({ scaling, dropout }: Lora, key: DropoutKey | undefined): number {
  return key ? scaling * keptFactor(dropout) : scaling;
}

/** The mask of an adapter's input x; undefined where nothing is dropped. @param firstRow as in {@linkcode LinearOptions} */
function maskOf(
  { dropout: p, stream }: Lora,
  key: DropoutKey | undefined,
  firstRow: number,
  { width }: Tensor,
  perToken = 1,
): Mask | undefined {
  if (!key || p === 0) return undefined;
  const offset = ((key.firstRow ?? 0) + firstRow) * perToken * width;
  return { p, seed: key.seed, stream: streamOf(key, stream), offset };
}

/** More than the linears of any LLaMA, so that no two passes share a stream. */
const STREAMS_PER_PASS = 2048;

/** Number in a pass of the stream that is no linear's: the noise on the embeddings draws from it. */
export const NOISE_STREAM = STREAMS_PER_PASS - 1;

/** The stream of random numbers that something draws from in a pass, by its number there. */
export function streamOf({ pass }: DropoutKey, number: number): number {
  return (pass * STREAMS_PER_PASS + number) % 2 ** 32;
}
