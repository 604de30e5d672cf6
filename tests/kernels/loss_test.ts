import { Gpu } from "../../kernels/gpu.ts";
import { crossEntropy, NO_LABEL } from "../../kernels/loss/cross_entropy.ts";
import { crossEntropyReference, softCapReference } from "../../kernels/loss/reference.ts";
import { softCapInPlace } from "../../kernels/loss/soft_cap.ts";
import { sumInto } from "../../kernels/shared/sum.ts";
import { assertClose, assertEquals, assertThrows, reduction } from "../support/assert_close.ts";
import { numericalGradient } from "../support/numeric.ts";
import { integers, normal } from "../support/random.ts";

const whole = await Gpu.open({ poison: true });
const split = await Gpu.open({ poison: true, maxBindingBytes: 65536 });
// Work of few groups is laid out along y, as that of many goes on there: a kernel that numbers its threads by x alone shows.
const run = split.run.bind(split);
split.run = (kernel, tensors, { grid: [x, y = 1], ...launch }) =>
  run(kernel, tensors, { ...launch, grid: [y, x] });

/** Logits (rows, padded) with NaN in the padding, and labels of which every third row has none. */
function inputs(seed: number, rows: number, vocab: number, deviation: number) {
  const width = Math.ceil(vocab / 4) * 4;
  const logits = normal(seed, rows * width, deviation).map((x, i) => i % width < vocab ? x : NaN);
  const labels = integers(seed + 1, rows, vocab).map((label, row) => row % 3 === 1 ? NO_LABEL : label);
  return { width, logits, labels };
}

function argmaxReference(logits: Float32Array, width: number, vocab: number): number[] {
  return Array.from({ length: logits.length / width }, (_, row) => {
    const values = [...logits.subarray(row * width, row * width + vocab)];
    return values.indexOf(Math.max(...values));
  });
}

// Vocabularies that leave 3, 2, 1 and 0 columns of padding, below, at and past the 256 columns of one pass.
const SHAPES = [[1, 1, 1], [5, 6, 10], [4, 255, 3], [3, 256, 30], [70, 258, 1], [4, 32001, 5]] as const;

for (const [seed, [rows, vocab, deviation]] of SHAPES.entries()) {
  Deno.test(`crossEntropy() matches float64 for ${rows} rows of ${vocab}`, async () => {
    const gpu = whole;
    const { width, logits, labels } = inputs(seed, rows, vocab, deviation);
    const logitsTensor = gpu.tensor([rows, width], logits);
    const labelsTensor = gpu.tensor([rows], labels);
    const { loss, argmax } = crossEntropy(gpu, logitsTensor, labelsTensor, { vocabSize: vocab });
    const expected = crossEntropyReference(logits, width, labels, vocab, NO_LABEL);
    assertClose("loss", await gpu.read(loss), expected, { rtol: 1e-6, atol: 2e-6 });
    assertEquals([...await gpu.readU32(argmax)], argmaxReference(logits, width, vocab), "argmax");
    assertEquals([...await gpu.read(logitsTensor)], [...logits], "logits are left alone");

    const gradScale = 0.37;
    const again = crossEntropy(gpu, logitsTensor, labelsTensor, { vocabSize: vocab, gradScale });
    assertEquals([...await gpu.read(again.loss)], [...await gpu.read(loss)], "loss with gradient");
    const total = (x: Float64Array) =>
      crossEntropyReference(x, width, labels, vocab, NO_LABEL).reduce((sum, value) => sum + value, 0);
    if (rows * width > 2000) return;
    const dLogits = numericalGradient(total, Float64Array.from(logits)).map((d, i) =>
      i % width < vocab ? d * gradScale : 0
    );
    assertClose("dLogits", await gpu.read(logitsTensor), dLogits, { rtol: 1e-5, atol: 1e-7 });
  });
}

Deno.test("crossEntropy() gradients of a real vocabulary match the softmax", async () => {
  const gpu = whole;
  const [rows, vocab] = [3, 32000];
  const { logits, labels } = inputs(9, rows, vocab, 4);
  const tensor = gpu.tensor([rows, vocab], logits);
  crossEntropy(gpu, tensor, gpu.tensor([rows], labels), { vocabSize: vocab, gradScale: 8 });
  const expected = new Float64Array(rows * vocab);
  for (let row = 0; row < rows; row++) {
    if (labels[row] === NO_LABEL) continue;
    const exps = Float64Array.from(logits.subarray(row * vocab, (row + 1) * vocab), Math.exp);
    const sum = exps.reduce((a, b) => a + b, 0);
    exps.forEach((e, c) => expected[row * vocab + c] = 8 * (e / sum - (c === labels[row] ? 1 : 0)));
  }
  assertClose("dLogits", await gpu.read(tensor), expected, { rtol: 2e-5, atol: 1e-7 });
});

Deno.test("crossEntropy() takes the first of equal maxima, and stands large and lopsided logits", async () => {
  const gpu = whole;
  const [rows, width] = [4, 600];
  const logits = new Float32Array(rows * width).fill(-5);
  for (const column of [599, 301, 300, 77]) logits[column] = 3; // one thread's quads and others'
  logits.fill(2, width, 2 * width); // all equal
  logits.fill(-1e4, 2 * width, 3 * width);
  logits[2 * width + 514] = 1e4; // exp() of the difference underflows
  logits.fill(1e4, 3 * width);
  const labels = Uint32Array.of(77, 5, 514, 1);
  const { loss, argmax } = crossEntropy(gpu, gpu.tensor([rows, width], logits), gpu.tensor([rows], labels), {
    vocabSize: width,
  });
  assertEquals([...await gpu.readU32(argmax)], [77, 0, 514, 0], "argmax");
  const expected = crossEntropyReference(logits, width, labels, width, NO_LABEL);
  assertClose("loss", await gpu.read(loss), expected, { rtol: 1e-6, atol: 1e-6 });
});

Deno.test("crossEntropy() shows NaN logits and labels past the vocabulary as NaN", async () => {
  const gpu = whole;
  const logits = normal(1, 3 * 8);
  logits[8 + 5] = NaN;
  const tensor = gpu.tensor([3, 8], logits);
  const labels = gpu.tensor([3], Uint32Array.of(2, 2, 7));
  const { loss } = crossEntropy(gpu, tensor, labels, { vocabSize: 7, gradScale: 1 });
  assertEquals([...await gpu.read(loss)].map(Number.isNaN), [false, true, true], "loss");
  const dLogits = await gpu.read(tensor);
  assertEquals([4, 12, 20].map((i) => Number.isNaN(dLogits[i])), [false, true, true], "dLogits");
});

Deno.test("crossEntropy() works on logits that span buffers, the same every time", async () => {
  const run = async (gpu: Gpu) => {
    const { width, logits, labels } = inputs(3, 150, 250, 2);
    const tensor = gpu.tensor([150, width], logits);
    const { loss, argmax } = crossEntropy(gpu, tensor, gpu.tensor([150], labels), {
      vocabSize: 250,
      gradScale: 1,
    });
    const bytes = await gpu.readBytes([loss, argmax, tensor]);
    return { segments: tensor.segments.length, values: bytes.map((b) => [...new Uint32Array(b.buffer)]) };
  };
  const [one, again, parts] = [await run(whole), await run(whole), await run(split)];
  assertEquals([one.segments, parts.segments], [1, 3]);
  assertEquals(again.values, one.values, "second run");
  assertEquals(parts.values, one.values, "split");
});

Deno.test("crossEntropy() numbers rows past one axis of the grid", async () => {
  const gpu = whole;
  const rows = 70_000;
  const labels = gpu.tensor([rows], new Uint32Array(rows).fill(1));
  const logits = normal(4, rows * 4);
  const { loss } = crossEntropy(gpu, gpu.tensor([rows, 4], logits), labels, { vocabSize: 3 });
  const expected = crossEntropyReference(logits, 4, new Uint32Array(rows).fill(1), 3, NO_LABEL);
  assertClose("loss", await gpu.read(loss), expected, { rtol: 1e-5, atol: 2e-6 });
});

for (const [seed, [rows, vocab, deviation]] of ([[1, 1, 1], [5, 6, 40], [4, 255, 15]] as const).entries()) {
  Deno.test(`crossEntropy() of capped logits and its gradient match float64 for ${rows} rows of ${vocab}`, async () => {
    const cap = 30;
    const { width, logits, labels } = inputs(seed, rows, vocab, deviation);
    const of = (y: ArrayLike<number>) =>
      crossEntropyReference(softCapReference(y, cap), width, labels, vocab, NO_LABEL);
    const tensor = whole.tensor([rows, width], logits);
    softCapInPlace(whole, tensor, cap);
    const options = { vocabSize: vocab, gradScale: 0.37, cap };
    const { loss } = crossEntropy(whole, tensor, whole.tensor([rows], labels), options);
    assertClose("loss", await whole.read(loss), of(logits), { rtol: 2e-6, atol: 4e-6 });
    const total = (y: Float64Array) => of(y).reduce((sum, value) => sum + value, 0);
    const dLogits = numericalGradient(total, Float64Array.from(logits)).map((d, i) =>
      i % width < vocab ? d * 0.37 : 0
    );
    assertClose("dLogits", await whole.read(tensor), dLogits, { rtol: 1e-5, atol: 2e-7 });
  });
}

Deno.test("softCapInPlace() matches float64 near 0 and far from it, passes NaN on, also in several buffers", async () => {
  for (const cap of [50, 0.5]) {
    const logits = Float32Array.from(
      { length: 40_000 },
      (_, i) => Math.sinh((i - 20_000) / 1200) * cap / 1e4,
    );
    logits.set([-1e30, -1e38, 1e30, 0], 40);
    for (const gpu of [whole, split]) {
      const tensor = gpu.tensor([2500, 16], logits);
      softCapInPlace(gpu, tensor, cap);
      assertClose("y", await gpu.read(tensor), softCapReference(logits, cap), { rtol: 1e-6, atol: 1e-30 });
    }
  }
  const wrong = whole.tensor([1, 4], Float32Array.of(NaN, 1, 2, 3));
  softCapInPlace(whole, wrong, 30);
  assertEquals([...await whole.read(wrong)].map(Number.isNaN), [true, false, false, false]);
  await assertThrows(() => softCapInPlace(whole, whole.zeros([1, 4], "bf16"), 30), "must be f32");
});

Deno.test("crossEntropy() refuses shapes that do not fit", async () => {
  const gpu = whole;
  const labels = gpu.tensor([2], Uint32Array.of(0, 0));
  await assertThrows(
    () => crossEntropy(gpu, gpu.zeros([2, 8]), labels, { vocabSize: 9 }),
    "9 columns rounded",
  );
  await assertThrows(() => crossEntropy(gpu, gpu.zeros([3, 8]), labels, { vocabSize: 8 }), "hold 3 u32");
});

Deno.test("sumInto() keeps 1e-7 of sums of many losses, in a fixed order", async () => {
  for (const [seed, length] of [1, 3, 63, 1025, 100_001, 1_100_000].entries()) {
    for (const gpu of length > 2e5 ? [whole] : [whole, split]) {
      const values = normal(seed, length).map((x) => Math.abs(x) + 2);
      const tensor = gpu.tensor([length], values);
      const live = gpu.memory.liveBytes;
      const out = gpu.tensor([1], Float32Array.of(5));
      sumInto(gpu, tensor, out);
      const exact = Float64Array.from(values).reduce((sum, x) => sum + x, 5);
      const [sum] = await gpu.read(out);
      assertClose(`sum of ${length}`, [sum!], [exact], { rtol: 1e-7, atol: 0 });
      out.free();
      assertEquals(gpu.memory.liveBytes, live, "bytes in use");
    }
  }
  const out = whole.zeros([1]);
  sumInto(whole, whole.tensor([300], normal(1, 300)), out);
  const signed = normal(1, 300).reduce((sum, x) => sum + x, 0);
  assertClose("signed", await whole.read(out), [signed], reduction(300));
});
