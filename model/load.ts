import { isBnb4, readBnb4 } from "../checkpoint/bitsandbytes.ts";
import { assertFinite, type Dtype, toF32 } from "../checkpoint/dtype.ts";
import type { ExtraTensor } from "../checkpoint/peft.ts";
import type { WeightReader } from "../checkpoint/weights.ts";
import { UserError } from "../errors.ts";
import { cast } from "../kernels/elementwise/elementwise.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { Weight } from "../kernels/matmul/matmul.ts";
import { quantiseNf4, uploadNf4 } from "../kernels/nf4/nf4.ts";
import { BLOCK, NESTED_BLOCK, NF4_VALUES } from "../kernels/nf4/reference.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { Format } from "../kernels/wgsl.ts";
import { assembleModel } from "./assemble.ts";
import type { LlamaConfig } from "./config.ts";
import type { Llama } from "./llama.ts";
import { checkpointTensors, isExpendable } from "./tensors.ts";

export interface LoadOptions {
  readonly config: LlamaConfig;
  /** How activations are stored. */
  readonly format: Format;
  /** Keep the layers' linears in NF4; a checkpoint that is already quantised stays so in any case. */
  readonly loadIn4bit: boolean;
  /** Keep the scales of NF4 in 8 bits. */
  readonly doubleQuant: boolean;
  /** Whether a tensor of the checkpoint is trained: it is then held in f32, with a gradient. */
  readonly isTrained?: (name: string) => boolean;
  /** Tensors that replace those of the checkpoint: what an adapter trained besides its LoRA factors. */
  readonly replacements?: ReadonlyMap<string, ExtraTensor>;
  readonly onProgress?: (tensor: string, done: number, total: number) => void;
}

/**
 * Loads a model tensor by tensor: at most one is on the host at a time. Frozen weights keep the checkpoint's own
 * format, which loses nothing, or become NF4.
 *
 * @throws {UserError} naming the tensor that is missing, has another shape than the config says, or is not finite
 */
export async function loadModel(gpu: Gpu, weights: WeightReader, options: LoadOptions): Promise<Llama> {
  const { config, format, loadIn4bit } = options;
  const expected = checkpointTensors(config);
  requireKnown(options.replacements, expected);
  requireNoMore(weights, config, expected);
  const tensors = new TensorLoader(gpu, weights, options, expected.size);
  return await assembleModel(gpu, config, format, {
    table: (name, shape) => tensors.load(name, shape),
    vector: (name, length) => tensors.load(name, [length], "f32"),
    matrix: (name, shape) => tensors.loadLinear(name, shape, loadIn4bit),
    isTrained: options.isTrained ?? (() => false),
  });
}

/** @throws {UserError} if an adapter replaces a tensor that the model does not have */
export function requireKnown(
  replacements: LoadOptions["replacements"],
  expected: ReadonlyMap<string, readonly number[]>,
): void {
  for (const name of replacements?.keys() ?? []) {
    if (!expected.has(name)) {
      throw new UserError(`Cannot use the adapter: it holds "${name}", which the base model does not have`);
    }
  }
}

/**
 * @throws {UserError} if the checkpoint's layers hold what config.json does not name, such as further layers or biases:
 *   the model would run without them, and wrongly
 */
export function requireNoMore(
  weights: WeightReader,
  config: LlamaConfig,
  expected: ReadonlyMap<string, readonly number[]>,
): void {
  for (const name of weights.names()) {
    if (!name.startsWith("model.layers.") || expected.has(name) || isExpendable(name, config)) continue;
    throw new UserError(
      `Cannot load the model: its weights hold "${name}", which config.json does not name ` +
        `(num_hidden_layers ${config.num_hidden_layers}). Weights and config.json are not of one model`,
    );
  }
}

const FORMATS: Partial<Record<Dtype, Format>> = { F32: "f32", F16: "f16", BF16: "bf16" };

/** Brings single tensors of a checkpoint to the device, each checked against the config. */
export class TensorLoader {
  #done = 0;

  constructor(
    readonly gpu: Gpu,
    readonly weights: WeightReader,
    readonly options: Pick<LoadOptions, "doubleQuant" | "isTrained" | "replacements" | "onProgress">,
    /** Tensors that will be loaded, for `onProgress`. */
    readonly total: number,
  ) {}

  /** A dense tensor, in the checkpoint's format or, if given or trained, in another. */
  async load(name: string, shape: readonly number[], format?: Format): Promise<Tensor> {
    const stored = await this.read(name, shape);
    const tensor = this.gpu.tensor(shape, stored.bytes, { dtype: stored.format, label: name });
    const wanted = this.#isTrained(name) ? "f32" : format ?? stored.format;
    if (wanted === stored.format) return tensor;
    const converted = cast(this.gpu, tensor, wanted);
    tensor.free();
    return converted;
  }

  /** A matrix of a linear: dense, or in NF4 if `loadIn4bit` or the checkpoint says so. */
  async loadLinear(name: string, shape: readonly [number, number], loadIn4bit: boolean): Promise<Weight> {
    const trained = this.#isTrained(name);
    // What an adapter trained as a whole was never in 4 bits.
    if (this.options.replacements?.has(name)) return await this.load(name, shape);
    if (isBnb4(this.weights, name)) {
      if (trained) {
        throw new UserError(
          `Cannot train "${name}": the checkpoint holds it in 4 bits. Use the original model, or set low_rank_training: true`,
          { exitCode: 2 },
        );
      }
      return await this.#loadBnb4(name, shape);
    }
    if (!loadIn4bit || trained) return await this.load(name, shape);
    requirePackable(name, shape);
    const dense = await this.load(name, shape, "f32");
    const quantised = quantiseNf4(this.gpu, dense, { doubleQuant: this.options.doubleQuant, label: name });
    dense.free();
    return quantised;
  }

  #isTrained(name: string): boolean {
    return this.options.isTrained?.(name) ?? false;
  }

  async #loadBnb4(name: string, shape: readonly [number, number]): Promise<Weight> {
    const packed = await readBnb4(this.weights, name);
    checkShape(name, packed.shape, shape);
    const sameMap = packed.quantMap.every((value, i) => value === NF4_VALUES[i]);
    if (packed.blockSize !== BLOCK || packed.nestedBlockSize !== NESTED_BLOCK || !sameMap) {
      throw new UserError(
        `Cannot load "${name}": it is quantised in blocks of ${packed.blockSize} with scales in blocks of ` +
          `${packed.nestedBlockSize}; only NF4 with ${BLOCK} and ${NESTED_BLOCK} can be read`,
      );
    }
    this.#count(name);
    const { nestedAbsmax, nestedCode, nestedOffset } = packed;
    const nested = nestedAbsmax && nestedCode
      ? { nested: { absmax: nestedAbsmax, map: nestedCode, offset: nestedOffset } }
      : {};
    return uploadNf4(this.gpu, { shape, codes: packed.codes, absmax: packed.absmax, ...nested }, name);
  }

  /** A dense tensor's bytes on the host: the adapter's where it replaces the checkpoint's. */
  async read(name: string, shape: readonly number[]): Promise<{ bytes: Uint8Array; format: Format }> {
    this.#count(name);
    const replacement = this.options.replacements?.get(name);
    if (replacement) {
      checkShape(name, replacement.shape, shape);
      return { bytes: bytesOf(replacement.data), format: "f32" };
    }
    const info = this.weights.info(name);
    checkShape(name, info.shape, shape);
    const bytes = await this.weights.read(name);
    const format = FORMATS[info.dtype];
    if (format && isFiniteIn(bytes, format)) return { bytes, format };
    const values = toF32(bytes, info.dtype);
    assertFinite(name, values);
    return { bytes: bytesOf(values), format: "f32" };
  }

  #count(name: string): void {
    this.options.onProgress?.(name, ++this.#done, this.total);
  }
}

/** @throws {UserError} if a linear's matrix (N, K) cannot be held in 4 bits: eight weights of a row make a word */
export function requirePackable(name: string, shape: readonly [number, number]): void {
  if (shape[1] % 8 === 0) return;
  throw new UserError(
    `Cannot hold "${name}" [${shape}] in 4 bits: its rows are no multiple of 8. Set load_in_4bit: false`,
  );
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

function checkShape(name: string, actual: readonly number[], expected: readonly number[]): void {
  if (actual.length === expected.length && actual.every((axis, i) => axis === expected[i])) return;
  throw new UserError(
    `Cannot load "${name}": it is [${actual}], but config.json makes it [${expected}]. ` +
      `Weights and config.json are not of one model`,
  );
}

/** Whether no element is NaN or infinite, by the exponent bits alone: no conversion of billions of numbers. */
function isFiniteIn(bytes: Uint8Array<ArrayBuffer>, format: Format): boolean {
  const exponent = format === "f32" ? 0x7f800000 : format === "bf16" ? 0x7f80 : 0x7c00;
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  const words = format === "f32"
    ? new Uint32Array(aligned.buffer, aligned.byteOffset, aligned.length / 4)
    : new Uint16Array(aligned.buffer, aligned.byteOffset, aligned.length / 2);
  for (let i = 0; i < words.length; i++) {
    if ((words[i]! & exponent) === exponent) return false;
  }
  return true;
}
