import type { Layout } from "../../weight.ts";
import aWgsl from "./a.wgsl" with { type: "text" };
import aTransposedWgsl from "./a_transposed.wgsl" with { type: "text" };

/** WGSL by which tiles read operand A. */
export function operandA(layout: Layout): string {
  return layout === "tn" ? aTransposedWgsl : aWgsl;
}
