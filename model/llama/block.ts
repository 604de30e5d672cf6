import { swiglu, swigluBackwardInPlace } from "../../kernels/activation/swiglu.ts";
import { attention, type AttentionShape } from "../../kernels/attention/attention.ts";
import { addInto } from "../../kernels/elementwise/elementwise.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import type { Tensor } from "../../kernels/tensor.ts";
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
  type QkvSlopes,
  type Rows,
  turn,
} from "../layer.ts";
import { type Linear, linear, linearBackward } from "../linear.ts";
import { LLAMA_LINEARS, type LlamaConfig } from "./config.ts";
import { type Norm, norm, normBackward } from "../norm.ts";

/** One layer's weights, under their names in the checkpoint. */
export interface LlamaWeights {
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

/** What the MLP's backward pass reads, of all rows or of a chunk. */
interface MlpInputs {
  /** (rows, C) x + attention: the input of the second norm. */
  readonly h: Tensor;
  /** (rows, F) */
  readonly gate: Tensor;
  readonly up: Tensor;
}

/** What a layer's backward pass reads besides its input. */
export interface LlamaSaved extends Attended, MlpInputs {}

/**
 * One LLaMA layer: h = x + attn(norm(x)); out = h + mlp(norm(h)). Touvron et al. 2023, arXiv:2302.13971.
 *
 * All but attention itself goes over chunks of rows, and each chunk goes all the way, through the MLP and back, before the
 * next one starts: nothing of width F exists for all rows, nor do norms, h, or any gradient that can take the place of
 * what it comes from. Besides the temporaries of a chunk there are at most, counted in tensors of (rows, C), where q and o
 * are h of one each, and k and v s of one (the columns at the right are those of h = 1):
 *
 * | moment                          | what is alive                                     | count         | s = 1 | s = 1/4 |
 * | ------------------------------- | ------------------------------------------------- | ------------- | ----- | ------- |
 * | forward, attention              | x, q, k, v, o                                     | 1 + 2 h + 2 s | 5     | 3.5     |
 * | forward, MLP                    | x, out in the memory of o, or besides it          | 2 (or 2 + h)  | 2     | 2       |
 * | backward, attention made again  | x, dOut, q, k, v, o                               | 2 + 2 h + 2 s | 6     | 4.5     |
 * | backward, MLP and o_proj        | the same; dOut becomes dH, and o becomes dO       | 2 + 2 h + 2 s | 6     | 4.5     |
 * | backward, attention             | besides these dk and dv, or dq where that is less |               | 7     | 5       |
 *
 * x is the layer's checkpoint; dH becomes dx. Without checkpointing h, gate and up of all rows are there too.
 */
export class LlamaBlock implements Layer<LlamaSaved> {
  readonly weights: LlamaWeights;
  readonly linears: readonly Linear[];
  readonly norms: readonly Norm[];
  readonly #shape: AttentionShape;

  constructor(weights: LlamaWeights, config: LlamaConfig) {
    this.weights = weights;
    this.linears = LLAMA_LINEARS.map((name) => weights[name]);
    this.norms = [weights.input_layernorm, weights.post_attention_layernorm];
    this.#shape = attentionShape(config);
  }

  forward(gpu: Gpu, x: Tensor, pass: Pass): Tensor {
    const { q, k, v, o, lse } = this.#attend(gpu, x, pass);
    free(q, k, v, lse);
    // Heads that together are as wide as x, as most models have them, need no second tensor.
    const out = o.width === x.width ? o : gpu.empty(x.shape, x.dtype, "layer output");
    for (const rows of chunksOf(x, pass.chunkRows)) {
      const inputs = this.#mlpInputs(gpu, x, o, pass, rows);
      this.#mlp(gpu, inputs, pass, rows, out);
      free(inputs.h, inputs.gate, inputs.up);
    }
    if (out !== o) o.free();
    return out;
  }

  forwardKeeping(gpu: Gpu, x: Tensor, pass: Pass): { out: Tensor; saved: LlamaSaved } {
    const attended = this.#attend(gpu, x, pass);
    const [rows] = chunksOf(x, Infinity);
    const inputs = this.#mlpInputs(gpu, x, attended.o, pass, rows!);
    const out = gpu.empty(x.shape, x.dtype, "layer output");
    this.#mlp(gpu, inputs, pass, rows!, out);
    return { out, saved: { ...attended, ...inputs } };
  }

  backward(gpu: Gpu, dOut: Tensor, x: Tensor, pass: Pass, saved?: LlamaSaved): Tensor {
    const { q, k, v, o, lse } = saved ?? this.#attend(gpu, x, pass);
    const shape = this.#shape;
    const { dropout } = pass;
    const stats = gpu.empty([x.rows, 2 * shape.heads], "f32", "attention stats");
    for (const rows of chunksOf(x, saved ? Infinity : pass.chunkRows)) {
      this.#mlpBackward(gpu, dOut, saved ?? this.#mlpInputs(gpu, x, o, pass, rows), pass, rows);
      outputBackward(gpu, rows.of(dOut), { o, lse, stats }, this.weights.o_proj, { shape, dropout, rows });
    }
    lse.free();
    attentionBackward(gpu, { q, k, v, dO: o, stats }, pass, shape, (slopes, rows) => {
      this.#projectionsBackward(gpu, slopes, rows.of(x), rows.of(dOut), pass, rows);
    });
    free(q, k, v, o, stats);
    return dOut;
  }

  extend(gpu: Gpu, x: Tensor, { attend, ...positions }: NewRows): void {
    const { weights: w } = this;
    const first = norm(gpu, x, w.input_layernorm);
    const [q, k, v] = [w.q_proj, w.k_proj, w.v_proj].map((each) => linear(gpu, first.y, each, undefined));
    turn(gpu, [q!, k!], positions, this.#shape.headDim);
    const o = attend(q!, k!, v!);
    linear(gpu, o, w.o_proj, undefined, { addTo: x });
    free(first.y, first.stats, q!, k!, v!, o);

    const second = norm(gpu, x, w.post_attention_layernorm);
    const gate = linear(gpu, second.y, w.gate_proj, undefined);
    const up = linear(gpu, second.y, w.up_proj, undefined);
    const act = swiglu(gpu, gate, up);
    linear(gpu, act, w.down_proj, undefined, { addTo: x });
    free(second.y, second.stats, gate, up, act);
  }

  #attend(gpu: Gpu, x: Tensor, pass: Pass): Attended {
    const { weights: w } = this;
    const { heads, kvHeads, headDim } = this.#shape;
    const make = (count: number, label: string) => gpu.empty([x.rows, count * headDim], x.dtype, label);
    const [q, k, v] = [make(heads, "q"), make(kvHeads, "k"), make(kvHeads, "v")];
    for (const rows of chunksOf(x, pass.chunkRows)) {
      const { y, stats } = norm(gpu, rows.of(x), w.input_layernorm);
      for (const [layer, into] of [[w.q_proj, q], [w.k_proj, k], [w.v_proj, v]] as const) {
        linear(gpu, y, layer, pass.dropout, { firstRow: rows.start, into: rows.of(into) });
      }
      free(y, stats);
    }
    turn(gpu, [q, k], pass, headDim);
    return { q, k, v, ...attention(gpu, q, k, v, pass.map, this.#shape) };
  }

  /** @returns tensors of the chunk alone */
  #mlpInputs(gpu: Gpu, x: Tensor, o: Tensor, { dropout }: Pass, rows: Rows): MlpInputs {
    const { weights: w } = this;
    const firstRow = rows.start;
    const h = linear(gpu, rows.of(o), w.o_proj, dropout, { firstRow });
    addInto(gpu, h, rows.of(x));
    const { y, stats } = norm(gpu, h, w.post_attention_layernorm);
    const gate = linear(gpu, y, w.gate_proj, dropout, { firstRow });
    const up = linear(gpu, y, w.up_proj, dropout, { firstRow });
    free(y, stats);
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
    const firstRow = rows.start;
    const addTo = rows.of(dOut);
    const act = swiglu(gpu, gate, up);
    const dAct = linearBackward(gpu, addTo, act, w.down_proj, dropout, { firstRow });
    act.free();
    const { dGate, dUp } = swigluBackwardInPlace(gpu, dAct, { gate, up });
    dAct.free();
    const { y, stats } = norm(gpu, h, w.post_attention_layernorm);
    const dNorm = linearBackward(gpu, dGate, y, w.gate_proj, dropout, { firstRow });
    dGate.free();
    linearBackward(gpu, dUp, y, w.up_proj, dropout, { firstRow, addTo: dNorm });
    free(dUp, y);
    normBackward(gpu, dNorm, w.post_attention_layernorm, { x: h, stats }, { addTo });
    free(dNorm, stats, h);
  }

  /** @param dH (end - start, C): the gradient of x is added to it */
  #projectionsBackward(
    gpu: Gpu,
    { dq, dk, dv }: QkvSlopes,
    x: Tensor,
    dH: Tensor,
    pass: Pass,
    rows: Rows,
  ): void {
    const { weights: w } = this;
    const { dropout } = pass;
    const firstRow = rows.start;
    const positions = { ...pass, positions: rows.of(pass.positions) };
    turn(gpu, [dq, dk], positions, this.#shape.headDim, { inverse: true });
    const { y, stats } = norm(gpu, x, w.input_layernorm);
    const dNorm = linearBackward(gpu, dq, y, w.q_proj, dropout, { firstRow });
    linearBackward(gpu, dk, y, w.k_proj, dropout, { firstRow, addTo: dNorm });
    linearBackward(gpu, dv, y, w.v_proj, dropout, { firstRow, addTo: dNorm });
    y.free();
    normBackward(gpu, dNorm, w.input_layernorm, { x, stats }, { addTo: dH });
    free(dNorm, stats);
  }
}
