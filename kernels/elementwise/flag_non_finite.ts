import type { Gpu } from "../gpu.ts";
import { THREADS, wrappedGrid } from "../shared/grid.ts";
import { rowRanges, type Tensor } from "../tensor.ts";
import type { Format } from "../wgsl.ts";
import flagNonFiniteWgsl from "./flag_non_finite.wgsl" with { type: "text" };

const FLAG_NON_FINITE = { name: "flag_non_finite", wgsl: flagNonFiniteWgsl };

/** Words that one thread looks at. */
const RUN = 16;

/** Bits of a word of one f32 or two halves: all exponents, the lowest of each, the signs above them. */
const BITS: Record<Format, { exponents: number; carry: number; signs: number }> = {
  f32: { exponents: 0x7f800000, carry: 0x00800000, signs: 0x80000000 },
  bf16: { exponents: 0x7f807f80, carry: 0x00800080, signs: 0x80008000 },
  f16: { exponents: 0x7c007c00, carry: 0x04000400, signs: 0x80008000 },
};

/**
 * Sets one flag if any element is NaN or infinite, and leaves it as it is otherwise: many tensors are checked with one
 * wait for their flags.
 *
 * @param x any shape, any float format
 * @param flags u32
 * @param slot which of them
 */
export function flagNonFinite(gpu: Gpu, x: Tensor, flags: Tensor, slot: number): void {
  for (const { start, end } of rowRanges([x])) {
    const part = x.slice(start, end);
    const words = Math.ceil(part.byteLength / 4);
    gpu.run(FLAG_NON_FINITE, [part, flags], {
      grid: wrappedGrid(Math.ceil(words / RUN / THREADS)),
      uniforms: { words, slot, ...BITS[x.format] },
      constants: { RUN },
    });
  }
}
