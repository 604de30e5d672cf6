import type { Gpu } from "../gpu.ts";
import { wrappedGrid } from "../shared/grid.ts";
import octetsWgsl from "../shared/octets_matrix.wgsl" with { type: "text" };
import powersWgsl from "../shared/powers_matrix.wgsl" with { type: "text" };
import { REDUCE_64 } from "../shared/reduce.ts";
import type { Tensor } from "../tensor.ts";
import type { Kernel } from "../wgsl.ts";
import halfRowsWgsl from "./half_rows_matrix.wgsl" with { type: "text" };
import type { Product, Variant } from "./variant.ts";

const HALF_ROWS: Kernel = {
  name: "half_rows",
  wgsl: halfRowsWgsl,
  libraries: [...REDUCE_64.libraries, octetsWgsl, powersWgsl],
  constants: REDUCE_64.constants,
};

/**
 * Writes the rows of bf16 to memory as f16, then multiplies those on matrix units: a tile then copies them where it would
 * convert each value again for every 128 columns, and look for the largest. Rows are scaled by powers of two, one for each,
 * so that nothing has to be known of their range. Takes room for the rows of one product.
 * @param tile a variant on matrix units that takes factors of rows
 */
export function halvesFirst(tile: Variant): Variant {
  return {
    ...tile,
    name: `${tile.name} of halves`,
    sizes: ["large", "medium"],
    fits: (gpu, kind) => kind.layout !== "tn" && tile.fits(gpu, kind),
    run(gpu, product) {
      if (product.a.format !== "bf16" || !hasWholeRows(product)) return tile.run(gpu, product);
      const { rows, factors, inner } = halfRows(gpu, product);
      tile.run(gpu, {
        ...product,
        a: rows,
        aFirst: 0,
        aFactors: factors,
        inner: inner && { ...product.inner!, a: inner },
      });
      for (const tensor of [rows, factors, inner]) tensor?.free();
    },
  };
}

/** Whether the rows of operand A are those of all blocks, a whole number of octets each, and as a mask counts them. */
function hasWholeRows({ a, depth, mask, inner, blocks }: Product): boolean {
  return depth % 8 === 0 && (blocks?.aStep ?? 0) === 0 && !(mask && a.width !== depth) &&
    (inner?.a.rows ?? a.rows) === a.rows;
}

/** What a tile multiplies in place of operand A, and what gives its result back. */
interface HalfRows {
  /** (rows, depth) f16 */
  readonly rows: Tensor;
  /** (rows) f32 */
  readonly factors: Tensor;
  /** As the inner product's, f32. */
  readonly inner: Tensor | undefined;
}

function halfRows(gpu: Gpu, { a: x, aFirst, depth, inner }: Product): HalfRows {
  using _ = gpu.memory.purpose("scratch");
  const rows = gpu.empty([x.rows, depth], "f16", `${x.label} in f16`);
  const factors = gpu.empty([x.rows], "f32", `factors of ${x.label}`);
  const scaled = inner && gpu.empty(inner.a.shape, "f32", `${inner.a.label}, scaled`);
  const tensors = { x, halves: rows, factors, ...(inner && { inner: inner.a, scaled_inner: scaled! }) };
  gpu.run(HALF_ROWS, tensors, {
    grid: wrappedGrid(x.rows),
    constants: { INNERS: inner ? 1 : 0 },
    formats: { X: x.format },
    uniforms: {
      rows: x.rows,
      octets: depth / 8,
      x_stride: x.width / 4,
      x_first: aFirst / 4,
      inner_quads: (inner?.a.width ?? 0) / 4,
    },
  });
  return { rows, factors, inner: scaled };
}
