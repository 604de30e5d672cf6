import type { Quantisation } from "../kernels/quantisation.ts";

/** The one value that the two settings mean. @param settings.double_quant true unless given */
export function quantisationOf(
  { load_in_4bit, double_quant = true }: { readonly load_in_4bit: boolean; readonly double_quant?: boolean },
): Quantisation {
  if (!load_in_4bit) return "none";
  return double_quant ? "nf4-double" : "nf4";
}
