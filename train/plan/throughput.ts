/** Throughput of an adapter in the work that a training step consists of, measured in about a second. */
import { attention, type AttentionShape } from "../../kernels/attention/attention.ts";
import { makeAttentionMap } from "../../kernels/attention/map.ts";
import { addInto } from "../../kernels/elementwise/elementwise.ts";
import { fillUniform } from "../../kernels/elementwise/fill_random.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import { matmul } from "../../kernels/matmul/matmul.ts";
import { METHODS } from "../../kernels/quantisation.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { QuantisedWeight } from "../../kernels/weight.ts";

/** Work that an adapter does in a second. */
export interface Throughput {
  /** Floating-point operations of products with 4-bit weights. */
  readonly productFlops: number;
  /** Floating-point operations of attention, those for pairs that are not seen left out. */
  readonly attentionFlops: number;
  /** Bytes that a kernel goes over which does little else. */
  readonly bytesPerSecond: number;
}

/** Work is made this much larger until it takes long enough to be measured. */
const GROWTH = 4;
const LONG_ENOUGH_SECONDS = 0.1;

/** Measures an adapter. Frees what it allocates. */
export async function measureThroughput(gpu: Gpu): Promise<Throughput> {
  return {
    productFlops: await productRate(gpu),
    attentionFlops: await attentionRate(gpu),
    bytesPerSecond: await memoryRate(gpu),
  };
}

/** Measures copies between an adapter and its host, there and back: bytes a second of one way. Frees what it allocates. */
export async function measureHostCopies(gpu: Gpu): Promise<number> {
  const bytes = new Uint8Array(HOST_COPY_BYTES);
  const tensor = gpu.empty([HOST_COPY_BYTES / 4], "f32", "copied");
  const copy = async () => {
    gpu.write(tensor, bytes);
    await gpu.readBytes([tensor]);
  };
  await copy();
  const start = performance.now();
  for (let i = 0; i < HOST_COPIES; i++) await copy();
  tensor.free();
  return 2 * HOST_COPIES * HOST_COPY_BYTES / ((performance.now() - start) / 1000);
}

/** As much as goes in one message, a few times. */
const HOST_COPY_BYTES = 32 * 2 ** 20;
const HOST_COPIES = 4;

/** Rows by a matrix of 2048 x 2048 in NF4. */
async function productRate(gpu: Gpu): Promise<number> {
  const size = 2048;
  let streams = 0;
  const wanted = { shape: [size, size], label: "weight" };
  const [weight] = METHODS.nf4.random(gpu, [wanted], {
    rms: 0.01,
    seed: 1,
    nextStream: () => streams++,
  }) as [QuantisedWeight];
  const rate = await rateOf(gpu, { from: 64, to: 8192 }, (rows) => {
    const x = randomTensor(gpu, [rows, size]);
    return {
      amount: 2 * rows * size * size,
      run: () => matmul(gpu, x, weight).free(),
      free: () => x.free(),
    };
  });
  weight.free();
  return rate;
}

/** Causal attention of 16 heads of 128 elements over one sequence, queries in groups of four. */
async function attentionRate(gpu: Gpu): Promise<number> {
  const shape: AttentionShape = { heads: 16, kvHeads: 4, headDim: 128 };
  return await rateOf(gpu, { from: 128, to: 8192 }, (rows) => {
    const q = randomTensor(gpu, [rows, shape.heads * shape.headDim]);
    const [k, v] = [1, 2].map(() => randomTensor(gpu, [rows, shape.kvHeads * shape.headDim]));
    const map = makeAttentionMap(gpu, { starts: [0], rows });
    return {
      amount: 4 * (rows * (rows + 1) / 2) * shape.heads * shape.headDim,
      run: () => Object.values(attention(gpu, q, k!, v!, map, shape)).forEach((made) => made.free()),
      free: () => [q, k!, v!, map].forEach((made) => made.free()),
    };
  });
}

async function memoryRate(gpu: Gpu): Promise<number> {
  return await rateOf(gpu, { from: 2 ** 12, to: 2 ** 18 }, (rows) => {
    const [x, y] = [1, 2].map(() => randomTensor(gpu, [rows, 256]));
    return {
      amount: x!.byteLength + y!.byteLength,
      run: () => addInto(gpu, x!, y!),
      free: () => [x!, y!].forEach((made) => made.free()),
    };
  });
}

/** Work of one size. */
interface Trial {
  /** Amount of whatever the rate is of. */
  readonly amount: number;
  run(): void;
  free(): void;
}

/** Amount of work per second, at the largest size up to `to` that is needed to measure it. */
async function rateOf(
  gpu: Gpu,
  { from, to }: { readonly from: number; readonly to: number },
  make: (size: number) => Trial,
): Promise<number> {
  for (let size = from;; size *= GROWTH) {
    const trial = make(size);
    await secondsFor(gpu, trial, 1);
    let times = 1;
    let seconds = await secondsFor(gpu, trial, times);
    while (seconds < LONG_ENOUGH_SECONDS && size * GROWTH > to) {
      seconds = await secondsFor(gpu, trial, times *= GROWTH);
    }
    trial.free();
    if (seconds >= LONG_ENOUGH_SECONDS) return times * trial.amount / seconds;
  }
}

async function secondsFor(gpu: Gpu, { run }: Trial, times: number): Promise<number> {
  await gpu.settle();
  const start = performance.now();
  for (let i = 0; i < times; i++) run();
  await gpu.settle();
  return (performance.now() - start) / 1000;
}

function randomTensor(gpu: Gpu, shape: readonly number[]): Tensor {
  const tensor = gpu.empty(shape, "f32", "random");
  fillUniform(gpu, tensor, { seed: 3, low: -1, high: 1 });
  return tensor;
}
