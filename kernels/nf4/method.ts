import { fillBits, fillUniform } from "../elementwise/fill_random.ts";
import type { QuantisationMethod } from "../weight.ts";
import { NF4_VALUES } from "./format.ts";
import { emptyNf4, Nf4Quantiser } from "./nf4.ts";

/** Random scales lie this share above and below their mean: about what normal weights in blocks of 64 have. */
const SCALE_SPREAD = 0.3;

/** NF4 as a way to quantise a model's linears. */
export function nf4Method({ doubleQuant }: { readonly doubleQuant: boolean }): QuantisationMethod {
  return {
    widthUnit: 8,
    quantiser: (gpu, shape, label) => new Nf4Quantiser(gpu, shape, { doubleQuant, label }),
    random(gpu, shape, { rms, label, seed, nextStream }) {
      const weight = emptyNf4(gpu, shape, { doubleQuant, label });
      const scale = rms / rmsOf(NF4_VALUES);
      fillBits(gpu, weight.codes, seed, nextStream());
      if (weight.nested) {
        fillBits(gpu, weight.absmax, seed, nextStream());
        // The offset in front, then what the 8-bit codes from -1 to 1 are multiplied by.
        const nested = new Float32Array(weight.nested.scales.size).fill(SCALE_SPREAD * scale);
        nested[0] = scale;
        gpu.write(weight.nested.scales, nested);
      } else {
        const [low, high] = [(1 - SCALE_SPREAD) * scale, (1 + SCALE_SPREAD) * scale];
        fillUniform(gpu, weight.absmax, { seed, stream: nextStream(), low, high });
      }
      return weight;
    },
  };
}

function rmsOf(values: Float32Array): number {
  return Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0) / values.length);
}
