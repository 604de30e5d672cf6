import { fusedSwiglu, fusedSwigluBackwardInPlace } from "../../kernels/activation/fused_swiglu.ts";
import { geglu, gegluBackwardInPlace } from "../../kernels/activation/geglu.ts";
import { gelu, geluBackwardInPlace } from "../../kernels/activation/gelu.ts";
import {
  fusedSwigluReference,
  gegluReference,
  geluReference,
  swigluReference,
} from "../../kernels/activation/reference.ts";
import { swiglu, swigluBackwardInPlace } from "../../kernels/activation/swiglu.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { assert, assertClose, assertEquals, assertThrows, F32 } from "../support/assert_close.ts";
import { assertRounded, dot, inFormat, numericalGradient } from "../support/numeric.ts";
import { normal } from "../support/random.ts";

const whole = await Gpu.open({ poison: true });
const split = await Gpu.open({ poison: true, maxBindingBytes: 4096 });
// Work of few groups is laid out along y, as that of many goes on there: a kernel that numbers its threads by x alone shows.
const run = split.run.bind(split);
split.run = (kernel, tensors, { grid: [x, y = 1], ...launch }) =>
  run(kernel, tensors, { ...launch, grid: [y, x] });

/** Gated activations with their gradients. */
const GATED = [
  { name: "swiglu", forward: swiglu, backward: swigluBackwardInPlace, reference: swigluReference },
  { name: "geglu", forward: geglu, backward: gegluBackwardInPlace, reference: gegluReference },
];
const GATED_SHAPES = [[1, 4], [3, 20], [1, 252], [2, 256], [5, 52], [2, 11008]] as const;
const GATED_CASES = GATED.flatMap((op) => GATED_SHAPES.map((shape, seed) => ({ ...op, shape, seed })));

for (const { name, forward, backward, reference, shape: [rows, width], seed } of GATED_CASES) {
  Deno.test(`${name}() and its gradient match float64 for (${rows}, ${width})`, async () => {
    const gpu = whole;
    const size = rows * width;
    const dys = normal(seed + 2, size);
    for (const format of ["f32", "bf16", "f16"] as const) {
      const gate = inFormat(gpu, [rows, width], normal(seed, size, 3), format);
      const up = inFormat(gpu, [rows, width], normal(seed + 1, size), format);
      const y = await gpu.read(forward(gpu, gate.tensor, up.tensor));
      const expected = reference(gate.values, up.values);
      assertRounded("y", y, expected, format);
      if (format === "f32") assertClose("y", y, expected, F32);
      if (size > 1000) continue;

      const dy = inFormat(gpu, [rows, width], dys, format);
      const both = backward(gpu, dy.tensor, { gate: gate.tensor, up: up.tensor });
      assert(both.dGate === gate.tensor && both.dUp === up.tensor, "in place");
      const dGate = numericalGradient((v) => dot(reference(v, up.values), dy.values), gate.values);
      const dUp = numericalGradient((v) => dot(reference(gate.values, v), dy.values), up.values);
      assertRounded("dGate", await gpu.read(both.dGate), dGate, format);
      assertRounded("dUp", await gpu.read(both.dUp), dUp, format);
    }
  });
}

Deno.test("swiglu() stays finite for gates of any size, and passes NaN on", async () => {
  const gpu = whole;
  const gates = Float32Array.of(-1e30, -200, -88, -20, 20, 88, 200, 1e30, NaN, 0, -0, 1);
  const gate = gpu.tensor([1, 12], gates);
  const up = gpu.tensor([1, 12], new Float32Array(12).fill(1));
  const y = await gpu.read(swiglu(gpu, gate, up));
  assertClose("left tail", y.slice(0, 4), [0, 0, 0, -20 / (1 + Math.exp(20))], { rtol: 1e-5, atol: 1e-7 });
  assertClose("right tail", y.slice(4, 8), gates.slice(4, 8), F32);
  assert(Number.isNaN(y[8]), "NaN stays NaN");
  const dy = gpu.tensor([1, 12], new Float32Array(12).fill(1));
  const dGate = await gpu.read(swigluBackwardInPlace(gpu, dy, { gate, up }).dGate);
  assertClose("gradients", dGate.slice(0, 8), [0, 0, 0, -19 * Math.exp(-20), 1, 1, 1, 1], F32);
});

Deno.test("swiglu() works on tensors that span buffers", async () => {
  const gpu = split;
  const [rows, width] = [300, 8];
  const [gates, ups, dys] = [1, 2, 3].map((seed) => normal(seed, rows * width)) as [
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const gate = inFormat(gpu, [rows, width], gates, "bf16");
  const up = inFormat(gpu, [rows, width], ups, "bf16");
  const dy = gpu.tensor([rows, width], dys);
  assertEquals([gate.tensor.segments.length, dy.segments.length], [2, 3]);
  assertRounded(
    "y",
    await gpu.read(swiglu(gpu, gate.tensor, up.tensor)),
    swigluReference(gate.values, up.values),
    "bf16",
  );
  swigluBackwardInPlace(gpu, dy, { gate: gate.tensor, up: up.tensor });
  const dUp = gate.values.map((g, i) => dys[i]! * g / (1 + Math.exp(-g)));
  assertRounded("dUp", await gpu.read(up.tensor), dUp, "bf16");
});

Deno.test("geglu() stays finite for gates of any size, and passes NaN on", async () => {
  const gpu = whole;
  const far = Float32Array.of(-1e30, -200, -20, 20, 200, 1e30, NaN, 0);
  const [gate, up, dy] = [far, far.map(() => 1), far.map(() => 1)].map((values) =>
    gpu.tensor([1, 8], values)
  );
  const y = await gpu.read(geglu(gpu, gate!, up!));
  assertClose("y", y.slice(0, 6), [0, 0, 0, 20, 200, 1e30], F32);
  assert(Number.isNaN(y[6]), "NaN stays NaN");
  const { dGate } = gegluBackwardInPlace(gpu, dy!, { gate: gate!, up: up! });
  assertClose("gradients", (await gpu.read(dGate)).slice(0, 6), [0, 0, 0, 1, 1, 1], F32);
});

Deno.test("geglu() works on tensors that span buffers", async () => {
  const [rows, width] = [300, 8];
  const [gate, up] = [1, 2].map((seed) => inFormat(split, [rows, width], normal(seed, rows * width), "bf16"));
  const dys = normal(3, rows * width);
  const dy = split.tensor([rows, width], dys);
  assertEquals([gate!.tensor.segments.length, dy.segments.length], [2, 3]);
  const y = await split.read(geglu(split, gate!.tensor, up!.tensor));
  assertRounded("y", y, gegluReference(gate!.values, up!.values), "bf16");
  gegluBackwardInPlace(split, dy, { gate: gate!.tensor, up: up!.tensor });
  const dUp = gegluReference(gate!.values, dys);
  assertRounded("dUp", await split.read(up!.tensor), dUp, "bf16");
});

Deno.test("swiglu() refuses inputs that differ", async () => {
  const x = whole.zeros([2, 8]);
  await assertThrows(() => swiglu(whole, x, whole.zeros([2, 4])), "differ in shape");
  await assertThrows(() => swiglu(whole, x, whole.zeros([2, 8], "bf16")), "gate is f32, but up is bf16");
  await assertThrows(() => swiglu(whole, whole.zeros([1, 6]), whole.zeros([1, 6])), "not a multiple of 4");
});

for (
  const [seed, [rows, width]] of ([[1, 4], [3, 20], [1, 252], [2, 256], [5, 52], [2, 8192]] as const)
    .entries()
) {
  Deno.test(`fusedSwiglu() and its gradient match float64 for (${rows}, 2 * ${width})`, async () => {
    const gpu = whole;
    const dys = normal(seed + 2, rows * width);
    for (const format of ["f32", "bf16", "f16"] as const) {
      const fused = inFormat(gpu, [rows, 2 * width], normal(seed, rows * 2 * width, 3), format);
      const y = await gpu.read(fusedSwiglu(gpu, fused.tensor));
      const expected = fusedSwigluReference(fused.values, width);
      assertRounded("y", y, expected, format);
      if (format === "f32") assertClose("y", y, expected, F32);
      if (rows * width > 1000) continue;

      const dy = inFormat(gpu, [rows, width], dys, format);
      const gradient = fusedSwigluBackwardInPlace(gpu, dy.tensor, fused.tensor);
      assert(gradient === fused.tensor, "in place");
      const dFused = numericalGradient((v) => dot(fusedSwigluReference(v, width), dy.values), fused.values);
      assertRounded("dFused", await gpu.read(gradient), dFused, format);
    }
  });
}

Deno.test("fusedSwiglu() works on tensors that span buffers, and refuses what does not fit", async () => {
  const [rows, width] = [300, 8];
  const values = normal(1, rows * 2 * width);
  const dys = normal(3, rows * width);
  const fused = split.tensor([rows, 2 * width], values);
  const dy = split.tensor([rows, width], dys);
  assertEquals([fused.segments.length, dy.segments.length], [5, 3]);
  assertClose("y", await split.read(fusedSwiglu(split, fused)), fusedSwigluReference(values, width), F32);
  fusedSwigluBackwardInPlace(split, dy, fused);
  const after = await split.read(fused);
  const row = 299;
  const expected = Array.from({ length: width }, (_, i) => {
    const g = values[2 * width * row + i]!;
    return dys[width * row + i]! * g / (1 + Math.exp(-g));
  });
  assertClose("dUp", after.subarray(2 * width * row + width), expected, F32);
  await assertThrows(() => fusedSwiglu(whole, whole.zeros([2, 12])), "not a multiple of 4");
  const dyOf = (shape: number[]) => () =>
    fusedSwigluBackwardInPlace(whole, whole.zeros(shape), whole.zeros([2, 8]));
  await assertThrows(dyOf([2, 8]), "dy [2,8]");
  await assertThrows(dyOf([3, 4]), "dy [3,4]");
});

for (const form of ["erf", "tanh"] as const) {
  for (const [seed, [rows, width]] of ([[1, 4], [3, 20], [2, 256], [5, 52], [2, 2560]] as const).entries()) {
    Deno.test(`gelu() by ${form} and its gradient match float64 for (${rows}, ${width})`, async () => {
      const gpu = whole;
      const [xs, dys] = [normal(seed, rows * width, 2), normal(seed + 2, rows * width)];
      for (const format of ["f32", "bf16", "f16"] as const) {
        const x = inFormat(gpu, [rows, width], xs, format);
        const y = await gpu.read(gelu(gpu, x.tensor, form));
        const expected = geluReference(x.values, form);
        assertRounded("y", y, expected, format);
        if (format === "f32") assertClose("y", y, expected, F32);
        if (rows * width > 1000) continue;

        const dy = inFormat(gpu, [rows, width], dys, format);
        const dx = geluBackwardInPlace(gpu, dy.tensor, x.tensor, form);
        assert(dx === x.tensor, "in place");
        const gradients = numericalGradient((v) => dot(geluReference(v, form), dy.values), x.values);
        assertRounded("dx", await gpu.read(dx), gradients, format);
      }
    });
  }

  Deno.test(`gelu() by ${form} is as near in its tails, stays finite, and passes NaN on`, async () => {
    const gpu = whole;
    const tails = Float32Array.from({ length: 40 }, (_, i) => (i - 19.5) / 4);
    const read = async (values: Float32Array) =>
      await gpu.read(gelu(gpu, gpu.tensor([1, values.length], values), form));
    assertClose("tails", await read(tails), geluReference(tails, form), { rtol: 1e-5, atol: 1e-9 });
    const far = Float32Array.of(-1e30, -200, -20, 20, 200, 1e30, NaN, 0);
    const y = await read(far);
    assertClose("far", y.slice(0, 6), [0, 0, 0, 20, 200, 1e30], F32);
    assert(Number.isNaN(y[6]), "NaN stays NaN");
    const ones = gpu.tensor([1, 8], new Float32Array(8).fill(1));
    const gradients = await gpu.read(geluBackwardInPlace(gpu, ones, gpu.tensor([1, 8], far), form));
    assertClose("gradients", gradients.slice(0, 6), [0, 0, 0, 1, 1, 1], F32);
    assertClose("slope at 0", gradients.slice(7), [0.5], F32);
  });
}

Deno.test("gelu() works on tensors that span buffers", async () => {
  const [rows, width] = [300, 8];
  const x = inFormat(split, [rows, width], normal(1, rows * width), "bf16");
  const dys = normal(2, rows * width);
  const dy = split.tensor([rows, width], dys);
  assertEquals([x.tensor.segments.length, dy.segments.length], [2, 3]);
  assertRounded("y", await split.read(gelu(split, x.tensor, "erf")), geluReference(x.values, "erf"), "bf16");
  const above = geluReference(x.values.map((value) => value + 1e-5), "erf");
  const below = geluReference(x.values.map((value) => value - 1e-5), "erf");
  const dx = await split.read(geluBackwardInPlace(split, dy, x.tensor, "erf"));
  assertRounded("dx", dx, above.map((value, i) => (value - below[i]!) / 2e-5 * dys[i]!), "bf16");
});

Deno.test("gelu() refuses inputs that do not fit", async () => {
  await assertThrows(() => gelu(whole, whole.zeros([1, 6]), "erf"), "not a multiple of 4");
  const x = whole.zeros([2, 8]);
  await assertThrows(() => geluBackwardInPlace(whole, whole.zeros([2, 4]), x, "erf"), "differ in shape");
});
