import type { Gpu } from "../gpu.ts";
import { rowChunks, type RowRange, rowsWithin } from "../shared/row_chunks.ts";
import { bytesPerElement } from "../tensor.ts";
import { floatsOf } from "./floats.ts";
import { DENSE, denseOperand } from "./operands/dense.ts";
import { LATER, type Product, type Variant } from "./variant.ts";

/**
 * Writes quantised weights to memory as floats, then multiplies those. Each weight is decoded once, not once for every
 * tile of rows, for which it takes room for the floats of one product. Worth it where there are many rows. Work in 16 bits
 * gets weights in f16, rounded by 2^-11 of each at most; in f32 nothing is rounded.
 * @param runDense records a product of dense operands
 */
export function dequantiseFirst(runDense: (gpu: Gpu, product: Product) => void): Variant {
  return {
    name: "dequantise first",
    fuses: true,
    sizes: ["128 rows", "large", "medium"],
    fits: (_, { form }) => form !== DENSE,
    run(gpu, product) {
      const { a, b } = product;
      const format = floatsOf(a.format);
      using _ = gpu.memory.purpose("scratch");
      const most = rowsWithin(gpu.maxBindingBytes, b.width * bytesPerElement(format));
      for (const rows of rowChunks(b.rows, most)) {
        const weight = b.dequantise!(gpu, format, rows);
        runDense(gpu, { ...product, b: denseOperand(weight, b.start + rows.start), ...share(product, rows) });
        weight.free();
      }
    },
  };
}

/** The part of a product that some rows of its weight make: columns of x W^T, or a summand of dy W. */
function share(product: Product, { start, end }: RowRange): Partial<Product> {
  const { layout, aFirst, cFirst, inner } = product;
  return layout === "nt"
    ? {
      columns: end - start,
      cFirst: cFirst + start,
      inner: inner && { ...inner, b: inner.b.slice(start, end) },
    }
    : { depth: end - start, aFirst: aFirst + start, ...(start > 0 && LATER) };
}
