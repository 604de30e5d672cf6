import { fillBits, fillUniform } from "../elementwise/fill_random.ts";
import type { QuantisationMethod } from "../weight.ts";
import { NF4_VALUES } from "./format.ts";
import { emptyNf4Together, Nf4Quantiser } from "./nf4.ts";

/** Random scales lie this share above and below their mean: about what normal weights in blocks of 64 have. */
const SCALE_SPREAD = 0.3;

/** NF4 as a way to quantise a model's linears. */
export function nf4Method({ doubleQuant }: { readonly doubleQuant: boolean }): QuantisationMethod {
  return {
    widthUnit: 8,
    quantisers: (gpu, wanted) =>
      emptyNf4Together(gpu, wanted, { doubleQuant }).map((weight) => new Nf4Quantiser(gpu, weight)),
    random(gpu, wanted, { rms, seed, nextStream }) {
      const scale = rms / rmsOf(NF4_VALUES);
      const weights = emptyNf4Together(gpu, wanted, { doubleQuant });
      for (const { codes, absmax, nested } of weights) {
        fillBits(gpu, codes, seed, nextStream());
        if (nested) {
          fillBits(gpu, absmax, seed, nextStream());
          // The offset in front, then what the 8-bit codes from -1 to 1 are multiplied by.
          const scales = new Float32Array(nested.scales.size).fill(SCALE_SPREAD * scale);
          scales[0] = scale;
          gpu.write(nested.scales, scales);
        } else {
          const [low, high] = [(1 - SCALE_SPREAD) * scale, (1 + SCALE_SPREAD) * scale];
          fillUniform(gpu, absmax, { seed, stream: nextStream(), low, high });
        }
      }
      return weights;
    },
  };
}

function rmsOf(values: Float32Array): number {
  return Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0) / values.length);
}
