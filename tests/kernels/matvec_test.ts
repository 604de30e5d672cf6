import { gegluReference, swigluReference } from "../../kernels/activation/reference.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { matmulReference } from "../../kernels/matmul/reference.ts";
import { matvec, MATVEC_ROWS, matvecs, product, type VectorCall } from "../../kernels/matvec/matvec.ts";
import { rmsNormReference } from "../../kernels/norm/reference.ts";
import { quantiseNf4 } from "../../kernels/nf4/nf4.ts";
import { METHODS, type Quantised } from "../../kernels/quantisation.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { inFormat } from "../support/numeric.ts";
import { normal } from "../support/random.ts";
import { ALL_SHARINGS, sharingTest } from "../support/sharing.ts";

/** Relative rounding of one value stored in a format. */
const UNIT: Record<Format, number> = { f32: 2 ** -24, bf16: 2 ** -8, f16: 2 ** -11 };

interface Case {
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** Fails where an error passes 4 u sqrt(K) (|x| |W|) plus the rounding of the stored result. */
function assertProduct(
  label: string,
  actual: Float32Array,
  { x, w }: { x: ArrayLike<number>; w: ArrayLike<number> },
  { M, N, K }: Case,
  { stored = "f32" as Format, alpha = 1, added = (_m: number, _n: number): number => 0 } = {},
) {
  const width = Math.ceil(N / 4) * 4;
  assertEquals(actual.length, M * width, `${label} length`);
  const abs = (values: ArrayLike<number>) => Float64Array.from(values, Math.abs);
  const expected = matmulReference(x, w, { M, N, K });
  const magnitude = matmulReference(abs(x), abs(w), { M, N, K });
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < width; n++) {
      const at = m * N + Math.min(n, N - 1);
      const [old, value] = [added(m, n), alpha * expected[at]!];
      const bound = 4 * UNIT.f32 * (Math.sqrt(K) * Math.abs(alpha) * magnitude[at]! + Math.abs(old)) +
        (stored === "f32" ? 0 : UNIT[stored] * Math.abs(value + old)) + 1e-30;
      const got = actual[m * width + n]!;
      if (!(Math.abs(got - value - old) <= bound)) {
        throw new Error(`${label}: (${m}, ${n}) is ${got}, expected ${value + old}, allowed error ${bound}`);
      }
    }
  }
}

/** Rows from 1 to the most, outputs past a multiple of 4, depths below, at and past a step, a tile and a team. */
const CASES: Case[] = [
  { M: 1, N: 1, K: 4 },
  { M: 1, N: 37, K: 36 },
  { M: 2, N: 32, K: 64 },
  { M: 3, N: 130, K: 100 },
  { M: 4, N: 66, K: 1028 },
  { M: 5, N: 9, K: 264 },
  { M: 7, N: 33, K: 8 },
  { M: 8, N: 64, K: 520 },
  { M: 1, N: 12, K: 4100 },
];

for (const sharing of ALL_SHARINGS) {
  sharingTest(sharing, `matvec matches float64 for every format, ${sharing} sharing`, async () => {
    using gpu = await Gpu.open({ sharing, poison: true });
    const formats = [["f32", "f32"], ["bf16", "bf16"], ["f16", "f16"], ["bf16", "f32"], [
      "f32",
      "f16",
    ]] as const;
    for (const [seed, size] of CASES.entries()) {
      const { M, N, K } = size;
      const [formatX, formatW] = formats[seed % formats.length]!;
      const x = inFormat(gpu, [M, K], normal(seed, M * K), formatX);
      const w = inFormat(gpu, [N, K], normal(seed + 50, N * K), formatW);
      const y = await gpu.read(matvec(gpu, x.tensor, w.tensor));
      const label = `${M}x${N}x${K}, ${formatX} x ${formatW}`;
      assertProduct(label, y, { x: x.values, w: w.values }, size, { stored: formatX });
    }
  });

  sharingTest(sharing, `matvec reads NF4 as dequantising does, ${sharing} sharing`, async () => {
    using gpu = await Gpu.open({ sharing, poison: true });
    const sizes = [{ M: 1, N: 70, K: 176 }, { M: 1, N: 36, K: 1088 }, { M: 3, N: 9, K: 64 }, {
      M: 8,
      N: 40,
      K: 96,
    }];
    for (const doubleQuant of [true, false]) {
      for (const size of sizes) {
        const { M, N, K } = size;
        const x = normal(3, M * K);
        const weight = quantiseNf4(gpu, gpu.tensor([N, K], normal(5, N * K)), { doubleQuant });
        const w = await gpu.read(weight.dequantise(gpu));
        const y = await gpu.read(matvec(gpu, gpu.tensor([M, K], x), weight));
        assertProduct(`${M}x${N}x${K} nested ${doubleQuant}`, y, { x, w }, size);
      }
    }
  });

  sharingTest(
    sharing,
    `matvec over a split weight is that over a whole one, ${sharing} sharing`,
    async () => {
      const { M, N, K } = { M: 2, N: 150, K: 136 };
      const run = async (gpu: Gpu) => {
        const weight = gpu.tensor([N, K], normal(7, N * K));
        const x = gpu.tensor([M, K], normal(6, M * K));
        const results = [matvec(gpu, x, weight), matvec(gpu, x, quantiseNf4(gpu, weight))];
        return { parts: weight.segments.length, values: await Promise.all(results.map((y) => gpu.read(y))) };
      };
      using whole = await Gpu.open({ sharing, poison: true });
      using split = await Gpu.open({ sharing, poison: true, maxBindingBytes: 64 * K * 4 });
      const [expected, actual] = [await run(whole), await run(split)];
      assertEquals([expected.parts, actual.parts], [1, 3]);
      assertEquals(actual.values.map((y) => [...y]), expected.values.map((y) => [...y]));
    },
  );

  sharingTest(
    sharing,
    `matvec scales by alpha and adds beta times what is there, ${sharing} sharing`,
    async () => {
      using gpu = await Gpu.open({ sharing, poison: true });
      const size = { M: 3, N: 20, K: 16 };
      const [x, w, old] = [normal(9, 48), normal(10, 320), normal(11, 60)];
      const y = gpu.tensor([3, 20], old);
      const result = matvec(gpu, gpu.tensor([3, 16], x), gpu.tensor([20, 16], w), {
        into: y,
        alpha: 0.25,
        beta: -2,
      });
      assertEquals(result === y, true, "the result is the given tensor");
      const added = (m: number, n: number) => -2 * old[m * 20 + n]!;
      assertProduct("y", await gpu.read(y), { x, w }, size, { alpha: 0.25, added });
      const half = matvec(gpu, gpu.tensor([3, 16], x), gpu.tensor([20, 16], w), { format: "bf16" });
      assertEquals(half.dtype, "bf16");
      assertProduct("bf16", await gpu.read(half), { x, w }, size, { stored: "bf16" });
    },
  );
}

Deno.test("matvec norms x as it reads it", async () => {
  using gpu = await Gpu.open({ sharing: "workgroup", poison: true });
  const formats = ["f32", "bf16", "f16"] as const;
  for (const [seed, size] of CASES.entries()) {
    const { M, N, K } = size;
    const format = formats[seed % formats.length]!;
    // Rows of different sizes, so that none can have the root of another; eps is felt in the first.
    const rows = normal(seed, M * K).map((value, i) => value * 8 ** (Math.floor(i / K) - 1));
    const x = inFormat(gpu, [M, K], rows, format);
    const w = inFormat(gpu, [N, K], normal(seed + 50, N * K), seed % 2 ? "bf16" : "f32");
    const weight = gpu.tensor([K], normal(seed + 90, K));
    const [eps, offset] = [1e-2, seed % 2];
    const input = { norm: { weight, eps, offset } };
    const normed = rmsNormReference(
      Float64Array.from(x.values),
      Float64Array.from(await gpu.read(weight)),
      eps,
      offset,
    );
    const label = `${M}x${N}x${K}, ${format}`;
    const y = await gpu.read(matvec(gpu, x.tensor, w.tensor, { input, format: "f32" }));
    assertProduct(label, y, { x: normed, w: w.values }, size);
    if (K % 8 > 0) continue;
    const nf4 = quantiseNf4(gpu, w.tensor);
    const added = normal(seed + 70, M * Math.ceil(N / 4) * 4);
    const into = gpu.tensor([M, Math.ceil(N / 4) * 4], added);
    matvec(gpu, x.tensor, nf4, { input, into, alpha: 0.5, beta: 1 });
    const values = { x: normed, w: await gpu.read(nf4.dequantise(gpu)) };
    const add = (m: number, n: number) => added[m * Math.ceil(N / 4) * 4 + n]!;
    assertProduct(`${label}, NF4`, await gpu.read(into), values, size, { alpha: 0.5, added: add });
  }
});

/** Columns `from` to `to` of rows that are `width` long. */
function columnsOf(values: ArrayLike<number>, width: number, from: number, to: number): number[][] {
  return Array.from(
    { length: values.length / width },
    (_, row) => Array.from({ length: to - from }, (_, c) => values[row * width + from + c]!),
  );
}

for (const sharing of ALL_SHARINGS) {
  sharingTest(sharing, `matvec adds an inner product, ${sharing} sharing`, async () => {
    using gpu = await Gpu.open({ sharing, poison: true, maxBindingBytes: 64 * 1028 * 4 });
    const ranks = [4, 8, 24, 260];
    const sizes = [...CASES.slice(0, 8), { M: 2, N: 150, K: 1028 }];
    for (const [seed, size] of sizes.entries()) {
      const { M, N, K } = size;
      const R = ranks[seed % ranks.length]!;
      const [x, w, b] = [normal(seed, M * K), normal(seed + 20, N * K), normal(seed + 40, N * R)];
      // Factors are columns 4 to R + 4 of wider rows, the result is columns 8 and on.
      const h = normal(seed + 60, M * (R + 8));
      const columns = Math.ceil(N / 4) * 4;
      const stride = columns + 12;
      const old = normal(seed + 80, M * stride);
      const into = gpu.tensor([M, stride], old);
      const inner = { x: gpu.tensor([M, R + 8], h), first: 4, weight: gpu.tensor([N, R], b) };
      const scale = normal(seed + 90, K);
      const norm = { weight: gpu.tensor([K], scale), eps: 1e-3 };
      const normed = rmsNormReference(Float64Array.from(x), Float64Array.from(scale), norm.eps);
      for (const input of [undefined, { norm }]) {
        gpu.write(into, old);
        const options = { inner, input, into, first: 8, alpha: 0.5, beta: 1 };
        matvec(gpu, gpu.tensor([M, K], x), gpu.tensor([N, K], w), options);
        const y = await gpu.read(into);
        // Both are one product of depth K + R.
        const beside = (left: number[][], right: number[][]) =>
          Float64Array.from(left.flatMap((row, i) => [...row, ...right[i]!]));
        const values = {
          x: beside(columnsOf(input ? normed : x, K, 0, K), columnsOf(h, R + 8, 4, R + 4)),
          w: beside(columnsOf(w, K, 0, K), columnsOf(b, R, 0, R)),
        };
        const label = `${M}x${N}x${K} + ${R}${input ? ", normed" : ""}`;
        const own = Float32Array.from(columnsOf(y, stride, 8, 8 + columns).flat());
        const added = (m: number, n: number) => old[m * stride + 8 + n]!;
        assertProduct(label, own, values, { M, N, K: K + R }, { alpha: 0.5, added });
        for (const [from, to] of [[0, 8], [8 + columns, stride]] as const) {
          assertEquals(columnsOf(y, stride, from, to), columnsOf(old, stride, from, to), `${label}, beside`);
        }
      }
    }
  });
}

const GATED = { swiglu: swigluReference, geglu: gegluReference };

Deno.test("matvec gates x as it reads it, beside the gate or behind it in its rows", async () => {
  using gpu = await Gpu.open({ sharing: "workgroup", poison: true });
  const formats = ["f32", "bf16", "f16"] as const;
  for (const [seed, size] of CASES.entries()) {
    const { M, N, K } = size;
    const format = formats[seed % formats.length]!;
    const activation = seed % 2 ? "swiglu" : "geglu";
    const [gate, up] = [normal(seed, M * K), normal(seed + 20, M * K)].map((values) =>
      inFormat(gpu, [M, K], values.map((value) => 3 * value), format)
    ) as [ReturnType<typeof inFormat>, ReturnType<typeof inFormat>];
    const w = inFormat(gpu, [N, K], normal(seed + 50, N * K), "f32");
    const hidden = GATED[activation](gate.values, up.values);
    const beside = { input: { activation, gate: gate.tensor }, format: "f32" } as const;
    const label = `${M}x${N}x${K}, ${format}, ${activation}`;
    const y = await gpu.read(matvec(gpu, up.tensor, w.tensor, beside));
    assertProduct(label, y, { x: hidden, w: w.values }, size);
    const rows = Float32Array.from(
      { length: 2 * M * K },
      (_, i) => (i % (2 * K) < K ? gate : up).values[Math.floor(i / (2 * K)) * K + i % K]!,
    );
    const fused = inFormat(gpu, [M, 2 * K], rows, format).tensor;
    const behind = { ...beside, input: { ...beside.input, gate: undefined } };
    assertEquals(await gpu.read(matvec(gpu, fused, w.tensor, behind)), y, `${label}, in one tensor`);
    if (K % 8 > 0) continue;
    const nf4 = quantiseNf4(gpu, w.tensor);
    const values = { x: hidden, w: await gpu.read(nf4.dequantise(gpu)) };
    assertProduct(`${label}, NF4`, await gpu.read(matvec(gpu, up.tensor, nf4, beside)), values, size);
  }
});

/** A form of weights; those in NF4 have the values that they are dequantised to. */
type WeightForm = Format | Quantised;

/** Outputs as of queries, keys and values, of gate and up, and odd ones; depths that end inside a chunk, a step and a tile. */
const JOINED = [
  { M: 1, N: [64, 32, 32], K: 96, forms: ["f32", "nf4-double"] },
  { M: 2, N: [37, 9, 2], K: 36, forms: ["bf16", "f16"] },
  { M: 3, N: [130, 130], K: 264, forms: ["nf4"] },
  { M: 5, N: [12, 70, 33], K: 1088, forms: ["nf4-double"] },
  { M: 8, N: [36, 17], K: 520, forms: ["f16", "nf4-double"] },
  { M: 1, N: [1, 1, 1], K: 8, forms: ["bf16"] },
] satisfies readonly { M: number; N: number[]; K: number; forms: WeightForm[] }[];

/** Weights (N, K) side by side, and their values. */
async function weightsTogether(
  gpu: Gpu,
  form: WeightForm,
  N: readonly number[],
  K: number,
  seed: number,
) {
  const wanted = N.map((rows, i) => ({ shape: [rows, K], label: `w${i}` }));
  const drawn = N.map((rows, i) => inFormat(gpu, [rows, K], normal(seed + i, rows * K), "f32").values);
  if (form === "nf4" || form === "nf4-double") {
    const quantisers = METHODS[form].quantisers(gpu, wanted);
    const weights = quantisers.map((quantiser, i) => {
      quantiser.add(gpu.tensor(wanted[i]!.shape, Float32Array.from(drawn[i]!, (value) => value * (i + 1))));
      return quantiser.finish();
    });
    return { weights, values: await Promise.all(weights.map((weight) => gpu.read(weight.dequantise(gpu)))) };
  }
  const weights = gpu.emptyTogether(wanted, form);
  const values = weights.map((weight, i) => {
    const { tensor, values } = inFormat(gpu, wanted[i]!.shape, Float32Array.from(drawn[i]!), form);
    gpu.copy(tensor, weight);
    return Float32Array.from(values);
  });
  return { weights, values };
}

for (const sharing of ALL_SHARINGS) {
  sharingTest(sharing, `Products of weights side by side are one dispatch, ${sharing} sharing`, async () => {
    const kernels: string[] = [];
    using gpu = await Gpu.open({ sharing, poison: true, onDispatch: ({ kernel }) => kernels.push(kernel) });
    for (const [seed, { M, N, K, forms }] of JOINED.entries()) {
      for (const form of forms) {
        const { weights, values } = await weightsTogether(gpu, form, N, K, 10 * seed);
        const x = normal(seed + 5, M * K);
        const scale = normal(seed + 6, K);
        const norm = { weight: gpu.tensor([K], scale), eps: 1e-3 };
        const normed = rmsNormReference(Float64Array.from(x), Float64Array.from(scale), norm.eps);
        const tx = gpu.tensor([M, K], x);
        // The second has no inner product; the others' lie in one tensor, with factors of several ranks.
        const ranks = N.map((_, i) => i === 1 ? 0 : 4 + 4 * i);
        const width = ranks.reduce((sum, rank) => sum + rank, 0);
        const h = normal(seed + 7, M * width);
        const th = gpu.tensor([M, width], h);
        const factors = N.map((rows, i) => normal(seed + 20 + i, rows * ranks[i]!));
        const adapted = N.flatMap((_, i) => ranks[i]! > 0 ? [i] : []);
        const lent = gpu.emptyTogether(
          adapted.map((i) => ({ shape: [N[i]!, ranks[i]!], label: "B" })),
          "f32",
        );
        adapted.forEach((i, number) => gpu.write(lent[number]!, factors[i]!));
        const firsts = ranks.map((_, i) => ranks.slice(0, i).reduce((sum, rank) => sum + rank, 0));
        for (const [hasInner, input] of [[false, undefined], [true, undefined], [true, { norm }]] as const) {
          const calls = weights.map((weight, i) => ({
            weight,
            alpha: 0.5,
            ...(hasInner && ranks[i]! > 0 &&
              { inner: { x: th, first: firsts[i]!, weight: lent[adapted.indexOf(i)]! } }),
          }));
          const label = `${M}x${N}x${K} ${form}${hasInner ? ", inner" : ""}${input ? ", normed" : ""}`;
          kernels.length = 0;
          const ys = matvecs(gpu, tx, calls, input);
          assertEquals(kernels.length, 1, `${label}: ${kernels}`);
          for (const [i, y] of ys.entries()) {
            const R = hasInner ? ranks[i]! : 0;
            const rows = (
              left: ArrayLike<number>,
              depth: number,
              right: ArrayLike<number>,
              from: number,
              of: number,
            ) =>
              Float64Array.from(
                columnsOf(left, depth, 0, depth).flatMap((row, m) => [
                  ...row,
                  ...(R > 0 ? columnsOf(right, of, from, from + R)[m]! : []),
                ]),
              );
            const both = {
              x: rows(input ? normed : x, K, h, firsts[i]!, width),
              w: rows(values[i]!, K, factors[i]!, 0, R),
            };
            assertProduct(`${label}, ${i}`, await gpu.read(y), both, { M, N: N[i]!, K: K + R }, {
              alpha: 0.5,
            });
          }
        }
      }
    }
  });
}

Deno.test("Products that cannot be one dispatch are several, with the same values", async () => {
  const kernels: string[] = [];
  const onDispatch = ({ kernel }: { readonly kernel: string }) => kernels.push(kernel);
  using gpu = await Gpu.open({ sharing: "workgroup", poison: true, onDispatch });
  const [M, N, K] = [2, [40, 24, 24], 64] as const;
  const x = gpu.tensor([M, K], normal(1, M * K));
  const [q, k, v] = (await weightsTogether(gpu, "bf16", N, K, 2)).weights as [Tensor, Tensor, Tensor];
  const apart = inFormat(gpu, [24, K], normal(9, 24 * K), "bf16").tensor;
  const { weights: [nf4] } = await weightsTogether(gpu, "nf4", [24], K, 3);
  const y = () => gpu.empty([M, 24], "f32", "y");
  const many = await weightsTogether(gpu, "f32", [4, 8, 12, 16, 20], K, 40);
  const cases: [string, number, VectorCall[]][] = [
    ["side by side", 1, [{ weight: q }, { weight: k }, { weight: v }]],
    ["in another order", 2, [{ weight: k }, { weight: v }, { weight: q }]],
    ["one elsewhere", 2, [{ weight: q }, { weight: k }, { weight: apart }]],
    ["one in another form", 2, [{ weight: q }, { weight: k }, { weight: nf4! }]],
    ["one in another form first", 2, [{ weight: nf4! }, { weight: k }, { weight: v }]],
    ["results apart", 2, [{ weight: k, into: y() }, { weight: v, into: y() }]],
    ["results of two formats", 2, [{ weight: q, format: "bf16" }, { weight: k }, { weight: v }]],
    ["other factors", 3, [{ weight: q, alpha: 2 }, { weight: k }, { weight: v, alpha: 2 }]],
    ["more than a kernel takes", 2, many.weights.map((weight) => ({ weight }))],
  ];
  for (const [label, dispatches, calls] of cases) {
    const expected = await Promise.all(
      calls.map(({ into: _, ...call }) => gpu.readBytes([matvecs(gpu, x, [call])[0]!])),
    );
    kernels.length = 0;
    const ys = matvecs(gpu, x, calls);
    assertEquals(kernels.length, dispatches, `${label}: ${kernels}`);
    assertEquals((await gpu.readBytes(ys)).map(String), expected.map(String), label);
  }
});

Deno.test("What was launched before is launched anew where anything but its values changed", async () => {
  using gpu = await Gpu.open({ sharing: "workgroup", poison: true });
  const [N, K] = [[20, 12], 32] as const;
  const { weights, values } = await weightsTogether(gpu, "f32", N, K, 1);
  const norm = { weight: gpu.tensor([K], new Float32Array(K).fill(1)), eps: 0 };
  for (
    const [M, alpha, eps] of [[1, 1, 0], [1, 1, 0], [2, 1, 0], [2, 3, 0], [2, 3, 0.5], [1, 1, 0]] as const
  ) {
    const x = normal(M, M * K);
    const normed = rmsNormReference(Float64Array.from(x), new Float64Array(K).fill(1), eps);
    const input = { norm: { ...norm, eps } };
    const ys = matvecs(gpu, gpu.tensor([M, K], x), weights.map((weight) => ({ weight, alpha })), input);
    for (const [i, y] of ys.entries()) {
      const size = { M, N: N[i]!, K };
      assertProduct(`${M} ${alpha} ${eps}`, await gpu.read(y), { x: normed, w: values[i]! }, size, { alpha });
    }
  }
});

Deno.test("product takes few rows by matvec and more by matmul; matvec refuses more, and what does not fit", async () => {
  const dispatches: string[] = [];
  using gpu = await Gpu.open({ poison: true, onDispatch: ({ kernel }) => dispatches.push(kernel) });
  const weight = gpu.tensor([12, 8], normal(1, 96));
  const w = await gpu.read(weight);
  for (const M of [MATVEC_ROWS, MATVEC_ROWS + 1]) {
    const x = normal(M, M * 8);
    const y = await gpu.read(product(gpu, gpu.tensor([M, 8], x), weight));
    assertProduct(`${M} rows`, y, { x, w }, { M, N: 12, K: 8 });
  }
  assertEquals(dispatches.map((kernel) => kernel.split("_")[0]), ["matvec", "matmul"]);
  const nine = gpu.tensor([9, 8], normal(2, 72));
  await assertThrows(() => matvec(gpu, nine, weight), "matvec", "[9,8]", "8 rows at most");
  const wide = gpu.tensor([1, 12], normal(3, 12));
  await assertThrows(() => matvec(gpu, wide, weight), "[1,12]", "[12,8]");
  const norm = { weight: wide.asRows(12), eps: 1e-5 };
  const one = gpu.tensor([1, 8], normal(4, 8));
  await assertThrows(() => matvec(gpu, one, weight, { input: { norm } }), "matvec", "8 f32 values");
  const gated = (gate: Tensor | undefined) => ({ input: { activation: "swiglu", gate } }) as const;
  await assertThrows(() => matvec(gpu, one, weight, gated(wide)), "matvec", "[1,12]");
  await assertThrows(() => matvec(gpu, one, weight, gated(undefined)), "matvec", "[1,8]");
  const inner = { x: gpu.tensor([1, 8], normal(5, 8)), weight: gpu.tensor([12, 4], normal(6, 48)) };
  await assertThrows(() => matvec(gpu, one, weight, { inner: { ...inner, first: 8 } }), "matvec", "column 8");
  await assertThrows(() => matvec(gpu, one, weight, { inner: { ...inner, weight: one } }), "[1,8]", "[1,12]");
  const half = gpu.empty([1, 8], "bf16");
  await assertThrows(() => matvec(gpu, one, weight, gated(half)), "matvec", "bf16", "f32");
});

Deno.test("A weight that was freed is noticed, alone and as a part of a dispatch", async () => {
  using gpu = await Gpu.open({ poison: true });
  const x = gpu.tensor([1, 64], normal(1, 64));
  for (const form of ["bf16", "nf4", "nf4-double"] as const) {
    for (const freed of [0, 1, 2]) {
      const { weights } = await weightsTogether(gpu, form, [8, 4, 4], 64, 2);
      const all = weights.map((weight) => ({ weight }));
      // What is kept of the first time does not hide it.
      matvecs(gpu, x, all);
      matvecs(gpu, x, [all[freed]!]);
      weights[freed]!.free();
      await assertThrows(() => matvecs(gpu, x, all), "after it was freed");
      await assertThrows(() => matvecs(gpu, x, [all[freed]!]), "after it was freed");
    }
  }
});
