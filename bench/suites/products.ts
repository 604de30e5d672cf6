import {
  matmul,
  matmulBackwardInput,
  matmulBackwardWeight,
  type Weight,
} from "../../kernels/matmul/matmul.ts";
import { freeNf4, isNf4, quantiseNf4 } from "../../kernels/nf4/nf4.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import { bytesPerElement, type Tensor } from "../../kernels/tensor.ts";
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

/** x W^T, dy W and dy^T x of every weight, for every number of rows and format. */
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
  return cases;
}

interface Sizes {
  readonly M: number;
  readonly N: number;
  readonly K: number;
  /** What the format column says. */
  readonly name: string;
  readonly x: Format;
  readonly w: Format | "nf4";
}

function casesOf({ M, N, K, name, x, w }: Sizes): Case[] {
  const [xBytes, dyBytes] = [M * K * bytesPerElement(x), M * N * bytesPerElement(x)];
  // NF4 with scales in 8 bits: 4.127 bits a weight; making it takes the matrix in f32 once.
  const wBytes = w === "nf4" ? N * K * 4.127 / 8 : N * K * bytesPerElement(w);
  const common = {
    suite: "matmul",
    shape: `M${M} N${N} K${K}`,
    format: name,
    flops: 2 * M * N * K,
    bytes: xBytes + dyBytes + wBytes,
    memory: xBytes + dyBytes + wBytes + (w === "nf4" ? 4 * N * K : 0),
  };
  const cases: Case[] = [
    {
      ...common,
      op: "x W^T",
      prepare(gpu) {
        const weight = randomWeight(gpu, [N, K], w);
        const input = randomTensor(gpu, [M, K], x);
        return withWeight(weight, [input], () => [matmul(gpu, input, weight)]);
      },
    },
    {
      ...common,
      op: "dy W",
      prepare(gpu) {
        const weight = randomWeight(gpu, [N, K], w);
        const dy = randomTensor(gpu, [M, N], x);
        return withWeight(weight, [dy], () => [matmulBackwardInput(gpu, dy, weight)]);
      },
    },
  ];
  if (w === "nf4" || M === 1) return cases;
  const bytes = xBytes + dyBytes + 4 * N * K;
  cases.push({
    ...common,
    op: "dy^T x",
    bytes,
    memory: bytes,
    prepare(gpu) {
      const [dy, input] = [randomTensor(gpu, [M, N], x), randomTensor(gpu, [M, K], x)];
      const into = gpu.empty([N, K]);
      return prepared([dy, input, into], () => {
        matmulBackwardWeight(gpu, dy, input, { into });
        return [];
      });
    },
  });
  return cases;
}

/** A matrix (N, K) of random numbers. The caller frees it by {@linkcode withWeight}. */
function randomWeight(gpu: Gpu, shape: readonly [number, number], format: Format | "nf4"): Weight {
  if (format !== "nf4") return randomTensor(gpu, shape, format);
  const dense = randomTensor(gpu, shape);
  const weight = quantiseNf4(gpu, dense);
  dense.free();
  return weight;
}

function withWeight(weight: Weight, inputs: readonly Tensor[], work: () => readonly Tensor[]) {
  const { run, free } = prepared(inputs, work);
  return {
    run,
    free() {
      free();
      if (isNf4(weight)) freeNf4(weight);
      else weight.free();
    },
  };
}
