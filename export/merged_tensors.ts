/** The tensors of a merged model, made one at a time when they are written. */
import { isBnb4 } from "../checkpoint/bitsandbytes.ts";
import type { FloatDtype } from "../checkpoint/dtype.ts";
import { type Adapter, type LoraPair, loraScaling } from "../checkpoint/peft.ts";
import { tensorByteLength, type TensorSource } from "../checkpoint/safetensors.ts";
import { copiedTensor } from "../checkpoint/save_model.ts";
import type { WeightReader } from "../checkpoint/weights.ts";
import { UserError } from "../errors.ts";
import { cast } from "../kernels/elementwise/elementwise.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { matmulBackwardInput } from "../kernels/matmul/matmul.ts";
import type { Quantisation } from "../kernels/quantisation.ts";
import { Tensor } from "../kernels/tensor.ts";
import type { Weight } from "../kernels/weight.ts";
import { requireAll, requireFit, uploadFactors } from "../model/lora.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { requireNoMore } from "../model/load/fits.ts";
import { encode, readOnHost } from "./host_tensors.ts";
import { requireKnown, TensorLoader } from "../model/load/load.ts";
import { type DtypeName, DTYPES, floatOf, torchDtypeOf } from "../model/number_formats.ts";
import { checkpointTensors, isExpendable, linearsOf } from "../model/tensors.ts";

/** The parts of a merge. */
export interface MergePlan {
  readonly weights: WeightReader;
  readonly config: ModelConfig;
  readonly adapter: Adapter;
  /** Every tensor of the merged model, in the checkpoint's order. */
  readonly tensors: readonly PlannedTensor[];
  /** The formats that occur. */
  readonly dtypes: readonly FloatDtype[];
  readonly totalBytes: number;
  /** Whether the base holds linears in 4 bits. */
  readonly isQuantised: boolean;
  /** Tensors of the base that are no part of the model, and are not written. */
  readonly leftOut: readonly string[];
  /** Tensors of the base around its text model, which are copied; none where the text model is written alone. */
  readonly copied: readonly string[];
  /** The names under which the model's tensors are written. */
  readonly writtenName: (name: string) => string;
}

interface PlannedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: FloatDtype;
  /** Module of a linear's weight. */
  readonly linear: string | undefined;
}

/**
 * Checks that adapter, base and config are of one model, as far as names and shapes tell.
 *
 * @param storedName of the text model's tensors in the files of one that also reads pictures, where that is written; its
 *   text model alone is, or what is one, unless given
 * @throws {UserError} naming the tensor or module that does not fit, or one around the text model that is in 4 bits
 */
export function planMerge(
  weights: WeightReader,
  config: ModelConfig,
  adapter: Adapter,
  dtype: "keep" | DtypeName,
  storedName?: (name: string) => string,
): MergePlan {
  const expected = checkpointTensors(config);
  const linears = linearsOf(config);
  requireKnown(adapter.extra, expected);
  requireNoMore(weights, config, expected);
  for (const [module, pair] of adapter.lora) {
    requireFit(adapter.config, module, pair, linears.get(module)?.shape);
    // Training gives a linear one or the other.
    if (adapter.extra.has(`${module}.weight`)) {
      throw new UserError(`Cannot use the adapter: it has both LoRA and a whole weight for "${module}"`);
    }
  }
  let isQuantised = false;
  const tensors = [...expected].map(([name, shape]): PlannedTensor => {
    const module = name.replace(/\.weight$/, "");
    const linear = linears.has(module) ? module : undefined;
    const isPacked = linear !== undefined && isBnb4(weights, name);
    isQuantised ||= isPacked;
    const kept = isPacked ? torchDtypeOf(config) : floatOf(weights.info(name).dtype);
    return { name, shape, linear, dtype: dtype === "keep" ? kept : DTYPES[dtype] };
  });
  // After the base: where that is cut short, the adapter is not to blame.
  requireAll(adapter, linears.keys());
  const others = [...weights.names()].filter((name) => !expected.has(name) && !isExpendable(name, config));
  // A config.json that names a part which is not there would get it, of random numbers, where it is loaded.
  const isWhole = storedName !== undefined && others.length > 0;
  const copied = isWhole ? others : [];
  const packed = copied.find((name) => name.endsWith(".weight") && isBnb4(weights, name));
  if (packed !== undefined) {
    throw new UserError(
      `Cannot merge: "${packed}", of the part that reads pictures, is in 4 bits, and the merged model is not. ` +
        "Pass --text_only, or merge onto the model in 16 bits",
    );
  }
  const copiedBytes = copied.reduce((sum, name) => sum + weights.info(name).byteLength, 0);
  return {
    weights,
    config,
    adapter,
    tensors,
    dtypes: [...new Set(tensors.map((tensor) => tensor.dtype))],
    totalBytes: tensors.reduce(
      (sum, tensor) => sum + tensorByteLength(tensor.dtype, tensor.shape),
      copiedBytes,
    ),
    isQuantised,
    leftOut: isWhole ? [] : others,
    copied,
    writtenName: isWhole ? storedName : (name) => name,
  };
}

/**
 * The merged tensors. Reading one makes it: on the device where LoRA or 4 bits take part, else on the host. The plan's
 * weights must stay open until all are read.
 */
export function mergedTensors(
  gpu: Gpu,
  plan: MergePlan,
  { quantisation, onProgress }: {
    /** Quantise the base's linears to this and back before the merge. */
    readonly quantisation: Quantisation;
    readonly onProgress: (tensor: string, done: number, total: number) => void;
  },
): TensorSource[] {
  const { weights, adapter, tensors, copied } = plan;
  const total = tensors.length + copied.length;
  let done = 0;
  const count = (name: string) => onProgress(name, ++done, total);
  const loader = new TensorLoader(gpu, weights, { replacements: adapter.extra, onProgress: count }, total);
  const merged = tensors.map(({ name, shape, dtype, linear }): TensorSource => {
    const written = plan.writtenName(name);
    const pair = linear === undefined ? undefined : adapter.lora.get(linear);
    const isWhole = adapter.extra.has(name);
    const onDevice = linear !== undefined && !isWhole &&
      (pair || quantisation !== "none" || isBnb4(weights, name));
    if (!onDevice) {
      return { name: written, dtype, shape, read: () => readOnHost(loader, name, shape, dtype) };
    }
    const read = async (): Promise<Uint8Array> => {
      const weight = await loader.loadLinear(name, shape as [number, number], quantisation);
      const merged = toDense(gpu, weight);
      if (pair) addLora(gpu, merged, linear, pair, loraScaling(adapter.config, linear));
      const values = await gpu.read(merged);
      merged.free();
      return encode(name, values, dtype);
    };
    return { name: written, dtype, shape, read };
  });
  return [...merged, ...copied.map((name) => copiedTensor(weights, name, () => count(name)))];
}

/** W += scaling B A, (N, K) f32 in place. */
function addLora(gpu: Gpu, weight: Tensor, module: string, pair: LoraPair, scaling: number): void {
  const { A, B } = uploadFactors(gpu, module, pair);
  matmulBackwardInput(gpu, B, A, { into: weight, alpha: scaling, beta: 1 });
  A.free();
  B.free();
}

/** The weight as (N, K) f32; frees `weight` unless it is that already. */
function toDense(gpu: Gpu, weight: Weight): Tensor {
  if (weight instanceof Tensor && weight.dtype === "f32") return weight;
  const dense = weight instanceof Tensor ? cast(gpu, weight, "f32") : weight.dequantise(gpu);
  weight.free();
  return dense;
}
