import { GpuError } from "../errors.ts";
import type { Gpu, Sharing } from "../gpu.ts";
import { sumInto } from "../shared/sum.ts";
import type { NamedShape } from "../memory.ts";
import { type Dtype, ROW_ALIGNMENT, rowRanges, slices, type Tensor } from "../tensor.ts";
import type { Operand, QuantisedStack, QuantisedWeight, Quantiser, VectorOperand } from "../weight.ts";
import type { Kernel } from "../wgsl.ts";
import { BLOCK, dynamicMap, NESTED_BLOCK } from "./format.ts";
import {
  dequantiseInto,
  GRID_X,
  type NestedScaleTensors,
  nf4Operands,
  type Nf4Tensors,
  nf4VectorOperands,
} from "./operand.ts";
import quantiseWgsl from "./quantise.wgsl" with { type: "text" };
import quantiseScalesWgsl from "./quantise_scales.wgsl" with { type: "text" };

const QUANTISE: Kernel = { name: "nf4_quantise", wgsl: quantiseWgsl };
const QUANTISE_SCALES: Kernel = { name: "nf4_quantise_scales", wgsl: quantiseScalesWgsl };

/** A frozen matrix (N, K) in NF4. The buffers that hold the codes split by rows like any tensor's. */
export class Nf4Weight implements QuantisedWeight, Nf4Tensors {
  readonly shape: readonly [number, number];
  readonly label: string;
  readonly codes: Tensor;
  readonly absmax: Tensor;
  readonly nested: NestedScaleTensors | undefined;
  readonly parts: number;

  constructor({ shape, label, codes, absmax, nested, parts }: Nf4Tensors) {
    this.shape = shape;
    this.label = label;
    this.codes = codes;
    this.absmax = absmax;
    this.nested = nested;
    this.parts = parts;
  }

  get byteLength(): number {
    return this.#tensors().reduce((sum, tensor) => sum + tensor.byteLength, 0);
  }

  operands(): Operand[] {
    return nf4Operands(this);
  }

  vectorOperands(sharing: Sharing): VectorOperand[] {
    return nf4VectorOperands(this, sharing);
  }

  dequantise(gpu: Gpu): Tensor {
    const y = gpu.empty(this.shape, "f32", this.label);
    this.dequantiseInto(gpu, y);
    return y;
  }

  dequantiseInto(gpu: Gpu, y: Tensor): void {
    for (const { start, end } of rowRanges([y, this.codes])) {
      dequantiseInto(gpu, this, start, y.slice(start, end));
    }
  }

  stack(gpu: Gpu, count: number, label: string): Nf4Stack {
    return new Nf4Stack(gpu, count, this, label);
  }

  free(): void {
    for (const tensor of this.#tensors()) tensor.free();
  }

  #tensors(): Tensor[] {
    const { codes, absmax, nested } = this;
    return nested ? [codes, absmax, nested.scales, nested.map] : [codes, absmax];
  }
}

/** Options of a matrix in NF4. */
export interface Nf4Options {
  /** Keep the scales in 8 bits too (0.127 instead of 0.5 bits a weight); true unless set. */
  readonly doubleQuant?: boolean;
  /** Equal runs of rows that are quantised each for itself; one unless given. */
  readonly parts?: number;
  readonly label?: string;
}

/**
 * Quantises a matrix in blocks of 64 weights.
 *
 * @param x (N, K) in any float format; stays the caller's
 * @throws {GpuError} if K is not a multiple of 8
 * @see Dettmers et al. 2023, QLoRA, arXiv:2305.14314, section 3
 */
export function quantiseNf4(gpu: Gpu, x: Tensor, options: Nf4Options = {}): Nf4Weight {
  const quantiser = new Nf4Quantiser(gpu, emptyNf4(gpu, x.shape, { label: x.label, ...options }));
  quantiser.add(x);
  return quantiser.finish();
}

/** Quantises a matrix that comes in chunks of rows, so that it is never on the device as a whole in floats. */
export class Nf4Quantiser implements Quantiser {
  readonly #gpu: Gpu;
  readonly #weight: Nf4Weight;
  /** (blocks) f32, from the first rows on */
  #absmax: Tensor | undefined;
  #rows = 0;

  /** @param weight room for the matrix */
  constructor(gpu: Gpu, weight: Nf4Weight) {
    this.#gpu = gpu;
    this.#weight = weight;
  }

  /**
   * Quantises the next rows.
   * @param x (rows, K) in any float format; stays the caller's
   * @throws {GpuError} if their number is no multiple of 64, unless they are the last
   */
  add(x: Tensor): void {
    const { shape: [rows, width], codes, label } = this.#weight;
    const first = this.#rows;
    const end = first + x.rows;
    if (x.width !== width || end > rows || (end < rows && x.rows % ROW_ALIGNMENT !== 0)) {
      throw new GpuError(
        `Cannot quantise rows ${first} to ${end} of "${label}" [${rows},${width}]: got [${x.shape}]`,
      );
    }
    const absmax = this.#absmax ??= this.#emptyScales();
    const target = codes.slice(first, end);
    for (const range of rowRanges([x, target])) {
      const quads = (range.end - range.start) * width / 4;
      const groups = Math.ceil(quads / 16 / 64);
      const parts = { ...slices({ x, codes: target }, range), absmax };
      this.#gpu.run(QUANTISE, parts, {
        grid: [Math.min(groups, GRID_X), Math.ceil(groups / GRID_X)],
        uniforms: { quads, first_block: (first + range.start) * width / BLOCK },
        formats: { X: x.format },
      });
    }
    this.#rows = end;
  }

  /** The matrix, which is the caller's. @throws {GpuError} if rows are missing */
  finish(): Nf4Weight {
    const { shape, absmax, nested, label } = this.#weight;
    if (this.#rows !== shape[0]) {
      throw new GpuError(`Cannot quantise "${label}" [${shape}]: only ${this.#rows} rows were given`);
    }
    if (!nested) return this.#weight;
    const [gpu, scales] = [this.#gpu, this.#absmax!];
    using _ = gpu.memory.purpose("scratch");
    const sum = gpu.zeros([1], "f32", "sum of scales");
    sumInto(gpu, scales, sum);
    const tensors = {
      absmax: scales,
      sum,
      dynamic_code: nested.map,
      codes: absmax,
      nested: nested.scales,
    };
    gpu.run(QUANTISE_SCALES, tensors, {
      grid: [Math.ceil(scales.size / NESTED_BLOCK)],
      uniforms: { blocks: scales.size },
    });
    sum.free();
    scales.free();
    return this.#weight;
  }

  #emptyScales(): Tensor {
    const { shape, label, absmax, nested } = this.#weight;
    using _ = this.#gpu.memory.purpose("scratch");
    return nested ? this.#gpu.empty([blocksOf(shape)], "f32", `${label} scales in f32`) : absmax;
  }
}

/**
 * Room for a matrix in NF4 whose codes and scales are still to be written.
 * @param shape (N, K)
 * @throws {GpuError} if K is not a multiple of 8
 */
export function emptyNf4(
  gpu: Gpu,
  shape: readonly number[],
  { label = "nf4", ...options }: Nf4Options = {},
): Nf4Weight {
  return emptyNf4Together(gpu, [{ shape, label }], options)[0]!;
}

/**
 * Rooms of {@linkcode emptyNf4} of which codes, scales and all else lie side by side, as `Gpu.emptyTogether` lays them. The
 * map of each, if it is overwritten, stays that of all: products read one.
 */
export function emptyNf4Together(
  gpu: Gpu,
  wanted: readonly NamedShape[],
  { doubleQuant = true, parts = 1 }: Omit<Nf4Options, "label"> = {},
): Nf4Weight[] {
  const shapes = wanted.map(({ shape, label }): [number, number] => {
    const [rows, width] = shape;
    if (shape.length !== 2 || !rows || !width || width % 8 !== 0) {
      throw new GpuError(`Cannot hold "${label}" [${shape}] in NF4: it must be (N, K), K % 8 = 0`);
    }
    if (parts > 1 && rows * width % (4 * BLOCK * parts) !== 0) {
      throw new GpuError(
        `Cannot hold "${label}" [${shape}] in NF4: ${parts} parts of it are no multiple of ${
          4 * BLOCK
        } weights each`,
      );
    }
    return [rows, width];
  });
  const make = (what: string, dtype: Dtype, shapeOf: (shape: [number, number]) => number[]): Tensor[] =>
    gpu.emptyTogether(
      shapes.map((shape, i) => ({ shape: shapeOf(shape), label: `${wanted[i]!.label}${what}` })),
      dtype,
    );
  const codes = make("", "u32", ([rows, width]) => [rows, width / 8]);
  const maps = doubleQuant ? make(" dynamic map", "f32", () => [256]) : [];
  maps.forEach((map) => gpu.write(map, dynamicMap()));
  const nested = doubleQuant
    ? make(
      " nested scales",
      "f32",
      (shape) => [parts * (1 + Math.ceil(blocksOf(shape) / parts / NESTED_BLOCK))],
    )
    : [];
  const absmax = doubleQuant
    ? make(" scales", "u32", (shape) => [Math.ceil(blocksOf(shape) / 4)])
    : make(" scales", "f32", (shape) => [blocksOf(shape)]);
  return shapes.map((shape, i) =>
    new Nf4Weight({
      shape,
      label: wanted[i]!.label,
      codes: codes[i]!,
      absmax: absmax[i]!,
      nested: doubleQuant ? { scales: nested[i]!, map: maps[i]! } : undefined,
      parts,
    })
  );
}

/** Matrices in NF4 one behind the other, each as if it were alone. */
class Nf4Stack implements QuantisedStack {
  readonly weight: Nf4Weight;
  readonly #gpu: Gpu;

  /** @throws {GpuError} if a matrix's weights are no multiple of 256 */
  constructor(gpu: Gpu, count: number, { shape: [rows, width], nested }: Nf4Weight, label: string) {
    this.#gpu = gpu;
    const doubleQuant = nested !== undefined;
    this.weight = emptyNf4(gpu, [count * rows, width], { doubleQuant, label, parts: count });
  }

  put(number: number, matrix: QuantisedWeight): void {
    const [from, to] = [nf4Of(matrix), this.weight];
    const copy = (source: Tensor, target: Tensor) =>
      this.#gpu.copy(source, target.slice(number * source.rows, (number + 1) * source.rows));
    if (from.shape[0] * to.parts !== to.shape[0] || !from.nested !== !to.nested) {
      throw new GpuError(`Cannot put "${from.label}" [${from.shape}] into "${to.label}" [${to.shape}]`);
    }
    copy(from.codes, to.codes);
    copy(from.absmax, to.absmax);
    if (!from.nested || !to.nested) return;
    copy(from.nested.scales, to.nested.scales);
    if (number === 0) this.#gpu.copy(from.nested.map, to.nested.map);
  }
}

function nf4Of(weight: QuantisedWeight): Nf4Weight {
  if (weight instanceof Nf4Weight) return weight;
  throw new GpuError(`"${weight.label}" is not in NF4`);
}

function blocksOf(shape: readonly number[]): number {
  return Math.ceil(shape.reduce((product, axis) => product * axis, 1) / BLOCK);
}

/** The scales of a matrix that was quantised elsewhere, in bitsandbytes' layout. */
export interface PackedScales {
  /** f32 scales, or their 8-bit codes when `nested` is there. */
  readonly absmax: Float32Array | Uint8Array;
  readonly nested?: { readonly absmax: Float32Array; readonly map: Float32Array; readonly offset: number };
}

/** A matrix that was quantised elsewhere, in bitsandbytes' layout. */
export interface PackedNf4 extends PackedScales {
  readonly shape: readonly [number, number];
  /** Two weights a byte, the earlier in the high half. */
  readonly codes: Uint8Array;
}

/**
 * Uploads a matrix that is already in NF4, bit for bit.
 * @throws {GpuError} if codes or scales are not of the length that the shape needs
 */
export function uploadNf4(gpu: Gpu, packed: PackedNf4, label: string): Nf4Weight {
  const weight = emptyNf4(gpu, packed.shape, { doubleQuant: packed.nested !== undefined, label });
  gpu.write(weight.codes, packed.codes);
  writeScales(gpu, weight, packed);
  return weight;
}

/**
 * Overwrites the scales of a matrix whose codes are uploaded by the caller.
 * @throws {GpuError} if their lengths are not those that the shape needs
 */
export function writeScales(gpu: Gpu, weight: Nf4Weight, { absmax, nested }: PackedScales): void {
  if (!weight.nested || !nested) return gpu.write(weight.absmax, absmax);
  const padded = new Uint8Array(Math.ceil(absmax.length / 4) * 4);
  padded.set(absmax);
  gpu.write(weight.absmax, padded);
  const scales = new Float32Array(1 + nested.absmax.length);
  scales[0] = nested.offset;
  scales.set(nested.absmax, 1);
  gpu.write(weight.nested.scales, scales);
  gpu.write(weight.nested.map, nested.map);
}
