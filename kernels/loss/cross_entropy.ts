import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { requireVector, rowQuadsOf, wrappedGrid } from "../shared/grid.ts";
import { REDUCE_64 } from "../shared/reduce.ts";
import { rowRanges, slices, type Tensor } from "../tensor.ts";
import crossEntropyWgsl from "./cross_entropy.wgsl" with { type: "text" };

const CROSS_ENTROPY = { name: "cross_entropy", wgsl: crossEntropyWgsl, ...REDUCE_64 };

/** The label of a row that has no target. */
export const NO_LABEL = 0xffffffff;

export interface CrossEntropyOptions {
  /** V: columns from here on are padding. Below 2^24. */
  readonly vocabSize: number;
  /** If given, the logits are overwritten by their gradient times this. */
  readonly gradScale?: number;
  /** The cap that `softCapInPlace` put on the logits: their gradient then is that of what they were before it. */
  readonly cap?: number | undefined;
}

/**
 * Computes the cross-entropy of each row of logits against its label, and the most likely token.
 *
 * @param logits (rows, Vp) f32 with Vp = V rounded up to a multiple of 4; with `gradScale` they become
 *   (softmax - onehot) * gradScale, times 1 - (logit / cap)^2 where they are capped, and 0 in rows without target and in columns from V on
 * @param labels (rows) u32; {@linkcode NO_LABEL} where there is no target
 * @returns `loss` (rows) f32 in nats, 0 where there is no target, and `argmax` (rows) u32, the lowest index on
 *   ties as in PyTorch; the caller frees both. A label that is not below V gives NaN
 * @throws {GpuError} if shapes or types do not fit
 */
export function crossEntropy(
  gpu: Gpu,
  logits: Tensor,
  labels: Tensor,
  { vocabSize, gradScale, cap }: CrossEntropyOptions,
): { loss: Tensor; argmax: Tensor } {
  requireVector("crossEntropy", labels, logits.rows, "u32");
  const quads = rowQuadsOf(logits);
  if (logits.dtype !== "f32" || quads !== Math.ceil(vocabSize / 4) || vocabSize >= 2 ** 24) {
    throw new GpuError(
      `Cannot apply crossEntropy: logits must be f32 with ${vocabSize} columns rounded up to a multiple of 4, ` +
        `got [${logits.shape}] ${logits.dtype}`,
    );
  }
  const loss = gpu.empty([logits.rows], "f32", "loss");
  const argmax = gpu.empty([logits.rows], "u32", "argmax");
  for (const range of rowRanges([logits, labels, loss, argmax])) {
    const rows = range.end - range.start;
    gpu.run(CROSS_ENTROPY, slices({ logits, labels, loss, argmax }, range), {
      grid: wrappedGrid(rows),
      uniforms: { rows, quads, vocab_size: vocabSize, grad_scale: gradScale ?? 0, cap: cap ?? 0 },
      constants: { GRADIENT: gradScale !== undefined, CAPPED: cap !== undefined },
    });
  }
  return { loss, argmax };
}
