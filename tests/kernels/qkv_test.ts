import { Gpu } from "../../kernels/gpu.ts";
import { mergeQkv, splitQkv } from "../../kernels/qkv/qkv.ts";
import { splitQkvReference } from "../../kernels/qkv/reference.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { inFormat } from "../support/numeric.ts";
import { normal } from "../support/random.ts";

const whole = await Gpu.open({ poison: true });
const split = await Gpu.open({ poison: true, maxBindingBytes: 8192 });

for (
  const [seed, [rows, heads, headDim]] of ([[1, 1, 4], [3, 2, 20], [65, 3, 8], [5, 8, 64]] as const).entries()
) {
  Deno.test(`splitQkv() takes ${heads} heads of ${headDim} apart, and mergeQkv() puts them together`, async () => {
    const gpu = whole;
    for (const format of ["f32", "bf16", "f16"] as const) {
      const width = heads * headDim;
      const values = normal(seed, rows * 3 * width);
      const fused = inFormat(gpu, [rows, 3 * width], values, format);
      const [q, k, v] = ["q", "k", "v"].map((label) => gpu.empty([rows, width], format, label));
      const parts = { q: q!, k: k!, v: v! };
      splitQkv(gpu, fused.tensor, parts, headDim);
      const expected = splitQkvReference(fused.values, headDim);
      for (const name of ["q", "k", "v"] as const) {
        assertEquals([...await gpu.read(parts[name])], [...expected[name]], `${name} in ${format}`);
      }
      assertEquals(
        [...await gpu.read(mergeQkv(gpu, parts, headDim))],
        [...fused.values],
        `merged in ${format}`,
      );
    }
  });
}

Deno.test("splitQkv() works where tensors span buffers at different rows", async () => {
  const [rows, headDim] = [300, 8];
  const values = normal(1, rows * 3 * headDim);
  const fused = split.tensor([rows, 3 * headDim], values);
  const [q, k, v] = ["q", "k", "v"].map((label) => split.empty([rows, headDim], "f32", label));
  assertEquals([fused.segments.length > q!.segments.length, q!.segments.length > 1], [true, true]);
  splitQkv(split, fused, { q: q!, k: k!, v: v! }, headDim);
  const expected = splitQkvReference(values, headDim);
  assertEquals([...await split.read(v!)], [...expected.v]);
  assertEquals([...await split.read(mergeQkv(split, { q: q!, k: k!, v: v! }, headDim))], [...values]);
});

Deno.test("splitQkv() and mergeQkv() refuse what does not fit", async () => {
  const make = (width: number, format: "f32" | "bf16" = "f32") => whole.zeros([2, width], format);
  const parts = { q: make(8), k: make(8), v: make(8) };
  await assertThrows(() => splitQkv(whole, make(16), parts, 4), "[2,16]", "heads of 4");
  await assertThrows(() => splitQkv(whole, make(24, "bf16"), parts, 4), "bf16");
  await assertThrows(() => splitQkv(whole, make(24), parts, 16), "heads of 16");
  await assertThrows(() => mergeQkv(whole, { ...parts, v: make(4) }, 4), "differ in shape");
  await assertThrows(() => mergeQkv(whole, { ...parts, k: make(8, "f16" as "bf16") }, 4), "f16");
});
