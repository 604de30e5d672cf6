import type { Gpu, Sharing } from "../gpu.ts";

/** The way in which an op shares operands whose kernels are chosen by that alone. */
export function sharingOf({ sharing, refused }: Gpu, op: "matvec" | "cache attention" | "matmul"): Sharing {
  return refused.has(`${op} by subgroups`) ? "workgroup" : sharing;
}
