import { gelu, geluBackwardInPlace, type GeluForm } from "../../kernels/activation/gelu.ts";
import { attention, type AttentionShape } from "../../kernels/attention/attention.ts";
import { addInto } from "../../kernels/elementwise/elementwise.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import { mergeQkv, type Qkv, splitQkv } from "../../kernels/qkv/qkv.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { GPT_NEOX_LINEARS, type GptNeoxConfig } from "./config.ts";
import {
  type Attended,
  attentionBackward,
  attentionShape,
  chunksOf,
  free,
  type Layer,
  type NewRows,
  outputBackward,
  type Pass,
  type Positions,
  type QkvSlopes,
  type Rows,
  turn,
} from "../layer.ts";
import { type DropoutKey, type Linear, linear, linearBackward } from "../linear.ts";
import { type Norm, norm, normBackward } from "../norm.ts";

/** One layer's weights, under their names in the checkpoint. */
export interface GptNeoxWeights {
  readonly input_layernorm: Norm;
  /** Queries, keys and values of head after head: rows (H, 3, D). */
  readonly query_key_value: Linear;
  readonly dense: Linear;
  readonly post_attention_layernorm: Norm;
  readonly dense_h_to_4h: Linear;
  readonly dense_4h_to_h: Linear;
}

/** What a layer's backward pass reads besides its input, all (rows, ...). */
export interface GptNeoxSaved extends Attended {
  /** (rows, C) x + attention, which the MLP reads; undefined where that reads x. */
  readonly h: Tensor | undefined;
  /** (rows, F) The input of the activation. */
  readonly up: Tensor;
}

/**
 * One GPT-NeoX layer: h = x + attn(norm(x)), out = h + mlp(norm(x)), or with `use_parallel_residual` off
 * out = h + mlp(norm(h)). Black et al. 2022, arXiv:2204.06745, section 2.
 *
 * It goes over chunks of rows as LLaMA's does, with the same tensors alive; the fused queries, keys and values exist for
 * a chunk only.
 */
export class GptNeoxBlock implements Layer<GptNeoxSaved> {
  readonly weights: GptNeoxWeights;
  readonly linears: readonly Linear[];
  readonly norms: readonly Norm[];
  readonly #shape: AttentionShape;
  readonly #rotaryDim: number;
  readonly #isParallel: boolean;
  readonly #form: GeluForm;

  constructor(weights: GptNeoxWeights, config: GptNeoxConfig) {
    this.weights = weights;
    this.linears = GPT_NEOX_LINEARS.map((name) => weights[name]);
    this.norms = [weights.input_layernorm, weights.post_attention_layernorm];
    this.#shape = attentionShape(config);
    this.#rotaryDim = config.rotary_dim;
    this.#isParallel = config.use_parallel_residual;
    this.#form = config.gelu;
  }

  forward(gpu: Gpu, x: Tensor, pass: Pass): Tensor {
    const { q, k, v, o, lse } = this.#attend(gpu, x, pass);
    free(q, k, v, lse);
    for (const rows of chunksOf(x, pass.chunkRows)) {
      const { h, up } = this.#mlpInputs(gpu, x, o, pass, rows);
      this.#mlp(gpu, { h, up }, pass, rows, o);
      free(h, up);
    }
    return o;
  }

  forwardKeeping(gpu: Gpu, x: Tensor, pass: Pass): { out: Tensor; saved: GptNeoxSaved } {
    const attended = this.#attend(gpu, x, pass);
    const [rows] = chunksOf(x, Infinity);
    const { h, up } = this.#mlpInputs(gpu, x, attended.o, pass, rows!);
    const out = gpu.empty(x.shape, x.dtype, "layer output");
    this.#mlp(gpu, { h, up }, pass, rows!, out);
    if (this.#isParallel) h.free();
    return { out, saved: { ...attended, h: this.#isParallel ? undefined : h, up } };
  }

  backward(gpu: Gpu, dOut: Tensor, x: Tensor, pass: Pass, saved?: GptNeoxSaved): Tensor {
    const { q, k, v, o, lse } = saved ?? this.#attend(gpu, x, pass);
    const shape = this.#shape;
    const { dropout } = pass;
    const stats = gpu.empty([x.rows, 2 * shape.heads], "f32", "attention stats");
    for (const rows of chunksOf(x, saved ? Infinity : pass.chunkRows)) {
      const output = () =>
        outputBackward(gpu, rows.of(dOut), { o, lse, stats }, this.weights.dense, { shape, dropout, rows });
      if (this.#isParallel) {
        // Both halves get the gradient of the output: attention before the MLP adds its own to it.
        output();
        const up = saved?.up ?? this.#up(gpu, rows.of(x), dropout, rows);
        this.#mlpBackward(gpu, rows.of(dOut), { input: rows.of(x), up }, dropout, rows);
      } else {
        const h = saved?.h ?? this.#residual(gpu, x, o, dropout, rows);
        const up = saved?.up ?? this.#up(gpu, h, dropout, rows);
        this.#mlpBackward(gpu, rows.of(dOut), { input: h, up }, dropout, rows);
        h.free();
        output();
      }
    }
    lse.free();
    attentionBackward(gpu, { q, k, v, dO: o, stats }, pass, shape, (slopes, rows) => {
      this.#projectionBackward(gpu, slopes, rows.of(x), rows.of(dOut), pass, rows);
    });
    free(q, k, v, o, stats);
    return dOut;
  }

  extend(gpu: Gpu, x: Tensor, { attend, ...positions }: NewRows): void {
    const { weights: w } = this;
    const { y, stats } = norm(gpu, x, w.input_layernorm);
    const parts = this.#emptyQkv(gpu, x);
    this.#split(gpu, y, undefined, 0, parts);
    this.#turn(gpu, parts, positions);
    const { q, k, v } = parts;
    const o = attend(q, k, v);
    free(y, stats, q, k, v);
    if (!this.#isParallel) linear(gpu, o, w.dense, undefined, { addTo: x });
    const second = norm(gpu, x, w.post_attention_layernorm);
    if (this.#isParallel) linear(gpu, o, w.dense, undefined, { addTo: x });
    const up = linear(gpu, second.y, w.dense_h_to_4h, undefined);
    const act = gelu(gpu, up, this.#form);
    linear(gpu, act, w.dense_4h_to_h, undefined, { addTo: x });
    free(o, second.y, second.stats, up, act);
  }

  #attend(gpu: Gpu, x: Tensor, pass: Pass): Attended {
    const { q, k, v } = this.#emptyQkv(gpu, x);
    for (const rows of chunksOf(x, pass.chunkRows)) {
      const { y, stats } = norm(gpu, rows.of(x), this.weights.input_layernorm);
      const into = { q: rows.of(q), k: rows.of(k), v: rows.of(v) };
      this.#split(gpu, y, pass.dropout, rows.start, into);
      free(y, stats);
    }
    this.#turn(gpu, { q, k, v }, pass);
    return { q, k, v, ...attention(gpu, q, k, v, pass.map, this.#shape) };
  }

  #emptyQkv(gpu: Gpu, x: Tensor): Qkv {
    const make = (label: string) => gpu.empty(x.shape, x.dtype, label);
    return { q: make("q"), k: make("k"), v: make("v") };
  }

  /** Writes queries, keys and values of the normed input. */
  #split(gpu: Gpu, y: Tensor, dropout: DropoutKey | undefined, firstRow: number, into: Qkv): void {
    const fused = linear(gpu, y, this.weights.query_key_value, dropout, { firstRow });
    splitQkv(gpu, fused, into, this.#shape.headDim);
    fused.free();
  }

  /** Turns queries and keys, or back. */
  #turn(gpu: Gpu, { q, k }: Qkv, positions: Positions, inverse = false): void {
    turn(gpu, [q, k], positions, this.#shape.headDim, { inverse, rotaryDim: this.#rotaryDim });
  }

  /** x + attention, (end - start, C) of the chunk alone. */
  #residual(gpu: Gpu, x: Tensor, o: Tensor, dropout: DropoutKey | undefined, rows: Rows): Tensor {
    const h = linear(gpu, rows.of(o), this.weights.dense, dropout, { firstRow: rows.start });
    addInto(gpu, h, rows.of(x));
    return h;
  }

  /** The input of the activation, (end - start, F), from what the MLP reads (end - start, C). */
  #up(gpu: Gpu, input: Tensor, dropout: DropoutKey | undefined, rows: Rows): Tensor {
    const { y, stats } = norm(gpu, input, this.weights.post_attention_layernorm);
    const up = linear(gpu, y, this.weights.dense_h_to_4h, dropout, { firstRow: rows.start });
    free(y, stats);
    return up;
  }

  /** @returns tensors of the chunk alone */
  #mlpInputs(gpu: Gpu, x: Tensor, o: Tensor, { dropout }: Pass, rows: Rows): { h: Tensor; up: Tensor } {
    const h = this.#residual(gpu, x, o, dropout, rows);
    return { h, up: this.#up(gpu, this.#isParallel ? rows.of(x) : h, dropout, rows) };
  }

  /** Writes the chunk's rows of `out`. */
  #mlp(
    gpu: Gpu,
    { h, up }: { readonly h: Tensor; readonly up: Tensor },
    { dropout }: Pass,
    rows: Rows,
    out: Tensor,
  ): void {
    const into = rows.of(out);
    const act = gelu(gpu, up, this.#form);
    linear(gpu, act, this.weights.dense_4h_to_h, dropout, { firstRow: rows.start, into });
    act.free();
    addInto(gpu, into, h);
  }

  /** Adds the gradient of what the MLP reads to `dOut`, both (end - start, C); frees `up`. */
  #mlpBackward(
    gpu: Gpu,
    dOut: Tensor,
    { input, up }: { readonly input: Tensor; readonly up: Tensor },
    dropout: DropoutKey | undefined,
    rows: Rows,
  ): void {
    const { weights: w } = this;
    const firstRow = rows.start;
    const act = gelu(gpu, up, this.#form);
    const dAct = linearBackward(gpu, dOut, act, w.dense_4h_to_h, dropout, { firstRow });
    act.free();
    const dUp = geluBackwardInPlace(gpu, dAct, up, this.#form);
    dAct.free();
    const { y, stats } = norm(gpu, input, w.post_attention_layernorm);
    const dNorm = linearBackward(gpu, dUp, y, w.dense_h_to_4h, dropout, { firstRow });
    free(dUp, y);
    normBackward(gpu, dNorm, w.post_attention_layernorm, { x: input, stats }, { addTo: dOut });
    free(dNorm, stats);
  }

  /** @param dH (end - start, C): the gradient of x is added to it */
  #projectionBackward(gpu: Gpu, slopes: QkvSlopes, x: Tensor, dH: Tensor, pass: Pass, rows: Rows): void {
    const { input_layernorm, query_key_value } = this.weights;
    const parts = { q: slopes.dq, k: slopes.dk, v: slopes.dv };
    this.#turn(gpu, parts, { ...pass, positions: rows.of(pass.positions) }, true);
    const dFused = mergeQkv(gpu, parts, this.#shape.headDim);
    const { y, stats } = norm(gpu, x, input_layernorm);
    const dNorm = linearBackward(gpu, dFused, y, query_key_value, pass.dropout, { firstRow: rows.start });
    free(dFused, y);
    normBackward(gpu, dNorm, input_layernorm, { x, stats }, { addTo: dH });
    free(dNorm, stats);
  }
}
