/** WGSL by which products read weights in NF4. */
import type { Gpu, Sharing } from "../gpu.ts";
import quadWgsl from "../matmul/operands/b_nf4_quad.wgsl" with { type: "text" };
import octetsWgsl from "../matmul/operands/octets_nf4_matrix.wgsl" with { type: "text" };
import turnedWgsl from "../matmul/operands/turned_nf4_matrix.wgsl" with { type: "text" };
import depthWgsl from "../matmul/software/depth_nf4.wgsl" with { type: "text" };
import depthTransposedWgsl from "../matmul/software/depth_nf4_transposed.wgsl" with { type: "text" };
import vectorWgsl from "../matvec/operand_nf4.wgsl" with { type: "text" };
import vectorWordsWgsl from "../matvec/operand_nf4_words.wgsl" with { type: "text" };
import type { Tensor } from "../tensor.ts";
import type { Operand, VectorOperand, WeightForm } from "../weight.ts";
import type { Constants, Format } from "../wgsl.ts";
import codesWgsl from "./codes.wgsl" with { type: "text" };
import dequantiseWgsl from "./dequantise.wgsl" with { type: "text" };
import { BLOCK } from "./format.ts";
import operandWgsl from "./operand.wgsl" with { type: "text" };
import scaleWgsl from "./scale.wgsl" with { type: "text" };
import scaleAloneWgsl from "./scale_alone.wgsl" with { type: "text" };
import scaleNestedWgsl from "./scale_nested.wgsl" with { type: "text" };
import scalePartsWgsl from "./scale_parts.wgsl" with { type: "text" };
import shuffleWgsl from "./shuffle.wgsl" with { type: "text" };
import tableWgsl from "./table.wgsl" with { type: "text" };

/** Workgroups along x before a grid wraps to y. */
export const GRID_X = 65535;

/** Codes of four bits with a scale for each block, which itself may be in 8 bits. */
export const NF4: WeightForm = {
  name: "nf4",
  layouts: ["nt", "nn"],
  families: ["workgroup", "matrix", "subgroup"],
  pieces(family, layout, width) {
    const STRETCH = stretchOf(width) / 4;
    if (family === "subgroup") {
      return {
        libraries: [layout === "nt" ? depthWgsl : depthTransposedWgsl, shuffleWgsl],
        constants: { STRETCH },
      };
    }
    if (family === "workgroup") return { libraries: [quadWgsl, tableWgsl], constants: { STRETCH } };
    return { libraries: [layout === "nt" ? octetsWgsl : turnedWgsl, tableWgsl] };
  },
};

/** Tensors of a matrix (N, K) in NF4, as kernels bind them. */
export interface Nf4Tensors {
  readonly shape: readonly [number, number];
  readonly label: string;
  /** (N, K / 8) u32: eight weights a word, bytes as bitsandbytes has them. */
  readonly codes: Tensor;
  /** One scale per 64 weights: f32, or four 8-bit codes a word when `nested` is there. */
  readonly absmax: Tensor;
  readonly nested: NestedScaleTensors | undefined;
  /** Equal runs of rows that were quantised each for itself. */
  readonly parts: number;
}

export interface NestedScaleTensors {
  /** The offset, then one f32 scale per 256 blocks; so for each part one behind the other. */
  readonly scales: Tensor;
  /** (256) f32, the dynamic 8-bit map. */
  readonly map: Tensor;
}

/** Operand B of products, by the bindings that the codes lie in. */
export function nf4Operands(weight: Nf4Tensors): Operand[] {
  const { codes, shape: [, width] } = weight;
  return codes.segments.map(({ start, rows }) => ({
    form: NF4,
    name: nameOf(weight),
    start,
    rows,
    width,
    libraries: [operandWgsl, ...decodingLibraries(weight)],
    constants: decodingConstants(weight),
    tensors: { b: codes.slice(start, start + rows), ...scaleTensors(weight) },
    format: undefined,
    firstQuad: start * width / 4,
    dequantise: (gpu, format, range) =>
      dequantiseRows(gpu, weight, start + range.start, range.end - range.start, format),
  }));
}

/** The same for matvec: where rows are whole chunks of 32 weights, threads load those. */
export function nf4VectorOperands(weight: Nf4Tensors, sharing: Sharing): VectorOperand[] {
  const { codes, shape: [, width] } = weight;
  const wide = width % 32 === 0;
  return codes.segments.map(({ start, rows }) => ({
    name: `nf4${wide ? "" : "_words"}${weight.nested ? "_nested" : ""}`,
    start,
    rows,
    tensors: { b: codes.slice(start, start + rows), ...scaleTensors(weight) },
    libraries: [
      wide ? vectorWgsl : vectorWordsWgsl,
      sharing === "subgroup" ? shuffleWgsl : tableWgsl,
      ...codeLibraries(weight.nested),
    ],
    format: undefined,
    quads: wide ? 8 : 2,
    scaleQuads: stretchOf(width) / 4,
    isPlaced: true,
  }));
}

/** Rows of a matrix as floats, which must lie in one binding. The caller frees them. */
export function dequantiseRows(
  gpu: Gpu,
  weight: Nf4Tensors,
  start: number,
  rows: number,
  format: Format,
): Tensor {
  const y = gpu.empty([rows, weight.shape[1]], format, weight.label);
  dequantiseInto(gpu, weight, start, y);
  return y;
}

/** Writes rows of a matrix, from `start` on, over `y` (rows, K): both in one binding. */
export function dequantiseInto(gpu: Gpu, weight: Nf4Tensors, start: number, y: Tensor): void {
  const { codes, shape: [, width] } = weight;
  const quads = y.rows * width / 4;
  const groups = Math.ceil(quads / 64);
  const kernel = {
    name: `dequantise_${nameOf(weight)}`,
    wgsl: dequantiseWgsl,
    libraries: decodingLibraries(weight),
    constants: decodingConstants(weight),
  };
  gpu.run(kernel, { y, b: codes.slice(start, start + y.rows), ...scaleTensors(weight) }, {
    grid: [Math.min(groups, GRID_X), Math.ceil(groups / GRID_X)],
    uniforms: { quads, b_first: start * width / 4 },
    formats: { Y: y.format },
  });
}

function nameOf({ nested, parts }: Nf4Tensors): string {
  return nested ? (parts > 1 ? "nf4_nested_parts" : "nf4_nested") : "nf4";
}

function decodingLibraries({ nested, parts }: Nf4Tensors): string[] {
  return [...codeLibraries(nested), nested && parts > 1 ? scalePartsWgsl : scaleAloneWgsl];
}

function codeLibraries(nested: NestedScaleTensors | undefined): string[] {
  return [codesWgsl, nested ? scaleNestedWgsl : scaleWgsl];
}

function decodingConstants({ nested, parts, shape: [rows, width] }: Nf4Tensors): Constants {
  return nested && parts > 1 ? { BLOCKS: rows * width / BLOCK / parts } : {};
}

function scaleTensors({ absmax, nested }: Nf4Tensors): Record<string, Tensor> {
  return nested ? { absmax, nested: nested.scales, dynamic_code: nested.map } : { absmax };
}

/** Consecutive weights of a row that share a scale: the largest power of two that divides both a row and a block. */
function stretchOf(width: number): number {
  let stretch = BLOCK;
  while (width % stretch !== 0) stretch /= 2;
  return stretch;
}
