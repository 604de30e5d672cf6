import { attention, attentionBackward, type AttentionShape } from "../../kernels/attention/attention.ts";
import { type AttentionMap, firstKeys, makeAttentionMap } from "../../kernels/attention/map.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import { bytesPerElement, type Tensor } from "../../kernels/tensor.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { randomTensor } from "../inputs.ts";
import { type Case, type Extent, prepared } from "./case.ts";

/** One layer's attention over one sequence. */
export interface AttentionSizes extends AttentionShape {
  /** T */
  readonly tokens: number;
  /** G of S2-Attn; full attention unless set. */
  readonly groupSize?: number;
  readonly format: Format;
  readonly suite?: string;
}

/** Head sizes of small and of real models, with heads and kv heads as Llama-2-7B and Llama-3-8B have them. */
const HEADS: Record<Extent, readonly AttentionShape[]> = {
  quick: [{ heads: 4, kvHeads: 4, headDim: 64 }, { heads: 4, kvHeads: 2, headDim: 128 }],
  all: [
    { heads: 32, kvHeads: 32, headDim: 64 },
    { heads: 32, kvHeads: 32, headDim: 128 },
    { heads: 32, kvHeads: 8, headDim: 128 },
  ],
};
const LENGTHS: Record<Extent, readonly number[]> = {
  quick: [1024, 2048],
  all: [1024, 4096, 8192, 16384, 32768, 65536],
};

/** Forward and backward, full and S2-Attn with G = T / 4, over all lengths. */
export function attentionCases(extent: Extent): Case[] {
  const formats: readonly Format[] = extent === "quick" ? ["f32"] : ["f32", "bf16"];
  return HEADS[extent].flatMap((shape) =>
    LENGTHS[extent].flatMap((tokens) =>
      formats.flatMap((format) => [
        ...attentionPair({ ...shape, tokens, format }),
        ...attentionPair({ ...shape, tokens, format, groupSize: tokens / 4 }),
      ])
    )
  );
}

/**
 * Forward and backward of one attention. Counted are the products of the pairs that see each other: two going forward,
 * five going back (one recomputes the scores).
 */
export function attentionPair(sizes: AttentionSizes): [forward: Case, backward: Case] {
  const { heads, kvHeads, headDim, tokens, groupSize, format, suite = "attention" } = sizes;
  const pairs = heads * countPairs(sizes);
  const [qBytes, kvBytes] = [heads, kvHeads].map((count) =>
    tokens * count * headDim * bytesPerElement(format)
  ) as [number, number];
  const lseBytes = 4 * tokens * heads;
  const common = {
    suite,
    shape: `H${heads}${kvHeads === heads ? "" : `/${kvHeads}`} D${headDim} T${tokens}` +
      (groupSize ? ` G${groupSize}` : ""),
    format,
    memory: 4 * qBytes + 4 * kvBytes + 3 * lseBytes,
  };
  return [
    {
      ...common,
      op: "attention",
      flops: 4 * headDim * pairs,
      bytes: 2 * qBytes + 2 * kvBytes + lseBytes,
      prepare(gpu) {
        const { q, k, v, map } = inputsOf(gpu, sizes);
        const { run, free } = prepared(
          [q, k, v],
          () => Object.values(attention(gpu, q, k, v, map, sizes)),
        );
        return { run, free: () => [free, map.free].forEach((each) => each()) };
      },
    },
    {
      ...common,
      op: "attention backward",
      flops: 10 * headDim * pairs,
      bytes: 4 * qBytes + 4 * kvBytes + lseBytes,
      prepare(gpu) {
        const { q, k, v, map } = inputsOf(gpu, sizes);
        const dO = randomTensor(gpu, q.shape, format);
        const { o, lse } = attention(gpu, q, k, v, map, sizes);
        const { run, free } = prepared(
          [q, k, v, o, lse, dO],
          () => Object.values(attentionBackward(gpu, dO, { q, k, v, o, lse }, map, sizes)),
        );
        return { run, free: () => [free, map.free].forEach((each) => each()) };
      },
    },
  ];
}

function inputsOf(
  gpu: Gpu,
  { heads, kvHeads, headDim, tokens, groupSize, format }: AttentionSizes,
): { q: Tensor; k: Tensor; v: Tensor; map: AttentionMap } {
  return {
    q: randomTensor(gpu, [tokens, heads * headDim], format),
    k: randomTensor(gpu, [tokens, kvHeads * headDim], format),
    v: randomTensor(gpu, [tokens, kvHeads * headDim], format),
    map: makeAttentionMap(gpu, { rows: tokens, starts: [0], ...(groupSize ? { groupSize } : {}) }),
  };
}

/** Pairs of a query and a key that see each other, in a head on average: half the heads are shifted. */
function countPairs({ tokens, groupSize }: AttentionSizes): number {
  const { first } = firstKeys({ rows: tokens, starts: [0], ...(groupSize ? { groupSize } : {}) });
  return first.reduce((sum, key, i) => sum + (i % tokens) - key + 1, 0) / 2;
}
