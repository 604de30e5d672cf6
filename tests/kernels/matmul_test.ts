import { DRY_INFO, TYPICAL_LIMITS } from "../../kernels/dry_device.ts";
import { Gpu, type GpuInfo } from "../../kernels/gpu.ts";
import { matmul, matmulBackwardInput, matmulBackwardWeight } from "../../kernels/matmul/matmul.ts";
import {
  matmulBackwardInputReference,
  matmulBackwardWeightReference,
  matmulReference,
  type Sizes,
} from "../../kernels/matmul/reference.ts";
import { type MatmulTunable, matmulTunables, variantFor } from "../../kernels/matmul/variants.ts";
import { DENSE } from "../../kernels/matmul/operands/dense.ts";
import { quantiseNf4 } from "../../kernels/nf4/nf4.ts";
import { NF4 } from "../../kernels/nf4/operand.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { WeightForm } from "../../kernels/weight.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { assertEquals, assertThrows } from "../support/assert_close.ts";
import { inFormat } from "../support/numeric.ts";
import { normal } from "../support/random.ts";
import { ALL_SHARINGS, SHARINGS, sharingTest } from "../support/sharing.ts";

/** Relative rounding of one value stored in a format. */
const UNIT: Record<Format, number> = { f32: 2 ** -24, bf16: 2 ** -8, f16: 2 ** -11 };

/**
 * Fails where an error passes 4 u sqrt(K) (|A| |B|) plus the rounding of the stored result.
 * @param rounding relative rounding of the operands on their way in
 */
function assertProduct(
  label: string,
  actual: ArrayLike<number>,
  expected: Float64Array,
  magnitude: Float64Array,
  depth: number,
  stored: Format = "f32",
  rounding = 0,
) {
  assertEquals(actual.length, expected.length, `${label} length`);
  for (let i = 0; i < expected.length; i++) {
    const bound = (4 * UNIT.f32 * Math.sqrt(depth) + rounding) * magnitude[i]! +
      (stored === "f32" ? 0 : UNIT[stored] * Math.abs(expected[i]!)) + 1e-30;
    if (!(Math.abs(actual[i]! - expected[i]!) <= bound)) {
      throw new Error(`${label}: at ${i} got ${actual[i]}, expected ${expected[i]}, allowed error ${bound}`);
    }
  }
}

const abs = (values: ArrayLike<number>) => Float64Array.from(values, Math.abs);

/** Sizes below, at and past a tile of either mode; depths that end inside a step. */
const SIZES: Sizes[] = [
  { M: 1, N: 4, K: 4 },
  { M: 7, N: 12, K: 36 },
  { M: 16, N: 32, K: 64 },
  { M: 17, N: 36, K: 68 },
  { M: 65, N: 68, K: 8 },
  { M: 131, N: 176, K: 100 },
];

/** Depths that are summed in parts, the last one short. */
const DEEP: Sizes[] = [{ M: 5, N: 12, K: 1100 }, { M: 40, N: 1100, K: 36 }, { M: 1100, N: 20, K: 12 }];

for (const sharing of ALL_SHARINGS) {
  sharingTest(sharing, `The three products match float64, ${sharing} sharing`, async () => {
    using gpu = await Gpu.open({ sharing, poison: true });
    for (const [seed, size] of [...SIZES, ...DEEP].entries()) {
      const { M, N, K } = size;
      const [x, w, dy] = [normal(seed, M * K), normal(seed + 50, N * K), normal(seed + 90, M * N)];
      const [tx, tw, tdy] = [gpu.tensor([M, K], x), gpu.tensor([N, K], w), gpu.tensor([M, N], dy)];
      const label = `${M}x${N}x${K}`;
      const y = await gpu.read(matmul(gpu, tx, tw));
      assertProduct(`y ${label}`, y, matmulReference(x, w, size), matmulReference(abs(x), abs(w), size), K);
      const dx = await gpu.read(matmulBackwardInput(gpu, tdy, tw));
      const dxSize = matmulBackwardInputReference(abs(dy), abs(w), size);
      assertProduct(`dx ${label}`, dx, matmulBackwardInputReference(dy, w, size), dxSize, N);
      const dw = await gpu.read(matmulBackwardWeight(gpu, tdy, tx, { into: gpu.empty([N, K]) }));
      const dwSize = matmulBackwardWeightReference(abs(dy), abs(x), size);
      assertProduct(`dW ${label}`, dw, matmulBackwardWeightReference(dy, x, size), dwSize, M);
    }
  });

  sharingTest(
    sharing,
    `Products over split tensors and in several dispatches are those over whole ones, ${sharing} sharing`,
    async () => {
      const size = { M: 200, N: 136, K: 136 };
      const { M, N, K } = size;
      const run = async (gpu: Gpu) => {
        const tx = gpu.tensor([M, K], normal(6, M * K));
        const tw = gpu.tensor([N, K], normal(7, N * K));
        const tdy = gpu.tensor([M, N], normal(8, M * N));
        const nf4 = quantiseNf4(gpu, tw);
        const results: Tensor[] = [
          matmul(gpu, tx, tw),
          matmulBackwardInput(gpu, tdy, tw),
          matmulBackwardWeight(gpu, tdy, tx, { into: gpu.empty([N, K]) }),
          matmul(gpu, tx, nf4),
          matmulBackwardInput(gpu, tdy, nf4),
        ];
        return {
          parts: tw.segments.length,
          values: await Promise.all(results.map((result) => gpu.read(result))),
        };
      };
      using whole = await Gpu.open({ sharing, poison: true });
      using split = await Gpu.open({ sharing, poison: true, maxBindingBytes: 64 * 136 * 4 });
      let dispatches = 0;
      using cut = await Gpu.open({
        sharing,
        poison: true,
        mostWork: 64 * N * K,
        onDispatch: ({ kernel }) => dispatches += kernel.startsWith("matmul") ? 1 : 0,
      });
      const expected = await run(whole);
      const parted = await run(split);
      assertEquals([expected.parts, parted.parts], [1, 3]);
      const inTurns = await run(cut);
      assertEquals([inTurns.parts, dispatches], [1, 5 * Math.ceil(M / 64)]);
      for (const [i, value] of [...parted.values, ...inTurns.values].entries()) {
        const reference = Float64Array.from(expected.values[i % expected.values.length]!);
        assertProduct(`result ${i}`, value, reference, abs(reference).map((v) => v + 8), M + N);
      }
    },
  );
}

/** Every variant that the adapter can run. */
const VARIANTS = [...new Set((await tunables()).flatMap(({ variants }) => variants))];

for (const variant of VARIANTS) {
  // Matrix units take f16: what has more bits is rounded. They serve 16-bit rows only.
  const onMatrices = variant.startsWith("matrix");

  Deno.test(`${variant}: the products match float64, in all formats`, async () => {
    using gpu = await openWith(variant);
    for (
      const [seed, size] of [{ M: 1, N: 4, K: 4 }, { M: 35, N: 44, K: 68 }, { M: 131, N: 140, K: 12 }]
        .entries()
    ) {
      const { M, N, K } = size;
      const check = async (
        op: string,
        left: Values,
        right: Values,
        product: Tensor,
        reference: Reference,
        depth: number,
      ) => {
        const magnitude = reference(abs(left.values), abs(right.values), size);
        const expected = reference(left.values, right.values, size);
        assertProduct(
          `${op} ${M}x${N}x${K}`,
          await gpu.read(product),
          expected,
          magnitude,
          depth,
          product.format,
          onMatrices && op === "dW" ? UNIT.f16 : 0,
        );
      };
      const values = (shape: [number, number], format: Format, more: number) =>
        inFormat(gpu, shape, normal(seed + more, shape[0] * shape[1]), format);
      const [x, w] = [values([M, K], "bf16", 10), values([N, K], "f16", 20)];
      await check("y", x, w, matmul(gpu, x.tensor, w.tensor), matmulReference, K);
      const [dy, wide] = [values([M, N], "f16", 30), values([N, K], "bf16", 40)];
      await check(
        "dx",
        dy,
        wide,
        matmulBackwardInput(gpu, dy.tensor, wide.tensor),
        matmulBackwardInputReference,
        N,
      );
      const [left, right] = [values([M, N], "bf16", 50), values([M, K], "f32", 60)];
      const dw = matmulBackwardWeight(gpu, left.tensor, right.tensor, { into: gpu.empty([N, K]) });
      await check("dW", left, right, dw, matmulBackwardWeightReference, M);
    }
  });

  if (!await servesNf4(variant)) continue;
  Deno.test(`${variant}: NF4 products equal dequantise-then-multiply`, async () => {
    using gpu = await openWith(variant);
    // Rows that are whole blocks, and rows that blocks run across.
    for (
      const [doubleQuant, size] of [[true, { M: 33, N: 68, K: 192 }], [true, { M: 9, N: 36, K: 96 }], [
        false,
        {
          M: 9,
          N: 36,
          K: 176,
        },
      ]] as const
    ) {
      const { M, N, K } = size;
      const format = onMatrices ? "bf16" : "f32";
      const rounding = onMatrices ? UNIT.f16 : 0;
      const x = inFormat(gpu, [M, K], normal(3, M * K), format);
      const dy = inFormat(gpu, [M, N], normal(4, M * N), format);
      const weight = quantiseNf4(gpu, gpu.tensor([N, K], normal(5, N * K)), { doubleQuant });
      const w = await gpu.read(weight.dequantise(gpu));
      const y = await gpu.read(matmul(gpu, x.tensor, weight, { format: "f32" }));
      const magnitudeY = matmulReference(abs(x.values), abs(w), size);
      assertProduct("y", y, matmulReference(x.values, w, size), magnitudeY, K, "f32", rounding);
      const dx = await gpu.read(matmulBackwardInput(gpu, dy.tensor, weight, { format: "f32" }));
      const magnitude = matmulBackwardInputReference(abs(dy.values), abs(w), size);
      assertProduct(
        "dx",
        dx,
        matmulBackwardInputReference(dy.values, w, size),
        magnitude,
        N,
        "f32",
        rounding,
      );
    }
  });
}

Deno.test("dequantise first: work in 16 bits multiplies weights rounded to f16", async () => {
  const size = { M: 40, N: 136, K: 136 };
  const { M, N, K } = size;
  using gpu = await Gpu.open({
    poison: true,
    tuning: { "matmul nt nf4 128 rows": "dequantise first", "matmul nn nf4 128 rows": "dequantise first" },
  });
  const [x, dy] = [
    inFormat(gpu, [M, K], normal(31, M * K), "bf16"),
    inFormat(gpu, [M, N], normal(32, M * N), "bf16"),
  ];
  const weight = quantiseNf4(gpu, gpu.tensor([N, K], normal(33, N * K)));
  const w = Float32Array.from(new Float16Array(await gpu.read(weight.dequantise(gpu))));
  const y = await gpu.read(matmul(gpu, x.tensor, weight, { format: "f32" }));
  assertProduct("y", y, matmulReference(x.values, w, size), matmulReference(abs(x.values), abs(w), size), K);
  const dx = await gpu.read(matmulBackwardInput(gpu, dy.tensor, weight, { format: "f32" }));
  const magnitude = matmulBackwardInputReference(abs(dy.values), abs(w), size);
  assertProduct("dx", dx, matmulBackwardInputReference(dy.values, w, size), magnitude, N);
});

Deno.test("dequantise first: what does not fit a binding as floats is multiplied in parts", async () => {
  const size = { M: 40, N: 136, K: 136 };
  const { M, N, K } = size;
  const kernels: string[] = [];
  using gpu = await Gpu.open({
    poison: true,
    // 64 rows of f32.
    maxBindingBytes: 64 * K * 4,
    tuning: { "matmul nt nf4 128 rows": "dequantise first", "matmul nn nf4 128 rows": "dequantise first" },
    onDispatch: ({ kernel }) => kernels.push(kernel),
  });
  const [x, dy] = [normal(21, M * K), normal(22, M * N)];
  const weight = quantiseNf4(gpu, gpu.tensor([N, K], normal(23, N * K)));
  const w = await gpu.read(weight.dequantise(gpu));
  kernels.length = 0;
  const options = { alpha: 0.5, beta: -2 };
  const y = await gpu.read(matmul(gpu, gpu.tensor([M, K], x), weight, {
    ...options,
    into: gpu.tensor([M, N], normal(24, M * N)),
  }));
  assertEquals(kernels.filter((name) => name.startsWith("dequantise")).length, 3);
  const old = normal(24, M * N);
  const sums = matmulReference(x, w, size).map((v, i) => 0.5 * v - 2 * old[i]!);
  assertProduct("y", y, sums, abs(sums).map((v) => v + 10), K);
  const dx = await gpu.read(matmulBackwardInput(gpu, gpu.tensor([M, N], dy), weight, {
    ...options,
    into: gpu.tensor([M, K], normal(25, M * K)),
  }));
  const before = normal(25, M * K);
  const gradient = matmulBackwardInputReference(dy, w, size).map((v, i) => 0.5 * v - 2 * before[i]!);
  assertProduct("dx", dx, gradient, abs(gradient).map((v) => v + 10), N);
});

interface Values {
  readonly tensor: Tensor;
  readonly values: Float64Array;
}

type Reference = (left: Float64Array, right: Float64Array, size: Sizes) => Float64Array;

async function tunables(): Promise<readonly MatmulTunable[]> {
  using gpu = await Gpu.open();
  return matmulTunables(gpu);
}

async function servesNf4(variant: string): Promise<boolean> {
  return (await tunables()).some(({ kind, variants }) =>
    kind.form.name === "nf4" && variants.includes(variant)
  );
}

/** A device on which every class that can have this variant has it. */
async function openWith(variant: string): Promise<Gpu> {
  const served = (await tunables()).filter(({ variants }) => variants.includes(variant));
  return await Gpu.open({
    poison: true,
    tuning: Object.fromEntries(served.map(({ key }) => [key, variant])),
  });
}

Deno.test("alpha and beta scale the product and what is there; columns that pad stay in place", async () => {
  using gpu = await Gpu.open({ poison: true });
  const size = { M: 5, N: 6, K: 8 };
  const [x, w, old] = [normal(9, 5 * 8), normal(10, 6 * 8), normal(11, 5 * 8)];
  const y = gpu.tensor([5, 8], old);
  matmul(gpu, gpu.tensor([5, 8], x), gpu.tensor([6, 8], w), { into: y, alpha: 0.25, beta: -2 });
  const values = await gpu.read(y);
  const expected = matmulReference(x, w, size);
  // Columns past N take a copy of the last one's product.
  const sums = Float64Array.from(
    { length: 40 },
    (_, i) => 0.25 * expected[Math.floor(i / 8) * 6 + Math.min(i % 8, 5)]! - 2 * old[i]!,
  );
  assertProduct("y", values, sums, abs(sums).map((v) => v + 10), 8);
});

Deno.test("A depth summed in parts is scaled once, and added to once", async () => {
  const size = { M: 6, N: 64, K: 1280 };
  for (const sharing of SHARINGS) {
    using gpu = await Gpu.open({ sharing, poison: true });
    const [x, old] = [normal(15, 6 * 1280), normal(16, 6 * 64)];
    const weight = quantiseNf4(gpu, gpu.tensor([64, 1280], normal(17, 64 * 1280)));
    const w = await gpu.read(weight.dequantise(gpu));
    const y = gpu.tensor([6, 64], old);
    matmul(gpu, gpu.tensor([6, 1280], x), weight, { into: y, alpha: 0.25, beta: -2 });
    const expected = matmulReference(x, w, size).map((v, i) => 0.25 * v - 2 * old[i]!);
    assertProduct(`y, ${sharing}`, await gpu.read(y), expected, abs(expected).map((v) => v + 10), 1280);
  }
});

Deno.test("The depth is not summed in parts where those would not fit a binding", async () => {
  const size = { M: 512, N: 512, K: 512 };
  using gpu = await Gpu.open({ sharing: "workgroup", poison: true, maxBindingBytes: 512 * 512 * 4 });
  const [x, w] = [normal(18, 512 * 512), normal(19, 512 * 512)];
  const y = await gpu.read(matmul(gpu, gpu.tensor([512, 512], x), gpu.tensor([512, 512], w)));
  const some = { ...size, M: 2 };
  const [first, made] = [x.subarray(0, 1024), y.subarray(0, 1024)];
  assertProduct("y", made, matmulReference(first, w, some), matmulReference(abs(first), abs(w), some), 512);
});

Deno.test("Each class of products is measured by a shape of its own kind, and runs what it was tuned to", async () => {
  for (const sharing of SHARINGS) {
    using gpu = await Gpu.open({ sharing });
    const classes = matmulTunables(gpu);
    assertEquals(new Set(classes.map(({ key }) => key)).size, classes.length);
    for (const { key, variants, kind, shape } of classes) {
      assertEquals(variantFor(gpu, kind, shape).name, variants[0], key);
      using tuned = await Gpu.open({ sharing, tuning: { [key]: variants.at(-1)! } });
      assertEquals(variantFor(tuned, kind, shape).name, variants.at(-1), key);
    }
  }
});

Deno.test("A GPU decodes weights in the tile for few rows and first for many; matrix units serve both", () => {
  const matrices = [{ component: "f16", result: "f32", M: 16, N: 16, K: 16 }];
  const nameOf = (info: GpuInfo, form: WeightForm, rows: number) => {
    const gpu = Gpu.dry({ limits: { ...TYPICAL_LIMITS, maxComputeWorkgroupStorageSize: 49152 }, info });
    return variantFor(gpu, { layout: "nt", form, format: "bf16" }, { rows, columns: 4096, depth: 4096 }).name;
  };
  assertEquals([nameOf(DRY_INFO, NF4, 128), nameOf(DRY_INFO, NF4, 129)], [
    "workgroup 32x128 4x4",
    "dequantise first",
  ]);
  assertEquals(nameOf(DRY_INFO, DENSE, 129), "workgroup 128x64 8x4");
  const withMatrices = { ...DRY_INFO, matrices };
  assertEquals([128, 129, 2048].map((rows) => nameOf(withMatrices, DENSE, rows)), [
    "matrix 64x64 by 8",
    "matrix 64x128",
    "matrix 128x128 of halves",
  ]);
  const gpu = Gpu.dry({
    limits: { ...TYPICAL_LIMITS, maxComputeWorkgroupStorageSize: 49152 },
    info: withMatrices,
  });
  const kind = { layout: "tn", form: DENSE, format: "bf16" } as const;
  const shape = { rows: 4096, columns: 4096, depth: 2048 };
  assertEquals(variantFor(gpu, kind, shape).name, "matrix 128x128", "the depth has no rows of its own");
});

Deno.test("Products of shapes that do not fit are refused with both shapes", async () => {
  using gpu = await Gpu.open();
  const x = gpu.tensor([2, 8], normal(12, 16));
  await assertThrows(() => matmul(gpu, x, gpu.tensor([4, 12], normal(13, 48))), "matmul", "[2,8]", "[4,12]");
  await assertThrows(() => matmulBackwardInput(gpu, x, gpu.tensor([4, 8], normal(14, 32))), "[4,8]");
});
