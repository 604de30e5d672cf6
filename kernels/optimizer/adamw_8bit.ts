import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { dynamicMap } from "../nf4/format.ts";
import { quadsOf, requireSameShape, requireVector, wrappedGrid } from "../shared/grid.ts";
import { REDUCE_64 } from "../shared/reduce.ts";
import { rowRanges, slices, Tensor } from "../tensor.ts";
import type { AdamWOptions } from "./adamw.ts";
import adamW8bitWgsl from "./adamw_8bit.wgsl" with { type: "text" };
import { STATUS } from "./global_norm.ts";

const ADAMW_8BIT = { name: "adamw_8bit", wgsl: adamW8bitWgsl, ...REDUCE_64 };

/** Elements that share a scale. */
export const STATE_BLOCK = 256;

/** Tensors with fewer elements keep states of 32 bits, as in bitsandbytes. */
export const MIN_8BIT_SIZE = 4096;

/** A trained tensor, its gradient, and the running means of the gradient (m) and of its square (v) in 8 bits. */
export interface AdamW8bitState {
  /** Any shape, f32. */
  readonly param: Tensor;
  readonly grad: Tensor;
  /** u32, of the shape of {@linkcode codesShape}: a byte an element, an index into {@linkcode adamW8bitMaps}. */
  readonly mCodes: Tensor;
  readonly vCodes: Tensor;
  /** (blocks, 2) f32: the largest magnitudes of m and v in each {@linkcode STATE_BLOCK} elements. */
  readonly absmax: Tensor;
}

/** Place of a part in the state of a larger tensor. */
export interface AdamW8bitPart {
  /** Row of `absmax` for the first element of `param`; 0 unless given. */
  readonly firstBlock?: number;
}

/** Makes the values of the codes, (2, 256) f32: the signed dynamic map for m, the unsigned one for v. The caller frees it. */
export function adamW8bitMaps(gpu: Gpu): Tensor {
  const values = new Float32Array(512);
  values.set(dynamicMap(true));
  values.set(dynamicMap(false), 256);
  return gpu.tensor([2, 256], values, { label: "8-bit maps" });
}

/** Shape of the codes (u32, four each) of a tensor: as many rows as {@linkcode asRows} gives it. */
export function codesShape(shape: readonly number[]): readonly number[] {
  if (shape.length < 2) return [shape[0]! / 4, 1];
  return [shape.slice(0, -1).reduce((product, axis) => product * axis, 1), shape.at(-1)! / 4];
}

/** Views a vector as rows of four, in the same memory; returns other tensors as they are. */
export function asRows(tensor: Tensor): Tensor {
  if (tensor.shape.length >= 2) return tensor;
  const segments = tensor.segments.map(({ buffer, offset, start, rows }) => (
    { buffer, offset, start: start / 4, rows: rows / 4 }
  ));
  return new Tensor([tensor.size / 4, 4], tensor.dtype, tensor.label, segments);
}

/**
 * Takes one step of AdamW with states in 8 bits, in place on all but `grad`. Multiplies the gradient by the factor in `status`,
 * and leaves every byte as it was if `status` says that some gradient was not finite.
 *
 * Unlike {@linkcode adamW} the weight decays after the update, by the same factor: bitsandbytes' order.
 *
 * @param maps see {@linkcode adamW8bitMaps}
 * @param status see {@linkcode STATUS}, written by `globalNorm`
 * @throws {GpuError} if shapes or types do not fit, or `step` is below 1
 * @see Dettmers et al., 2022, arXiv:2110.02861, section 2; bitsandbytes, AdamW8bit with block_wise
 */
export function adamW8bit(
  gpu: Gpu,
  state: AdamW8bitState,
  maps: Tensor,
  status: Tensor,
  { learningRate, beta1, beta2, epsilon, weightDecay, step }: AdamWOptions,
  { firstBlock = 0 }: AdamW8bitPart = {},
): void {
  const [param, grad] = [asRows(state.param), asRows(state.grad)];
  const { mCodes, vCodes, absmax } = state;
  requireVector("adamW8bit", status, STATUS.length, "f32");
  requireVector("adamW8bit", maps, 512, "f32");
  requireSameShape("adamW8bit", grad, param);
  if (!(step >= 1)) throw new GpuError(`Cannot apply adamW8bit: steps count from 1, got ${step}`);
  const blocks = Math.ceil(quadsOf(param) * 4 / STATE_BLOCK);
  const fits = [mCodes, vCodes].every(({ rows, width, dtype }) =>
    rows === param.rows && width * 4 === param.width && dtype === "u32"
  );
  if (!fits || param.dtype !== "f32" || grad.dtype !== "f32" || absmax.rows < firstBlock + blocks) {
    const wanted = `codes [${codesShape(param.shape)}] and ${firstBlock + blocks} scales`;
    throw new GpuError(
      `Cannot apply adamW8bit: "${param.label}" [${param.shape}] ${param.dtype} takes ${wanted}, got ` +
        `[${mCodes.shape}], [${vCodes.shape}] and ${absmax.rows}`,
    );
  }
  for (const { start, end } of rowRanges([param, grad, mCodes, vCodes])) {
    if (start * param.width % STATE_BLOCK !== 0) {
      throw new GpuError(`Cannot apply adamW8bit: "${param.label}" is cut inside a block, at row ${start}`);
    }
    const parts = slices({ param, grad, m_codes: mCodes, v_codes: vCodes }, { start, end });
    const quads = quadsOf(parts.param);
    gpu.run(ADAMW_8BIT, { ...parts, absmax, maps, status }, {
      grid: wrappedGrid(Math.ceil(quads * 4 / STATE_BLOCK)),
      uniforms: {
        quads,
        first_block: firstBlock + start * param.width / STATE_BLOCK,
        beta1,
        beta2,
        one_minus_beta1: 1 - beta1,
        one_minus_beta2: 1 - beta2,
        step_size: learningRate / (1 - beta1 ** step),
        inverse_root: 1 / Math.sqrt(1 - beta2 ** step),
        epsilon,
        keep: 1 - learningRate * weightDecay,
      },
    });
  }
}
