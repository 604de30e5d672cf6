import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { quadsOf, requireSameShape, threadGrid } from "../shared/grid.ts";
import { rowRanges, slices, type Tensor } from "../tensor.ts";
import type { Kernel } from "../wgsl.ts";
import mergeWgsl from "./merge_qkv.wgsl" with { type: "text" };
import splitWgsl from "./split_qkv.wgsl" with { type: "text" };

const SPLIT = { name: "split_qkv", wgsl: splitWgsl };
const MERGE = { name: "merge_qkv", wgsl: mergeWgsl };

/** Queries, keys and values, or their gradients: (rows, H * D) each, in one format. */
export interface Qkv {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
}

/**
 * Splits the output of one linear into queries, keys and values. They lie in it as in GPT-NeoX, (rows, H, 3, D).
 *
 * @param fused (rows, H * 3 * D), any format
 * @param into overwritten
 * @param headDim D, a multiple of 4
 * @throws {GpuError} if shapes or formats do not fit
 */
export function splitQkv(gpu: Gpu, fused: Tensor, into: Qkv, headDim: number): void {
  const { q, k, v } = into;
  requireFit("splitQkv", fused, into, headDim);
  run(gpu, SPLIT, { fused, q, k, v }, headDim);
}

/**
 * Joins what {@linkcode splitQkv} splits: from the gradients of q, k and v to that of the linear's output.
 * @returns (rows, H * 3 * D) in the format of q; the caller frees it
 * @throws {GpuError} if shapes or formats do not fit
 */
export function mergeQkv(gpu: Gpu, { q, k, v }: Qkv, headDim: number): Tensor {
  const fused = gpu.empty([q.rows, 3 * q.width], q.dtype, "fused qkv");
  requireFit("mergeQkv", fused, { q, k, v }, headDim);
  run(gpu, MERGE, { q, k, v, fused }, headDim);
  return fused;
}

function run(gpu: Gpu, kernel: Kernel, tensors: Qkv & { readonly fused: Tensor }, headDim: number): void {
  const { q, k, v, fused } = tensors;
  for (const range of rowRanges([q, k, v, fused])) {
    const parts = slices({ q, k, v, fused }, range);
    const quads = quadsOf(parts.q);
    gpu.run(kernel, parts, {
      grid: threadGrid(quads),
      uniforms: { quads, head_quads: headDim / 4 },
      formats: { X: fused.format },
    });
  }
}

function requireFit(op: string, fused: Tensor, { q, k, v }: Qkv, headDim: number): void {
  requireSameShape(op, q, k);
  requireSameShape(op, q, v);
  const fits = headDim % 4 === 0 && q.width % headDim === 0 && fused.width === 3 * q.width;
  const oneFormat = [q, k, v].every(({ dtype }) => dtype === fused.dtype);
  if (fits && oneFormat && fused.rows === q.rows) return;
  throw new GpuError(
    `Cannot apply ${op}: [${fused.shape}] ${fused.dtype} is not q, k and v [${q.shape}] ${q.dtype}, ${k.dtype}, ` +
      `${v.dtype} by heads of ${headDim}`,
  );
}
