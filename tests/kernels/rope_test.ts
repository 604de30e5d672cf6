import { Gpu } from "../../kernels/gpu.ts";
import { ropeReference } from "../../kernels/rope/reference.ts";
import { rope } from "../../kernels/rope/rope.ts";
import { assertClose, assertEquals, assertThrows, F32 } from "../support/assert_close.ts";
import { assertRounded, dot, inFormat, numericalGradient } from "../support/numeric.ts";
import { integers, normal } from "../support/random.ts";

const whole = await Gpu.open({ poison: true });
const split = await Gpu.open({ poison: true, maxBindingBytes: 4096 });

/** Cosines and sines (positions, headDim / 2) of the angles with base 10000. */
function tables(positions: number, headDim: number): { cos: Float32Array; sin: Float32Array } {
  const half = headDim / 2;
  const angle = (at: number) => Math.floor(at / half) / 10000 ** (2 * (at % half) / headDim);
  return {
    cos: Float32Array.from({ length: positions * half }, (_, at) => Math.cos(angle(at))),
    sin: Float32Array.from({ length: positions * half }, (_, at) => Math.sin(angle(at))),
  };
}

function inputs(gpu: Gpu, rows: number, headDim: number, seed: number) {
  const limit = 50;
  const { cos, sin } = tables(limit, headDim);
  const positions = integers(seed, rows, limit);
  const tensors = [
    gpu.tensor([limit, headDim / 2], cos),
    gpu.tensor([limit, headDim / 2], sin),
    gpu.tensor([rows], positions),
  ] as const;
  return { cos, sin, positions, tensors };
}

// Head sizes whose half is a multiple of 4, and not (100 as in OpenLLaMA 3B), and LLaMA's own.
for (
  const [seed, [rows, heads, headDim]]
    of ([[1, 1, 4], [3, 2, 8], [7, 3, 20], [65, 2, 100], [5, 32, 128]] as const)
      .entries()
) {
  Deno.test(`rope() matches float64, and inverse is its gradient, for ${heads} heads of ${headDim}`, async () => {
    const gpu = whole;
    const width = heads * headDim;
    const { cos, sin, positions, tensors } = inputs(gpu, rows, headDim, seed);
    for (const format of ["f32", "bf16", "f16"] as const) {
      const x = inFormat(gpu, [rows, width], normal(seed, rows * width), format);
      const expected = ropeReference(x.values, cos, sin, positions, headDim);
      rope(gpu, [x.tensor], ...tensors, headDim);
      const y = await gpu.read(x.tensor);
      assertRounded("y", y, expected, format);
      if (format === "f32") assertClose("y", y, expected, F32);
    }
    const x = normal(seed + 1, rows * width);
    const dy = normal(seed + 2, rows * width);
    const dx = gpu.tensor([rows, width], dy);
    rope(gpu, [dx], ...tensors, headDim, { inverse: true });
    if (rows * width > 1000) {
      rope(gpu, [dx], ...tensors, headDim);
      assertClose("forward after inverse", await gpu.read(dx), dy, F32);
    } else {
      const loss = (v: Float64Array) => dot(ropeReference(v, cos, sin, positions, headDim), dy);
      assertClose("dx", await gpu.read(dx), numericalGradient(loss, Float64Array.from(x)), F32);
    }
  });
}

// A quarter of a head as Pythia has it, all of a head but a little, and the least there is.
for (
  const [seed, [rows, heads, headDim, rotaryDim]]
    of ([[3, 2, 16, 4], [7, 3, 20, 16], [5, 2, 80, 20], [65, 1, 256, 64]] as const).entries()
) {
  Deno.test(`rope() turns the first ${rotaryDim} of heads of ${headDim} and leaves the rest`, async () => {
    const gpu = whole;
    const width = heads * headDim;
    const { cos, sin, positions, tensors } = inputs(gpu, rows, rotaryDim, seed);
    for (const format of ["f32", "bf16", "f16"] as const) {
      const x = inFormat(gpu, [rows, width], normal(seed, rows * width), format);
      rope(gpu, [x.tensor], ...tensors, headDim, { rotaryDim });
      const y = await gpu.read(x.tensor);
      assertRounded("y", y, ropeReference(x.values, cos, sin, positions, headDim, rotaryDim), format);
      const rest = (values: ArrayLike<number>) =>
        Array.from(values).filter((_, i) => i % headDim >= rotaryDim);
      assertEquals(rest(y), rest(x.values), "what does not turn");
    }
    const [x, dy] = [normal(seed + 1, rows * width), normal(seed + 2, rows * width)];
    const dx = gpu.tensor([rows, width], dy);
    rope(gpu, [dx], ...tensors, headDim, { inverse: true, rotaryDim });
    if (rows * width > 1000) return;
    const loss = (v: Float64Array) => dot(ropeReference(v, cos, sin, positions, headDim, rotaryDim), dy);
    assertClose("dx", await gpu.read(dx), numericalGradient(loss, Float64Array.from(x)), F32);
  });
}

Deno.test("rope() turns queries and keys of fewer heads in one dispatch, with the bytes of one for each", async () => {
  const kernels: string[] = [];
  using gpu = await Gpu.open({ poison: true, onDispatch: ({ kernel }) => kernels.push(kernel) });
  const [rows, headDim] = [37, 12];
  const { tensors } = inputs(gpu, rows, headDim, 3);
  for (const format of ["f32", "bf16"] as const) {
    const make = () =>
      [5, 2].map((heads) =>
        inFormat(gpu, [rows, heads * headDim], normal(heads, rows * heads * headDim), format).tensor
      );
    const [together, apart] = [make(), make()];
    kernels.length = 0;
    rope(gpu, together, ...tensors, headDim);
    assertEquals(kernels.length, 1);
    apart.forEach((x) => rope(gpu, [x], ...tensors, headDim));
    for (const [i, x] of together.entries()) {
      assertEquals(await gpu.read(x), await gpu.read(apart[i]!), `${i}`);
    }
  }
  await assertThrows(
    () => rope(gpu, [gpu.zeros([rows, 12]), gpu.zeros([rows + 1, 12])], ...tensors, headDim),
    "of as many rows",
  );
});

Deno.test("rope() turns tensors that span buffers", async () => {
  const { tensors, cos, sin, positions } = inputs(split, 300, 4, 1);
  const values = normal(2, 300 * 8);
  const x = split.tensor([300, 8], values);
  assertEquals(x.segments.length, 3);
  rope(split, [x], ...tensors, 4);
  assertClose("y", await split.read(x), ropeReference(values, cos, sin, positions, 4), F32);
});

Deno.test("rope() numbers threads past one axis of the grid", async () => {
  const gpu = whole;
  const [width, copies] = [4096, 65535 / 15];
  const { tensors, cos, sin, positions } = inputs(gpu, 1, 8, 1);
  const row = normal(2, width);
  const rows = copies + 3; // 16 workgroups of 64 threads a row
  const values = new Float32Array(rows * width);
  for (let r = 0; r < rows; r++) values.set(row, r * width);
  const x = gpu.tensor([rows, width], values);
  const repeated = gpu.tensor([rows], new Uint32Array(rows).fill(positions[0]!));
  rope(gpu, [x], tensors[0], tensors[1], repeated, 8);
  const y = await gpu.read(x);
  const expected = ropeReference(row, cos, sin, positions, 8);
  for (const r of [0, rows - 1]) {
    assertClose(`row ${r}`, y.subarray(r * width, (r + 1) * width), expected, F32);
  }
  x.free();
});

Deno.test("rope() refuses shapes that do not fit", async () => {
  const { tensors } = inputs(whole, 2, 8, 1);
  await assertThrows(() => rope(whole, [whole.zeros([2, 12])], ...tensors, 6), "head size 6");
  await assertThrows(() => rope(whole, [whole.zeros([2, 12])], ...tensors, 8), "heads of 8");
  await assertThrows(() => rope(whole, [whole.zeros([2, 32])], ...tensors, 16), "tables must be (P, 8)");
  await assertThrows(() => rope(whole, [whole.zeros([3, 16])], ...tensors, 8), "must hold 3 u32");
  const turned = (rotaryDim: number) => rope(whole, [whole.zeros([2, 16])], ...tensors, 8, { rotaryDim });
  await assertThrows(() => turned(4), "tables must be (P, 2)");
  await assertThrows(() => turned(6), "6 of a head of 8");
  await assertThrows(() => turned(12), "12 of a head of 8");
});
