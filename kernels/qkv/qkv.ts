import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { quadsOf, requireSameShape, threadGrid } from "../shared/grid.ts";
import { rowRanges, slices, type Tensor } from "../tensor.ts";
import type { Kernel } from "../wgsl.ts";
import mergeWgsl from "./merge_qkv.wgsl" with { type: "text" };
import splitWgsl from "./split_qkv.wgsl" with { type: "text" };

const SPLIT = { name: "split_qkv", wgsl: splitWgsl };
const MERGE = { name: "merge_qkv", wgsl: mergeWgsl };

/** Queries (rows, Q), keys and values (rows, K), or their gradients, in one format. */
export interface Qkv {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
}

/**
 * Splits each row of the output of one linear into queries, keys and values, which lie in it one after another: all
 * heads of each as in Phi-3, or, with tensors cut into rows of a head, those of one head as in GPT-NeoX.
 *
 * @param fused (rows, Q + 2 K), any format
 * @param into overwritten; Q and K multiples of 4
 * @throws {GpuError} if shapes or formats do not fit
 */
export function splitQkv(gpu: Gpu, fused: Tensor, into: Qkv): void {
  const { q, k, v } = into;
  requireFit("splitQkv", fused, into);
  run(gpu, SPLIT, { fused, q, k, v });
}

/**
 * Joins what {@linkcode splitQkv} splits: from the gradients of q, k and v to that of the linear's output.
 * @param into (rows, Q + 2 K), overwritten
 * @throws {GpuError} if shapes or formats do not fit
 */
export function mergeQkv(gpu: Gpu, { q, k, v }: Qkv, into: Tensor): void {
  requireFit("mergeQkv", into, { q, k, v });
  run(gpu, MERGE, { q, k, v, fused: into });
}

function run(gpu: Gpu, kernel: Kernel, { q, k, v, fused }: Qkv & { readonly fused: Tensor }): void {
  for (const range of rowRanges([q, k, v, fused])) {
    const parts = slices({ q, k, v, fused }, range);
    const quads = quadsOf(parts.fused);
    gpu.run(kernel, parts, {
      grid: threadGrid(quads),
      uniforms: { quads, q_quads: q.width / 4, kv_quads: k.width / 4 },
      formats: { X: fused.format },
    });
  }
}

function requireFit(op: string, fused: Tensor, { q, k, v }: Qkv): void {
  requireSameShape(op, k, v);
  const fits = q.width % 4 === 0 && k.width % 4 === 0 && fused.width === q.width + 2 * k.width;
  const oneFormat = [q, k, v].every(({ dtype }) => dtype === fused.dtype);
  if (fits && oneFormat && fused.rows === q.rows && fused.rows === k.rows) return;
  throw new GpuError(
    `Cannot apply ${op}: [${fused.shape}] ${fused.dtype} is not q [${q.shape}] ${q.dtype}, k and v [${k.shape}] ` +
      `${k.dtype}, ${v.dtype} in rows of multiples of 4`,
  );
}
