/** A layer's attention, from its input to what its output linear gives. */
import {
  attention,
  type AttentionBackwardInputs,
  attentionBackwardKeys,
  attentionBackwardQueries,
  type AttentionShape,
  attentionStats,
  type Scoring,
} from "../kernels/attention/attention.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { Qkv } from "../kernels/qkv/qkv.ts";
import type { RowRange } from "../kernels/shared/row_chunks.ts";
import type { Tensor } from "../kernels/tensor.ts";
import {
  blockInput,
  blockInputBackward,
  blockOutput,
  blockOutputBackward,
  freeInput,
} from "./block_norms.ts";
import { chunksOf, free, type Rows } from "./chunks.ts";
import { applyRope, type NewRows, type Pass } from "./pass.ts";
import { type DropoutKey, type Linear, linear, linearBackward, type LinearOptions } from "./linear.ts";
import type { ModelConfig } from "./model_config.ts";
import type { Norm } from "./norm.ts";
import type { Projections } from "./projections.ts";

/** Queries, keys, values and what attention gives for them, all (rows, ...). */
export interface Attended extends Qkv {
  /** (rows, H * D), before the output linear. */
  readonly o: Tensor;
  /** (rows, H) f32: log of each row's sum of exponentials. */
  readonly lse: Tensor;
}

/** Modules of a layer's attention. */
export interface SelfAttentionParts {
  /** Before the projections; none where undefined. */
  readonly norm?: Norm | undefined;
  readonly projections: Projections;
  readonly output: Linear;
  /** Of what the output linear gives; none unless given. */
  readonly outputNorm?: Norm | undefined;
  readonly shape: AttentionShape;
  /** Factor of the scores; 1 / sqrt(D) unless given. */
  readonly scale?: number | undefined;
  /** Soft cap of the scores; none unless given. */
  readonly cap?: number | undefined;
}

/** Reads the heads of a model's layers from its shape. */
export function attentionShape(config: ModelConfig): AttentionShape {
  return {
    heads: config.num_attention_heads,
    kvHeads: config.num_key_value_heads,
    headDim: config.head_dim,
  };
}

/** output(attention(rope(q), rope(k), v)), q, k, v = projections(norm(x)). Vaswani et al. 2017, arXiv:1706.03762. */
export class SelfAttention {
  readonly shape: AttentionShape;
  readonly #norm: Norm | undefined;
  readonly #projections: Projections;
  readonly #output: Linear;
  readonly #outputNorm: Norm | undefined;
  readonly #scoring: Scoring;

  constructor({ norm, projections, output, outputNorm, shape, scale, cap }: SelfAttentionParts) {
    this.#norm = norm;
    this.#projections = projections;
    this.#output = output;
    this.#outputNorm = outputNorm;
    this.shape = shape;
    this.#scoring = { scale, cap };
  }

  /** Computes everything before the output linear. @param x (rows, C) */
  attend(gpu: Gpu, x: Tensor, pass: Pass): Attended {
    const { q, k, v } = this.#emptyQkv(gpu, x);
    for (const rows of chunksOf(x, pass.chunkRows)) {
      const input = blockInput(gpu, rows.of(x), this.#norm);
      const into = { q: rows.of(q), k: rows.of(k), v: rows.of(v) };
      this.#projections.forward(gpu, input.y, pass.dropout, rows.start, into);
      freeInput(input);
    }
    applyRope(gpu, [q, k], pass, this.shape.headDim);
    return { q, k, v, ...attention(gpu, q, k, v, pass.map, this.shape, this.#scoring) };
  }

  /** Runs the output linear, and the norm behind it, on a chunk. @param o (rows, H * D)  @returns (rows, C) */
  output(gpu: Gpu, o: Tensor, key: DropoutKey | undefined, options: LinearOptions): Tensor {
    return blockOutput(gpu, this.#outputNorm, options, (to) => linear(gpu, o, this.#output, key, to));
  }

  /**
   * Runs {@linkcode output} backward for a chunk of rows: overwrites its rows of `o` with the gradient of o, and writes
   * those of `stats`.
   *
   * @param dOut (end - start, C)
   * @param attended of all rows
   */
  outputBackward(
    gpu: Gpu,
    dOut: Tensor,
    { o, lse, stats }: { readonly o: Tensor; readonly lse: Tensor; readonly stats: Tensor },
    key: DropoutKey | undefined,
    rows: Rows,
  ): void {
    const part = rows.of(o);
    const at = { firstRow: rows.start };
    const dO = blockOutputBackward(
      gpu,
      dOut,
      this.#outputNorm,
      () => linear(gpu, part, this.#output, key, at),
      (d) => linearBackward(gpu, d, part, this.#output, key, at),
    );
    attentionStats(gpu, dO, { o: part, lse: rows.of(lse) }, this.shape, rows.of(stats));
    gpu.copy(dO, part);
    dO.free();
  }

  /** Runs everything before the output linear backward. @param dH (rows, C): the gradient of x is added to it */
  backward(gpu: Gpu, attended: AttentionBackwardInputs, x: Tensor, dH: Tensor, pass: Pass): void {
    this.#chunkedGradients(gpu, attended, pass, (gradients, rows) => {
      const positions = { ...pass, positions: rows.of(pass.positions) };
      applyRope(gpu, [gradients.q, gradients.k], positions, this.shape.headDim, { inverse: true });
      const backward = (y: Tensor) => this.#projections.backward(gpu, gradients, y, pass.dropout, rows.start);
      blockInputBackward(gpu, rows.of(x), this.#norm, backward, rows.of(dH));
    });
  }

  /** Computes for new rows what {@linkcode attend} computes for a batch. @param x (rows, C)  @returns o (rows, H * D) */
  attendNew(gpu: Gpu, x: Tensor, { attend, ...positions }: NewRows): Tensor {
    const input = blockInput(gpu, x, this.#norm);
    const { q, k, v } = this.#emptyQkv(gpu, x);
    this.#projections.forward(gpu, input.y, undefined, 0, { q, k, v });
    applyRope(gpu, [q, k], positions, this.shape.headDim);
    const o = attend(q, k, v);
    freeInput(input);
    free(q, k, v);
    return o;
  }

  #emptyQkv(gpu: Gpu, x: Tensor): Qkv {
    const { heads, kvHeads, headDim } = this.shape;
    const make = (count: number, label: string) => gpu.empty([x.rows, count * headDim], x.dtype, label);
    return { q: make(heads, "q"), k: make(kvHeads, "k"), v: make(kvHeads, "v") };
  }

  /** Computes the gradients of q, k and v. @param use gets those of each chunk, which live for the call */
  #chunkedGradients(
    gpu: Gpu,
    attended: AttentionBackwardInputs,
    { map, chunkRows }: Pass,
    use: (gradients: Qkv, rows: Rows) => void,
  ): void {
    const queries = (rows: RowRange) =>
      attentionBackwardQueries(gpu, attended, map, this.shape, rows, this.#scoring);
    const keys = (rows: RowRange) =>
      attentionBackwardKeys(gpu, attended, map, this.shape, rows, this.#scoring);
    const all = { start: 0, end: attended.q.rows };
    // Every query may read every key and the other way round: one side's gradients cannot wait for their chunk's turn.
    const allKeys = 2 * attended.k.width <= attended.q.width ? keys(all) : undefined;
    const allQueries = allKeys ? undefined : queries(all);
    for (const rows of chunksOf(attended.q, chunkRows)) {
      const q = allQueries ? rows.of(allQueries) : queries(rows);
      const { dk: k, dv: v } = allKeys ? { dk: rows.of(allKeys.dk), dv: rows.of(allKeys.dv) } : keys(rows);
      use({ q, k, v }, rows);
      if (!allQueries) q.free();
      if (!allKeys) free(k, v);
    }
    if (allQueries) allQueries.free();
    if (allKeys) free(allKeys.dk, allKeys.dv);
  }
}
