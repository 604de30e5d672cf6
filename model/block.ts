import { swiglu, swigluBackwardInPlace } from "../kernels/activation/swiglu.ts";
import {
  attention,
  attentionBackwardKeys,
  attentionBackwardQueries,
  type AttentionShape,
  type AttentionSlopes,
  attentionStats,
} from "../kernels/attention/attention.ts";
import type { AttentionMap } from "../kernels/attention/map.ts";
import { addInto } from "../kernels/elementwise/elementwise.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { rmsNorm, rmsNormBackward } from "../kernels/norm/rms_norm.ts";
import { rope } from "../kernels/rope/rope.ts";
import type { Tensor } from "../kernels/tensor.ts";
import { rowChunks, type RowRange } from "../kernels/shared/row_chunks.ts";
import type { LlamaConfig } from "./config.ts";
import { type DropoutKey, type Linear, linear, linearBackward } from "./linear.ts";

/** A norm's weight (C) f32, and its gradient where it is trained. */
export interface Norm {
  readonly weight: Tensor;
  readonly grad: Tensor | undefined;
}

/** What all layers share in one pass over a batch. */
export interface Pass {
  readonly map: AttentionMap;
  /** (rows) u32, each row's position in its sequence. */
  readonly positions: Tensor;
  /** (P, D / 2) f32 */
  readonly cos: Tensor;
  readonly sin: Tensor;
  /** Undefined when not training: nothing is dropped. */
  readonly dropout: DropoutKey | undefined;
  /** Most rows for which anything wider than C, or any temporary, exists at once. */
  readonly chunkRows: number;
}

/** One layer's weights, under their names in the checkpoint. */
export interface BlockWeights {
  readonly input_layernorm: Norm;
  readonly q_proj: Linear;
  readonly k_proj: Linear;
  readonly v_proj: Linear;
  readonly o_proj: Linear;
  readonly post_attention_layernorm: Norm;
  readonly gate_proj: Linear;
  readonly up_proj: Linear;
  readonly down_proj: Linear;
}

/** The attention half of a layer's forward pass, all (rows, ...). */
interface Attended {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly o: Tensor;
  readonly lse: Tensor;
}

/** What the MLP's backward pass reads, of all rows or of a chunk. */
interface MlpInputs {
  /** (rows, C) x + attention: the input of the second norm. */
  readonly h: Tensor;
  /** (rows, F) */
  readonly gate: Tensor;
  readonly up: Tensor;
}

/** What a layer's backward pass reads besides its input. */
export interface BlockSaved extends Attended, MlpInputs {}

/** A chunk of the rows of a batch. */
interface Rows extends RowRange {
  /** These rows of a tensor of all rows. */
  of(tensor: Tensor): Tensor;
}

/**
 * One LLaMA layer: h = x + attn(norm(x)); out = h + mlp(norm(h)). Touvron et al. 2023, arXiv:2302.13971.
 *
 * All but attention itself goes over chunks of rows, and each chunk goes all the way, through the MLP and back, before the
 * next one starts: nothing of width F exists for all rows, nor do norms, h, or any gradient that can take the place of
 * what it comes from. Besides the temporaries of a chunk there are at most, counted in tensors of (rows, C), where k and v
 * are s of one each:
 *
 * | moment                          | what is alive                                     | count   | s = 1 | s = 1/4 |
 * | ------------------------------- | ------------------------------------------------- | ------- | ----- | ------- |
 * | forward, attention              | x, q, k, v, o                                     | 3 + 2 s | 5     | 3.5     |
 * | forward, MLP                    | x, out in the memory of o                         | 2       | 2     | 2       |
 * | backward, attention made again  | x, dOut, q, k, v, o                               | 4 + 2 s | 6     | 4.5     |
 * | backward, MLP and o_proj        | the same; dOut becomes dH, and o becomes dO       | 4 + 2 s | 6     | 4.5     |
 * | backward, attention             | besides these dk and dv, or dq where that is less |         | 7     | 5       |
 *
 * x is the layer's checkpoint; dH becomes dx. Without checkpointing h, gate and up of all rows are there too.
 */
export class Block {
  readonly weights: BlockWeights;
  readonly #eps: number;
  readonly #shape: AttentionShape;

  constructor(weights: BlockWeights, config: LlamaConfig) {
    this.weights = weights;
    this.#eps = config.rms_norm_eps;
    this.#shape = {
      heads: config.num_attention_heads,
      kvHeads: config.num_key_value_heads,
      headDim: config.head_dim,
    };
  }

  /** @param x (rows, C), borrowed  @returns (rows, C) */
  forward(gpu: Gpu, x: Tensor, pass: Pass): Tensor {
    const { q, k, v, o, lse } = this.#attend(gpu, x, pass);
    free(q, k, v, lse);
    for (const rows of chunksOf(x, pass.chunkRows)) {
      const inputs = this.#mlpInputs(gpu, x, o, pass, rows);
      this.#mlp(gpu, inputs, pass, rows, o);
      free(inputs.h, inputs.gate, inputs.up);
    }
    return o;
  }

  /** {@linkcode forward}, and what spares {@linkcode backward} from making it again. */
  forwardKeeping(gpu: Gpu, x: Tensor, pass: Pass): { out: Tensor; saved: BlockSaved } {
    const attended = this.#attend(gpu, x, pass);
    const [rows] = chunksOf(x, Infinity);
    const inputs = this.#mlpInputs(gpu, x, attended.o, pass, rows!);
    const out = gpu.empty(x.shape, x.dtype, "layer output");
    this.#mlp(gpu, inputs, pass, rows!, out);
    return { out, saved: { ...attended, ...inputs } };
  }

  /**
   * Adds the layer's gradients to what they hold, frees `saved`.
   * @param dOut (rows, C): overwritten
   * @param saved what the forward pass kept; made again unless given
   * @returns dx (rows, C), in the memory of `dOut`
   */
  backward(gpu: Gpu, dOut: Tensor, x: Tensor, pass: Pass, saved?: BlockSaved): Tensor {
    const { q, k, v, o, lse } = saved ?? this.#attend(gpu, x, pass);
    const stats = gpu.empty([x.rows, 2 * this.#shape.heads], "f32", "attention stats");
    for (const rows of chunksOf(x, saved ? Infinity : pass.chunkRows)) {
      this.#mlpBackward(gpu, dOut, saved ?? this.#mlpInputs(gpu, x, o, pass, rows), pass, rows);
      this.#outputBackward(gpu, dOut, { o, lse, stats }, pass, rows);
    }
    lse.free();
    this.#attentionBackward(gpu, dOut, x, { q, k, v, dO: o, stats }, pass);
    free(q, k, v, o, stats);
    return dOut;
  }

  #attend(gpu: Gpu, x: Tensor, pass: Pass): Attended {
    const { weights: w } = this;
    const { heads, kvHeads, headDim } = this.#shape;
    const make = (count: number, label: string) => gpu.empty([x.rows, count * headDim], x.dtype, label);
    const [q, k, v] = [make(heads, "q"), make(kvHeads, "k"), make(kvHeads, "v")];
    for (const rows of chunksOf(x, pass.chunkRows)) {
      const norm = rmsNorm(gpu, rows.of(x), w.input_layernorm.weight, this.#eps);
      for (const [layer, into] of [[w.q_proj, q], [w.k_proj, k], [w.v_proj, v]] as const) {
        linear(gpu, norm.y, layer, pass.dropout, { firstRow: rows.start, into: rows.of(into) });
      }
      free(norm.y, norm.rstd);
    }
    rope(gpu, q, pass.cos, pass.sin, pass.positions, headDim);
    rope(gpu, k, pass.cos, pass.sin, pass.positions, headDim);
    return { q, k, v, ...attention(gpu, q, k, v, pass.map, this.#shape) };
  }

  /** @returns tensors of the chunk alone */
  #mlpInputs(gpu: Gpu, x: Tensor, o: Tensor, { dropout }: Pass, rows: Rows): MlpInputs {
    const { weights: w } = this;
    const firstRow = rows.start;
    const h = linear(gpu, rows.of(o), w.o_proj, dropout, { firstRow });
    addInto(gpu, h, rows.of(x));
    const norm = rmsNorm(gpu, h, w.post_attention_layernorm.weight, this.#eps);
    const gate = linear(gpu, norm.y, w.gate_proj, dropout, { firstRow });
    const up = linear(gpu, norm.y, w.up_proj, dropout, { firstRow });
    free(norm.y, norm.rstd);
    return { h, gate, up };
  }

  /** Writes the chunk's rows of `out`. */
  #mlp(gpu: Gpu, { h, gate, up }: MlpInputs, { dropout }: Pass, rows: Rows, out: Tensor): void {
    const into = rows.of(out);
    const act = swiglu(gpu, gate, up);
    linear(gpu, act, this.weights.down_proj, dropout, { firstRow: rows.start, into });
    act.free();
    addInto(gpu, into, h);
  }

  /** Turns the chunk's rows of `dOut` into the gradient of h; frees the inputs. */
  #mlpBackward(gpu: Gpu, dOut: Tensor, { h, gate, up }: MlpInputs, { dropout }: Pass, rows: Rows): void {
    const { weights: w } = this;
    const { weight, grad } = w.post_attention_layernorm;
    const firstRow = rows.start;
    const addTo = rows.of(dOut);
    const act = swiglu(gpu, gate, up);
    const dAct = linearBackward(gpu, addTo, act, w.down_proj, dropout, { firstRow });
    act.free();
    const { dGate, dUp } = swigluBackwardInPlace(gpu, dAct, { gate, up });
    dAct.free();
    const norm = rmsNorm(gpu, h, weight, this.#eps);
    const dNorm = linearBackward(gpu, dGate, norm.y, w.gate_proj, dropout, { firstRow });
    dGate.free();
    linearBackward(gpu, dUp, norm.y, w.up_proj, dropout, { firstRow, addTo: dNorm });
    free(dUp, norm.y);
    const inputs = { x: h, weight, rstd: norm.rstd };
    rmsNormBackward(gpu, dNorm, inputs, { addTo, ...(grad && { dWeight: grad }) });
    free(dNorm, norm.rstd, h);
  }

  /** Turns the chunk's rows of `o` into the gradient of o, and writes those of `stats`. */
  #outputBackward(
    gpu: Gpu,
    dH: Tensor,
    { o, lse, stats }: { readonly o: Tensor; readonly lse: Tensor; readonly stats: Tensor },
    { dropout }: Pass,
    rows: Rows,
  ): void {
    const part = rows.of(o);
    const { o_proj } = this.weights;
    const dO = linearBackward(gpu, rows.of(dH), part, o_proj, dropout, { firstRow: rows.start });
    attentionStats(gpu, dO, { o: part, lse: rows.of(lse) }, this.#shape, rows.of(stats));
    gpu.copy(dO, part);
    dO.free();
  }

  /** Turns `dH` into the gradient of the layer's input. */
  #attentionBackward(gpu: Gpu, dH: Tensor, x: Tensor, slopes: AttentionSlopes, pass: Pass): void {
    const queries = (rows: RowRange) => attentionBackwardQueries(gpu, slopes, pass.map, this.#shape, rows);
    const keys = (rows: RowRange) => attentionBackwardKeys(gpu, slopes, pass.map, this.#shape, rows);
    const all = { start: 0, end: x.rows };
    // Every query may read every key and the other way round: one side's gradients cannot wait for their chunk's turn.
    const allKeys = 2 * slopes.k.width <= slopes.q.width ? keys(all) : undefined;
    const allQueries = allKeys ? undefined : queries(all);
    for (const rows of chunksOf(x, pass.chunkRows)) {
      const dq = allQueries ? rows.of(allQueries) : queries(rows);
      const { dk, dv } = allKeys ? { dk: rows.of(allKeys.dk), dv: rows.of(allKeys.dv) } : keys(rows);
      this.#projectionsBackward(gpu, { dq, dk, dv }, rows.of(x), rows.of(dH), pass, rows);
      if (!allQueries) dq.free();
      if (!allKeys) free(dk, dv);
    }
    if (allQueries) allQueries.free();
    if (allKeys) free(allKeys.dk, allKeys.dv);
  }

  /** @param dH (end - start, C): the gradient of x is added to it */
  #projectionsBackward(
    gpu: Gpu,
    { dq, dk, dv }: { readonly dq: Tensor; readonly dk: Tensor; readonly dv: Tensor },
    x: Tensor,
    dH: Tensor,
    { cos, sin, positions, dropout }: Pass,
    rows: Rows,
  ): void {
    const { weights: w } = this;
    const { weight, grad } = w.input_layernorm;
    const firstRow = rows.start;
    rope(gpu, dq, cos, sin, rows.of(positions), this.#shape.headDim, { inverse: true });
    rope(gpu, dk, cos, sin, rows.of(positions), this.#shape.headDim, { inverse: true });
    const { y, rstd } = rmsNorm(gpu, x, weight, this.#eps);
    const dNorm = linearBackward(gpu, dq, y, w.q_proj, dropout, { firstRow });
    linearBackward(gpu, dk, y, w.k_proj, dropout, { firstRow, addTo: dNorm });
    linearBackward(gpu, dv, y, w.v_proj, dropout, { firstRow, addTo: dNorm });
    y.free();
    rmsNormBackward(gpu, dNorm, { x, weight, rstd }, { addTo: dH, ...(grad && { dWeight: grad }) });
    free(dNorm, rstd);
  }
}

function chunksOf(x: Tensor, most: number): Rows[] {
  return rowChunks(x.rows, most).map(({ start, end }) => ({
    start,
    end,
    of: (tensor) => tensor.slice(start, end),
  }));
}

function free(...tensors: Tensor[]): void {
  for (const tensor of tensors) tensor.free();
}
