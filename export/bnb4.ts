/** A checkpoint with its linears in NF4, as bitsandbytes stores them. */
import type { FloatDtype } from "../checkpoint/dtype.ts";
import { isBnb4 } from "../checkpoint/bitsandbytes.ts";
import type { TensorSource } from "../checkpoint/safetensors.ts";
import { writeModel, type WrittenModel } from "../checkpoint/save_model.ts";
import { saveFolderAtomic } from "../checkpoint/store.ts";
import type { WeightReader } from "../checkpoint/weights.ts";
import { UserError } from "../errors.ts";
import type { Gpu, GpuOptions } from "../kernels/gpu.ts";
import { openGpu } from "../kernels/open.ts";
import { Nf4Weight } from "../kernels/nf4/nf4.ts";
import { BLOCK, dynamicMap, NESTED_BLOCK, NF4_VALUES } from "../kernels/nf4/format.ts";
import type { Quantised } from "../kernels/quantisation.ts";
import { readConfig } from "../model/config.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { requireNoMore } from "../model/load/fits.ts";
import { textAloneNotes } from "../model/wrapper.ts";
import type { WorkHooks } from "../model/hooks.ts";
import { readOnHost } from "./host_tensors.ts";
import { requirePackable, TensorLoader } from "../model/load/load.ts";
import { openModelWeights, tableNotes } from "../model/load/model_weights.ts";
import { type DtypeName, DTYPES, floatOf, TORCH_NAMES, torchDtype } from "../model/number_formats.ts";
import { checkpointTensors, layoutOf, linearsOf, routersOf } from "../model/tensors.ts";

/** Options of {@linkcode convertToBnb4}. */
export interface Bnb4Options {
  /** "nf4-double" unless given: scales in 8 bits too. */
  readonly quantisation?: "nf4" | "nf4-double";
  /** Number format of embeddings, norms, biases and head; `keep` (unless given): as they are. */
  readonly dtype?: "keep" | DtypeName;
  /** Largest weight file in bytes; 5 GB unless given. */
  readonly maxShardSize?: number;
  /** Options of the device; its defaults unless given. */
  readonly gpuOptions?: GpuOptions;
}

/**
 * Writes a model folder as a checkpoint in 4 bits that `transformers` with bitsandbytes loads, and {@linkcode loadModel}
 * bit for bit as it would quantise the original. One linear is in memory at a time, besides the scales of one file;
 * nothing is under `path` until all of it is.
 *
 * @throws {UserError} if the folder is damaged, in 4 bits already or cannot be packed, or `path` is not empty
 */
export async function convertToBnb4(
  folder: string,
  path: string,
  { quantisation = "nf4-double", dtype = "keep", maxShardSize = 5e9, gpuOptions }: Bnb4Options = {},
  hooks: WorkHooks = {},
): Promise<WrittenModel> {
  const config = await readConfig(folder);
  const weights = await openModelWeights(folder, config);
  try {
    requireDense(folder, config, weights);
    [...config.notes, ...textAloneNotes(config), ...await tableNotes(folder, config)].forEach((line) =>
      hooks.note?.(line)
    );
    using gpu = await openGpu(gpuOptions);
    const { raw } = config;
    const tensors = bnb4Tensors(gpu, weights, config, { quantisation, dtype }, hooks);
    const matrices = matricesOf(config);
    const kept = [...checkpointTensors(config).keys()].filter((name) => !matrices.has(name));
    const dtypes = [...new Set(kept.map((name) => writtenDtype(weights, name, dtype)))];
    let written: WrittenModel = { shards: [], totalBytes: 0 };
    await saveFolderAtomic(path, async (staged) => {
      written = await writeModel(staged, {
        config: {
          ...raw,
          ...torchDtype(raw, dtypes),
          quantization_config: quantisationConfig(config, quantisation, dtypes[0]!),
        },
        tensors,
        filesFrom: folder,
        maxShardBytes: maxShardSize,
      });
    }, { note: hooks.note });
    return written;
  } finally {
    weights.close();
  }
}

function requireDense(folder: string, config: ModelConfig, weights: WeightReader): void {
  const expected = checkpointTensors(config);
  requireNoMore(weights, config, expected);
  const matrices = matricesOf(config);
  for (const [name, shape] of expected) {
    if (!matrices.has(name)) continue;
    if (isBnb4(weights, name)) {
      throw new UserError(`Cannot convert "${folder}" to 4 bits: it is in 4 bits already`, {
        kind: "usage",
      });
    }
    requirePackable(name, shape as [number, number], "nf4", "The model can be used in 16 bits only");
  }
}

/** Names of the matrices of the layers' linears: what bitsandbytes packs. */
function matricesOf(config: ModelConfig): Set<string> {
  return new Set([...linearsOf(config).keys()].map((module) => `${module}.weight`));
}

function writtenDtype(weights: WeightReader, name: string, dtype: "keep" | DtypeName): FloatDtype {
  return dtype === "keep" ? floatOf(weights.info(name).dtype) : DTYPES[dtype];
}

/** `quantization_config` as `transformers` writes it; what is not named has its default. */
function quantisationConfig(
  config: ModelConfig,
  quantisation: Quantised,
  dtype: FloatDtype,
): Record<string, unknown> {
  // bitsandbytes would take routers for linears as any other.
  const routers = [...routersOf(config).keys()];
  return {
    load_in_4bit: true,
    load_in_8bit: false,
    quant_method: "bitsandbytes",
    bnb_4bit_quant_type: "nf4",
    bnb_4bit_use_double_quant: quantisation === "nf4-double",
    bnb_4bit_compute_dtype: TORCH_NAMES[dtype],
    bnb_4bit_quant_storage: "uint8",
    ...(routers.length > 0 && { llm_int8_skip_modules: [layoutOf(config).head, ...routers] }),
  };
}

function* bnb4Tensors(
  gpu: Gpu,
  weights: WeightReader,
  config: ModelConfig,
  { quantisation, dtype }: Required<Pick<Bnb4Options, "quantisation" | "dtype">>,
  hooks: WorkHooks,
): Generator<TensorSource> {
  const expected = checkpointTensors(config);
  const onProgress = (name: string, done: number, total: number) => hooks.onProgress?.(done, total, name);
  const loader = new TensorLoader(gpu, weights, { onProgress }, expected.size);
  const matrices = matricesOf(config);
  for (const [name, shape] of expected) {
    const written = writtenDtype(weights, name, dtype);
    if (matrices.has(name)) {
      yield* linearParts(loader, name, shape as [number, number], quantisation, written);
    } else yield { name, dtype: written, shape, read: () => readOnHost(loader, name, shape, written) };
  }
}

type Part = "codes" | "absmax" | "nested_absmax" | "state";

/**
 * The tensors of one linear (N, K), in bitsandbytes' layout (`QuantState.as_dict(packed=True)`). The first one read
 * quantises all; codes and f32 scales follow one another in the file, so that only what a file has at its end waits:
 * the 8-bit scales and the state.
 */
function linearParts(
  loader: TensorLoader,
  name: string,
  shape: readonly [number, number],
  quantisation: Quantised,
  dtype: FloatDtype,
): TensorSource[] {
  const [count, isNested] = [shape[0] * shape[1], quantisation === "nf4-double"];
  const blocks = Math.ceil(count / BLOCK);
  const stateLength = encodeState(shape, dtype, isNested ? 0 : undefined).length;
  let parts: Promise<Map<Part, Uint8Array>> | undefined;
  const part = (key: Part) => async (): Promise<Uint8Array> => {
    const made = await (parts ??= quantise(loader, name, shape, quantisation, dtype));
    const bytes = made.get(key)!;
    made.delete(key);
    return bytes;
  };
  const values = (array: Float32Array) => () => Promise.resolve(bytesOf(array));
  const f32 = (suffix: string, length: number, read: TensorSource["read"]): TensorSource => (
    { name: `${name}.${suffix}`, dtype: "F32", shape: [length], read }
  );
  const u8 = (suffix: string, length: number, read: TensorSource["read"]): TensorSource => (
    { name: name + suffix, dtype: "U8", shape: [length], read }
  );
  return [
    // Rows are multiples of 8 weights, so codes are whole words.
    { ...u8("", count / 2, part("codes")), shape: [count / 2, 1], unit: 4 },
    ...(isNested
      ? [
        f32("nested_absmax", Math.ceil(blocks / NESTED_BLOCK), part("nested_absmax")),
        f32("nested_quant_map", 256, values(dynamicMap())),
        u8(".absmax", blocks, part("absmax")),
      ]
      : [f32("absmax", blocks, part("absmax"))]),
    f32("quant_map", 16, values(NF4_VALUES)),
    u8(".quant_state.bitsandbytes__nf4", stateLength, part("state")),
  ];
}

async function quantise(
  loader: TensorLoader,
  name: string,
  shape: readonly [number, number],
  quantisation: Quantised,
  dtype: FloatDtype,
): Promise<Map<Part, Uint8Array>> {
  const weight = await loader.loadLinear(name, shape, quantisation);
  if (!(weight instanceof Nf4Weight)) throw new RangeError(`"${name}" was not quantised`);
  const { codes, absmax, nested } = weight;
  const [packed, scales, outer] = await loader.gpu.readBytes([
    codes,
    absmax,
    ...(nested ? [nested.scales] : []),
  ]);
  weight.free();
  const parts = new Map<Part, Uint8Array>([["codes", packed!]]);
  if (!outer) {
    parts.set("absmax", scales!).set("state", encodeState(shape, dtype, undefined));
  } else {
    const blocks = Math.ceil(shape[0] * shape[1] / BLOCK);
    const offset = new Float32Array(outer.buffer, 0, 1)[0]!;
    // A copy: a view would keep what follows it.
    parts.set("absmax", scales!.slice(0, blocks)).set("nested_absmax", outer.slice(4));
    parts.set("state", encodeState(shape, dtype, offset));
  }
  return parts;
}

/** Digits that the longest f32 takes in JSON. */
const OFFSET_DIGITS = 24;

/**
 * The JSON that says how to read the parts, padded with spaces to a length that the offset does not change: a file's
 * header comes before the scales are known.
 * @param offset what was taken off the scales before they were quantised; undefined where they were not
 */
function encodeState(
  shape: readonly [number, number],
  dtype: FloatDtype,
  offset: number | undefined,
): Uint8Array {
  const state = { quant_type: "nf4", blocksize: BLOCK, dtype: TORCH_NAMES[dtype], shape };
  if (offset === undefined) return new TextEncoder().encode(JSON.stringify(state));
  const nested = { nested_blocksize: NESTED_BLOCK, nested_dtype: "float32", nested_offset: offset };
  const text = JSON.stringify({ ...state, ...nested });
  return new TextEncoder().encode(text + " ".repeat(OFFSET_DIGITS - String(offset).length));
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
