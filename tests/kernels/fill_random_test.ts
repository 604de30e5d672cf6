/** Random values made on the device: those of the reference, in every format, however the tensor is split. */
import { fillBits, fillUniform, type UniformKey } from "../../kernels/elementwise/fill_random.ts";
import { uniformReference } from "../../kernels/elementwise/reference.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { randomWord } from "../../kernels/shared/threefry.ts";
import { assert, assertClose, assertEquals, assertThrows, F32 } from "../support/assert_close.ts";
import { assertRounded } from "../support/numeric.ts";

const whole = await Gpu.open({ poison: true });
const split = await Gpu.open({ poison: true, maxBindingBytes: 4096 });
// Work of few groups is laid out along y, as that of many goes on there: a kernel that numbers its threads by x alone shows.
const run = split.run.bind(split);
split.run = (kernel, tensors, { grid: [x, y = 1], ...launch }) =>
  run(kernel, tensors, { ...launch, grid: [y, x] });

const SHAPES = [[1], [3], [4], [7, 1], [5, 3], [66, 8], [300, 8], [130, 12], [2, 500]] as const;
const KEYS: readonly UniformKey[] = [
  { seed: 1, low: -0.5, high: 0.5 },
  { seed: 0xffffffff, stream: 0xfffffffe, low: 3, high: 5 },
];

Deno.test("fillUniform() draws what the reference draws, in every format and at any length", async () => {
  for (const gpu of [whole, split]) {
    for (const shape of SHAPES) {
      for (const format of ["f32", "bf16", "f16"] as const) {
        for (const key of KEYS) {
          const x = gpu.empty(shape, format);
          fillUniform(gpu, x, key);
          const values = await gpu.read(x);
          const expected = uniformReference(x.size, key);
          if (format === "f32") assertClose(`[${shape}]`, values, expected, F32);
          else assertRounded(`[${shape}]`, values, expected, format);
          x.free();
        }
      }
    }
  }
});

Deno.test("fillBits() has the words of the reference at any length", async () => {
  for (const gpu of [whole, split]) {
    for (const shape of SHAPES) {
      for (const [seed, stream] of [[1, 0], [7, 0xffffffff]] as const) {
        const x = gpu.empty(shape, "u32");
        fillBits(gpu, x, seed, stream);
        const expected = Array.from({ length: x.size }, (_, i) => randomWord(seed, stream, i));
        assertEquals([...await gpu.readU32(x)], expected, `[${shape}]`);
        x.free();
      }
    }
  }
});

Deno.test("fillUniform() spreads evenly, and fills nothing beyond its slice", async () => {
  const x = whole.zeros([128, 100]);
  fillUniform(whole, x.slice(0, 64), { seed: 5, low: -2, high: 6 });
  const values = await whole.read(x);
  assert(values.subarray(6400).every((value) => value === 0), "the rows behind the slice are as before");
  const drawn = [...values.subarray(0, 6400)];
  const counts = new Float64Array(8);
  for (const value of drawn) counts[Math.floor(value) + 2]!++;
  // Standard deviation of each count: sqrt(6400 * 1/8 * 7/8) = 26.5.
  assert(counts.every((count) => Math.abs(count - 800) < 4 * 26.5), `counts are ${counts}`);
  assertEquals(new Set(drawn).size > 6390, true, "values repeat");
});

Deno.test("Filling refuses what it cannot mean", async () => {
  const [x, ids] = [whole.zeros([4]), whole.zeros([4], "u32")];
  await assertThrows(() => fillUniform(whole, x, { seed: 1, low: 1, high: 0 }), "from 1 to 0");
  await assertThrows(() => fillUniform(whole, x, { seed: 1, low: 0, high: Infinity }), "Infinity");
  await assertThrows(() => fillUniform(whole, ids, { seed: 1, low: 0, high: 1 }), "whole numbers");
  await assertThrows(() => fillBits(whole, x, 1), "f32, not u32");
});
