/**
 * Loading against the disk: `deno task bench --load`.
 *
 * Writes a temporary checkpoint (below TMPDIR, where that is set) of two layers and both tables of
 * Llama-2-7B with random weights in bf16, 1.3 GB, reads its files with nothing else to do, and loads it dense and in
 * NF4. The files are in the page cache for all, so that the rates are those of the computer, not of its disk. The
 * device's memory is that of the run before but for one row: on a software adapter, where it is the process's own, to
 * touch a page for the first time costs more than to fill it.
 */
import { formatBytes, formatTable } from "../text.ts";
import { join } from "../checkpoint/deps.ts";
import { writeModel } from "../checkpoint/save_model.ts";
import { openWeights } from "../checkpoint/weights.ts";
import type { Io } from "../cli/io.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { Quantisation } from "../kernels/quantisation.ts";
import { parseConfig } from "../model/config.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { configJson } from "../model/config_json.ts";
import { loadModel } from "../model/load/load.ts";
import { shapeConfig } from "../model/shapes.ts";
import { checkpointTensors } from "../model/tensors.ts";
import { processorMs } from "./clock.ts";

/** The rates of loading, plain reading first. */
export interface LoadReport {
  readonly totalBytes: number;
  readonly loads: readonly Measured[];
}

/** One way of going through the checkpoint's bytes. */
interface Measured {
  readonly name: string;
  /** Rate over the checkpoint's bytes, best of the runs. */
  readonly bytesPerSecond: number;
  /** The same by processor time, all threads together. */
  readonly bytesPerCpuSecond: number;
  /** Most memory of the process in any run but the first, above what it had before: the device's is used again. */
  readonly hostBytes: number;
}

const RUNS = 3;
const LAYERS = 2;
const SHARD_BYTES = 500e6;
/** Bytes that loading reads at once. */
const CHUNK_BYTES = 8 * 2 ** 20;
const SAMPLE_MS = 2;

/** The rows of {@linkcode LoadReport} by their names. */
export const LOADS = {
  read: "read the files",
  dense: "load dense bf16",
  fresh: "load dense bf16 into new memory",
  nf4: "load in NF4",
} as const;

/** Measures reading and loading. */
export async function benchLoad(gpu: Gpu, folder: string | undefined, io: Io): Promise<LoadReport> {
  const config = parseConfig({ ...shapeConfig("llama2-7b").raw, num_hidden_layers: LAYERS }, "bench");
  const root = await Deno.makeTempDir({ prefix: "longreach-bench-", ...(folder ? { dir: folder } : {}) });
  try {
    io.err(`Writing a checkpoint to ${root}`);
    const total = await writeRandom(root, config);
    const trim = () => gpu.memory.trim();
    const dense = () => load(gpu, root, config, "none");
    const nf4 = () => load(gpu, root, config, "nf4-double");
    const loads = [
      await measure(LOADS.read, total, () => readFiles(root)),
      await measure(LOADS.dense, total, dense),
      await measure(LOADS.fresh, total, dense, trim),
      await measure(LOADS.nf4, total, nf4),
    ];
    return { totalBytes: total, loads };
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

/** Finite bf16 numbers below 2, the same megabytes over and over. @returns bytes of all tensors */
async function writeRandom(root: string, config: ModelConfig): Promise<number> {
  const noise = new Uint32Array(2 ** 20);
  for (let at = 0; at < noise.length; at += 2 ** 14) crypto.getRandomValues(noise.subarray(at, at + 2 ** 14));
  // Without the highest bit of the exponent.
  noise.forEach((word, i) => noise[i] = word & 0xbfffbfff);
  const bytes = new Uint8Array(noise.buffer);
  const tensors = [...checkpointTensors(config)].map(([name, shape]) => ({
    name,
    shape,
    dtype: "BF16" as const,
    async *read() {
      let left = 2 * shape.reduce((product, axis) => product * axis, 1);
      for (; left > 0; left -= bytes.length) yield bytes.subarray(0, left);
    },
  }));
  const written = await writeModel(root, { config: configJson(config), tensors, maxShardBytes: SHARD_BYTES });
  return written.totalBytes;
}

/** Every byte of the weights into one buffer, in the chunks and by the calls that loading uses. */
async function readFiles(root: string): Promise<void> {
  const buffer = new Uint8Array(CHUNK_BYTES);
  for await (const { name } of Deno.readDir(root)) {
    if (!name.endsWith(".safetensors")) continue;
    using file = await Deno.open(join(root, name));
    while (await file.read(buffer) !== null);
  }
}

async function load(gpu: Gpu, root: string, config: ModelConfig, quantisation: Quantisation): Promise<void> {
  const weights = await openWeights(root);
  try {
    const model = await loadModel(gpu, weights, { config, format: "bf16", quantisation });
    await gpu.settle();
    const { embeddings, head } = model.parts;
    for (
      const weight of [
        embeddings.weight,
        head.weight,
        ...model.linears().map(({ weight }) => weight),
        ...model.experts().map(({ weight }) => weight),
        ...model.parts.layers.flatMap(({ routers }) => routers.map(({ weight }) => weight)),
      ]
    ) {
      weight.free();
    }
  } finally {
    weights.close();
  }
}

/** @param before each run, outside its time */
async function measure(
  name: string,
  total: number,
  run: () => Promise<void>,
  before: () => void = () => {},
): Promise<Measured> {
  let [seconds, cpuSeconds, hostBytes] = [Infinity, Infinity, 0];
  // The first run compiles, and makes what later ones use again.
  for (let i = 0; i <= RUNS; i++) {
    before();
    const floor = Deno.memoryUsage().rss;
    let most = 0;
    const timer = setInterval(() => most = Math.max(most, Deno.memoryUsage().rss - floor), SAMPLE_MS);
    const [start, cpuStart] = [performance.now(), processorMs()];
    await run();
    const [elapsed, cpu] = [performance.now() - start, processorMs() - cpuStart];
    clearInterval(timer);
    if (i === 0) continue;
    seconds = Math.min(seconds, elapsed / 1000);
    cpuSeconds = Math.min(cpuSeconds, cpu / 1000);
    hostBytes = Math.max(hostBytes, most);
  }
  return { name, bytesPerSecond: total / seconds, bytesPerCpuSecond: total / cpuSeconds, hostBytes };
}

/** The rates as rows: GB/s, the share of plain reading, GB per processor second, host memory above the floor. */
export function loadRows({ loads }: LoadReport): string[][] {
  const gigabytes = (bytes: number) => (bytes / 1e9).toFixed(2);
  return loads.map(({ name, bytesPerSecond, bytesPerCpuSecond, hostBytes }) => [
    name,
    gigabytes(bytesPerSecond),
    `${(100 * bytesPerSecond / loads[0]!.bytesPerSecond).toFixed(0)} %`,
    gigabytes(bytesPerCpuSecond),
    formatBytes(Math.max(0, hostBytes)),
  ]);
}

export const LOAD_HEAD = ["", "GB/s", "of reading", "GB per CPU second", "host memory"];

/** The report as a table for people. */
export function describeLoad(report: LoadReport): string {
  return `${formatTable([LOAD_HEAD, ...loadRows(report)], "lrrrr")}\n\n${
    formatBytes(report.totalBytes)
  } of bf16; ` +
    `files in the page cache; best of ${RUNS}`;
}
