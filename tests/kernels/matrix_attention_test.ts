/** Attention and its gradients on matrix units. */
import { attention, attentionBackward } from "../../kernels/attention/attention.ts";
import { firstKeys, makeAttentionMap, type RowLayout } from "../../kernels/attention/map.ts";
import { attentionBackwardReference, attentionReference } from "../../kernels/attention/reference.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { abs, matrixTest, openWithMatrices, worst } from "../support/matrix_units.ts";
import { inFormat } from "../support/numeric.ts";
import { normal } from "../support/random.ts";

interface Heads {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

interface Sizes {
  readonly format?: Format;
  /** Size of q, and so of scores; no gradients are compared where it is large, for there they cancel. */
  readonly loud?: number;
  /** Size of v. */
  readonly size?: number;
  /** Size of the gradient of o. */
  readonly gradient?: number;
  /** By how much v and the gradient are larger in the last third of the rows. */
  readonly growth?: number;
  readonly cap?: number;
}

/** Attention on matrix units and its gradients against float64: to the rounding of their format, lse to that of f32. */
async function assertAttends(
  gpu: Gpu,
  of: RowLayout & Heads,
  { format = "bf16", loud = 1, size = 1, gradient = 1, growth = 1, cap }: Sizes = {},
): Promise<void> {
  const { rows, heads, kvHeads, headDim } = of;
  const before = gpu.memory.liveBytes;
  const map = makeAttentionMap(gpu, of);
  const [wide, narrow] = [[rows, heads * headDim], [rows, kvHeads * headDim]] as const;
  const make = (seed: number, shape: readonly [number, number], of: number, growth = 1) => {
    const values = normal(seed, shape[0] * shape[1], of);
    return inFormat(gpu, shape, values.map((x, i) => i < 2 / 3 * values.length ? x : growth * x), format);
  };
  const [q, k, v, dO] = [
    make(8, wide, loud),
    make(9, narrow, 1),
    make(10, narrow, size, growth),
    make(11, wide, gradient, growth),
  ];
  const scoring = cap === undefined ? {} : { cap };
  const label = JSON.stringify({ ...of, format, loud, size, gradient, growth, cap });
  const unit = format === "bf16" ? 2 ** -8 : 2 ** -10;
  const assertWithin = async (name: string, actual: Tensor, expected: Float64Array, bound: number) => {
    const scale = new Float64Array(expected.length).fill(Math.max(...abs(expected)));
    const error = worst(await gpu.read(actual), expected, scale);
    assert(error < bound, `${name} of ${label}: ${error}`);
  };
  const values = { q: q.values, k: k.values, v: v.values };
  const { o, lse } = attention(gpu, q.tensor, k.tensor, v.tensor, map, of, scoring);
  const expected = attentionReference(values, firstKeys(of), of, scoring);
  await assertWithin("o", o, expected.o, unit);
  const lseError = worst(await gpu.read(lse), expected.lse, expected.lse.map((x) => Math.abs(x) + loud));
  assert(lseError < 2 ** -20, `lse of ${label}: ${lseError}`);
  if (loud === 1) {
    const saved = { q: q.tensor, k: k.tensor, v: v.tensor, o, lse };
    const { dq, dk, dv } = attentionBackward(gpu, dO.tensor, saved, map, of, scoring);
    const gradients = attentionBackwardReference(dO.values, values, firstKeys(of), of, scoring);
    await assertWithin("dq", dq, gradients.dq, 2 * unit);
    await assertWithin("dk", dk, gradients.dk, 2 * unit);
    await assertWithin("dv", dv, gradients.dv, 2 * unit);
    for (const tensor of [dq, dk, dv]) tensor.free();
  }
  for (const tensor of [q.tensor, k.tensor, v.tensor, dO.tensor, o, lse]) tensor.free();
  map.free();
  assertEquals(gpu.memory.liveBytes, before, "live bytes");
}

matrixTest(
  "attention on matrix units and its gradients match float64, whoever sees whom, at any size of the values",
  async (webgpu) => {
    using gpu = await openWithMatrices(webgpu);
    const of = { heads: 4, kvHeads: 2, headDim: 16, starts: [0, 30], rows: 97 };
    await assertAttends(gpu, { ...of, starts: [0], rows: 1 }, { loud: 2 });
    for (const rows of [31, 32, 33, 97]) await assertAttends(gpu, { ...of, rows });
    await assertAttends(gpu, { ...of, groupSize: 24 });
    await assertAttends(gpu, { ...of, rows: 131, documents: [0, 3, 40, 41, 72] });
    // Peaks that move far within a row, and values outside the range of f16.
    await assertAttends(gpu, of, { loud: 20, size: 1e6 });
    await assertAttends(gpu, of, { loud: 100, size: 1e-9 });
    await assertAttends(gpu, of, { size: 1e6, gradient: 1e-9 });
    await assertAttends(gpu, of, { size: 1e-9, gradient: 1e6 });
    await assertAttends(gpu, of, { growth: 2 ** 12 });
    // One kv head for all heads; rows of results that are several rows of scores.
    await assertAttends(gpu, { ...of, kvHeads: 1, headDim: 32 }, { format: "f16", cap: 2 });
  },
);

matrixTest(
  "attention on matrix units goes on from earlier keys and queries where tensors are split",
  async (webgpu) => {
    // In f16 with their scales 64 rows of q have as many bytes.
    using gpu = await openWithMatrices(webgpu, { maxBindingBytes: 64 * 4 * (16 + 8) * 2 });
    assert(gpu.empty([300, 64], "bf16").segments.length > 1, "in several parts");
    await assertAttends(gpu, { heads: 4, kvHeads: 2, headDim: 16, starts: [0, 100], rows: 300 });
  },
);

matrixTest("attention on matrix units gives the same bits again", async (webgpu) => {
  using gpu = await openWithMatrices(webgpu);
  const of = { heads: 4, kvHeads: 2, headDim: 16, starts: [0, 30], rows: 97 };
  const map = makeAttentionMap(gpu, of);
  const [q, dO] = [8, 11].map((seed) => inFormat(gpu, [97, 64], normal(seed, 97 * 64), "bf16").tensor);
  const [k, v] = [9, 10].map((seed) => inFormat(gpu, [97, 32], normal(seed, 97 * 32), "bf16").tensor);
  const run = async () => {
    const { o, lse } = attention(gpu, q!, k!, v!, map, of);
    const { dq, dk, dv } = attentionBackward(gpu, dO!, { q: q!, k: k!, v: v!, o, lse }, map, of);
    return await gpu.readBytes([o, lse, dq, dk, dv]);
  };
  assertEquals(await run(), await run());
});
