import { addNoise } from "../../kernels/embedding/add_noise.ts";
import { embed, embedBackward } from "../../kernels/embedding/embedding.ts";
import { addNoiseReference, embedReference } from "../../kernels/embedding/reference.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { assert, assertClose, assertEquals, assertThrows, F32, reduction } from "../support/assert_close.ts";
import { assertRounded, dot, inFormat, numericalGradient } from "../support/numeric.ts";
import { integers, normal } from "../support/random.ts";

const whole = await Gpu.open({ poison: true });
const split = await Gpu.open({ poison: true, maxBindingBytes: 4096 });
// Work of few groups is laid out along y, as that of many goes on there: a kernel that numbers its threads by x alone shows.
const run = split.run.bind(split);
split.run = (kernel, tensors, { grid: [x, y = 1], ...launch }) =>
  run(kernel, tensors, { ...launch, grid: [y, x] });

for (
  const [seed, [rows, vocab, width]]
    of ([[1, 1, 4], [9, 5, 12], [70, 3, 260], [5, 130, 256], [3, 7, 4096]] as const)
      .entries()
) {
  Deno.test(`embed() and its gradient match float64 for ${rows} ids of ${vocab}, width ${width}`, async () => {
    const gpu = whole;
    const ids = integers(seed, rows, vocab);
    const idsTensor = gpu.tensor([rows], ids);
    for (const [format, out] of [["f32", "f32"], ["bf16", "f32"], ["f16", "f16"], ["f32", "bf16"]] as const) {
      const table = inFormat(gpu, [vocab, width], normal(seed, vocab * width), format);
      const y = await gpu.read(embed(gpu, idsTensor, table.tensor, out));
      const expected = embedReference(ids, table.values, width);
      if (format === "f32" && out !== "f32") assertRounded("y", y, expected, out);
      else assertEquals([...y], [...expected], "y");
      const scaled = await gpu.read(embed(gpu, idsTensor, table.tensor, out, 6.75));
      assertRounded("6.75 y", scaled, embedReference(ids, table.values, width, 6.75), out);
    }
    const dx = inFormat(gpu, [rows, width], normal(seed + 1, rows * width), seed % 2 ? "f32" : "bf16");
    const before = normal(seed + 2, vocab * width);
    const expected = Float64Array.from(before);
    dx.values.forEach((value, i) => expected[ids[Math.floor(i / width)]! * width + i % width]! += value);
    const dTable = gpu.tensor([vocab, width], before);
    embedBackward(gpu, ids, dx.tensor, dTable);
    assertClose("dTable", await gpu.read(dTable), expected, reduction(rows));
  });
}

Deno.test("embedBackward() matches finite differences and is the same every time", async () => {
  const gpu = whole;
  const ids = integers(7, 11, 6);
  const dy = normal(8, 11 * 8);
  const dx = gpu.tensor([11, 8], dy);
  const loss = (table: Float64Array) => dot(embedReference(ids, table, 8, 2.5), dy);
  const expected = numericalGradient(loss, Float64Array.from(normal(9, 6 * 8)));
  const runs = [];
  for (let i = 0; i < 2; i++) {
    const dTable = gpu.zeros([6, 8]);
    embedBackward(gpu, ids, dx, dTable, 2.5);
    runs.push(await gpu.read(dTable));
  }
  assertClose("dTable", runs[0]!, expected, F32);
  assertEquals([...runs[1]!], [...runs[0]!], "second run");
});

Deno.test("embed() and its gradient work on tables and rows that span buffers", async () => {
  const gpu = split;
  const [rows, vocab, width] = [200, 300, 8];
  const ids = integers(1, rows, vocab);
  const tables = normal(2, vocab * width);
  const table = gpu.tensor([vocab, width], tables);
  assertEquals(table.segments.length, 3);
  const live = gpu.memory.liveBytes;
  const y = embed(gpu, gpu.tensor([rows], ids), table, "f32");
  assertEquals(y.segments.length, 2);
  assertEquals([...await gpu.read(y)], [...embedReference(ids, tables, width)], "y");
  const dTable = gpu.zeros([vocab, width]);
  const held = gpu.memory.liveBytes;
  embedBackward(gpu, ids, y, dTable);
  assertEquals(gpu.memory.liveBytes, held, "bytes in use");
  assert(held > live, "y and dTable are in use");
  const expected = new Float64Array(vocab * width);
  const dy = embedReference(ids, tables, width);
  dy.forEach((value, i) => expected[ids[Math.floor(i / width)]! * width + i % width]! += value);
  assertClose("dTable", await gpu.read(dTable), expected, F32);
});

Deno.test("embed() gives NaN for ids past the table; embedBackward() refuses them", async () => {
  const gpu = whole;
  const ids = Uint32Array.of(1, 4, 0xffffffff, 3);
  const table = gpu.tensor([4, 4], normal(1, 16));
  for (const format of ["f32", "bf16", "f16"] as const) {
    const y = await gpu.read(embed(gpu, gpu.tensor([4], ids), table, format));
    const isNaNRow = [0, 1, 2, 3].map((row) => y.subarray(4 * row, 4 * row + 4).every(Number.isNaN));
    assertEquals(isNaNRow, [false, true, true, false], format);
  }
  await assertThrows(() => embedBackward(gpu, ids, gpu.zeros([4, 4]), table), "id 4 is not below 4");
  await assertThrows(() => embedBackward(gpu, ids, gpu.zeros([3, 4]), table), "4 ids");
  await assertThrows(() => embed(gpu, gpu.zeros([4]), table, "f32"), "must hold 4 u32");
});

for (const [i, [rows, width]] of ([[1, 4], [7, 12], [300, 8], [130, 16]] as const).entries()) {
  Deno.test(`addNoise() matches float64 for [${rows},${width}], whole and split`, async () => {
    for (const gpu of [whole, split]) {
      for (const format of ["f32", "bf16", "f16"] as const) {
        const x = inFormat(gpu, [rows, width], normal(i, rows * width), format);
        const scale = normal(i + 9, rows).map(Math.abs);
        const key = { seed: 3 + i, stream: 2047 };
        addNoise(gpu, x.tensor, gpu.tensor([rows], scale), key);
        assertRounded("x", await gpu.read(x.tensor), addNoiseReference(x.values, scale, key), format);
      }
    }
  });
}

Deno.test("addNoise() is uniform in its range, and other with every seed and stream", async () => {
  const [rows, width] = [100, 400];
  const draw = async (seed: number, stream: number) => {
    const x = whole.zeros([rows, width]);
    addNoise(whole, x, whole.tensor([rows], new Float32Array(rows).fill(2)), { seed, stream });
    return await whole.read(x);
  };
  const noises = [await draw(1, 1), await draw(2, 1), await draw(1, 2)];
  for (const noise of noises) {
    assert(noise.every((value) => value >= -2 && value < 2), "within the range");
    const mean = noise.reduce((sum, value) => sum + value, 0) / noise.length;
    const variance = noise.reduce((sum, value) => sum + value * value, 0) / noise.length;
    assert(Math.abs(mean) < 4 * 2 / Math.sqrt(3 * noise.length), `mean ${mean}`);
    assert(Math.abs(variance / (4 / 3) - 1) < 0.03, `variance ${variance}`);
  }
  for (const [a, b] of [[0, 1], [0, 2], [1, 2]] as const) {
    const correlation = dot(noises[a]!, noises[b]!) / noises[a]!.length / (4 / 3);
    assert(Math.abs(correlation) < 0.025, `noises ${a} and ${b} correlate by ${correlation}`);
  }
  const x = whole.zeros([4, 8]);
  await assertThrows(() => addNoise(whole, x, whole.zeros([3]), { seed: 1, stream: 1 }), "must hold 4 f32");
});
