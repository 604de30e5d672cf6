import { addNoise } from "../kernels/embedding/add_noise.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { Batch } from "./batch.ts";
import { type DropoutKey, NOISE_STREAM, streamOf } from "./linear.ts";

/**
 * Adds NEFTune's noise to the embeddings of a batch: uniform within alpha / sqrt(L C), L the tokens of the row's own
 * document.   Jain et al. 2023, arXiv:2310.05914, algorithm 1.
 *
 * @param x (rows, C), changed in place
 */
export function addEmbeddingNoise(
  gpu: Gpu,
  x: Tensor,
  batch: Pick<Batch, "documents" | "rows" | "part">,
  alpha: number,
  key: DropoutKey,
): void {
  const { whole, start } = batch.part ?? { whole: batch, start: 0 };
  const scales = () => noiseScales(whole, x.width, alpha).subarray(start, start + batch.rows);
  const scale = gpu.tensor([batch.rows], scales, { label: "noise scales" });
  addNoise(gpu, x, scale, { seed: key.seed, stream: streamOf(key, NOISE_STREAM), firstRow: start });
  scale.free();
}

/** (rows) What the noise of each row is multiplied with, for embeddings of `width` numbers. */
export function noiseScales(
  { documents, rows }: Pick<Batch, "documents" | "rows">,
  width: number,
  alpha: number,
): Float32Array {
  const scales = new Float32Array(rows);
  documents.forEach((start, i) => {
    const end = documents[i + 1] ?? rows;
    scales.fill(alpha / Math.sqrt((end - start) * width), start, end);
  });
  return scales;
}
