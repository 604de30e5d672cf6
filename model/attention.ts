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
import { addInto } from "../kernels/elementwise/elementwise.ts";
import type { Qkv } from "../kernels/qkv/qkv.ts";
import type { RowRange } from "../kernels/shared/row_chunks.ts";
import type { Tensor } from "../kernels/tensor.ts";
import { blockInput, blockInputBackward, blockOutput, blockOutputBackward } from "./block_norms.ts";
import { chunksOf, free, type Rows } from "./chunks.ts";
import type { KeysAndValues } from "./key_exchange.ts";
import { applyRope, type NewRows, type Pass } from "./pass.ts";
import { type DropoutKey, type Linear, linear, linearBackward, type LinearOptions } from "./linear.ts";
import { withRows } from "./linear_input.ts";
import type { ModelConfig } from "./model_config.ts";
import type { Norm } from "./norm.ts";
import type { Projections } from "./projections.ts";

/**
 * Queries, keys, values and what attention gives for them, all (rows, ...). Keys and values have the rows of another rank
 * that are seen before their own.
 */
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
  async attend(gpu: Gpu, x: Tensor, pass: Pass): Promise<Attended> {
    const { map, exchange } = pass;
    const { before } = map;
    const { q, k, v } = this.#emptyQkv(gpu, x, before);
    const own = { q, k: k.slice(before, k.rows), v: v.slice(before, v.rows) };
    const tail = exchange?.tail ?? x.rows;
    if (tail < x.rows) this.#project(gpu, x, pass, { start: tail, end: x.rows }, own);
    const arrival = exchange?.bringKeys(gpu, { k, v }, this.shape);
    if (tail > 0) this.#project(gpu, x, pass, { start: 0, end: tail }, own);
    if (arrival) {
      gpu.submit();
      await arrival;
    }
    return { q, k, v, ...attention(gpu, q, k, v, map, this.shape, this.#scoring) };
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
  async backward(
    gpu: Gpu,
    attended: AttentionBackwardInputs,
    x: Tensor,
    dH: Tensor,
    pass: Pass,
  ): Promise<void> {
    await this.#chunkedGradients(gpu, attended, pass, (gradients, rows) => {
      const positions = { ...pass, positions: rows.of(pass.positions) };
      applyRope(gpu, [gradients.q, gradients.k], positions, this.shape.headDim, { inverse: true });
      const backward = (y: Tensor) => this.#projections.backward(gpu, gradients, y, pass.dropout, rows.start);
      blockInputBackward(gpu, rows.of(x), this.#norm, backward, rows.of(dH));
    });
  }

  /** Computes for new rows what {@linkcode attend} computes for a batch. @param x (rows, C)  @returns o (rows, H * D) */
  attendNew(gpu: Gpu, x: Tensor, { attend }: NewRows): Tensor {
    const rows = this.#emptyQkv(gpu, x, 0);
    this.#projections.forward(gpu, blockInput(x, this.#norm), undefined, 0, rows);
    const o = attend(rows);
    free(rows.q, rows.k, rows.v);
    return o;
  }

  /** @param before rows of keys and values before those of x */
  #emptyQkv(gpu: Gpu, x: Tensor, before: number): Qkv {
    const { heads, kvHeads, headDim } = this.shape;
    const keyRows = before + x.rows;
    const wanted = [["q", heads, x.rows], ["k", kvHeads, keyRows], ["v", kvHeads, keyRows]] as const;
    const [q, k, v] = gpu.emptyTogether(
      wanted.map(([label, count, rows]) => ({ shape: [rows, count * headDim], label })),
      x.dtype,
    ) as [Tensor, Tensor, Tensor];
    return { q, k, v };
  }

  /** Computes queries, keys and values of a range of rows. @param into of all rows */
  #project(gpu: Gpu, x: Tensor, pass: Pass, range: RowRange, into: Qkv): void {
    for (const rows of chunksOf(x, pass.chunkRows, range)) {
      const input = blockInput(rows.of(x), this.#norm);
      const part = { q: rows.of(into.q), k: rows.of(into.k), v: rows.of(into.v) };
      withRows(gpu, input, (y) => this.#projections.forward(gpu, y, pass.dropout, rows.start, part));
    }
    const { start, end } = range;
    const positions = { ...pass, positions: pass.positions.slice(start, end) };
    applyRope(gpu, [into.q, into.k].map((x) => x.slice(start, end)), positions, this.shape.headDim);
  }

  /** Computes the gradients of q, k and v. @param use gets those of each chunk, which live for the call */
  async #chunkedGradients(
    gpu: Gpu,
    attended: AttentionBackwardInputs,
    { map, chunkRows, exchange }: Pass,
    use: (gradients: Qkv, rows: Rows) => void,
  ): Promise<void> {
    const { before } = map;
    const chunks = chunksOf(attended.q, chunkRows);
    // Those of a single chunk lie side by side, as their products want them.
    const { q: dq, ...into } = chunks.length === 1 ? this.#emptyQkv(gpu, attended.q, 0) : {};
    const queries = (rows: RowRange) =>
      attentionBackwardQueries(gpu, attended, map, this.shape, rows, this.#scoring, dq);
    const keys = ({ start, end }: RowRange, into?: Partial<KeysAndValues>): KeysAndValues => {
      const rows = { start: before + start, end: before + end };
      const { k: dk, v: dv } = into ?? {};
      const scoring = this.#scoring;
      const made = attentionBackwardKeys(
        gpu,
        attended,
        map,
        this.shape,
        rows,
        scoring,
        dk && dv && { dk, dv },
      );
      return { k: made.dk, v: made.dv };
    };
    const theirs = before > 0 ? keys({ start: -before, end: 0 }) : undefined;
    const returned = exchange?.returnGradients(gpu, theirs, this.shape);
    if (theirs) free(theirs.k, theirs.v);
    const all = { start: 0, end: attended.q.rows };
    // Every query may read every key and the other way round: one side's gradients cannot wait for their chunk's turn.
    const allKeys = 2 * attended.k.width <= attended.q.width ? keys(all, into) : undefined;
    const allQueries = allKeys ? undefined : queries(all);
    for (const rows of chunks) {
      const q = allQueries ? rows.of(allQueries) : queries(rows);
      const { k, v } = allKeys ? { k: rows.of(allKeys.k), v: rows.of(allKeys.v) } : keys(rows, into);
      if (exchange && rows.end > exchange.tail) {
        gpu.submit();
        addTail(gpu, { k, v }, rows, await returned, exchange.tail);
      }
      use({ q, k, v }, rows);
      if (!allQueries) q.free();
      if (!allKeys) free(k, v);
    }
    const tail = await returned;
    if (tail) free(tail.k, tail.v);
    if (allQueries) allQueries.free();
    if (allKeys) free(allKeys.k, allKeys.v);
  }
}

/** Adds gradients of the last rows, from row `from` on, to those of a chunk. */
function addTail(
  gpu: Gpu,
  gradients: KeysAndValues,
  rows: RowRange,
  tail: KeysAndValues | undefined,
  from: number,
): void {
  if (!tail) return;
  const start = Math.max(rows.start, from);
  for (const name of ["k", "v"] as const) {
    const part = gradients[name].slice(start - rows.start, rows.end - rows.start);
    addInto(gpu, part, tail[name].slice(start - from, rows.end - from));
  }
}
