import { dropout } from "../../kernels/elementwise/dropout.ts";
import { maskReference } from "../../kernels/elementwise/reference.ts";
import { type Dispatch, Gpu } from "../../kernels/gpu.ts";
import {
  matmul,
  matmulBackwardInput,
  matmulBackwardInputs,
  matmulBackwardWeights,
  matmuls,
} from "../../kernels/matmul/matmul.ts";
import {
  matmulBackwardInputReference,
  matmulBackwardWeightReference,
  matmulReference,
} from "../../kernels/matmul/reference.ts";
import { quantiseNf4 } from "../../kernels/nf4/nf4.ts";
import type { Weight } from "../../kernels/weight.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { assert, assertClose, assertEquals } from "../support/assert_close.ts";
import { inFormat } from "../support/numeric.ts";
import { beside, plus, times, together } from "../support/products.ts";
import { normal } from "../support/random.ts";
import { ALL_SHARINGS, sharingTest } from "../support/sharing.ts";

const F32 = { rtol: 1e-5, atol: 1e-4 };
const OF: Record<Format, { rtol: number; atol: number }> = {
  f32: F32,
  bf16: { rtol: 2 ** -8, atol: 1e-3 },
  f16: { rtol: 2 ** -11, atol: 1e-3 },
};
const KEY = { p: 0.3, seed: 9, stream: 40, offset: 4 * (2 ** 32 - 3) };

/** Rows past a tile and in one, depths that end inside a step, ranks below and past a tile's columns. */
const SHAPES = [
  { M: 1, N: 4, K: 4, R: 4 },
  { M: 9, N: 36, K: 20, R: 12 },
  { M: 131, N: 68, K: 76, R: 8 },
  { M: 70, N: 140, K: 192, R: 68 },
  { M: 9, N: 12, K: 1100, R: 20 },
] as const;

for (const sharing of ALL_SHARINGS) {
  sharingTest(
    sharing,
    `Products with masks, each block with its own, match float64, ${sharing} sharing`,
    async () => {
      const kernels: string[] = [];
      using gpu = await Gpu.open({ sharing, poison: true, onDispatch: ({ kernel }) => kernels.push(kernel) });
      for (const [seed, { M, R, K }] of SHAPES.entries()) {
        for (const [format, blocks] of [["f32", 1], ["f32", 3], ["bf16", 2]] as const) {
          const size = { M, N: R, K };
          const label = `${M}x${R}x${K} ${format}, ${blocks}`;
          const x = inFormat(gpu, [M, K], normal(seed, M * K), format);
          const g = Array.from({ length: blocks }, (_, block) => normal(seed + 40 + block, M * R));
          const w = Array.from({ length: blocks }, (_, block) => normal(seed + 20 + block, R * K));
          const keys = w.map((_, block) => ({ ...KEY, stream: KEY.stream + 5 * block }));
          const dropped = keys.map((key) => times(x.values, maskReference(M * K, key)));
          const weights = together(gpu, w, [R, K]);
          const gradients = together(gpu, w, [R, K]);
          kernels.length = 0;
          const y = gpu.empty([M, blocks * R]);
          matmuls(
            gpu,
            weights.map((weight, i) => ({
              x: x.tensor,
              weight,
              mask: keys[i],
              into: y,
              first: i * R,
              alpha: 2,
            })),
          );
          const expected = dropped.map((x, i) => matmulReference(x, w[i]!, size).map((value) => 2 * value));
          assertClose(`y ${label}`, await gpu.read(y), beside(expected, M), F32);
          const dy = gpu.tensor(
            [M, blocks * R],
            Float32Array.from(beside(g, M)),
          );
          matmulBackwardWeights(
            gpu,
            gradients.map((into, i) => (
              { dy, dyFirst: i * R, x: x.tensor, into, mask: keys[i], alpha: 0.5, beta: 1 }
            )),
          );
          for (const [i, gradient] of gradients.entries()) {
            const change = matmulBackwardWeightReference(g[i]!, dropped[i]!, size);
            assertClose(
              `dW ${i} ${label}`,
              await gpu.read(gradient),
              plus(w[i]!, change.map((value) => value / 2)),
              F32,
            );
          }
          if (sharing === "workgroup") {
            const products = kernels.filter((kernel) => kernel !== "sum_product_parts");
            // Weights lie a multiple of 64 elements apart; evenly spaced are those that are whole rows apart.
            const isEven = Math.ceil(R * K / 64) * 64 % K === 0;
            assertEquals(
              [products.length, kernels.includes("dropout")],
              [isEven ? 2 : 2 * blocks, false],
              label,
            );
          }
        }
      }
    },
  );

  sharingTest(
    sharing,
    `A mask drops the same elements in each operand, an inner product and alone, ${sharing} sharing`,
    async () => {
      using gpu = await Gpu.open({ sharing, poison: true });
      for (const [M, K] of [[12, 8], [68, 76], [132, 36]] as const) {
        const one = (size: number) =>
          gpu.tensor(
            [size, size],
            Float32Array.from({ length: size * size }, (_, i) => i % (size + 1) === 0 ? 1 : 0),
          );
        for (const offset of [0, 4 * (2 ** 32 - 3), 4 * (5 * 2 ** 32 - M * K / 8)]) {
          const mask = { ...KEY, offset };
          const x = gpu.tensor([M, K], normal(M, M * K));
          const expected = [...await gpu.read(dropout(gpu, x, mask, { factor: 1 }))];
          const gradient = gpu.zeros([M, K]);
          matmulBackwardWeights(gpu, [{ dy: one(M), x, into: gradient, mask }]);
          const all = {
            "operand A": matmul(gpu, x, one(K), { mask }),
            "operand B": gradient,
            "an inner product": matmulBackwardInput(gpu, gpu.zeros([M, 4]), gpu.zeros([4, K]), {
              inner: { x, weight: one(K), mask },
            }),
          };
          for (const [name, y] of Object.entries(all)) {
            assertEquals([...await gpu.read(y)], expected, `${name} of ${M}x${K} from ${offset}`);
          }
        }
      }
    },
  );

  sharingTest(
    sharing,
    `Products of several weights on the same rows, and of rows of several, match float64, ${sharing} sharing`,
    async () => {
      const kernels: string[] = [];
      using gpu = await Gpu.open({ sharing, poison: true, onDispatch: ({ kernel }) => kernels.push(kernel) });
      for (
        const [seed, { M, N, K, R }] of [{ M: 16, N: 64, K: 64, R: 16 }, { M: 160, N: 72, K: 640, R: 8 }]
          .entries()
      ) {
        const many = (first: number, length: number) =>
          Array.from({ length: 3 }, (_, i) => normal(10 * first + 100 * seed + i, length));
        const x = normal(seed, M * K);
        const [w, b, h, dy] = [many(1, N * K), many(2, N * R), many(3, M * R), many(4, M * N)];
        const [weights, factors, ys, dys] = [
          together(gpu, w, [N, K]),
          together(gpu, b, [N, R]),
          together(gpu, dy, [M, N]),
          together(gpu, dy, [M, N]),
        ];
        const wide = gpu.tensor(
          [M, 3 * R],
          Float32Array.from(beside(h, M)),
        );
        const tx = gpu.tensor([M, K], x);
        kernels.length = 0;
        matmuls(
          gpu,
          weights.map((weight, i) => (
            { x: tx, weight, into: ys[i], beta: 1, inner: { x: wide, first: i * R, weight: factors[i]! } }
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
        const products = kernels.filter((kernel) => kernel !== "sum_product_parts");
        if (sharing === "workgroup") assertEquals(products.length, 3, `${products}`);
        const gs = dy.map((dy, i) =>
          matmulBackwardInputReference(dy, b[i]!, { M, N, K: R }).map((value) => 3 * value)
        );
        assertClose("g", await gpu.read(g), beside(gs, M), F32);
        for (const i of [0, 1, 2]) {
          const inner = matmulReference(h[i]!, b[i]!, { M, N, K: R });
          const y = plus(dy[i]!, matmulReference(x, w[i]!, { M, N, K }), inner);
          assertClose(`y ${i}`, await gpu.read(ys[i]!), y, F32);
          const gradient = matmulBackwardWeightReference(dy[i]!, h[i]!, { M, N, K: R });
          assertClose(`dB ${i}`, await gpu.read(factors[i]!), plus(b[i]!, gradient), F32);
        }
      }
    },
  );

  sharingTest(
    sharing,
    `Products with an inner one, masked or not, and of NF4, match float64, ${sharing} sharing`,
    async () => {
      const kernels: string[] = [];
      using gpu = await Gpu.open({ sharing, poison: true, onDispatch: ({ kernel }) => kernels.push(kernel) });
      for (const [seed, { M, N, K, R }] of SHAPES.entries()) {
        const [x, h, w, b] = [
          normal(seed, M * K),
          normal(seed + 1, M * R),
          normal(seed + 2, N * K),
          normal(seed + 3, N * R),
        ];
        const [dy, g, a] = [normal(seed + 4, M * N), normal(seed + 5, M * R), normal(seed + 6, R * K)];
        const d = normal(seed + 7, M * N);
        // The inner operand is a part of a wider tensor.
        const wide = (values: Float32Array) => {
          const all = new Float32Array(M * (R + 8)).fill(NaN);
          for (let row = 0; row < M; row++) {
            all.set(values.subarray(row * R, (row + 1) * R), row * (R + 8) + 4);
          }
          return gpu.tensor([M, R + 8], all);
        };
        const mask = maskReference(M * K, KEY);
        const dense = gpu.tensor([N, K], w);
        const weights: [Weight, ArrayLike<number>, Format][] = [[dense, w, "f32"], [dense, w, "bf16"]];
        if (K % 64 === 0) {
          const nf4 = quantiseNf4(gpu, dense);
          weights.push([nf4, await gpu.read(nf4.dequantise(gpu)), "f32"]);
        }
        for (const [weight, values, format] of weights) {
          const [tx, tdy] = [inFormat(gpu, [M, K], x, format), inFormat(gpu, [M, N], dy, format)];
          const label = `${M}x${N}x${K} rank ${R} ${weight.label} ${format}`;
          // Where the two are summed apart, what is between them is rounded as well.
          const tolerance = sharing === "subgroup" && format === "bf16"
            ? { rtol: 2 ** -6, atol: 0.5 }
            : OF[format];
          kernels.length = 0;
          const y = matmul(gpu, tx.tensor, weight, {
            inner: { x: wide(h), first: 4, weight: gpu.tensor([N, R], b) },
            addend: gpu.tensor([M, N], d),
            alpha: 0.5,
            beta: 3,
          });
          const sum = plus(
            matmulReference(tx.values, values, { M, N, K }),
            matmulReference(h, b, { M, N, K: R }),
          );
          assertClose(
            `y ${label}`,
            await gpu.read(y),
            sum.map((value, i) => 0.5 * value + 3 * d[i]!),
            tolerance,
          );
          const dx = matmulBackwardInput(gpu, tdy.tensor, weight, {
            inner: { x: wide(g), first: 4, weight: gpu.tensor([R, K], a), mask: KEY },
            alpha: 2,
          });
          const inner = times(matmulBackwardInputReference(g, a, { M, N: R, K }), mask);
          const sumX = plus(matmulBackwardInputReference(tdy.values, values, { M, N, K }), inner);
          assertClose(`dx ${label}`, await gpu.read(dx), sumX.map((value) => 2 * value), tolerance);
          if (sharing === "workgroup") {
            const fused = kernels.filter((kernel) => kernel !== "sum_product_parts");
            assertEquals(fused.length, 2, `${label}: ${kernels}`);
          }
        }
      }
    },
  );
}

Deno.test("Where a kernel may bind 8 buffers, an inner product of nested NF4 and an addend comes after the product", async () => {
  const { M, N, K, R } = { M: 70, N: 140, K: 192, R: 68 };
  for (const [maxStorageBuffers, products] of [[8, 2], [9, 1]] as const) {
    const kernels: string[] = [];
    const onDispatch = ({ kernel, bindings }: Dispatch): void => {
      kernels.push(kernel);
      assert(bindings.length <= maxStorageBuffers, `"${kernel}" binds ${bindings.length}`);
    };
    using gpu = await Gpu.open({ sharing: "workgroup", poison: true, maxStorageBuffers, onDispatch });
    assertEquals(gpu.limits.maxStorageBuffersPerShaderStage, maxStorageBuffers);
    const weight = quantiseNf4(gpu, gpu.tensor([N, K], normal(1, N * K)));
    const w = await gpu.read(weight.dequantise(gpu));
    const [x, h, b, d] = [normal(2, M * K), normal(3, M * R), normal(4, N * R), normal(5, M * N)];
    const given = [gpu.tensor([M, R], h), gpu.tensor([N, R], b), gpu.tensor([M, N], d)] as const;
    kernels.length = 0;
    const y = matmul(gpu, gpu.tensor([M, K], x), weight, {
      inner: { x: given[0], weight: given[1] },
      addend: given[2],
      alpha: 0.5,
      beta: 3,
    });
    assertEquals(kernels.length, products, `${kernels}`);
    const sum = plus(matmulReference(x, w, { M, N, K }), matmulReference(h, b, { M, N, K: R }));
    const expected = sum.map((value, i) => 0.5 * value + 3 * d[i]!);
    assertClose(`y, ${maxStorageBuffers}`, await gpu.read(y), expected, F32);
  }
});
