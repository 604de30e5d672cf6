import type { Gpu } from "../gpu.ts";
import { DENSE, denseOperand } from "./operands/dense.ts";
import { usesMatrices } from "./tiles/matrix.ts";
import type { Product, ProductKind, Variant } from "./variant.ts";

/**
 * Writes quantised weights to memory as floats, then multiplies those. Each weight is decoded once, not once for every
 * tile of rows, for which it takes room for the floats of one product. Worth it where there are many rows.
 * @param runDense records a product of dense operands
 */
export function dequantiseFirst(runDense: (gpu: Gpu, product: Product) => void): Variant {
  return {
    name: "dequantise first",
    sizes: ["large", "medium"],
    fits: (_, { form }) => form !== DENSE,
    run(gpu, product) {
      const { layout, a, b } = product;
      // Matrix units would round what they decode to f16; elsewhere nothing is rounded.
      const kind: ProductKind = { layout, form: b.form, format: a.format };
      using _ = gpu.memory.purpose("scratch");
      const weight = b.dequantise!(gpu, usesMatrices(gpu, kind) ? "f16" : "f32");
      runDense(gpu, { ...product, b: denseOperand(weight, b.start) });
      weight.free();
    },
  };
}
