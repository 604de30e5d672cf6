import type { Linear } from "./linear.ts";
import type { Norm } from "./norm.ts";

/** One layer's linears and norms, in the order of the checkpoint. */
export class LayerModules {
  readonly linears: readonly Linear[];
  readonly norms: readonly Norm[];
  readonly #within: string;

  /** @param within what their names begin with, such as `model.layers.3` */
  constructor(within: string, linears: readonly Linear[], norms: readonly Norm[]) {
    this.#within = within;
    this.linears = linears;
    this.norms = norms;
  }

  /** Finds a linear by its module, such as `self_attn.q_proj`. @throws {RangeError} if the layer has none */
  linear(module: string): Linear {
    return this.#find(this.linears, module);
  }

  /** Finds a norm by its module. @throws {RangeError} if the layer has none */
  norm(module: string): Norm {
    return this.#find(this.norms, module);
  }

  #find<T extends { readonly name: string }>(all: readonly T[], module: string): T {
    const found = all.find(({ name }) => name === `${this.#within}.${module}`);
    if (!found) throw new RangeError(`${this.#within} has no "${module}"`);
    return found;
  }
}
