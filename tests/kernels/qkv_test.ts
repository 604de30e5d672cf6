import { Gpu } from "../../kernels/gpu.ts";
import { mergeQkv, splitQkv } from "../../kernels/qkv/qkv.ts";
import { splitQkvReference } from "../../kernels/qkv/reference.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { inFormat } from "../support/numeric.ts";
import { normal } from "../support/random.ts";

const whole = await Gpu.open({ poison: true });
const split = await Gpu.open({ poison: true, maxBindingBytes: 8192 });
// Work of few groups is laid out along y, as that of many goes on there: a kernel that numbers its threads by x alone shows.
const run = split.run.bind(split);
split.run = (kernel, tensors, { grid: [x, y = 1], ...launch }) =>
  run(kernel, tensors, { ...launch, grid: [y, x] });

function empty(gpu: Gpu, rows: number, Q: number, K: number, format: Format = "f32") {
  const make = (width: number, label: string) => gpu.empty([rows, width], format, label);
  return { q: make(Q, "q"), k: make(K, "k"), v: make(K, "v") };
}

for (
  const [seed, [rows, Q, K]] of ([[1, 4, 4], [3, 40, 20], [65, 24, 24], [5, 512, 128], [7, 12, 36]] as const)
    .entries()
) {
  Deno.test(`splitQkv() takes rows of ${Q} + 2 * ${K} apart, and mergeQkv() puts them together`, async () => {
    const gpu = whole;
    for (const format of ["f32", "bf16", "f16"] as const) {
      const fused = inFormat(gpu, [rows, Q + 2 * K], normal(seed, rows * (Q + 2 * K)), format);
      const parts = empty(gpu, rows, Q, K, format);
      splitQkv(gpu, fused.tensor, parts);
      const expected = splitQkvReference(fused.values, { Q, K });
      for (const name of ["q", "k", "v"] as const) {
        assertEquals([...await gpu.read(parts[name])], [...expected[name]], `${name} in ${format}`);
      }
      const merged = gpu.empty(fused.tensor.shape, format);
      mergeQkv(gpu, parts, merged);
      assertEquals([...await gpu.read(merged)], [...fused.values], `merged in ${format}`);
    }
  });
}

Deno.test("splitQkv() takes rows of heads apart, as GPT-NeoX has them", async () => {
  const [rows, heads, D] = [5, 3, 8];
  const values = normal(2, rows * 3 * heads * D);
  const { q, k, v } = empty(whole, rows, heads * D, heads * D);
  const cut = { q: q.asRows(D), k: k.asRows(D), v: v.asRows(D) };
  splitQkv(whole, whole.tensor([rows, 3 * heads * D], values).asRows(3 * D), cut);
  for (const [part, tensor] of [q, k, v].entries()) {
    const expected = Float64Array.from({ length: rows * heads * D }, (_, i) => {
      const head = Math.floor(i / D);
      return values[(3 * head + part) * D + i % D]!;
    });
    assertEquals([...await whole.read(tensor)], [...expected], `part ${part}`);
  }
});

Deno.test("splitQkv() works where tensors span buffers at different rows", async () => {
  const [rows, Q, K] = [300, 16, 8];
  const values = normal(1, rows * (Q + 2 * K));
  const fused = split.tensor([rows, Q + 2 * K], values);
  const parts = empty(split, rows, Q, K);
  assertEquals([fused.segments.length > parts.q.segments.length, parts.k.segments.length > 1], [true, true]);
  splitQkv(split, fused, parts);
  const expected = splitQkvReference(values, { Q, K });
  for (const name of ["q", "k", "v"] as const) {
    assertEquals([...await split.read(parts[name])], [...expected[name]], name);
  }
  const merged = split.empty([rows, Q + 2 * K], "f32");
  mergeQkv(split, parts, merged);
  assertEquals([...await split.read(merged)], [...values]);
});

Deno.test("splitQkv() and mergeQkv() refuse what does not fit", async () => {
  const make = (width: number, format: Format = "f32") => whole.zeros([2, width], format);
  const parts = { q: make(8), k: make(4), v: make(4) };
  await assertThrows(() => splitQkv(whole, make(24), parts), "[2,24]", "q [2,8]");
  await assertThrows(() => splitQkv(whole, make(16, "bf16"), parts), "bf16");
  await assertThrows(() => splitQkv(whole, whole.zeros([3, 16]), parts), "[3,16]");
  const odd = { q: make(8), k: make(6), v: make(6) };
  await assertThrows(() => splitQkv(whole, make(20), odd), "multiples of 4");
  await assertThrows(() => mergeQkv(whole, { ...parts, v: make(8) }, make(16)), "differ in shape");
  await assertThrows(() => mergeQkv(whole, { ...parts, k: make(4, "f16") }, make(16)), "f16");
});
