/**
 * Speed of the kernels that matter, by the device's own timestamps: `deno task bench`, one JSON object a line.
 * Numbers of one run can be compared with each other; machines are shared and noisy, so compare ratios across runs.
 */
import { attention, attentionBackward } from "../kernels/attention/attention.ts";
import { makeAttentionMap } from "../kernels/attention/map.ts";
import { Gpu, type Sharing } from "../kernels/gpu.ts";
import { matmul, matmulBackwardInput, matmulBackwardWeight } from "../kernels/matmul/matmul.ts";
import { quantiseNf4 } from "../kernels/nf4/nf4.ts";
import type { Tensor } from "../kernels/tensor.ts";

/** Runs before the ones that count: compiling and first touches of memory. */
const WARM_UPS = 1;
const RUNS = 5;

/** A piece of work, and the multiplications and additions in it. */
interface Work {
  readonly op: string;
  readonly shape: string;
  readonly flops: number;
  readonly run: () => Tensor[];
}

function random(gpu: Gpu, shape: readonly number[]): Tensor {
  const size = shape.reduce((a, b) => a * b, 1);
  return gpu.tensor(shape, Float32Array.from({ length: size }, () => Math.random() - 0.5));
}

function products(gpu: Gpu, [M, N, K]: readonly [number, number, number]): Work[] {
  const [x, w, dy] = [random(gpu, [M, K]), random(gpu, [N, K]), random(gpu, [M, N])];
  const nf4 = quantiseNf4(gpu, w);
  const common = { shape: `${M}x${K}x${N}`, flops: 2 * M * N * K };
  return [
    { op: "x W^T", ...common, run: () => [matmul(gpu, x, w)] },
    { op: "dy W", ...common, run: () => [matmulBackwardInput(gpu, dy, w)] },
    { op: "dy^T x", ...common, run: () => [matmulBackwardWeight(gpu, dy, x, { into: gpu.empty([N, K]) })] },
    { op: "x W^T, NF4", ...common, run: () => [matmul(gpu, x, nf4)] },
    { op: "dy W, NF4", ...common, run: () => [matmulBackwardInput(gpu, dy, nf4)] },
  ];
}

/** Counts the products a causal pass needs: half the square, or G^2 / 2 in each group. */
function attentions(gpu: Gpu, rows: number, headDim: number, groupSize?: number): Work[] {
  const heads = 8;
  const [q, k, v, dO] = Array.from({ length: 4 }, () => random(gpu, [rows, heads * headDim])) as [
    Tensor,
    Tensor,
    Tensor,
    Tensor,
  ];
  const map = makeAttentionMap(gpu, { rows, starts: [0], ...(groupSize ? { groupSize } : {}) });
  const shape = { heads, kvHeads: heads, headDim };
  const { o, lse } = attention(gpu, q, k, v, map, shape);
  const label = `H${heads} T${rows} D${headDim}${groupSize ? ` G${groupSize}` : ""}`;
  const pairs = rows * (groupSize ?? rows) / 2;
  return [
    {
      op: "attention",
      shape: label,
      flops: 4 * heads * headDim * pairs,
      run: () => Object.values(attention(gpu, q, k, v, map, shape)),
    },
    {
      op: "attention backward",
      shape: label,
      flops: 10 * heads * headDim * pairs,
      run: () => Object.values(attentionBackward(gpu, dO, { q, k, v, o, lse }, map, shape)),
    },
  ];
}

/** Milliseconds on the device, best of several. */
async function measure(gpu: Gpu, work: Work): Promise<number> {
  let best = Infinity;
  for (let i = -WARM_UPS; i < RUNS; i++) {
    for (const tensor of work.run()) tensor.free();
    await gpu.settle();
    const microseconds = (await gpu.timings()).reduce((sum, timing) => sum + timing.microseconds, 0);
    if (i >= 0) best = Math.min(best, microseconds / 1000);
  }
  return best;
}

const sharings: (Sharing | undefined)[] = Deno.args.includes("--both")
  ? ["subgroup", "workgroup"]
  : [undefined];
for (const sharing of sharings) {
  using gpu = await Gpu.open({ profile: true, ...(sharing ? { sharing } : {}) });
  const suite = [
    ...products(gpu, [256, 1024, 1024]),
    ...products(gpu, [32, 2048, 2048]),
    ...attentions(gpu, 1024, 64),
    ...attentions(gpu, 4096, 64, 1024),
  ];
  for (const work of suite) {
    const ms = await measure(gpu, work);
    const { op, shape, flops } = work;
    const row = {
      op,
      shape,
      sharing: gpu.sharing,
      ms: +ms.toFixed(2),
      gflops: +(flops / ms / 1e6).toFixed(1),
    };
    // deno-lint-ignore no-console
    console.log(JSON.stringify({ ...row, adapter: gpu.info.description }));
  }
}
