import type { Gpu } from "../gpu.ts";
import { Tensor } from "../tensor.ts";
import type { QuantisedWeight, Weight } from "../weight.ts";
import type { Format } from "../wgsl.ts";
import { floatsOf } from "./floats.ts";
import { decodesFirst } from "./variants.ts";

/**
 * Writes weights as floats side by side in memory, for as long as several products read them: those that each product
 * would write as floats anew, with the same values.
 *
 * @param use rows and format of what the products multiply
 * @returns for each weight its floats (N, K), which the caller frees; undefined where products read it as it is
 */
export function decodeAhead(
  gpu: Gpu,
  weights: readonly Weight[],
  { rows, format }: { readonly rows: number; readonly format: Format },
): (Tensor | undefined)[] {
  const chosen = weights.filter((weight): weight is QuantisedWeight =>
    !(weight instanceof Tensor) && weight.dequantiseInto !== undefined && weight.operands().length === 1 &&
    decodesFirst(gpu, weight, { rows, format })
  );
  using _ = gpu.memory.purpose("scratch");
  const floats = gpu.emptyTogether(chosen.map(({ shape, label }) => ({ shape, label })), floatsOf(format));
  chosen.forEach((weight, i) => weight.dequantiseInto!(gpu, floats[i]!));
  return weights.map((weight) => floats[chosen.indexOf(weight as QuantisedWeight)]);
}
