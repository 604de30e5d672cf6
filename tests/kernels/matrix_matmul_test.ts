/** Products on matrix units: their range, masks, blocks and inner products. */
import { maskReference } from "../../kernels/elementwise/reference.ts";
import type { WebGpu } from "../../kernels/device.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import {
  matmul,
  matmulBackwardInput,
  matmulBackwardInputs,
  matmulBackwardWeight,
  matmulBackwardWeights,
  matmuls,
} from "../../kernels/matmul/matmul.ts";
import {
  matmulBackwardInputReference,
  matmulBackwardWeightReference,
  matmulReference,
} from "../../kernels/matmul/reference.ts";
import { quantiseNf4 } from "../../kernels/nf4/nf4.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { abs, matrixTest, openWithMatrices, worst } from "../support/matrix_units.ts";
import { inFormat, rounded } from "../support/numeric.ts";
import { beside, plus, times, together } from "../support/products.ts";
import { normal } from "../support/random.ts";

const KEY = { p: 0.3, seed: 9, stream: 40, offset: 4 * (2 ** 32 - 3) };
/** Largest error of sums in f32 whose operands f16 holds, as a share of the magnitudes that are summed. */
const SUMMED = 16 * 2 ** -24;
/** The same where f32 operands are rounded to f16. */
const ROUNDED = { one: 2 ** -11 + SUMMED, both: 2 ** -10 + SUMMED };

/** Values of eight bits, which f16 holds once their range is its. */
const short = (seed: number, length: number, size = 1) =>
  Float32Array.from(rounded(normal(seed, length, size), "bf16"));

/** Opens a device on which a depth is summed in parts. */
async function open(webgpu: WebGpu): Promise<{ gpu: Gpu; kernels: string[] }> {
  const kernels: string[] = [];
  const gpu = await openWithMatrices(webgpu, {
    sharing: "workgroup",
    onDispatch: ({ kernel }) => kernels.push(kernel),
  });
  return { gpu, kernels };
}

/** Fails unless so many products ran, all on matrix units, and nothing apart from them. */
function assertFused(label: string, kernels: string[], products: number): void {
  const ran = kernels.splice(0).filter((kernel) => kernel !== "sum_product_parts");
  assertEquals(
    ran.map((kernel) => /^matmul_.*_matrix_/.test(kernel)),
    Array(products).fill(true),
    `${label}: ${ran}`,
  );
}

interface Expected {
  readonly label: string;
  readonly actual: Tensor;
  readonly expected: Float64Array;
  readonly magnitude: Float64Array;
  readonly bound: number;
}

async function assertWithin(
  gpu: Gpu,
  { label, actual, expected, magnitude, bound }: Expected,
): Promise<void> {
  const error = worst(await gpu.read(actual), expected, magnitude);
  assert(error < bound, `${label}: ${error} of the magnitude, ${bound} is allowed`);
}

matrixTest("products on matrix units take masks, and blocks with each its own", async (webgpu) => {
  const { gpu, kernels } = await open(webgpu);
  using _ = gpu;
  // Rows past a tile; quads that are no octets; a depth in parts; rows of a weight that are no whole steps of octets.
  const cases: [Format, number, { M: number; K: number; R: number }][] = [
    ["bf16", 3, { M: 67, K: 64, R: 8 }],
    ["f16", 1, { M: 9, K: 1100, R: 20 }],
    ["bf16", 2, { M: 523, K: 36, R: 36 }],
  ];
  for (const [seed, [format, blocks, { M, K, R }]] of cases.entries()) {
    const size = { M, N: R, K };
    const label = `${M}x${R}x${K} ${format}, ${blocks}`;
    const many = (first: number, length: number) =>
      Array.from({ length: blocks }, (_, i) => short(100 * seed + first + i, length));
    const x = inFormat(gpu, [M, K], normal(seed, M * K), format);
    const [w, g, old] = [many(10, R * K), many(20, M * R), many(30, R * K)];
    const keys = w.map((_, block) => ({ ...KEY, stream: KEY.stream + 5 * block }));
    const dropped = keys.map((key) => times(x.values, maskReference(M * K, key)));
    // Weights lie a multiple of 64 elements apart; evenly spaced are those that are whole rows apart.
    const dispatches = Math.ceil(R * K / 64) * 64 % K === 0 ? 1 : blocks;
    const weights = together(gpu, w, [R, K]);
    kernels.length = 0;
    const y = gpu.empty([M, blocks * R]);
    matmuls(
      gpu,
      weights.map((weight, i) => (
        { x: x.tensor, weight, mask: keys[i], into: y, first: i * R, alpha: 2 }
      )),
    );
    assertFused(`y ${label}`, kernels, dispatches);
    const ys = (values: (i: number) => Float64Array) =>
      beside(w.map((_, i) => values(i).map((value) => 2 * value)), M);
    await assertWithin(gpu, {
      label: `y ${label}`,
      actual: y,
      expected: ys((i) => matmulReference(dropped[i]!, w[i]!, size)),
      magnitude: ys((i) => matmulReference(abs(x.values), abs(w[i]!), size)),
      bound: SUMMED,
    });
    // The gradient of A: g is f32 and x in 16 bits. Both operands are columns of wider tensors.
    const dy = gpu.tensor([M, blocks * R], Float32Array.from(beside(g, M)));
    const gradients = together(gpu, old, [R, K]);
    kernels.length = 0;
    matmulBackwardWeights(
      gpu,
      gradients.map((into, i) => (
        { dy, dyFirst: i * R, x: x.tensor, into, mask: keys[i], alpha: 0.5, beta: 1 }
      )),
    );
    assertFused(`dA ${label}`, kernels, dispatches);
    for (const [i, actual] of gradients.entries()) {
      const half = (values: Float64Array) => values.map((value) => value / 2);
      await assertWithin(gpu, {
        label: `dA ${i} ${label}`,
        actual,
        expected: plus(old[i]!, half(matmulBackwardWeightReference(g[i]!, dropped[i]!, size))),
        magnitude: plus(abs(old[i]!), half(matmulBackwardWeightReference(abs(g[i]!), abs(x.values), size))),
        bound: SUMMED,
      });
    }
  }
});

matrixTest(
  "products on matrix units of several weights, and of columns of wider tensors, are one",
  async (webgpu) => {
    const { gpu, kernels } = await open(webgpu);
    using _ = gpu;
    const [M, N, K, R] = [48, 72, 64, 8];
    const many = (first: number, length: number) => [0, 1, 2].map((i) => short(first + i, length));
    const x = inFormat(gpu, [M, K], normal(1, M * K), "bf16");
    const [w, b, h, dy] = [many(10, N * K), many(20, N * R), many(30, M * R), many(40, M * N)];
    const [weights, factors, ys] = [
      together(gpu, w, [N, K]),
      together(gpu, b, [N, R]),
      together(gpu, dy, [M, N]),
    ];
    const dys = gpu.emptyTogether(dy.map((_, i) => ({ shape: [M, N], label: `dy ${i}` })), "bf16");
    const narrow = dy.map((values) => inFormat(gpu, [M, N], values, "bf16"));
    narrow.forEach(({ tensor }, i) => gpu.copy(tensor, dys[i]!));
    const wide = gpu.tensor([M, 3 * R], Float32Array.from(beside(h, M)));
    kernels.length = 0;
    matmuls(
      gpu,
      weights.map((weight, i) => (
        { x: x.tensor, weight, into: ys[i], beta: 1, inner: { x: wide, first: i * R, weight: factors[i]! } }
      )),
    );
    const g = gpu.empty([M, 3 * R]);
    matmulBackwardInputs(
      gpu,
      factors.map((weight, i) => ({ dy: dys[i]!, weight, into: g, first: i * R, alpha: 3 })),
    );
    matmulBackwardWeights(
      gpu,
      factors.map((into, i) => ({ dy: dys[i]!, x: wide, xFirst: i * R, into, beta: 1 })),
    );
    assertFused("y, g and dB", kernels, 3);
    const alone = matmulBackwardWeight(gpu, dys[1]!, wide, { xFirst: R, into: gpu.empty([N, R]) });
    const [left, right] = [dy[1]!, h[1]!];
    await assertWithin(gpu, {
      label: "dB alone",
      actual: alone,
      expected: matmulBackwardWeightReference(left, right, { M, N, K: R }),
      magnitude: matmulBackwardWeightReference(abs(left), abs(right), { M, N, K: R }),
      bound: SUMMED,
    });
    const gs = (of: (values: ArrayLike<number>) => Float64Array) =>
      beside(
        dy.map((dy, i) => matmulBackwardInputReference(of(dy), of(b[i]!), { M, N, K: R }).map((v) => 3 * v)),
        M,
      );
    const same = (values: ArrayLike<number>) => Float64Array.from(values);
    await assertWithin(gpu, { label: "g", actual: g, expected: gs(same), magnitude: gs(abs), bound: SUMMED });
    for (const i of [0, 1, 2]) {
      const sum = (of: (values: ArrayLike<number>) => Float64Array) =>
        plus(
          of(dy[i]!),
          matmulReference(of(x.values), of(w[i]!), { M, N, K }),
          matmulReference(of(h[i]!), of(b[i]!), { M, N, K: R }),
        );
      const gradient = (of: (values: ArrayLike<number>) => Float64Array) =>
        plus(of(b[i]!), matmulBackwardWeightReference(of(dy[i]!), of(h[i]!), { M, N, K: R }));
      const y = { label: `y ${i}`, actual: ys[i]!, expected: sum(same), magnitude: sum(abs), bound: SUMMED };
      await assertWithin(gpu, y);
      await assertWithin(gpu, {
        label: `dB ${i}`,
        actual: factors[i]!,
        expected: gradient(same),
        magnitude: gradient(abs),
        bound: SUMMED,
      });
    }
  },
);

matrixTest(
  "products on matrix units with an inner one match float64, masked or not, and of NF4",
  async (webgpu) => {
    const { gpu, kernels } = await open(webgpu);
    using _ = gpu;
    const cases: [Format, "dense" | "nf4", { M: number; N: number; K: number; R: number }][] = [
      ["bf16", "dense", { M: 35, N: 44, K: 68, R: 12 }],
      // In parts, of which one has the inner product.
      ["f16", "dense", { M: 9, N: 1100, K: 1100, R: 20 }],
      ["bf16", "nf4", { M: 33, N: 140, K: 192, R: 8 }],
    ];
    for (const [seed, [format, form, { M, N, K, R }]] of cases.entries()) {
      const label = `${M}x${N}x${K} rank ${R} ${form} ${format}`;
      const of = (i: number, length: number) => normal(10 * seed + i, length);
      const x = inFormat(gpu, [M, K], of(0, M * K), format);
      const dy = inFormat(gpu, [M, N], of(4, M * N), format);
      const [h, b, g, a, d] = [of(1, M * R), of(3, N * R), of(5, M * R), of(6, R * K), of(7, M * N)];
      // The inner operand is a part of a wider tensor.
      const wide = (values: Float32Array) => {
        const all = new Float32Array(M * (R + 8)).fill(NaN);
        for (let row = 0; row < M; row++) all.set(values.subarray(row * R, (row + 1) * R), row * (R + 8) + 4);
        return gpu.tensor([M, R + 8], all);
      };
      const plain = inFormat(gpu, [N, K], of(2, N * K), form === "dense" ? format : "f32");
      const nf4 = form === "nf4" ? quantiseNf4(gpu, plain.tensor) : undefined;
      const w = nf4 ? Float64Array.from(await gpu.read(nf4.dequantise(gpu))) : plain.values;
      kernels.length = 0;
      const y = matmul(gpu, x.tensor, nf4 ?? plain.tensor, {
        inner: { x: wide(h), first: 4, weight: gpu.tensor([N, R], b) },
        addend: gpu.tensor([M, N], d),
        alpha: 0.5,
        beta: 3,
        format: "f32",
      });
      const dx = matmulBackwardInput(gpu, dy.tensor, nf4 ?? plain.tensor, {
        inner: { x: wide(g), first: 4, weight: gpu.tensor([R, K], a), mask: KEY },
        alpha: 2,
        format: "f32",
      });
      assertFused(label, kernels, 2);
      const sum = (of: (values: ArrayLike<number>) => Float64Array) =>
        plus(
          matmulReference(of(x.values), of(w), { M, N, K }).map((value) => value / 2),
          matmulReference(of(h), of(b), { M, N, K: R }).map((value) => value / 2),
          of(d).map((value) => 3 * value),
        );
      const mask = maskReference(M * K, KEY);
      const sumX = (of: (values: ArrayLike<number>) => Float64Array) =>
        plus(
          matmulBackwardInputReference(of(dy.values), of(w), { M, N, K }),
          times(matmulBackwardInputReference(of(g), of(a), { M, N: R, K }), mask),
        ).map((value) => 2 * value);
      const same = (values: ArrayLike<number>) => Float64Array.from(values);
      const bound = ROUNDED.both;
      await assertWithin(gpu, {
        label: `y ${label}`,
        actual: y,
        expected: sum(same),
        magnitude: sum(abs),
        bound,
      });
      await assertWithin(gpu, {
        label: `dx ${label}`,
        actual: dx,
        expected: sumX(same),
        magnitude: sumX(abs),
        bound,
      });
    }
  },
);

matrixTest(
  "a product and its inner one keep their bits where one is far larger than the other",
  async (webgpu) => {
    const { gpu } = await open(webgpu);
    using _ = gpu;
    const [M, N, K, R] = [35, 40, 68, 12];
    // Some rows have one of them, some the other, some both; so have elements that the mask drops.
    const without = (rest: number, width: number, values: Float32Array) =>
      values.map((value, i) => Math.floor(i / width) % 3 === rest ? 0 : value);
    // Beyond 2^80 the smaller is rounded at 2^-24 of its range, not of its values.
    for (
      const [inner, own, bound] of [
        [1e-6, 1e6, SUMMED],
        [1e6, 1e-6, SUMMED],
        [0, 1, SUMMED],
        [1, 0, SUMMED],
        [1e-15, 1e15, SUMMED],
        [1e8, 1e-8, 2 ** -6],
      ] as const
    ) {
      for (const format of ["bf16", "f16"] as const) {
        // f16 holds few of these.
        if (format === "f16" && (own > 1e4 || own < 1e-4 && own > 0)) continue;
        const x = inFormat(gpu, [M, K], without(0, K, short(1, M * K, own)), format);
        const dy = inFormat(gpu, [M, N], without(0, N, short(2, M * N, own)), format);
        const w = inFormat(gpu, [N, K], short(3, N * K, own), format);
        const [h, b, a] = [
          without(1, R, short(4, M * R, inner)),
          short(5, N * R, inner),
          short(6, R * K, inner),
        ];
        const th = gpu.tensor([M, R], h);
        const label = `${inner} beside ${own} ${format}`;
        const options = { format: "f32" } as const;
        const y = matmul(gpu, x.tensor, w.tensor, {
          ...options,
          inner: { x: th, weight: gpu.tensor([N, R], b) },
        });
        const dx = matmulBackwardInput(gpu, dy.tensor, w.tensor, {
          ...options,
          inner: { x: th, weight: gpu.tensor([R, K], a), mask: KEY },
        });
        const mask = maskReference(M * K, KEY);
        const same = (values: ArrayLike<number>) => Float64Array.from(values);
        // What is exactly 0 has to be that.
        const least = (values: Float64Array) => values.map((value) => value + 1e-30 * own * own + 1e-37);
        const sum = (of: (values: ArrayLike<number>) => Float64Array) =>
          plus(
            matmulReference(of(x.values), of(w.values), { M, N, K }),
            matmulReference(of(h), of(b), { M, N, K: R }),
          );
        const sumX = (of: (values: ArrayLike<number>) => Float64Array) =>
          plus(
            matmulBackwardInputReference(of(dy.values), of(w.values), { M, N, K }),
            times(matmulBackwardInputReference(of(h), of(a), { M, N: R, K }), mask),
          );
        const values = { expected: sum(same), magnitude: least(sum(abs)), bound };
        await assertWithin(gpu, { label: `y, ${label}`, actual: y, ...values });
        const valuesX = { expected: sumX(same), magnitude: least(sumX(abs)), bound };
        await assertWithin(gpu, { label: `dx, ${label}`, actual: dx, ...valuesX });
      }
    }
  },
);

matrixTest(
  "a gradient in f32 meets weights of 16 bits on matrix units where the result has those too",
  async (webgpu) => {
    const { gpu, kernels } = await open(webgpu);
    using _ = gpu;
    const [M, N, K] = [35, 44, 68];
    const dy = normal(1, M * N);
    const w = inFormat(gpu, [N, K], normal(2, N * K), "bf16");
    const tdy = gpu.tensor([M, N], dy);
    const expected = matmulBackwardInputReference(dy, w.values, { M, N, K });
    const magnitude = matmulBackwardInputReference(abs(dy), abs(w.values), { M, N, K });
    kernels.length = 0;
    const dx = matmulBackwardInput(gpu, tdy, w.tensor, { format: "bf16" });
    assertFused("bf16", kernels, 1);
    const bound = ROUNDED.one + 2 ** -8;
    await assertWithin(gpu, { label: "bf16", actual: dx, expected, magnitude, bound });
    const exact = matmulBackwardInput(gpu, tdy, w.tensor, { format: "f32" });
    await assertWithin(gpu, { label: "f32", actual: exact, expected, magnitude, bound: SUMMED });
  },
);

/** Rows from the least of f32 to the largest, and one of nothing. */
function farApart(seed: number, rows: number, width: number): Float32Array<ArrayBuffer> {
  return short(seed, rows * width).map((value, i) => {
    const row = Math.floor(i / width);
    return row === 5 ? 0 : value * 2 ** (97 * row % 200 - 110);
  });
}

/** Below it f32 does not have all of its bits. */
const LEAST = 1e-38;

matrixTest(
  "rows written as f16 first, each by its own power of two, give exact products",
  async (webgpu) => {
    const kernels: string[] = [];
    const onDispatch = ({ kernel }: { readonly kernel: string }) => kernels.push(kernel);
    const shapes = [
      { M: 131, N: 136, K: 144, format: "f32", bound: SUMMED },
      // A weight in two parts, of which the second reads later columns of dy.
      { M: 190, N: 344, K: 400, format: "bf16", bound: 2 ** -8 },
    ] as const;
    using gpu = await openWithMatrices(webgpu, { maxBindingBytes: 155_648, onDispatch }, true);
    for (const { M, N, K, format, bound } of shapes) {
      const size = { M, N, K };
      const x = inFormat(gpu, [M, K], farApart(1, M, K), "bf16");
      const dy = inFormat(gpu, [M, N], farApart(2, M, N), "bf16");
      const w = inFormat(gpu, [N, K], normal(3, N * K), "bf16");
      const d = inFormat(gpu, [M, N], normal(4, M * N), format);
      const y = matmul(gpu, x.tensor, w.tensor, { format, alpha: 2, beta: 0.5, addend: d.tensor });
      const dx = matmulBackwardInput(gpu, dy.tensor, w.tensor, { format });
      const added = (products: Float64Array, addends: ArrayLike<number>) =>
        products.map((value, i) => 2 * value + addends[i]! / 2);
      await assertWithin(gpu, {
        label: `y of ${M}x${N}x${K}`,
        actual: y,
        expected: added(matmulReference(x.values, w.values, size), d.values),
        magnitude: added(matmulReference(abs(x.values), abs(w.values), size), abs(d.values)),
        bound,
      });
      await assertWithin(gpu, {
        label: `dx of ${M}x${N}x${K}`,
        actual: dx,
        expected: matmulBackwardInputReference(dy.values, w.values, size),
        magnitude: matmulBackwardInputReference(abs(dy.values), abs(w.values), size).map((v) => v + LEAST),
        bound,
      });
    }
    assertEquals(kernels.filter((kernel) => kernel === "half_rows").length, 6, "rows as f16");
  },
);

matrixTest("rows written as f16 first take inner products, masks and blocks along", async (webgpu) => {
  const kernels: string[] = [];
  using gpu = await openWithMatrices(webgpu, { onDispatch: ({ kernel }) => kernels.push(kernel) }, true);
  // Side by side in memory all are whole rows apart.
  const [M, N, K, R] = [136, 136, 144, 16];
  const size = { M, N, K };
  const many = (first: number, length: number) => [0, 1, 2].map((i) => short(first + i, length));
  const x = inFormat(gpu, [M, K], farApart(1, M, K), "bf16");
  const dy = inFormat(gpu, [M, N], farApart(2, M, N), "bf16");
  const [w, b, h] = [many(10, N * K), many(20, N * R), [30, 31, 32].map((seed) => farApart(seed, M, R))];
  const a = short(40, R * K);
  const [weights, factors] = [together(gpu, w, [N, K]), together(gpu, b, [N, R])];
  const ys = together(gpu, w.map(() => new Float32Array(M * N)), [M, N]);
  const wide = gpu.tensor([M, 3 * R], Float32Array.from(beside(h, M)));
  kernels.length = 0;
  matmuls(
    gpu,
    weights.map((weight, i) => (
      { x: x.tensor, weight, into: ys[i], inner: { x: wide, first: i * R, weight: factors[i]! } }
    )),
  );
  const dx = matmulBackwardInput(gpu, dy.tensor, weights[0]!, {
    inner: { x: gpu.tensor([M, R], h[0]!), weight: gpu.tensor([R, K], a), mask: KEY },
    format: "f32",
  });
  const masked = matmul(gpu, x.tensor, weights[0]!, { mask: KEY, format: "f32" });
  assertEquals(
    kernels.map((kernel) => kernel === "half_rows"),
    [true, false, true, false, true, false],
    `${kernels}`,
  );
  const within = (label: string, actual: Tensor, expected: Float64Array, magnitude: Float64Array) =>
    assertWithin(gpu, { label, actual, expected, magnitude: magnitude.map((v) => v + LEAST), bound: SUMMED });
  const same = (values: ArrayLike<number>) => Float64Array.from(values);
  for (const i of [0, 1, 2]) {
    const sum = (of: (values: ArrayLike<number>) => Float64Array) =>
      plus(
        matmulReference(of(x.values), of(w[i]!), size),
        matmulReference(of(h[i]!), of(b[i]!), { M, N, K: R }),
      );
    await within(`y ${i}`, ys[i]!, sum(same), sum(abs));
  }
  const mask = maskReference(M * K, KEY);
  const sumX = (of: (values: ArrayLike<number>) => Float64Array) =>
    plus(
      matmulBackwardInputReference(of(dy.values), of(w[0]!), size),
      times(matmulBackwardInputReference(of(h[0]!), of(a), { M, N: R, K }), mask),
    );
  await within("dx", dx, sumX(same), sumX(abs));
  await within(
    "y of masked rows",
    masked,
    matmulReference(times(x.values, mask), w[0]!, size),
    matmulReference(abs(x.values), abs(w[0]!), size),
  );
});

matrixTest(
  "products on matrix units are exact for 16 bits far outside the range of f16",
  async (webgpu) => {
    using gpu = await openWithMatrices(webgpu);
    const [M, N, K] = [35, 44, 68];
    const size = { M, N, K };
    for (const [left, right] of [[1e6, 1e-9], [1e-20, 1e20]] as const) {
      const x = inFormat(gpu, [M, K], normal(1, M * K, left), "bf16");
      const w = inFormat(gpu, [N, K], normal(2, N * K, right), "bf16");
      const dyOfX = inFormat(gpu, [M, N], normal(3, M * N, left), "bf16");
      const dyOfW = inFormat(gpu, [M, N], normal(3, M * N, right), "bf16");
      const format = "f32";
      const y = matmul(gpu, x.tensor, w.tensor, { format });
      const dx = matmulBackwardInput(gpu, dyOfX.tensor, w.tensor, { format });
      const dw = matmulBackwardWeight(gpu, dyOfW.tensor, x.tensor, { into: gpu.empty([N, K]) });
      const products = [
        [y, matmulReference, x, w],
        [dx, matmulBackwardInputReference, dyOfX, w],
        [dw, matmulBackwardWeightReference, dyOfW, x],
      ] as const;
      for (const [product, reference, a, b] of products) {
        const magnitude = reference(abs(a.values), abs(b.values), size);
        const error = worst(await gpu.read(product), reference(a.values, b.values, size), magnitude);
        assert(error < 8 * 2 ** -24, `${reference.name} at ${left} by ${right}: ${error}`);
      }
    }
  },
);

matrixTest("rows of small values keep their bits beside rows of large ones", async (webgpu) => {
  using gpu = await openWithMatrices(webgpu);
  const [M, N, K] = [33, 32, 64];
  // Down to 2^-28 of the largest, which is what f16 has room for.
  const values = normal(4, M * K).map((value, i) => i < K ? value * 2 ** 26 : value);
  const x = inFormat(gpu, [M, K], values, "bf16");
  const w = inFormat(gpu, [N, K], normal(5, N * K), "bf16");
  const y = await gpu.read(matmul(gpu, x.tensor, w.tensor, { format: "f32" }));
  const magnitude = matmulReference(abs(x.values), abs(w.values), { M, N, K });
  const error = worst(y, matmulReference(x.values, w.values, { M, N, K }), magnitude);
  assert(error < 2 ** -11, `${error}`);
});

matrixTest("products on matrix units are right where operands grow along the depth", async (webgpu) => {
  using gpu = await openWithMatrices(webgpu);
  const [M, N, K] = [33, 32, 64];
  // After steps of small values: sums must be scaled down with what comes.
  const grown = (seed: number, rows: number) =>
    normal(seed, rows * K).map((value, i) => i % K < K / 2 ? value : 8 * value);
  const [x, w] = [inFormat(gpu, [M, K], grown(12, M), "bf16"), inFormat(gpu, [N, K], grown(13, N), "bf16")];
  const y = await gpu.read(matmul(gpu, x.tensor, w.tensor, { format: "f32" }));
  const magnitude = matmulReference(abs(x.values), abs(w.values), { M, N, K });
  const error = worst(y, matmulReference(x.values, w.values, { M, N, K }), magnitude);
  assert(error < 8 * 2 ** -24, `${error}`);
});

matrixTest("what is not finite reaches its own row, and no other", async (webgpu) => {
  for (const ofHalves of [false, true]) await assertOwnRows(webgpu, ofHalves);
});

async function assertOwnRows(webgpu: WebGpu, ofHalves: boolean): Promise<void> {
  using gpu = await openWithMatrices(webgpu, {}, ofHalves);
  const [M, N, K] = ofHalves ? [129, 132, 64] : [33, 32, 64];
  const values = normal(6, M * K);
  values[2 * K + 5] = NaN;
  values[7 * K + 9] = Infinity;
  const x = inFormat(gpu, [M, K], values, "bf16");
  const w = inFormat(gpu, [N, K], normal(7, N * K), "bf16");
  const y = await gpu.read(matmul(gpu, x.tensor, w.tensor, { format: "f32" }));
  for (let row = 0; row < M; row++) {
    const isFinite = y.subarray(row * N, row * N + N).map((value) => Number(Number.isFinite(value)));
    assertEquals(new Set(isFinite), new Set([row === 2 || row === 7 ? 0 : 1]), `row ${row}`);
  }
}
