import type { ExpertLinears } from "./experts.ts";
import type { Linear } from "./linear.ts";
import type { Norm } from "./norm.ts";

/** What a layer is made of, each kind in the order of the checkpoint. */
export interface LayerModuleLists {
  readonly linears: readonly Linear[];
  readonly norms: readonly Norm[];
  /** Linears that give tokens their experts. */
  readonly routers: readonly Linear[];
  /** Linears of the experts, those for one purpose together. */
  readonly experts: readonly ExpertLinears[];
}

/** One layer's modules, by their names. */
export class LayerModules implements LayerModuleLists {
  readonly linears: readonly Linear[];
  readonly norms: readonly Norm[];
  readonly routers: readonly Linear[];
  readonly experts: readonly ExpertLinears[];
  readonly #within: string;

  /** @param within what their names begin with, such as `model.layers.3` */
  constructor(within: string, { linears, norms, routers, experts }: LayerModuleLists) {
    this.#within = within;
    this.linears = linears;
    this.norms = norms;
    this.routers = routers;
    this.experts = experts;
  }

  /** Finds a linear by its module, such as `self_attn.q_proj`. @throws {RangeError} if the layer has none */
  linear(module: string): Linear {
    return this.#find(this.linears, module);
  }

  /** Finds a norm by its module. @throws {RangeError} if the layer has none */
  norm(module: string): Norm {
    return this.#find(this.norms, module);
  }

  /** Finds a router by its module. @throws {RangeError} if the layer has none */
  router(module: string): Linear {
    return this.#find(this.routers, module);
  }

  /** Finds the linears of all experts by the name of their stack. @throws {RangeError} if the layer has none */
  stack(module: string): ExpertLinears {
    return this.#find(this.experts, module);
  }

  #find<T extends { readonly name: string }>(all: readonly T[], module: string): T {
    const found = all.find(({ name }) => name === `${this.#within}.${module}`);
    if (!found) throw new RangeError(`${this.#within} has no "${module}"`);
    return found;
  }
}
