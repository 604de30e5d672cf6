import { columnSum } from "../../kernels/elementwise/column_sum.ts";
import { dropout, type DropoutKey, keptFactor } from "../../kernels/elementwise/dropout.ts";
import { addBias, addInto, cast } from "../../kernels/elementwise/elementwise.ts";
import { columnSumReference, dropoutReference } from "../../kernels/elementwise/reference.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { threefry } from "../../kernels/shared/threefry.ts";
import { assert, assertClose, assertEquals, assertThrows, F32, reduction } from "../support/assert_close.ts";
import { assertRounded, inFormat, rounded } from "../support/numeric.ts";
import { normal } from "../support/random.ts";

const whole = await Gpu.open({ poison: true });
const split = await Gpu.open({ poison: true, maxBindingBytes: 4096 });
// Work of few groups is laid out along y, as that of many goes on there: a kernel that numbers its threads by x alone shows.
const run = split.run.bind(split);
split.run = (kernel, tensors, { grid: [x, y = 1], ...launch }) =>
  run(kernel, tensors, { ...launch, grid: /column_sum/.test(kernel.name) ? [x, y] : [y, x] });

const SHAPES = [[4], [3, 20], [2, 128], [65, 4], [300, 8], [1, 4096]] as const;
const FORMATS = [["f32", "f32"], ["bf16", "f32"], ["f32", "bf16"], ["f16", "f16"], ["bf16", "f16"]] as const;

for (const [seed, shape] of SHAPES.entries()) {
  Deno.test(`addInto, addBias and cast match float64 for [${shape}]`, async () => {
    const gpu = shape[0] === 300 ? split : whole;
    const size = shape.reduce((a: number, b) => a * b, 1);
    for (const [format, other] of FORMATS) {
      const a = inFormat(gpu, shape, normal(seed, size), format);
      const b = inFormat(gpu, shape, normal(seed + 1, size), other);
      const sum = a.values.map((value, i) => value + b.values[i]!);
      assertEquals([...await gpu.read(cast(gpu, a.tensor, other))], [...rounded(a.values, other)], "cast");
      addInto(gpu, a.tensor, b.tensor);
      assertRounded("addInto", await gpu.read(a.tensor), sum, format);
      const width = shape[1];
      if (width === undefined) continue;
      const bias = normal(seed + 2, width);
      const y = inFormat(gpu, shape, normal(seed + 3, size), format);
      addBias(gpu, y.tensor, gpu.tensor([width], bias), 1.5);
      const expected = y.values.map((value, i) => value + 1.5 * bias[i % width]!);
      assertRounded("addBias", await gpu.read(y.tensor), expected, format);
    }
  });
}

for (
  const [seed, [rows, width]] of ([[1, 4], [64, 12], [65, 260], [300, 8], [9000, 4], [3, 4096]] as const)
    .entries()
) {
  Deno.test(`columnSum() matches float64 for (${rows}, ${width}), the same every time`, async () => {
    const gpu = rows === 300 ? split : whole;
    for (const format of ["f32", "bf16"] as const) {
      const x = inFormat(gpu, [rows, width], normal(seed, rows * width), format);
      const before = normal(seed + 1, width);
      const runs: Float32Array[] = [];
      for (let i = 0; i < 2; i++) {
        const into = gpu.tensor([width], before);
        const live = gpu.memory.liveBytes;
        columnSum(gpu, x.tensor, into, 0.75);
        assertEquals(gpu.memory.liveBytes, live, "bytes in use");
        runs.push(await gpu.read(into));
      }
      const expected = columnSumReference(x.values, width).map((sum, c) => 0.75 * sum + before[c]!);
      assertClose("sums", runs[0]!, expected, reduction(rows));
      assertEquals([...runs[1]!], [...runs[0]!], "second run");
    }
  });
}

Deno.test("Elementwise grids wrap past one axis", async () => {
  const gpu = whole;
  const rows = 65535 + 3;
  const ones = gpu.tensor([rows, 256], new Float32Array(rows * 256).fill(1));
  const x = cast(gpu, ones, "bf16");
  ones.free();
  const sums = gpu.zeros([256]);
  columnSum(gpu, x, sums);
  assertEquals([...new Set(await gpu.read(sums))], [rows]);
  x.free();
});

Deno.test("threefry() gives the published answers", () => {
  const answer = (key: [number, number], counter: [number, number]) =>
    threefry(key, counter).map((word) => word.toString(16));
  assertEquals(answer([0, 0], [0, 0]), ["6b200159", "99ba4efe"]);
  assertEquals(answer([0xffffffff, 0xffffffff], [0xffffffff, 0xffffffff]), ["1cb996fc", "bb002be7"]);
  assertEquals(answer([0x13198a2e, 0x03707344], [0x243f6a88, 0x85a308d3]), ["c4923a9c", "483df7a0"]);
});

for (
  const [i, key] of [
    { p: 0.05, seed: 1, stream: 0 },
    { p: 0.5, seed: 0xffffffff, stream: 7 },
    { p: 0, seed: 3, stream: 1 },
    { p: 0.9, seed: 4, stream: 0xfffffffe, offset: 4 * (2 ** 32 - 600) },
    { p: 0.1, seed: 5, stream: 2, offset: 64 },
    { p: 0.5, seed: 6, stream: 3, offset: 4 * (2 ** 32 - 300) },
    { p: 0.3, seed: 7, stream: 4, offset: 4 * (3 * 2 ** 32 - 1) },
    { p: 0.5, seed: 8, stream: 5, offset: 2 ** 53 - 2400 },
  ].entries()
) {
  Deno.test(`dropout() has the mask of the reference for ${JSON.stringify(key)}`, async () => {
    for (const gpu of [whole, split]) {
      for (
        const [shape, format] of [[[300, 8], "f32"], [[300, 8], "bf16"], [[67, 12], "f32"], [
          [4],
          "f32",
        ]] as const
      ) {
        const x = inFormat(gpu, shape, normal(i, shape.reduce((a: number, b) => a * b, 1)), format);
        const expected = dropoutReference(x.values, key);
        const y = await gpu.read(dropout(gpu, x.tensor, key));
        assertRounded("y", y, expected, format);
        assertEquals([...y].map((value) => value === 0), [...expected].map((value) => value === 0), "mask");
      }
    }
  });
}

/** What dropout makes of ones. */
async function dropOnes(key: DropoutKey, length: number): Promise<Float32Array> {
  const ones = whole.tensor([length], new Float32Array(length).fill(1));
  const y = dropout(whole, ones, key);
  const values = await whole.read(y);
  ones.free();
  y.free();
  return values;
}

Deno.test("dropout() keeps the share it should, of elements in each place of a quad, and their mean is what it was", async () => {
  const length = 2 ** 22;
  for (
    const [p, dropped] of [
      [0, 0],
      [1e-9, 2 ** -16],
      [0.05, 3277 / 65536],
      [0.7, 45875 / 65536],
      [1 - 1e-9, 1 - 2 ** -16],
    ] as const
  ) {
    const factor = 1 / (1 - dropped);
    assertEquals(keptFactor(p), factor, `factor at ${p}`);
    const y = await dropOnes({ p, seed: 1, stream: 2 }, length);
    assert(y.every((value) => value === 0 || value === Math.fround(factor)), `other values at ${p}`);
    for (let place = 0; place < 4; place++) {
      let sum = 0;
      for (let i = place; i < length; i += 4) sum += y[i]!;
      const mean = sum / (length / 4);
      const deviation = Math.sqrt(dropped * factor / (length / 4));
      assert(Math.abs(mean - 1) <= 4 * deviation, `the mean at ${p} in place ${place} is ${mean}`);
    }
  }
});

Deno.test("Elements of a mask are independent, and so are masks of other keys; a mask is found again", async () => {
  const [length, p] = [100_000, 0.25];
  const mask = async (seed: number, stream: number, size: number, offset = 0) =>
    (await dropOnes({ p, seed, stream, offset }, size)).map((value) => value === 0 ? 0 : 1);
  const longer = await mask(1, 1, length + 4096);
  const one = longer.subarray(0, length);
  /** Fails if elements at `places` depend on the others there. */
  const assertIndependent = (label: string, other: ArrayLike<number>, places: readonly number[]) => {
    const sum = places.reduce((sum, i) => sum + (one[i]! - (1 - p)) * (other[i]! - (1 - p)), 0);
    const correlation = sum / places.length / (p * (1 - p));
    assert(Math.abs(correlation) < 4 / Math.sqrt(places.length), `${label}: correlation ${correlation}`);
  };
  const all = [...Array(length).keys()];
  for (const distance of [1, 2, 3, 4, 7, 8, 64, 4096]) {
    for (let place = 0; place < 4; place++) {
      const places = all.filter((i) => i % 4 === place);
      assertIndependent(`${distance} after place ${place} of a quad`, longer.subarray(distance), places);
    }
  }
  for (const [seed, stream] of [[1, 2], [1, 6], [2, 1], [0x10001, 1], [1, 0x10001]] as const) {
    assertIndependent(`seed ${seed}, stream ${stream}`, await mask(seed, stream, length), all);
  }
  assertIndependent("2^32 quads later", await mask(1, 1, length, 4 * 2 ** 32), all);
  assertEquals([...await mask(1, 1, 400)], [...one.slice(0, 400)], "again");
  assertEquals([...await mask(1, 1, 400, 200)], [...one.slice(200, 600)], "a later part");
});

Deno.test("Elementwise ops refuse what does not fit", async () => {
  const gpu = whole;
  const x = gpu.zeros([2, 8]);
  await assertThrows(() => addInto(gpu, x, gpu.zeros([4, 4])), "differ in shape");
  await assertThrows(() => addInto(gpu, gpu.zeros([2, 3]), gpu.zeros([2, 3])), "not a multiple of 4");
  await assertThrows(() => addBias(gpu, x, gpu.zeros([4])), "must hold 8 f32");
  await assertThrows(() => columnSum(gpu, x, gpu.zeros([4])), "must hold 8 f32");
  await assertThrows(() => cast(gpu, gpu.tensor([4], Uint32Array.of(1, 2, 3, 4)), "f32"), "whole numbers");
  await assertThrows(() => dropout(gpu, x, { p: 1, seed: 1, stream: 1 }), "p must be in [0, 1)");
  await assertThrows(() => dropout(gpu, x, { p: 0.5, seed: 1, stream: 1, offset: 2 }), "not quads");
  await assertThrows(() => dropout(gpu, x, { p: 0.5, seed: 1, stream: 1, offset: 2 ** 53 - 12 }), "2^53");
  assertClose("x is untouched", await gpu.read(x), new Float32Array(16), F32);
});
