import { Gpu } from "../../kernels/gpu.ts";
import { layerNorm, layerNormBackward } from "../../kernels/norm/layer_norm.ts";
import { layerNormReference, rmsNormReference } from "../../kernels/norm/reference.ts";
import { rmsNorm, rmsNormBackward } from "../../kernels/norm/rms_norm.ts";
import { assert, assertClose, assertEquals, assertThrows, F32, reduction } from "../support/assert_close.ts";
import { assertRounded, dot, inFormat, numericalGradient } from "../support/numeric.ts";
import { normal } from "../support/random.ts";

const EPS = 1e-5;
const whole = await Gpu.open({ poison: true });
const split = await Gpu.open({ poison: true, maxBindingBytes: 4096 });
// Work of few groups is laid out along y, as that of many goes on there: a kernel that numbers its threads by x alone shows.
const run = split.run.bind(split);
split.run = (kernel, tensors, { grid: [x, y = 1], ...launch }) =>
  run(kernel, tensors, { ...launch, grid: /weight|sum/.test(kernel.name) ? [x, y] : [y, x] });

/** Rows below, at and past a block of 64; widths below, at and past the 256 elements of one pass; a LLaMA one. */
const SHAPES = [[1, 4], [3, 36], [64, 252], [65, 256], [130, 260], [2, 4096]] as const;

for (const [seed, [rows, width]] of SHAPES.entries()) {
  const offset = seed % 2;
  Deno.test(`rmsNorm() by ${offset} + w matches float64 for (${rows}, ${width})`, async () => {
    const gpu = whole;
    const [x, w] = [normal(seed, rows * width, 3), normal(seed + 100, width)];
    const { y, rstd } = rmsNorm(gpu, gpu.tensor([rows, width], x), {
      weight: gpu.tensor([width], w),
      eps: EPS,
      offset,
    });
    assertClose(
      "y",
      await gpu.read(y),
      rmsNormReference(Float64Array.from(x), Float64Array.from(w), EPS, offset),
      F32,
    );
    const rstds = Float64Array.from({ length: rows }, (_, r) => {
      const row = Float64Array.from(x.subarray(r * width, (r + 1) * width));
      return 1 / Math.sqrt(dot(row, row) / width + EPS);
    });
    assertClose("rstd", await gpu.read(rstd), rstds, F32);
  });
}

/** Gradients by finite differences of the float64 definition. */
function gradientsReference(x: Float64Array, w: Float64Array, dy: ArrayLike<number>, offset = 0) {
  return {
    dx: numericalGradient((v) => dot(rmsNormReference(v, w, EPS, offset), dy), x),
    dWeight: numericalGradient((v) => dot(rmsNormReference(x, v, EPS, offset), dy), w),
  };
}

for (const [seed, [rows, width]] of ([[1, 4], [3, 36], [7, 20], [2, 132], [5, 68]] as const).entries()) {
  const offset = seed % 2;
  Deno.test(`rmsNormBackward() by ${offset} + w matches finite differences for (${rows}, ${width})`, async () => {
    const gpu = whole;
    const [x, w, dy] = [normal(seed, rows * width), normal(seed + 1, width), normal(seed + 2, rows * width)];
    const [xt, wt, dyt] = [
      gpu.tensor([rows, width], x),
      gpu.tensor([width], w),
      gpu.tensor([rows, width], dy),
    ];
    const { rstd } = rmsNorm(gpu, xt, { weight: wt, eps: EPS, offset });
    const saved = { x: xt, weight: wt, rstd, offset };
    const expected = gradientsReference(Float64Array.from(x), Float64Array.from(w), dy, offset);
    const before = normal(seed + 3, width);
    const dWeight = gpu.tensor([width], before);
    const dx = rmsNormBackward(gpu, dyt, saved, { dWeight });
    assertClose("dx", await gpu.read(dx), expected.dx, F32);
    const added = expected.dWeight.map((value, i) => value + before[i]!);
    assertClose("dWeight", await gpu.read(dWeight), added, reduction(rows));

    const residual = normal(seed + 4, rows * width);
    const addTo = gpu.tensor([rows, width], residual);
    assert(rmsNormBackward(gpu, dyt, saved, { addTo }) === addTo, "addTo is returned");
    assertClose("addTo", await gpu.read(addTo), expected.dx.map((value, i) => value + residual[i]!), F32);
  });
}

Deno.test("rmsNorm() and its gradient round once in bf16 and f16, and mix formats", async () => {
  const gpu = whole;
  const shape = [9, 64];
  for (const format of ["bf16", "f16"] as const) {
    const x = inFormat(gpu, shape, normal(1, 9 * 64), format);
    const dy = inFormat(gpu, shape, normal(2, 9 * 64), format);
    const w = inFormat(gpu, [64], normal(3, 64), "f32");
    const { y, rstd } = rmsNorm(gpu, x.tensor, { weight: w.tensor, eps: EPS });
    assertRounded("y", await gpu.read(y), rmsNormReference(x.values, w.values, EPS), format);
    const saved = { x: x.tensor, weight: w.tensor, rstd };
    const dWeight = gpu.zeros([64]);
    const expected = gradientsReference(x.values, w.values, dy.values);
    assertRounded(
      "dx",
      await gpu.read(rmsNormBackward(gpu, dy.tensor, saved, { dWeight })),
      expected.dx,
      format,
    );
    assertClose("dWeight", await gpu.read(dWeight), expected.dWeight, reduction(9));
    const addTo = gpu.zeros(shape);
    rmsNormBackward(gpu, dy.tensor, saved, { addTo });
    assertClose("f32 residual", await gpu.read(addTo), expected.dx, F32);
  }
});

Deno.test("rmsNorm() and its gradient do not depend on how tensors are split", async () => {
  const [rows, width] = [300, 8];
  const run = async (gpu: Gpu) => {
    const x = gpu.tensor([rows, width], normal(1, rows * width));
    const dy = gpu.tensor([rows, width], normal(2, rows * width));
    const weight = gpu.tensor([width], normal(3, width));
    const live = gpu.memory.liveBytes;
    const { y, rstd } = rmsNorm(gpu, x, { weight, eps: EPS });
    const dWeight = gpu.zeros([width]);
    const dx = rmsNormBackward(gpu, dy, { x, weight, rstd }, { dWeight });
    const values = [await gpu.read(y), await gpu.read(dx), await gpu.read(dWeight)] as const;
    for (const tensor of [y, rstd, dx, dWeight]) tensor.free();
    assertEquals(gpu.memory.liveBytes, live, "bytes in use");
    return { segments: x.segments.length, values };
  };
  const [one, several] = [await run(whole), await run(split)];
  assertEquals([one.segments, several.segments], [1, 3]);
  assertEquals([...several.values[0]], [...one.values[0]], "y");
  assertEquals([...several.values[1]], [...one.values[1]], "dx");
  assertClose("dWeight", several.values[2], one.values[2], F32);
});

Deno.test("rmsNormBackward() sums many rows into dWeight the same way every time", async () => {
  const gpu = whole;
  const [rows, width] = [70_000, 4];
  const [x, dy, w] = [normal(1, rows * width), normal(2, rows * width), normal(3, width)];
  const [xt, dyt] = [gpu.tensor([rows, width], x), gpu.tensor([rows, width], dy)];
  const weight = gpu.tensor([width], w);
  const { y, rstd } = rmsNorm(gpu, xt, { weight, eps: EPS });
  const expected = new Float64Array(width);
  const [ys, expectedY] = [
    await gpu.read(y),
    rmsNormReference(Float64Array.from(x), Float64Array.from(w), EPS),
  ];
  assertClose("y past one axis of the grid", ys, expectedY, F32);
  expectedY.forEach((value, i) => expected[i % width]! += value / w[i % width]! * dy[i]!);
  const sums: Float32Array[] = [];
  for (let i = 0; i < 2; i++) {
    const dWeight = gpu.zeros([width]);
    rmsNormBackward(gpu, dyt, { x: xt, weight, rstd }, { dWeight }).free();
    sums.push(await gpu.read(dWeight));
  }
  assertClose("dWeight", sums[0]!, expected, reduction(rows));
  assertEquals([...sums[1]!], [...sums[0]!], "second run");
});

/** Rows of several heads, each of which is normed by itself, with the same weight. */
for (const [rows, heads, width] of [[1, 1, 4], [3, 5, 12], [131, 2, 8]] as const) {
  Deno.test(`rmsNorm() of ${heads} heads of ${width} writes into other rows, forward and back, in ${rows} rows`, async () => {
    const size = rows * heads * width;
    const [x, w, dy] = [normal(1, size), normal(2, width), normal(3, size)];
    const expected = gradientsReference(Float64Array.from(x), Float64Array.from(w), dy);
    const y64 = rmsNormReference(Float64Array.from(x), Float64Array.from(w), EPS);
    for (const gpu of [whole, split]) {
      const make = (values: Float32Array) => gpu.tensor([rows, heads * width], values);
      const [xt, dyt, y, dx] = [
        make(x),
        make(dy),
        make(new Float32Array(size)),
        make(new Float32Array(size)),
      ];
      const weight = gpu.tensor([width], w);
      const live = gpu.memory.liveBytes;
      const byHead = xt.asRows(width);
      assertEquals([byHead.shape, byHead.rows], [[rows * heads, width], rows * heads]);
      const { rstd } = rmsNorm(gpu, byHead, { weight, eps: EPS }, y.asRows(width));
      assertClose("y", await gpu.read(y), y64, F32);
      const dWeight = gpu.zeros([width]);
      const saved = { x: byHead, weight, rstd };
      rmsNormBackward(gpu, dyt.asRows(width), saved, { into: dx.asRows(width), dWeight });
      assertClose("dx", await gpu.read(dx), expected.dx, F32);
      assertClose("dWeight", await gpu.read(dWeight), expected.dWeight, reduction(rows * heads));
      rstd.free();
      dWeight.free();
      assertEquals(gpu.memory.liveBytes, live, "bytes in use");
    }
  });
}

Deno.test("layerNorm() writes into other rows, and refuses those of another shape or format", async () => {
  const gpu = whole;
  const [x, w, b] = [normal(1, 36), normal(2, 12), normal(3, 12)];
  const weights = { weight: gpu.tensor([12], w), bias: gpu.tensor([12], b), eps: EPS };
  const xt = gpu.tensor([3, 12], x);
  const y = gpu.zeros([3, 12]);
  layerNorm(gpu, xt, weights, y);
  const [x64, w64, b64] = [x, w, b].map((values) => Float64Array.from(values));
  assertClose("y", await gpu.read(y), layerNormReference(x64!, w64!, b64!, EPS), { rtol: 1e-5, atol: 1e-5 });
  await assertThrows(() => layerNorm(gpu, xt, weights, gpu.zeros([6, 6])), "differ in shape");
  await assertThrows(() => rmsNorm(gpu, xt, weights, gpu.empty([3, 12], "bf16")), "result bf16");
  await assertThrows(() => xt.asRows(8), "does not divide into rows of 8");
});

Deno.test("rmsNorm() refuses shapes that do not fit", async () => {
  const gpu = whole;
  const x = gpu.zeros([2, 6]);
  await assertThrows(
    () => rmsNorm(gpu, x, { weight: gpu.zeros([6]), eps: EPS }),
    "rows of 6 elements, not a multiple of 4",
  );
  await assertThrows(
    () => rmsNorm(gpu, gpu.zeros([2, 8]), { weight: gpu.zeros([4]), eps: EPS }),
    "must hold 8 f32 values",
  );
});

for (const [seed, [rows, width]] of SHAPES.entries()) {
  Deno.test(`layerNorm() matches float64 for (${rows}, ${width})`, async () => {
    const gpu = whole;
    // Far from 0, where a variance from the mean square would cancel.
    const x = normal(seed, rows * width, 3).map((value) => value + 50);
    const [w, b] = [normal(seed + 100, width), normal(seed + 200, width)];
    const weights = { weight: gpu.tensor([width], w), bias: gpu.tensor([width], b), eps: EPS };
    const { y, stats } = layerNorm(gpu, gpu.tensor([rows, width], x), weights);
    const expected = layerNormReference(
      Float64Array.from(x),
      Float64Array.from(w),
      Float64Array.from(b),
      EPS,
    );
    assertClose("y", await gpu.read(y), expected, { rtol: 1e-5, atol: 2e-5 });
    const moments = Float64Array.from({ length: 2 * rows }, (_, i) => {
      const row = Float64Array.from(x.subarray((i >> 1) * width, ((i >> 1) + 1) * width));
      const mean = row.reduce((sum, value) => sum + value, 0) / width;
      const centred = row.map((value) => value - mean);
      return i % 2 === 0 ? mean : 1 / Math.sqrt(dot(centred, centred) / width + EPS);
    });
    assertClose("stats", await gpu.read(stats), moments, F32);
  });
}

/** Gradients by finite differences of the float64 definition. */
function layerNormGradientsReference(
  x: Float64Array,
  w: Float64Array,
  b: Float64Array,
  dy: ArrayLike<number>,
) {
  return {
    dx: numericalGradient((v) => dot(layerNormReference(v, w, b, EPS), dy), x),
    dWeight: numericalGradient((v) => dot(layerNormReference(x, v, b, EPS), dy), w),
    dBias: numericalGradient((v) => dot(layerNormReference(x, w, v, EPS), dy), b),
  };
}

for (const [seed, [rows, width]] of ([[1, 4], [3, 36], [7, 20], [2, 132], [70, 8]] as const).entries()) {
  Deno.test(`layerNormBackward() matches finite differences for (${rows}, ${width})`, async () => {
    const gpu = whole;
    const shape = [rows, width];
    const [xs, dys] = [normal(seed, rows * width), normal(seed + 2, rows * width)];
    const w = inFormat(gpu, [width], normal(seed + 1, width), "f32");
    const b = inFormat(gpu, [width], normal(seed + 5, width), "f32");
    for (const format of ["f32", "bf16", "f16"] as const) {
      const x = inFormat(gpu, shape, xs, format);
      const dy = inFormat(gpu, shape, dys, format);
      const { y, stats } = layerNorm(gpu, x.tensor, { weight: w.tensor, bias: b.tensor, eps: EPS });
      assertRounded("y", await gpu.read(y), layerNormReference(x.values, w.values, b.values, EPS), format);
      const saved = { x: x.tensor, weight: w.tensor, stats };
      const expected = layerNormGradientsReference(x.values, w.values, b.values, dy.values);
      const before = normal(seed + 3, width);
      const [dWeight, dBias] = [gpu.tensor([width], before), gpu.tensor([width], before)];
      const dx = layerNormBackward(gpu, dy.tensor, saved, { dWeight, dBias });
      assertRounded("dx", await gpu.read(dx), expected.dx, format);
      const added = (values: Float64Array) => values.map((value, i) => value + before[i]!);
      assertClose("dWeight", await gpu.read(dWeight), added(expected.dWeight), reduction(rows));
      assertClose("dBias", await gpu.read(dBias), added(expected.dBias), reduction(rows));

      const residual = normal(seed + 4, rows * width);
      const addTo = gpu.tensor(shape, residual);
      assert(layerNormBackward(gpu, dy.tensor, saved, { addTo }) === addTo, "addTo is returned");
      const sums = expected.dx.map((value, i) => value + residual[i]!);
      assertClose("addTo", await gpu.read(addTo), sums, { rtol: 1e-5, atol: 1e-5 });
    }
  });
}

Deno.test("layerNorm() and its gradient do not depend on how tensors are split", async () => {
  const [rows, width] = [300, 8];
  const run = async (gpu: Gpu) => {
    const x = gpu.tensor([rows, width], normal(1, rows * width));
    const dy = gpu.tensor([rows, width], normal(2, rows * width));
    const [weight, bias] = [gpu.tensor([width], normal(3, width)), gpu.tensor([width], normal(4, width))];
    const live = gpu.memory.liveBytes;
    const { y, stats } = layerNorm(gpu, x, { weight, bias, eps: EPS });
    const [dWeight, dBias] = [gpu.zeros([width]), gpu.zeros([width])];
    const dx = layerNormBackward(gpu, dy, { x, weight, stats }, { dWeight, dBias });
    const values = await Promise.all([y, dx, dWeight, dBias].map((tensor) => gpu.read(tensor)));
    for (const tensor of [y, stats, dx, dWeight, dBias]) tensor.free();
    assertEquals(gpu.memory.liveBytes, live, "bytes in use");
    return { segments: x.segments.length, values };
  };
  const [one, several] = [await run(whole), await run(split)];
  assertEquals([one.segments, several.segments], [1, 3]);
  assertEquals([...several.values[0]!], [...one.values[0]!], "y");
  assertEquals([...several.values[1]!], [...one.values[1]!], "dx");
  assertClose("dWeight", several.values[2]!, one.values[2]!, F32);
  assertClose("dBias", several.values[3]!, one.values[3]!, F32);
});

Deno.test("layerNorm() refuses shapes that do not fit", async () => {
  const norm = (width: number, weight: number, bias: number) =>
    layerNorm(whole, whole.zeros([2, width]), {
      weight: whole.zeros([weight]),
      bias: whole.zeros([bias]),
      eps: EPS,
    });
  await assertThrows(() => norm(6, 6, 6), "rows of 6 elements, not a multiple of 4");
  await assertThrows(() => norm(8, 4, 8), "must hold 8 f32 values");
  await assertThrows(() => norm(8, 8, 4), "must hold 8 f32 values");
});
