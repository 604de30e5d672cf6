import { swiglu, swigluBackwardInPlace } from "../kernels/activation/swiglu.ts";
import { attention, attentionBackward, type AttentionShape } from "../kernels/attention/attention.ts";
import type { AttentionMap } from "../kernels/attention/map.ts";
import { addInto } from "../kernels/elementwise/elementwise.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { rmsNorm, rmsNormBackward } from "../kernels/norm/rms_norm.ts";
import { rope } from "../kernels/rope/rope.ts";
import type { Tensor } from "../kernels/tensor.ts";
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

/** What a layer's backward pass reads: the tensors it owns, all (rows, ...). */
export interface BlockSaved {
  readonly norm1: { readonly y: Tensor; readonly rstd: Tensor };
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly o: Tensor;
  readonly lse: Tensor;
  readonly h: Tensor;
  readonly norm2: { readonly y: Tensor; readonly rstd: Tensor };
  readonly gate: Tensor;
  readonly up: Tensor;
  readonly act: Tensor;
}

/** One LLaMA layer: h = x + attn(norm(x)); out = h + mlp(norm(h)). Touvron et al. 2023, arXiv:2302.13971. */
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

  /** @param x (rows, C), borrowed  @returns out (rows, C), and what {@linkcode backward} reads; free it if unused */
  forward(gpu: Gpu, x: Tensor, pass: Pass): { out: Tensor; saved: BlockSaved } {
    const saved = this.#forwardToAct(gpu, x, pass);
    const out = linear(gpu, saved.act, this.weights.down_proj, pass.dropout);
    addInto(gpu, out, saved.h);
    return { out, saved };
  }

  /** The forward pass again, for the backward pass alone: without the last product. */
  recompute(gpu: Gpu, x: Tensor, pass: Pass): BlockSaved {
    return this.#forwardToAct(gpu, x, pass);
  }

  /**
   * Adds the layer's gradients to what they hold, frees `saved`.
   * @param dOut (rows, C): overwritten  @returns dx (rows, C), in the memory of `dOut`
   */
  backward(gpu: Gpu, dOut: Tensor, x: Tensor, saved: BlockSaved, pass: Pass): Tensor {
    const dH = this.#mlpBackward(gpu, dOut, saved, pass);
    return this.#attentionBackward(gpu, dH, x, saved, pass);
  }

  #forwardToAct(gpu: Gpu, x: Tensor, pass: Pass): BlockSaved {
    const { weights: w } = this;
    const { headDim } = this.#shape;
    const norm1 = rmsNorm(gpu, x, w.input_layernorm.weight, this.#eps);
    const q = linear(gpu, norm1.y, w.q_proj, pass.dropout);
    const k = linear(gpu, norm1.y, w.k_proj, pass.dropout);
    const v = linear(gpu, norm1.y, w.v_proj, pass.dropout);
    rope(gpu, q, pass.cos, pass.sin, pass.positions, headDim);
    rope(gpu, k, pass.cos, pass.sin, pass.positions, headDim);
    const { o, lse } = attention(gpu, q, k, v, pass.map, this.#shape);
    const h = linear(gpu, o, w.o_proj, pass.dropout);
    addInto(gpu, h, x);
    const norm2 = rmsNorm(gpu, h, w.post_attention_layernorm.weight, this.#eps);
    const gate = linear(gpu, norm2.y, w.gate_proj, pass.dropout);
    const up = linear(gpu, norm2.y, w.up_proj, pass.dropout);
    const act = swiglu(gpu, gate, up);
    return { norm1, q, k, v, o, lse, h, norm2, gate, up, act };
  }

  #mlpBackward(gpu: Gpu, dOut: Tensor, { h, norm2, gate, up, act }: BlockSaved, pass: Pass): Tensor {
    const { weights: w } = this;
    const dAct = linearBackward(gpu, dOut, act, w.down_proj, pass.dropout);
    act.free();
    const { dGate, dUp } = swigluBackwardInPlace(gpu, dAct, { gate, up });
    dAct.free();
    const dNorm = linearBackward(gpu, dGate, norm2.y, w.gate_proj, pass.dropout);
    linearBackward(gpu, dUp, norm2.y, w.up_proj, pass.dropout, dNorm);
    free(gate, up, norm2.y);
    const { weight, grad } = w.post_attention_layernorm;
    rmsNormBackward(gpu, dNorm, { x: h, weight, rstd: norm2.rstd }, {
      addTo: dOut,
      ...(grad && { dWeight: grad }),
    });
    free(dNorm, norm2.rstd, h);
    return dOut;
  }

  #attentionBackward(gpu: Gpu, dH: Tensor, x: Tensor, saved: BlockSaved, pass: Pass): Tensor {
    const { weights: w } = this;
    const { norm1, q, k, v, o, lse } = saved;
    const { headDim } = this.#shape;
    const dO = linearBackward(gpu, dH, o, w.o_proj, pass.dropout);
    const { dq, dk, dv } = attentionBackward(gpu, dO, { q, k, v, o, lse }, pass.map, this.#shape);
    free(dO, q, k, v, o, lse);
    rope(gpu, dq, pass.cos, pass.sin, pass.positions, headDim, { inverse: true });
    rope(gpu, dk, pass.cos, pass.sin, pass.positions, headDim, { inverse: true });
    const dNorm = linearBackward(gpu, dq, norm1.y, w.q_proj, pass.dropout);
    linearBackward(gpu, dk, norm1.y, w.k_proj, pass.dropout, dNorm);
    linearBackward(gpu, dv, norm1.y, w.v_proj, pass.dropout, dNorm);
    free(dq, dk, dv, norm1.y);
    const { weight, grad } = w.input_layernorm;
    rmsNormBackward(gpu, dNorm, { x, weight, rstd: norm1.rstd }, {
      addTo: dH,
      ...(grad && { dWeight: grad }),
    });
    free(dNorm, norm1.rstd);
    return dH;
  }
}

/** Frees all that a forward pass kept for a backward pass that does not come, or comes later with a recomputation. */
export function freeSaved({ norm1, norm2, q, k, v, o, lse, h, gate, up, act }: BlockSaved): void {
  free(norm1.y, norm1.rstd, q, k, v, o, lse, h, norm2.y, norm2.rstd, gate, up, act);
}

function free(...tensors: Tensor[]): void {
  for (const tensor of tensors) tensor.free();
}
