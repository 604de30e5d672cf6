import { type Bnb4Weight, isBnb4, readBnb4 } from "../../checkpoint/bitsandbytes.ts";
import type { ExtraTensor } from "../../checkpoint/peft.ts";
import type { WeightReader } from "../../checkpoint/weights.ts";
import { UserError } from "../../errors.ts";
import { castInto } from "../../kernels/elementwise/elementwise.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import type { NamedShape } from "../../kernels/memory.ts";
import { emptyNf4Together, writeScales } from "../../kernels/nf4/nf4.ts";
import { BLOCK, NESTED_BLOCK, NF4_VALUES } from "../../kernels/nf4/format.ts";
import { METHODS, type Quantisation, type Quantised } from "../../kernels/quantisation.ts";
import { bytesPerElement, type Tensor } from "../../kernels/tensor.ts";
import type { QuantisedStack, QuantisedWeight, Weight } from "../../kernels/weight.ts";
import type { Format } from "../../kernels/wgsl.ts";
import { assembleModel, type NamedMatrix } from "./assemble.ts";
import type { ModelConfig } from "../model_config.ts";
import { checkShape, requireNoMore } from "./fits.ts";
import type { LanguageModel } from "../language_model.ts";
import { checkpointTensors } from "../tensors.ts";
import { type RowSource, Uploader } from "./read_ahead.ts";

export interface LoadOptions {
  readonly config: ModelConfig;
  /** Format of activations. */
  readonly format: Format;
  /** Quantisation of the layers' linears that are not trained; a checkpoint that is already quantised stays as it is in any case. */
  readonly quantisation: Quantisation;
  /** Whether a tensor of the checkpoint is trained: it is then held in f32, with a gradient. */
  readonly isTrained?: (name: string) => boolean;
  /** Tensors that replace those of the checkpoint: what an adapter trained besides its LoRA factors. */
  readonly replacements?: ReadonlyMap<string, ExtraTensor>;
  readonly onProgress?: (tensor: string, done: number, total: number) => void;
}

/**
 * Loads a model tensor by tensor, each by chunks of rows: the host holds some 100 MB at most, whatever the model's
 * size, and the device nothing but the model and one chunk. Frozen weights keep the checkpoint's own format, which
 * loses nothing, or are quantised.
 *
 * @throws {UserError} naming the tensor that is missing, has another shape than the config says, or is not finite
 */
export async function loadModel(
  gpu: Gpu,
  weights: WeightReader,
  options: LoadOptions,
): Promise<LanguageModel> {
  const { config, format, quantisation } = options;
  const expected = checkpointTensors(config);
  requireKnown(options.replacements, expected);
  requireNoMore(weights, config, expected);
  const tensors = new TensorLoader(gpu, weights, options, expected.size);
  return await assembleModel(gpu, config, format, {
    table: (name, shape) => tensors.load(name, shape),
    vector: (name, length) => tensors.load(name, [length], "f32"),
    formOf: (name) => tensors.formOf(name, quantisation),
    matrices: (wanted) => tensors.loadLinears(wanted, quantisation),
    stack: (names, shape, label) => tensors.loadStack(names, shape, label, quantisation),
    isTrained: options.isTrained ?? (() => false),
  });
}

/** @throws {UserError} if an adapter replaces a tensor that the model does not have, or has in another shape */
export function requireKnown(
  replacements: LoadOptions["replacements"],
  expected: ReadonlyMap<string, readonly number[]>,
): void {
  for (const [name, { shape }] of replacements ?? []) {
    const wanted = expected.get(name);
    if (!wanted) {
      throw new UserError(`Cannot use the adapter: it holds "${name}", which the base model does not have`);
    }
    if (shape.join() === wanted.join()) continue;
    throw new UserError(
      `Cannot use the adapter: its "${name}" is [${shape}], the base model's is [${wanted}]. It was trained on another base`,
    );
  }
}

/** Brings single tensors of a checkpoint to the device, each checked against the config. */
export class TensorLoader {
  readonly #uploader: Uploader;
  #done = 0;

  constructor(
    readonly gpu: Gpu,
    readonly weights: WeightReader,
    readonly options: Pick<LoadOptions, "isTrained" | "replacements" | "onProgress">,
    /** Tensors that will be loaded, for `onProgress`. */
    readonly total: number,
  ) {
    this.#uploader = new Uploader(gpu);
  }

  /** A dense tensor, in the checkpoint's format or, if given or trained, in another. */
  async load(name: string, shape: readonly number[], format?: Format): Promise<Tensor> {
    const source = this.open(name, shape);
    const tensor = this.gpu.empty(shape, this.#formatOf(source, format), name);
    await this.#fill(source, tensor);
    return tensor;
  }

  #formatOf({ name, dtype }: RowSource, format?: Format): Format {
    return this.#isTrained(name) ? "f32" : format ?? Uploader.formatOf(dtype);
  }

  /** Writes a source's values over a tensor of its shape, cast to the tensor's format. */
  async #fill(source: RowSource, tensor: Tensor): Promise<void> {
    const { gpu } = this;
    const stored = Uploader.formatOf(source.dtype);
    await this.#uploader.floats(source, (values, start, end) => {
      const rows = tensor.slice(start, end);
      if (tensor.dtype === stored) gpu.write(rows, values);
      else this.#staged(source, values, (stage) => castInto(gpu, stage, rows));
    });
  }

  /** A matrix of a linear: dense, or quantised if `quantisation` or the checkpoint says so. */
  async loadLinear(
    name: string,
    shape: readonly [number, number],
    quantisation: Quantisation,
  ): Promise<Weight> {
    return (await this.loadLinears([{ name, shape }], quantisation))[0]!;
  }

  /** Matrices of which {@linkcode formOf} says the same, side by side in memory. */
  async loadLinears(wanted: readonly NamedMatrix[], quantisation: Quantisation): Promise<Weight[]> {
    const { name } = wanted[0]!;
    const method = this.#methodOf(name, quantisation);
    if (method === "packed") return await this.#loadBnb4(wanted);
    if (method !== "none") return await this.#quantise(wanted, method);
    const format = this.#formatOf(this.#source(name));
    const tensors = this.gpu.emptyTogether(roomsOf(wanted), format);
    for (const [i, { name, shape }] of wanted.entries()) {
      await this.#fill(this.open(name, shape), tensors[i]!);
    }
    return tensors;
  }

  /** Form that a linear's matrix has on the device: a format, or a quantisation. */
  formOf(name: string, quantisation: Quantisation): string {
    const method = this.#methodOf(name, quantisation);
    return method === "none" ? this.#formatOf(this.#source(name)) : method;
  }

  #methodOf(name: string, quantisation: Quantisation): Quantisation | "packed" {
    // What an adapter trained as a whole was never quantised.
    if (this.options.replacements?.has(name)) return "none";
    const trained = this.#isTrained(name);
    if (!isBnb4(this.weights, name)) return trained ? "none" : quantisation;
    if (!trained) return "packed";
    throw new UserError(
      `Cannot train "${name}": the checkpoint holds it in 4 bits. Use the original model, or set low_rank_training: true`,
      { kind: "usage" },
    );
  }

  /**
   * Matrices of one shape, one behind the other in one tensor: dense, or each quantised for itself. No more than one is
   * on the device besides.
   * @param label of them all
   */
  async loadStack(
    names: readonly string[],
    shape: readonly [number, number],
    label: string,
    quantisation: Quantisation,
  ): Promise<Weight> {
    const { gpu } = this;
    const [rows, width] = shape;
    const all = [names.length * rows, width] as const;
    const isTrained = alike(names, (name) => this.#isTrained(name), "trained");
    const isPacked = alike(names, (name) => isBnb4(this.weights, name), "in 4 bits in the checkpoint");
    const isReplaced = names.some((name) => this.options.replacements?.has(name));
    if ((isPacked || quantisation !== "none") && !isTrained && !isReplaced) {
      return await stackOf(
        gpu,
        names,
        label,
        async (name) => await this.loadLinear(name, shape, quantisation) as QuantisedWeight,
      );
    }
    const first = names[0]!;
    if (isPacked) return await this.loadLinear(first, shape, quantisation);
    const stored = Uploader.formatOf(this.open(first, shape).dtype);
    const tensor = gpu.empty(all, isTrained || isReplaced ? "f32" : stored, label);
    for (const [number, name] of names.entries()) {
      const source = number === 0 ? this.#source(name) : this.open(name, shape);
      await this.#fill(source, tensor.slice(number * rows, (number + 1) * rows));
    }
    return tensor;
  }

  #isTrained(name: string): boolean {
    return this.options.isTrained?.(name) ?? false;
  }

  async #quantise(wanted: readonly NamedMatrix[], method: Quantised): Promise<Weight[]> {
    for (const { name, shape } of wanted) requirePackable(name, shape, method);
    const quantisers = METHODS[method].quantisers(this.gpu, roomsOf(wanted));
    const weights: Weight[] = [];
    for (const [i, { name, shape }] of wanted.entries()) {
      const source = this.open(name, shape);
      await this.#uploader.floats(source, (values) => {
        this.#staged(source, values, (rows) => quantisers[i]!.add(rows));
      });
      weights.push(quantisers[i]!.finish());
    }
    return weights;
  }

  /** Rows that are on the device only until they are converted. */
  #staged(
    { name, dtype, shape }: RowSource,
    values: Uint8Array | Float32Array,
    convert: (rows: Tensor) => void,
  ): void {
    using _ = this.gpu.memory.purpose("scratch");
    const format = Uploader.formatOf(dtype);
    const width = shape.length < 2 ? [] : [shape.at(-1)!];
    const count = values.byteLength / bytesPerElement(format) / (width[0] ?? 1);
    const rows = this.gpu.tensor([count, ...width], values, { dtype: format, label: name });
    convert(rows);
    rows.free();
  }

  /** Side by side where all have nested scales of one map, or none has. */
  async #loadBnb4(wanted: readonly NamedMatrix[]): Promise<Weight[]> {
    const packs: Bnb4Weight[] = [];
    for (const each of wanted) packs.push(await this.#readBnb4(each));
    const isAlike = new Set(packs.map(({ nestedCode }) => String(nestedCode))).size === 1;
    const rooms = (isAlike ? [[...wanted.keys()]] : [...wanted.keys()].map((i) => [i])).map((some) => ({
      wanted: roomsOf(some.map((i) => wanted[i]!)),
      doubleQuant: packs[some[0]!]!.nestedCode !== undefined,
    }));
    const weights = rooms.flatMap(({ wanted, ...options }) => emptyNf4Together(this.gpu, wanted, options));
    for (const [i, { name }] of wanted.entries()) {
      const { absmax, nestedAbsmax, nestedCode, nestedOffset } = packs[i]!;
      this.#count(name);
      await this.#uploader.bytes(this.#stored(name), weights[i]!.codes);
      writeScales(this.gpu, weights[i]!, {
        absmax,
        ...(nestedAbsmax && nestedCode &&
          { nested: { absmax: nestedAbsmax, map: nestedCode, offset: nestedOffset } }),
      });
    }
    return weights;
  }

  /** All of a packed matrix but its codes. */
  async #readBnb4({ name, shape }: NamedMatrix): Promise<Bnb4Weight> {
    const packed = await readBnb4(this.weights, name);
    checkShape(name, packed.shape, shape);
    const sameMap = packed.quantMap.every((value, i) => value === NF4_VALUES[i]);
    if (packed.blockSize !== BLOCK || packed.nestedBlockSize !== NESTED_BLOCK || !sameMap) {
      throw new UserError(
        `Cannot load "${name}": it is quantised in blocks of ${packed.blockSize} with scales in blocks of ` +
          `${packed.nestedBlockSize}; only NF4 with ${BLOCK} and ${NESTED_BLOCK} can be read`,
      );
    }
    requirePackable(name, shape, "nf4");
    return packed;
  }

  /** A dense tensor to be read: the adapter's where it replaces the checkpoint's. Counts as done. */
  open(name: string, shape: readonly number[]): RowSource {
    this.#count(name);
    const source = this.#source(name);
    checkShape(name, source.shape, shape);
    return source;
  }

  #source(name: string): RowSource {
    const replacement = this.options.replacements?.get(name);
    return replacement ? ofArray(name, replacement) : this.#stored(name);
  }

  #stored(name: string): RowSource {
    const { dtype, shape } = this.weights.info(name);
    return { name, dtype, shape, readInto: (from, into) => this.weights.readInto(name, from, into) };
  }

  #count(name: string): void {
    this.options.onProgress?.(name, ++this.#done, this.total);
  }
}

function roomsOf(wanted: readonly NamedMatrix[]): NamedShape[] {
  return wanted.map(({ name, shape }) => ({ shape, label: name }));
}

/** Puts matrices in fewer bits one behind the other, one after the other. @param make makes one, which is freed here */
export async function stackOf(
  gpu: Gpu,
  names: readonly string[],
  label: string,
  make: (name: string) => Promise<QuantisedWeight>,
): Promise<QuantisedWeight> {
  let stack: QuantisedStack | undefined;
  for (const [number, name] of names.entries()) {
    const matrix = await make(name);
    stack ??= matrix.stack(gpu, names.length, label);
    stack.put(number, matrix);
    matrix.free();
  }
  return stack!.weight;
}

/** Whether something holds of all the experts' matrices, or of none. @throws {UserError} if of some */
function alike(names: readonly string[], holds: (name: string) => boolean, what: string): boolean {
  const first = holds(names[0]!);
  const other = names.find((name) => holds(name) !== first);
  if (other === undefined) return first;
  const [one, rest] = first ? [names[0]!, other] : [other, names[0]!];
  throw new UserError(
    `Cannot load the experts: "${one}" is ${what}, but "${rest}" is not. Those of one layer and purpose are held together`,
    { kind: "usage" },
  );
}

function ofArray(name: string, { shape, data }: ExtraTensor): RowSource {
  const bytes = bytesOf(data);
  // deno-lint-ignore require-await
  const readInto = async (from: number, into: Uint8Array): Promise<void> => {
    into.set(bytes.subarray(from, from + into.length));
  };
  return { name, dtype: "F32", shape, readInto };
}

/**
 * @param remedy what the user can do; that of loading unless given
 * @throws {UserError} if a linear's matrix (N, K) cannot be quantised: its rows must be whole words
 */
export function requirePackable(
  name: string,
  shape: readonly [number, number],
  method: Quantised,
  remedy = "Set load_in_4bit: false",
): void {
  const { widthUnit } = METHODS[method];
  if (shape[1] % widthUnit === 0) return;
  throw new UserError(
    `Cannot hold "${name}" [${shape}] in 4 bits: its rows are no multiple of ${widthUnit}. ${remedy}`,
  );
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
