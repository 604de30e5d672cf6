/** NaN and infinity are found wherever they are, in every format; the largest and smallest numbers are not taken for them. */
import { fromF32 } from "../../checkpoint/dtype.ts";
import { flagNonFinite } from "../../kernels/elementwise/flag_non_finite.ts";
import { Gpu } from "../../kernels/gpu.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { assertEquals } from "../support/assert_close.ts";
import { normal } from "../support/random.ts";

const whole = await Gpu.open({ poison: true });
const split = await Gpu.open({ poison: true, maxBindingBytes: 4096 });

const DTYPES = { f32: "F32", bf16: "BF16", f16: "F16" } as const;

/** Largest finite number, its negative, smallest subnormals and zeros, as bits. */
const FINITE: Record<Format, number[]> = {
  f32: [0x7f7fffff, 0xff7fffff, 1, 0x80000001, 0, 0x80000000, 0x7f000000],
  bf16: [0x7f7f, 0xff7f, 1, 0x8001, 0, 0x8000, 0x7f00],
  f16: [0x7bff, 0xfbff, 1, 0x8001, 0, 0x8000, 0x7800],
};
/** Infinity, minus infinity, NaN with the first and with the last bit of its fraction. */
const BAD: Record<Format, number[]> = {
  f32: [0x7f800000, 0xff800000, 0x7fc00000, 0xff800001],
  bf16: [0x7f80, 0xff80, 0x7fc0, 0xff81],
  f16: [0x7c00, 0xfc00, 0x7e00, 0xfc01],
};

for (const format of ["f32", "bf16", "f16"] as const) {
  Deno.test(`flagNonFinite() finds each bad ${format} and nothing else`, async () => {
    for (const gpu of [whole, split]) {
      for (const shape of [[1], [3], [66, 8], [300, 8], [520]] as const) {
        const size = shape.reduce((product: number, axis) => product * axis, 1);
        const values = normal(1, size, 100);
        const cases: (readonly [number, number, number])[] = [];
        for (const bits of FINITE[format]) cases.push([0, bits, 0]);
        for (const bits of BAD[format]) {
          for (const at of new Set([0, size >> 1, size - 1])) cases.push([at, bits, 1]);
        }
        const flags = gpu.zeros([cases.length + 1], "u32");
        for (const [slot, [at, bits]] of cases.entries()) {
          const bytes = fromF32(values, DTYPES[format]);
          if (format === "f32") new Uint32Array(bytes.buffer)[at] = bits;
          else new Uint16Array(bytes.buffer)[at] = bits;
          const tensor = gpu.tensor(shape, bytes, { dtype: format });
          flagNonFinite(gpu, tensor, flags, slot);
          tensor.free();
        }
        const expected = [...cases.map(([, , flag]) => flag), 0];
        assertEquals([...await gpu.readU32(flags)], expected, `[${shape}]`);
        flags.free();
      }
    }
  });
}
