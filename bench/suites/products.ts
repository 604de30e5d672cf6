import { matmulBackwardInput, matmulBackwardWeight } from "../../kernels/matmul/matmul.ts";
import type { Weight } from "../../kernels/weight.ts";
import { matvec, product } from "../../kernels/matvec/matvec.ts";
import { quantiseNf4 } from "../../kernels/nf4/nf4.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import { bytesPerElement } from "../../kernels/tensor.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { randomTensor } from "../inputs.ts";
import { type Case, type Extent, prepared } from "./case.ts";

/** Weights (N, K) of linears: Llama-2-7B's, Llama-3-8B's and the head; for quick runs such as a CPU can do. */
const WEIGHTS: Record<Extent, readonly (readonly [N: number, K: number])[]> = {
  quick: [[1024, 1024], [2816, 1024]],
  all: [[4096, 4096], [11008, 4096], [4096, 11008], [14336, 4096], [32000, 4096]],
};
/** Rows: one token, a short text, a batch, a long text. */
const ROWS: Record<Extent, readonly number[]> = { quick: [1, 32, 256], all: [1, 32, 512, 8192] };
/** The two factors of LoRA: (R, K) and (N, R). */
const FACTORS: Record<Extent, readonly (readonly [N: number, K: number])[]> = {
  quick: [[32, 1024], [1024, 32]],
  all: [[64, 4096], [4096, 64]],
};
const FORMATS: readonly { readonly name: string; readonly x: Format; readonly w: Format | "nf4" }[] = [
  { name: "f32", x: "f32", w: "f32" },
  { name: "bf16", x: "bf16", w: "bf16" },
  { name: "nf4, x f32", x: "f32", w: "nf4" },
  { name: "nf4, x bf16", x: "bf16", w: "nf4" },
];

/** x W^T, dy W and dy^T x of every weight, for every number of rows and format; those that make what they multiply. */
export function productCases(extent: Extent): Case[] {
  const cases: Case[] = [];
  for (const M of ROWS[extent]) {
    for (const { name, x, w } of FORMATS) {
      for (const [N, K] of WEIGHTS[extent]) {
        cases.push(...casesOf({ M, N, K, name, x, w }));
      }
    }
    for (const [N, K] of FACTORS[extent]) {
      cases.push(...casesOf({ M, N, K, name: "LoRA, x f32", x: "f32", w: "f32" }));
      cases.push(...casesOf({ M, N, K, name: "LoRA, x bf16", x: "bf16", w: "f32" }));
    }
  }
  return [
    ...cases,
    ...WEIGHTS[extent].flatMap((
      [N, K],
    ) => [inputCase("norm(x) W^T", N, K), inputCase("silu(g) x W^T", N, K)]),
  ];
}

/** The sizes and formats of a linear layer over M rows. */
export interface Sizes {
  readonly M: number;
  readonly N: number;
  readonly K: number;
  /** Text of the format column. */
  readonly name: string;
  readonly x: Format;
  readonly w: Format | "nf4";
}

/** Products of a linear layer: y = x W^T, dx = dy W, dW = dy^T x. */
const OPS = { nt: "x W^T", nn: "dy W", tn: "dy^T x" } as const;

/** The products that training or decoding has of this kind: weights in 4 bits get no gradient, one token gives none. */
function casesOf(sizes: Sizes): Case[] {
  const cases = [productCase("nt", sizes), productCase("nn", sizes)];
  return sizes.w === "nf4" || sizes.M === 1 ? cases : [...cases, productCase("tn", sizes)];
}

/** One product of x (M, K), W (N, K) and y (M, N). */
export function productCase(layout: keyof typeof OPS, { M, N, K, name, x, w }: Sizes): Case {
  const [xBytes, yBytes] = [M * K * bytesPerElement(x), M * N * bytesPerElement(x)];
  const wBytes = layout === "tn" ? 4 * N * K : bytesOfWeight(N * K, w);
  const bytes = xBytes + yBytes + wBytes;
  return {
    suite: "matmul",
    op: OPS[layout],
    shape: `M${M} N${N} K${K}`,
    format: name,
    flops: 2 * M * N * K,
    bytes,
    // Making NF4 takes the matrix in f32 once.
    memory: bytes + (w === "nf4" ? 4 * N * K : 0),
    prepare(gpu) {
      const given = randomTensor(gpu, [M, layout === "nt" ? K : N], x);
      if (layout === "tn") {
        const [input, into] = [randomTensor(gpu, [M, K], x), gpu.empty([N, K])];
        return prepared([given, input, into], () => {
          matmulBackwardWeight(gpu, given, input, { into });
          return [];
        });
      }
      const weight = randomWeight(gpu, [N, K], w);
      const multiply = layout === "nt" ? product : matmulBackwardInput;
      const { run, free } = prepared([given], () => [multiply(gpu, given, weight)]);
      return { run, free: () => [free, () => weight.free()].forEach((each) => each()) };
    },
  };
}

/** A product of one row, as when a token is written, that makes what it multiplies. */
function inputCase(op: "norm(x) W^T" | "silu(g) x W^T", N: number, K: number): Case {
  const sizes: Sizes = { M: 1, N, K, name: "nf4, x bf16", x: "bf16", w: "nf4" };
  const plain = productCase("nt", sizes);
  const bytes = plain.bytes + (op === "norm(x) W^T" ? 4 : bytesPerElement("bf16")) * K;
  return {
    ...plain,
    op,
    bytes,
    prepare(gpu) {
      const [x, gate] = [randomTensor(gpu, [1, K], "bf16"), randomTensor(gpu, [1, K], "bf16")];
      const [scale, weight] = [randomTensor(gpu, [K]), randomWeight(gpu, [N, K], "nf4")];
      const input = op === "norm(x) W^T"
        ? { norm: { weight: scale, eps: 1e-5 } }
        : { activation: "swiglu", gate } as const;
      const { run, free } = prepared([x, gate, scale], () => [matvec(gpu, x, weight, { input })]);
      return { run, free: () => [free, () => weight.free()].forEach((each) => each()) };
    },
  };
}

/** NF4 with scales in 8 bits takes 4.127 bits a weight. */
function bytesOfWeight(size: number, format: Format | "nf4"): number {
  return size * (format === "nf4" ? 4.127 / 8 : bytesPerElement(format));
}

/** A matrix (N, K) of random numbers. */
function randomWeight(gpu: Gpu, shape: readonly [number, number], format: Format | "nf4"): Weight {
  if (format !== "nf4") return randomTensor(gpu, shape, format);
  const dense = randomTensor(gpu, shape);
  const weight = quantiseNf4(gpu, dense);
  dense.free();
  return weight;
}
