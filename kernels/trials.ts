/**
 * Small products and attentions against float64, for the kernels that a device would choose and that depend on what
 * drivers differ in. Sizes fill no tile, so that edges are run too.
 */
import { attention, attentionBackward, type AttentionShape } from "./attention/attention.ts";
import { firstKeys, makeAttentionMap } from "./attention/map.ts";
import { attentionBackwardReference, attentionReference } from "./attention/reference.ts";
import { ALL_PARTS, type Part, variantFor as attentionVariant } from "./attention/variants.ts";
import { cacheAttention } from "./cache_attention/cache_attention.ts";
import { cacheAttentionReference } from "./cache_attention/reference.ts";
import { maskReference } from "./elementwise/reference.ts";
import type { Gpu } from "./gpu.ts";
import { denseOperand } from "./matmul/operands/dense.ts";
import {
  matmulBackwardInputReference,
  matmulBackwardWeightReference,
  matmulReference,
  type Sizes,
} from "./matmul/reference.ts";
import type { Product, ProductKind, Variant } from "./matmul/variant.ts";
import { matmulTunables, variantFor as matmulVariant } from "./matmul/variants.ts";
import { matvec } from "./matvec/matvec.ts";
import { uploadNf4 } from "./nf4/nf4.ts";
import { NF4 } from "./nf4/operand.ts";
import { dequantiseNf4Reference, quantiseNf4Reference } from "./nf4/reference.ts";
import { matrixTrials } from "./matrix_trials/matrix_trials.ts";
import type { Risk } from "./refusal.ts";
import { randomWord } from "./shared/threefry.ts";
import type { Tensor } from "./tensor.ts";
import type { Trial } from "./trial.ts";
import type { Layout, Weight } from "./weight.ts";
import type { Format } from "./wgsl.ts";

/**
 * Largest errors, as shares of the largest value. Sums in f32 reach 1e-6, matrix units may cut off what they add, and
 * exponentials may be computed less exactly; 16 bits round, in attention to errors of 2^-8 and half as much again. A wrong
 * kernel is far off.
 */
const TOLERANCE = {
  sums: 1e-5,
  sumsOfMatrices: 1e-4,
  exponentials: 1e-4,
  quantisedIn16Bits: 2e-3,
  attentionIn16Bits: 2 ** -6,
};

/** A tile, and the edges of others. */
const SIZES: Partial<Record<Risk, Sizes>> = {
  "matmul by subgroups": { M: 35, N: 44, K: 72 },
  "matmul by matrices": { M: 131, N: 136, K: 144 },
};
/** Depth of inner products: no whole number of steps. */
const RANK = 20;
const MASKED = { p: 0.3, seed: 1, stream: 2 };
const VECTOR = { M: 1, N: 76, K: 136 };
const LAYOUT = { rows: 75, starts: [0, 33], groupSize: 16 };
/** Head sizes at which attention is tried. A processor's driver takes seconds to compile large ones: one stands for all. */
const HEAD_SIZES = { gpu: [32, 64, 128, 256], software: [16] } as const;
const CACHE = { capacity: 64, positions: [50], longest: 51 };

/**
 * Lists what to try before the device's choices are trusted: nothing where all of them are plain.
 * @param gpu a device, dry or not, that makes the choices
 */
export function trialsOf(gpu: Gpu): Trial[] {
  const kernels = [...matmulTrials(gpu), ...attentionTrials(gpu)];
  const isOnMatrices = kernels.some(({ risks }) => risks.some((risk) => risk.endsWith("by matrices")));
  return [
    ...(isOnMatrices ? matrixTrials(gpu) : []),
    ...kernels,
    ...(gpu.sharing === "subgroup" ? [MATVEC, MATVEC_NF4, CACHE_ATTENTION] : []),
  ];
}

/** Values in (-1, 1), the same everywhere; of 8 bits each where they are to be exact in 16-bit formats. */
function values(seed: number, length: number, format: Format = "f32"): Float32Array {
  return Float32Array.from({ length }, (_, i) => {
    const word = randomWord(seed, 0, i);
    return format === "f32" ? word / 2 ** 31 - 1 : (word >>> 24) / 2 ** 7 - 1;
  });
}

/** Uploads values, rounded to the format. */
function upload(gpu: Gpu, shape: readonly number[], data: Float32Array, format: Format = "f32"): Tensor {
  if (format === "f32") return gpu.tensor(shape, data);
  // bf16 is the upper half of f32, to the nearest.
  const words = Uint16Array.from(new Uint32Array(data.buffer), (bits) => (bits + 0x8000) >>> 16);
  return gpu.tensor(shape, new Uint8Array(words.buffer), { dtype: format });
}

function matmulTrials(gpu: Gpu): Trial[] {
  const trials = new Map<string, Trial>();
  for (const { kind, shape } of matmulTunables(gpu)) {
    const variant = matmulVariant(gpu, kind, shape);
    // A processor's kernels differ only in how many rows or columns a lane holds: the smallest, soon compiled, do for all.
    const isLike = gpu.info.isSoftware && shape.rows !== 8 && shape.columns !== 8;
    if (variant.risk === undefined || isLike) continue;
    const { form: { name }, layout, format } = kind;
    const kernel = `matmul ${layout} ${name} ${format === "f32" ? "" : "16-bit "}${variant.name}`;
    trials.set(kernel, {
      kernel,
      risks: [variant.risk],
      tolerance: kind.form === NF4 && format !== "f32"
        ? TOLERANCE.quantisedIn16Bits
        : variant.risk === "matmul by matrices"
        ? TOLERANCE.sumsOfMatrices
        : TOLERANCE.sums,
      run: (gpu) => runProduct(gpu, kind, variant, SIZES[variant.risk!]!),
    });
  }
  return [...trials.values()];
}

const REFERENCES = {
  nt: matmulReference,
  nn: matmulBackwardInputReference,
  tn: matmulBackwardWeightReference,
} as const satisfies Record<Layout, unknown>;

/** A product, and where the variant takes them the same with an inner product and a mask: of A, of the inner product, of B. */
async function runProduct(gpu: Gpu, { layout, form, format }: ProductKind, variant: Variant, size: Sizes) {
  const { M, N, K } = size;
  const [aWidth, bRows, rows, columns, depth] = {
    nt: [K, N, M, N, K],
    nn: [N, N, M, K, N],
    tn: [N, M, N, K, M],
  }[layout] as [number, number, number, number, number];
  // Larger further along the depth: operands are scaled by what came so far.
  const a = values(1, M * aWidth, format).map((value, i) => {
    const isLate = layout === "tn" ? i >= M / 2 * aWidth : i % aWidth >= aWidth / 2;
    return isLate ? 64 * value : value;
  });
  const b = form === NF4 ? nf4Weight(gpu, 2, [bRows, K]) : (() => {
    const data = values(2, bRows * K, format);
    return { data, weight: upload(gpu, [bRows, K], data, format) };
  })();
  const product: Omit<Product, "c"> = {
    layout,
    a: upload(gpu, [M, aWidth], a, format),
    b: "operands" in b.weight ? b.weight.operands()[0]! : denseOperand(b.weight),
    rows,
    columns,
    depth,
    aFirst: 0,
    cFirst: 0,
    alpha: 1,
    beta: 0,
  };
  const run = async (more: Partial<Product> = {}) => {
    const c = gpu.empty([rows, columns]);
    variant.run(gpu, { ...product, ...more, c });
    return await gpu.read(c);
  };
  const plain = [await run(), REFERENCES[layout](a, b.data, size)] as const;
  if (!variant.fuses) return plain;
  const dropped = (data: ArrayLike<number>) =>
    maskReference(data.length, MASKED).map((kept, i) => kept * data[i]!);
  if (layout === "tn") {
    const expected = REFERENCES.tn(a, dropped(b.data), size);
    return together(plain, [await run({ mask: MASKED }), expected]);
  }
  // Far from the range of the product's own operands: sums change their scale between the two.
  const innerA = values(12, rows * RANK, "bf16").map((value) => value * 2 ** 20);
  const innerB = values(13, columns * RANK, "bf16").map((value) => value * 2 ** -20);
  const innerSize = layout === "nt" ? { M, N, K: RANK } : { M, N: RANK, K };
  const inner = {
    a: upload(gpu, [rows, RANK], innerA),
    aFirst: 0,
    depth: RANK,
    b: upload(gpu, layout === "nt" ? [columns, RANK] : [RANK, columns], innerB),
  };
  const added = REFERENCES[layout](innerA, innerB, innerSize);
  const [own, others, fused] = layout === "nt"
    ? [REFERENCES.nt(dropped(a), b.data, size), added, await run({ mask: MASKED, inner })]
    : [plain[1], dropped(added), await run({ inner: { ...inner, mask: MASKED } })];
  return together(plain, [fused, own.map((value, i) => value + others[i]!)]);
}

type Values = readonly [ArrayLike<number>, Float64Array];

/** The values of two runs, one behind the other. */
function together(one: Values, other: Values): readonly [Float64Array, Float64Array] {
  const joined = (i: 0 | 1) => Float64Array.from([...Array.from(one[i]), ...Array.from(other[i])]);
  return [joined(0), joined(1)];
}

function nf4Weight(gpu: Gpu, seed: number, shape: readonly [number, number]) {
  const { codes, absmax } = quantiseNf4Reference(values(seed, shape[0] * shape[1]));
  const weight = uploadNf4(gpu, { shape, codes, absmax }, "weight");
  return { data: dequantiseNf4Reference({ codes, absmax }), weight };
}

function attentionTrials(gpu: Gpu): Trial[] {
  return (["f32", "bf16"] as const).flatMap((format) =>
    HEAD_SIZES[gpu.info.isSoftware ? "software" : "gpu"].flatMap((headDim) =>
      ALL_PARTS.flatMap((part) => {
        const { name, risk } = attentionVariant(gpu, part, headDim, format);
        const isIn16Bits = risk?.endsWith("by matrices") ?? false;
        if (risk === undefined || isIn16Bits !== (format === "bf16")) return [];
        return [{
          kernel: `attention ${part} ${headDim} ${isIn16Bits ? "16-bit " : ""}${name}`,
          risks: [risk],
          tolerance: isIn16Bits ? TOLERANCE.attentionIn16Bits : TOLERANCE.exponentials,
          run: (gpu: Gpu) => runAttention(gpu, part, headDim, format),
        }];
      })
    )
  );
}

async function runAttention(gpu: Gpu, part: Part, headDim: number, format: Format) {
  const { rows } = LAYOUT;
  const shape: AttentionShape = { heads: 2, kvHeads: 1, headDim };
  const [wide, narrow] = [[rows, 2 * headDim], [rows, headDim]] as const;
  // Scores far apart, so that running maxima move.
  const q = values(3, rows * 2 * headDim, format).map((value) => 16 * value);
  const dO = values(4, rows * 2 * headDim, format);
  const [k, v] = [values(5, rows * headDim, format), values(6, rows * headDim, format)];
  const [tq, tk, tv] = [
    upload(gpu, wide, q, format),
    upload(gpu, narrow, k, format),
    upload(gpu, narrow, v, format),
  ];
  const map = makeAttentionMap(gpu, LAYOUT);
  const tables = firstKeys(LAYOUT);
  if (part === "forward") {
    const { o } = attention(gpu, tq, tk, tv, map, shape);
    return [await gpu.read(o), attentionReference({ q, k, v }, tables, shape).o] as const;
  }
  const forward = attentionReference({ q, k, v }, tables, shape);
  const saved = {
    q: tq,
    k: tk,
    v: tv,
    o: upload(gpu, wide, Float32Array.from(forward.o), format),
    lse: gpu.tensor([rows, shape.heads], Float32Array.from(forward.lse)),
  };
  const { dq, dk, dv } = attentionBackward(gpu, upload(gpu, wide, dO, format), saved, map, shape);
  const expected = attentionBackwardReference(dO, { q, k, v }, tables, shape);
  if (part === "dq") return [await gpu.read(dq), expected.dq] as const;
  return [[...await gpu.read(dk), ...await gpu.read(dv)], [...expected.dk, ...expected.dv]] as const;
}

const MATVEC = matvecTrial("matvec f32 subgroup", (gpu, shape) => {
  const data = values(7, shape[0] * shape[1]);
  return { data, weight: gpu.tensor(shape, data) };
});
const MATVEC_NF4 = matvecTrial("matvec nf4 subgroup", (gpu, shape) => nf4Weight(gpu, 7, shape));

function matvecTrial(
  kernel: string,
  weightOf: (gpu: Gpu, shape: [number, number]) => { readonly data: Float32Array; readonly weight: Weight },
): Trial {
  return {
    kernel,
    risks: ["matvec by subgroups"],
    tolerance: TOLERANCE.sums,
    run: async (gpu) => {
      const { N, K } = VECTOR;
      const x = values(8, K);
      const { data, weight } = weightOf(gpu, [N, K]);
      const y = matvec(gpu, gpu.tensor([1, K], x), weight);
      return [await gpu.read(y), matmulReference(x, data, VECTOR)];
    },
  };
}

const CACHE_ATTENTION: Trial = {
  kernel: "cache attention subgroup",
  risks: ["cache attention by subgroups"],
  tolerance: TOLERANCE.exponentials,
  run: async (gpu) => {
    const headDim = 32;
    const shape: AttentionShape = { heads: 2, kvHeads: 1, headDim };
    const { capacity, positions, longest } = CACHE;
    const q = values(9, 2 * headDim);
    const [k, v] = [values(10, capacity * headDim), values(11, capacity * headDim)];
    const [tk, tv] = [k, v].map((data) => gpu.tensor([capacity, headDim], data)) as [Tensor, Tensor];
    const cache = { k: tk, v: tv, capacity };
    const at = gpu.tensor([1], Uint32Array.from(positions));
    const o = cacheAttention(gpu, gpu.tensor([1, 2 * headDim], q), cache, at, shape, { longest });
    return [await gpu.read(o), cacheAttentionReference(q, { k, v, capacity }, positions, shape)];
  },
};
