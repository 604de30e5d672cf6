/** The MLPs of a layer, each a function of the rows that it reads, with its backward pass. */
import { geglu, gegluBackwardInPlace } from "../kernels/activation/geglu.ts";
import { gelu, geluBackwardInPlace, type GeluForm } from "../kernels/activation/gelu.ts";
import { fusedSwiglu, fusedSwigluBackwardInPlace } from "../kernels/activation/fused_swiglu.ts";
import { swiglu, swigluBackwardInPlace } from "../kernels/activation/swiglu.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { Tensor } from "../kernels/tensor.ts";
import { free } from "./chunks.ts";
import {
  type DropoutKey,
  type Linear,
  linear,
  linearBackward,
  type LinearOptions,
  linears,
  linearsBackward,
} from "./linear.ts";
import { type LinearInput, sourceOf } from "./linear_input.ts";

/** An MLP in two halves: what its activation reads, and what comes of that. */
export interface Mlp {
  /** Computes what the second half reads: the activation's inputs, each (rows, F), and the routing where there are experts. @param input (rows, C) */
  up(gpu: Gpu, input: LinearInput, key: DropoutKey | undefined, firstRow: number): Tensor[];

  /** Computes the MLP's output, (rows, C). @param inputs of the activation, borrowed */
  down(
    gpu: Gpu,
    inputs: readonly Tensor[],
    key: DropoutKey | undefined,
    options: LinearOptions,
  ): Tensor;

  /**
   * Adds the second half's own gradients to what they hold.
   * @param dOut (rows, C)
   * @param inputs freed
   * @returns the gradients of `inputs`
   */
  downBackward(
    gpu: Gpu,
    dOut: Tensor,
    inputs: readonly Tensor[],
    key: DropoutKey | undefined,
    firstRow: number,
  ): Tensor[];

  /**
   * Adds the first half's own gradients to what they hold.
   * @param gradients freed
   * @param y (rows, C), what the first half read
   * @returns dy (rows, C)
   */
  upBackward(
    gpu: Gpu,
    gradients: readonly Tensor[],
    y: Tensor,
    key: DropoutKey | undefined,
    firstRow: number,
  ): Tensor;
}

/** Linears of a gated MLP. */
export interface GatedLinears {
  readonly gate: Linear;
  readonly up: Linear;
  readonly down: Linear;
}

const GATED = {
  swiglu: { forward: swiglu, backwardInPlace: swigluBackwardInPlace },
  geglu: { forward: geglu, backwardInPlace: gegluBackwardInPlace },
};

/** mlp(y) = down(silu(gate(y)) * up(y)). Shazeer 2020, arXiv:2002.05202. */
export function swigluMlp(linears: GatedLinears): Mlp {
  return gatedMlp(linears, "swiglu");
}

/** mlp(y) = down(gelu(gate(y)) * up(y)), with GELU by its tanh. Shazeer 2020, arXiv:2002.05202. */
export function gegluMlp(linears: GatedLinears): Mlp {
  return gatedMlp(linears, "geglu");
}

/** mlp(y) = down(act(gate(y)) * up(y)). */
function gatedMlp(w: GatedLinears, activation: keyof typeof GATED): Mlp {
  const act = GATED[activation];
  return {
    up(gpu, input, key, firstRow) {
      const layers = [w.gate, w.up];
      const { rows, dtype } = sourceOf(input);
      const wanted = layers.map(({ name, weight }) => ({ shape: [rows, weight.shape[0]!], label: name }));
      const targets = gpu.emptyTogether(wanted, dtype).map((into) => ({ into }));
      return linears(gpu, input, layers, key, { firstRow, targets });
    },
    down(gpu, [gate, up], key, options) {
      return linear(gpu, { x: up!, gate: gate!, activation }, w.down, key, options);
    },
    downBackward(gpu, dOut, [gate, up], key, firstRow) {
      const hidden = act.forward(gpu, gate!, up!);
      const dHidden = linearBackward(gpu, dOut, hidden, w.down, key, { firstRow });
      hidden.free();
      const { dGate, dUp } = act.backwardInPlace(gpu, dHidden, { gate: gate!, up: up! });
      dHidden.free();
      return [dGate, dUp];
    },
    upBackward(gpu, gradients, y, key, firstRow) {
      const dy = linearsBackward(gpu, gradients, y, [w.gate, w.up], key, { firstRow });
      free(...gradients);
      return dy;
    },
  };
}

/**
 * {@linkcode swigluMlp} with one linear for gate and up.
 * @param w.gateUp its rows are all of gate, then all of up
 */
export function fusedSwigluMlp(w: { readonly gateUp: Linear; readonly down: Linear }): Mlp {
  return {
    up: (gpu, input, key, firstRow) => [linear(gpu, input, w.gateUp, key, { firstRow })],
    down(gpu, [gateUp], key, options) {
      return linear(gpu, { x: gateUp!, activation: "fused swiglu" }, w.down, key, options);
    },
    downBackward(gpu, dOut, [gateUp], key, firstRow) {
      const act = fusedSwiglu(gpu, gateUp!);
      const dAct = linearBackward(gpu, dOut, act, w.down, key, { firstRow });
      act.free();
      const dGateUp = fusedSwigluBackwardInPlace(gpu, dAct, gateUp!);
      dAct.free();
      return [dGateUp];
    },
    upBackward(gpu, [dGateUp], y, key, firstRow) {
      const dy = linearBackward(gpu, dGateUp!, y, w.gateUp, key, { firstRow });
      dGateUp!.free();
      return dy;
    },
  };
}

/** mlp(y) = down(gelu(up(y))). Hendrycks and Gimpel 2016, arXiv:1606.08415. */
export function geluMlp(w: { readonly up: Linear; readonly down: Linear }, form: GeluForm): Mlp {
  return {
    up: (gpu, input, key, firstRow) => [linear(gpu, input, w.up, key, { firstRow })],
    down(gpu, [up], key, options) {
      const act = gelu(gpu, up!, form);
      const out = linear(gpu, act, w.down, key, options);
      act.free();
      return out;
    },
    downBackward(gpu, dOut, [up], key, firstRow) {
      const act = gelu(gpu, up!, form);
      const dAct = linearBackward(gpu, dOut, act, w.down, key, { firstRow });
      act.free();
      const dUp = geluBackwardInPlace(gpu, dAct, up!, form);
      dAct.free();
      return [dUp];
    },
    upBackward(gpu, [dUp], y, key, firstRow) {
      const dy = linearBackward(gpu, dUp!, y, w.up, key, { firstRow });
      dUp!.free();
      return dy;
    },
  };
}
