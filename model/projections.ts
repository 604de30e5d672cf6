/** Projections of a layer's rows to queries, keys and values: a linear for each, or one for all three. */
import type { Gpu } from "../kernels/gpu.ts";
import { mergeQkv, type Qkv, splitQkv } from "../kernels/qkv/qkv.ts";
import type { Tensor } from "../kernels/tensor.ts";
import { type DropoutKey, type Linear, linear, linearBackward, linears, linearsBackward } from "./linear.ts";
import type { LinearInput } from "./linear_input.ts";
import { type Norm, norm, normInputGradient } from "./norm.ts";

/** Queries, keys and values as a function of what attention reads, with its backward pass. */
export interface Projections {
  /** @param input (rows, C)  @param into overwritten */
  forward(gpu: Gpu, input: LinearInput, key: DropoutKey | undefined, firstRow: number, into: Qkv): void;

  /**
   * Adds the modules' own gradients to what they hold.
   * @param gradients of q, k and v, borrowed
   * @param y (rows, C), what the linears read in the forward pass
   * @returns dy (rows, C)
   */
  backward(gpu: Gpu, gradients: Qkv, y: Tensor, key: DropoutKey | undefined, firstRow: number): Tensor;
}

/** Linears for each of q, k and v, and norms that read what those of q and k give. */
export interface SeparateProjections {
  readonly linears: Readonly<Record<keyof Qkv, Linear>>;
  /** Over as many elements as their weights have: a head, or all of them. */
  readonly norms?: { readonly q: Norm; readonly k: Norm };
}

const NAMES = ["q", "k", "v"] as const;

/** A linear for each, as LLaMA has them; q = norm(linear(y)) and k likewise where there are norms. */
export function separateProjections({ linears: modules, norms }: SeparateProjections): Projections {
  const normOf = (name: keyof Qkv): Norm | undefined => name === "v" ? undefined : norms?.[name];
  return {
    forward(gpu, input, key, firstRow, into) {
      const targets = NAMES.map((name) => normOf(name) ? {} : { into: into[name] });
      const products = linears(gpu, input, NAMES.map((name) => modules[name]), key, { firstRow, targets });
      NAMES.forEach((name, i) => {
        const own = normOf(name);
        if (!own) return;
        const width = own.weight.size;
        norm(gpu, products[i]!.asRows(width), own, into[name].asRows(width)).stats.free();
        products[i]!.free();
      });
    },
    backward(gpu, gradients, y, key, firstRow) {
      const before = NAMES.map((name) => {
        const own = normOf(name);
        if (!own) return gradients[name];
        const product = linear(gpu, y, modules[name], key, { firstRow });
        const gradient = normInputGradient(gpu, gradients[name], product, own);
        product.free();
        return gradient;
      });
      const dy = linearsBackward(gpu, before, y, NAMES.map((name) => modules[name]), key, { firstRow });
      NAMES.forEach((name, i) => normOf(name) && before[i]!.free());
      return dy;
    },
  };
}

/** Orders of the rows of one linear for q, k and v. */
export type FusedOrder =
  /** All of q, then all of k, then all of v, as Phi-3 has them. */
  | "by part"
  /** (H, 3, D): head after head, as GPT-NeoX has them. */
  | "by head";

/** One linear for all three. @param headDim D */
export function fusedProjections(fused: Linear, order: FusedOrder, headDim: number): Projections {
  const qkvRows = ({ q, k, v }: Qkv): Qkv =>
    order === "by part" ? { q, k, v } : { q: q.asRows(headDim), k: k.asRows(headDim), v: v.asRows(headDim) };
  const rows = (product: Tensor): Tensor => order === "by part" ? product : product.asRows(3 * headDim);
  return {
    forward(gpu, input, key, firstRow, into) {
      const product = linear(gpu, input, fused, key, { firstRow });
      splitQkv(gpu, rows(product), qkvRows(into));
      product.free();
    },
    backward(gpu, gradients, y, key, firstRow) {
      const { q, k, v } = gradients;
      const dFused = gpu.empty([q.rows, q.width + k.width + v.width], q.dtype, "fused qkv");
      mergeQkv(gpu, qkvRows(gradients), rows(dFused));
      const dy = linearBackward(gpu, dFused, y, fused, key, { firstRow });
      dFused.free();
      return dy;
    },
  };
}
