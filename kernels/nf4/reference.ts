/**
 * NF4 as its authors define it, on the host: the specification that the kernels are tested against.
 * Dettmers et al. 2023, QLoRA, section 3 and appendix E (the sixteen values); 8-bit scales as bitsandbytes has them.
 */
import { BLOCK, dynamicMap, NESTED_BLOCK, NF4_VALUES } from "./format.ts";

/** Blocks of weights in 4 bits, each with its scale. */
export interface Nf4 {
  /** Two weights a byte, the earlier in the high half. */
  readonly codes: Uint8Array;
  /** One scale a block: the largest magnitude in it. */
  readonly absmax: Float32Array;
}

/** @param values weights; their number is even */
export function quantiseNf4Reference(values: Float32Array): Nf4 {
  const absmax = new Float32Array(Math.ceil(values.length / BLOCK));
  const codes = new Uint8Array(values.length / 2);
  values.forEach((value, i) => {
    const block = Math.floor(i / BLOCK);
    absmax[block] = Math.max(absmax[block]!, Math.abs(value));
  });
  values.forEach((value, i) => {
    const scale = absmax[Math.floor(i / BLOCK)]!;
    const code = nearestCode(scale > 0 ? Math.fround(value * Math.fround(1 / scale)) : 0);
    codes[i >> 1]! |= i % 2 === 0 ? code << 4 : code;
  });
  return { codes, absmax };
}

/** Index of the nearest of the sixteen values; exactly between two, the lower. */
export function nearestCode(value: number): number {
  let code = 0;
  while (code < 15 && value > (NF4_VALUES[code]! + NF4_VALUES[code + 1]!) / 2) code++;
  return code;
}

export function dequantiseNf4Reference({ codes, absmax }: Nf4): Float32Array {
  return Float32Array.from({ length: codes.length * 2 }, (_, i) => {
    const byte = codes[i >> 1]!;
    return NF4_VALUES[i % 2 === 0 ? byte >> 4 : byte & 15]! * absmax[Math.floor(i / BLOCK)]!;
  });
}

/** Scales in 8 bits: scale i = map[codes[i]] * nested[floor(i / 256)] + offset. */
export interface NestedScales {
  readonly codes: Uint8Array;
  readonly nested: Float32Array;
  readonly offset: number;
}

export function quantiseScalesReference(absmax: Float32Array): NestedScales {
  const map = dynamicMap();
  const offset = Math.fround(absmax.reduce((sum, value) => sum + value, 0) / absmax.length);
  const nested = new Float32Array(Math.ceil(absmax.length / NESTED_BLOCK));
  const centred = absmax.map((value) => value - offset);
  centred.forEach((value, i) => {
    const block = Math.floor(i / NESTED_BLOCK);
    nested[block] = Math.max(nested[block]!, Math.abs(value));
  });
  const codes = Uint8Array.from(centred, (value, i) => {
    const scale = nested[Math.floor(i / NESTED_BLOCK)]!;
    const unit = scale > 0 ? Math.fround(value * Math.fround(1 / scale)) : 0;
    let nearest = 0;
    for (let code = 1; code < 256; code++) {
      if (Math.abs(map[code]! - unit) < Math.abs(map[nearest]! - unit)) nearest = code;
    }
    return nearest;
  });
  return { codes, nested, offset };
}

export function dequantiseScalesReference({ codes, nested, offset }: NestedScales): Float32Array {
  const map = dynamicMap();
  return Float32Array.from(codes, (code, i) => map[code]! * nested[Math.floor(i / NESTED_BLOCK)]! + offset);
}
