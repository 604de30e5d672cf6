/** A few products and attentions against float64: whether this adapter computes what it should. */
import { attention } from "../kernels/attention/attention.ts";
import { firstKeys, makeAttentionMap } from "../kernels/attention/map.ts";
import { attentionReference } from "../kernels/attention/reference.ts";
import { GpuError } from "../kernels/errors.ts";
import { Gpu, type Sharing } from "../kernels/gpu.ts";
import { matmul, matmulBackwardInput, matmulBackwardWeight } from "../kernels/matmul/matmul.ts";
import {
  matmulBackwardInputReference,
  matmulBackwardWeightReference,
  matmulReference,
} from "../kernels/matmul/reference.ts";
import { BLOCK, dynamicMap, NF4_VALUES } from "../kernels/nf4/format.ts";
import { quantiseNf4, uploadNf4 } from "../kernels/nf4/nf4.ts";
import {
  dequantiseNf4Reference,
  dequantiseScalesReference,
  quantiseNf4Reference,
  quantiseScalesReference,
} from "../kernels/nf4/reference.ts";
import { randomWord } from "../kernels/shared/threefry.ts";
import { largestError } from "../kernels/trial.ts";

/** Result of one kernel on small random inputs. */
export interface KernelCheck {
  readonly kernel: string;
  /** The way its threads share operands. */
  readonly sharing: Sharing;
  /** Largest difference from float64, as a share of the largest value; `null` where nothing came back. */
  readonly error: number | null;
  readonly tolerance: number;
  readonly ok: boolean;
  /** The error, where nothing came back. */
  readonly failure: string | null;
}

/** Sums in f32 reach about 1e-6 here; drivers may compute exponentials less exactly. A wrong kernel is far off. */
const TOLERANCE = { sums: 1e-5, exponentials: 1e-4 };

/** Sizes that fill no tile, so that edges are run too. */
const SIZE = { M: 67, N: 76, K: 136 };
const ATTENTION = { heads: 4, kvHeads: 2, headDim: 32, rows: 75, starts: [0, 33], groupSize: 16 };

interface Case {
  readonly kernel: string;
  readonly tolerance: number;
  /** Computes the device's values and the expected ones. */
  readonly run: (gpu: Gpu) => Promise<readonly [ArrayLike<number>, ArrayLike<number>]>;
}

/**
 * Runs the kernels in every sharing mode that the adapter can run.
 * @param open opens the device; tests hand in a broken one
 * @throws {UserError} if no adapter answers
 */
export async function checkKernels(open: typeof Gpu.open = Gpu.open): Promise<KernelCheck[]> {
  const checks = await checkAll(() => open({ sharing: "workgroup", poison: true }));
  try {
    return [...checks, ...await checkAll(() => open({ sharing: "subgroup", poison: true }))];
  } catch (error) {
    // Subgroups are too small for this mode, which is then never chosen.
    if (error instanceof GpuError) return checks;
    throw error;
  }
}

async function checkAll(open: () => Promise<Gpu>): Promise<KernelCheck[]> {
  const checks: KernelCheck[] = [];
  let gpu = await open();
  for (const each of CASES) {
    const result = await check(gpu, each);
    checks.push(result);
    if (result.failure === null) continue;
    // A device that failed once throws for ever: the next kernel deserves its own.
    gpu.close();
    gpu = await open();
  }
  gpu.close();
  return checks;
}

async function check(gpu: Gpu, { kernel, tolerance, run }: Case): Promise<KernelCheck> {
  const of = { kernel, sharing: gpu.sharing, tolerance };
  try {
    const error = largestError(...await run(gpu));
    return { ...of, error, ok: error <= tolerance, failure: null };
  } catch (error) {
    const failure = (error as Error).message.split("\n")[0]!;
    return { ...of, error: null, ok: false, failure };
  }
}

/** Values in (-1, 1), the same everywhere. */
function values(seed: number, length: number): Float32Array {
  return Float32Array.from({ length }, (_, i) => randomWord(seed, 0, i) / 2 ** 31 - 1);
}

const CASES: readonly Case[] = [
  { kernel: "matmul", tolerance: TOLERANCE.sums, run: checkMatmul },
  { kernel: "matmul gradients", tolerance: TOLERANCE.sums, run: checkGradients },
  { kernel: "NF4 quantise and matmul", tolerance: TOLERANCE.sums, run: checkNf4 },
  { kernel: "NF4 matmul, scales in 8 bits", tolerance: TOLERANCE.sums, run: checkNestedNf4 },
  { kernel: "attention", tolerance: TOLERANCE.exponentials, run: checkAttention },
];

async function checkMatmul(gpu: Gpu) {
  const { M, N, K } = SIZE;
  const [x, w] = [values(1, M * K), values(2, N * K)];
  const y = matmul(gpu, gpu.tensor([M, K], x), gpu.tensor([N, K], w));
  return [await gpu.read(y), matmulReference(x, w, SIZE)] as const;
}

async function checkGradients(gpu: Gpu) {
  const { M, N, K } = SIZE;
  const [x, w, dy] = [values(1, M * K), values(2, N * K), values(3, M * N)];
  const [tx, tw, tdy] = [gpu.tensor([M, K], x), gpu.tensor([N, K], w), gpu.tensor([M, N], dy)];
  const dx = await gpu.read(matmulBackwardInput(gpu, tdy, tw));
  const dw = await gpu.read(matmulBackwardWeight(gpu, tdy, tx, { into: gpu.empty([N, K]) }));
  const expected = [
    ...matmulBackwardInputReference(dy, w, SIZE),
    ...matmulBackwardWeightReference(dy, x, SIZE),
  ];
  return [[...dx, ...dw], expected] as const;
}

/** Weights that NF4 holds exactly, so that no rounding decides which code they get. */
async function checkNf4(gpu: Gpu) {
  const { M, N, K } = SIZE;
  const weight = Float32Array.from({ length: N * K }, (_, i) => {
    const block = Math.floor(i / BLOCK);
    // The first of each block is its largest.
    const code = i % BLOCK === 0 ? 15 : randomWord(4, 0, i) % 16;
    return NF4_VALUES[code]! * 2 ** (block % 5 - 2);
  });
  const x = values(1, M * K);
  const quantised = quantiseNf4(gpu, gpu.tensor([N, K], weight), { doubleQuant: false });
  const y = await gpu.read(matmul(gpu, gpu.tensor([M, K], x), quantised));
  return [y, matmulReference(x, weight, SIZE)] as const;
}

async function checkNestedNf4(gpu: Gpu) {
  const { M, N, K } = SIZE;
  const x = values(1, M * K);
  const { codes, absmax } = quantiseNf4Reference(values(2, N * K));
  const scales = quantiseScalesReference(absmax);
  const nested = { absmax: scales.nested, map: dynamicMap(), offset: scales.offset };
  const packed = uploadNf4(gpu, { shape: [N, K], codes, absmax: scales.codes, nested }, "weight");
  const y = await gpu.read(matmul(gpu, gpu.tensor([M, K], x), packed));
  const weight = dequantiseNf4Reference({ codes, absmax: dequantiseScalesReference(scales) });
  return [y, matmulReference(x, weight, SIZE)] as const;
}

async function checkAttention(gpu: Gpu) {
  const { heads, kvHeads, headDim, rows } = ATTENTION;
  const q = values(5, rows * heads * headDim);
  const [k, v] = [values(6, rows * kvHeads * headDim), values(7, rows * kvHeads * headDim)];
  const [tk, tv] = [k, v].map((data) => gpu.tensor([rows, kvHeads * headDim], data));
  const map = makeAttentionMap(gpu, ATTENTION);
  const { o } = attention(gpu, gpu.tensor([rows, heads * headDim], q), tk!, tv!, map, ATTENTION);
  return [await gpu.read(o), attentionReference({ q, k, v }, firstKeys(ATTENTION), ATTENTION).o] as const;
}
