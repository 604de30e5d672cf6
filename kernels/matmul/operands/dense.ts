import type { Tensor } from "../../tensor.ts";
import type { Operand, WeightForm } from "../../weight.ts";
import bWgsl from "./b.wgsl" with { type: "text" };
import bTransposedWgsl from "./b_transposed.wgsl" with { type: "text" };
import bQuadWgsl from "./b_quad.wgsl" with { type: "text" };
import { octetPieces } from "./octets.ts";
import depthDenseWgsl from "../software/depth_dense.wgsl" with { type: "text" };
import shareBWgsl from "../software/share_b.wgsl" with { type: "text" };
import shareBTransposedWgsl from "../software/share_b_transposed.wgsl" with { type: "text" };

/** Elements one after the other, in any float format. */
export const DENSE: WeightForm = {
  name: "dense",
  layouts: ["nt", "nn", "tn"],
  families: ["workgroup", "matrix", "subgroup", "narrow subgroup"],
  pieces(family, layout, width, elements) {
    if (family === "matrix") {
      return octetPieces("b", { ...elements!, isTurned: layout !== "nt", width });
    }
    const block = layout === "nt" ? bWgsl : bTransposedWgsl;
    if (family === "subgroup") return { libraries: [depthDenseWgsl, block] };
    if (family === "narrow subgroup") {
      return { libraries: [block, layout === "nt" ? shareBWgsl : shareBTransposedWgsl] };
    }
    return { libraries: family === "workgroup" ? [block, bQuadWgsl] : [block] };
  },
};

/** Rows in one binding as operand B. @param start row of the whole matrix that comes first */
export function denseOperand(rows: Tensor, start = 0): Operand {
  return {
    form: DENSE,
    name: "dense",
    start,
    rows: rows.rows,
    width: rows.width,
    libraries: [],
    tensors: { b: rows },
    format: rows.format,
    firstQuad: 0,
  };
}
