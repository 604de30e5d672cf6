/**
 * Contract between the engine and a weight of a linear, whatever form it has in memory. A form of its own (NF4) is a folder beside
 * this file: a class of {@linkcode QuantisedWeight}, the WGSL by which products read it, and an entry in
 * `kernels/quantisation.ts`.
 */
import type { Gpu, Sharing } from "./gpu.ts";
import type { NamedShape } from "./memory.ts";
import type { RowRange } from "./shared/row_chunks.ts";
import type { Tensor } from "./tensor.ts";
import type { Constants, Format } from "./wgsl.ts";

/** A matrix (N, K) of a linear: dense in any float format, or quantised. */
export type Weight = Tensor | QuantisedWeight;

/** A frozen matrix (N, K) in fewer bits. Whoever made it frees it. */
export interface QuantisedWeight {
  /** (N, K) */
  readonly shape: readonly [number, number];
  /** Name in errors. */
  readonly label: string;
  /** Bytes on the device. */
  readonly byteLength: number;
  /** Runs of its rows, each in one binding, as products read them: from the first row on. */
  operands(): readonly Operand[];
  /** The same as matrix-vector products read them. */
  vectorOperands(sharing: Sharing): readonly VectorOperand[];
  /** Makes the weights (N, K) in f32, as products see them. The caller frees them. */
  dequantise(gpu: Gpu): Tensor;
  /** Makes room for so many matrices like it. @throws {GpuError} if they cannot lie one behind the other */
  stack(gpu: Gpu, count: number, label: string): QuantisedStack;
  /** Writes the weights over `y` (N, K), in any float format. Absent where only products decode them. */
  dequantiseInto?(gpu: Gpu, y: Tensor): void;
  /** Gives its memory back. @throws {GpuError} the second time */
  free(): void;
}

/** Which operands of a product are transposed in memory: x W^T, dy W, dy^T x. */
export type Layout = "nt" | "nn" | "tn";

/** A family of matmul's tiles: those of one family ask the same functions of operand B. */
export type TileFamily = "workgroup" | "matrix" | "subgroup" | "narrow subgroup";

/** WGSL by which a kernel reads an operand, and its constants. */
export interface Pieces {
  readonly libraries: readonly string[];
  /** In names of kernels, where neither constants nor formats tell these pieces from others. */
  readonly name?: string;
  readonly constants?: Constants;
}

/** A form that operand B may have in memory. Classes of products are tuned by form. */
export interface WeightForm {
  /** In the names of classes and kernels. */
  readonly name: string;
  /** Products that it takes part in. */
  readonly layouts: readonly Layout[];
  /** Families of tiles that can read it. */
  readonly families: readonly TileFamily[];
  /**
   * Functions that a tile of one of these families calls, as its `#needs` say.
   * @param width K of the weight
   * @param elements for tiles on matrix units; undefined if quantised
   */
  pieces(family: TileFamily, layout: Layout, width: number, elements?: Elements): Pieces;
}

/** How the elements of a dense operand lie. */
export interface Elements {
  readonly format: Format;
  /** Number of the first that takes part. */
  readonly first: number;
  /** Elements from one block to the next. */
  readonly step: number;
}

/** Operand B of a product: a run of rows of a matrix (N, K) in one binding. */
export interface Operand {
  readonly form: WeightForm;
  /** Tells apart what is bound in different ways, in names of kernels. */
  readonly name: string;
  /** Row of the matrix that comes first. */
  readonly start: number;
  readonly rows: number;
  /** K. */
  readonly width: number;
  /** Declares the tensors and reads them. */
  readonly libraries: readonly string[];
  /** By the names that the libraries give them. */
  readonly tensors: Readonly<Record<string, Tensor>>;
  /** Format of its elements; undefined if quantised: then its values are in the range of f16. */
  readonly format: Format | undefined;
  /** Constants of its libraries. */
  readonly constants?: Constants | undefined;
  /** Index of its first quad in the whole matrix. */
  readonly firstQuad: number;
  /** Writes some of its rows to a new tensor (end - start, K). Absent where their values are there already. */
  dequantise?(gpu: Gpu, format: Format, rows: RowRange): Tensor;
}

/** A run of rows of a matrix as matvec reads it. */
export interface VectorOperand {
  readonly name: string;
  readonly start: number;
  readonly rows: number;
  /** By the names that the libraries give them. */
  readonly tensors: Readonly<Record<string, Tensor>>;
  readonly libraries: readonly string[];
  readonly format: Format | undefined;
  /** Quads of a row that a thread loads at once. */
  readonly quads: number;
  /** Quads, from the first of a row on, that share a scale; all unless given. */
  readonly scaleQuads?: number;
  /** Whether its libraries read each tensor from where the part at hand begins in it (kernels/matvec/params.wgsl); no unless given. */
  readonly isPlaced?: boolean;
}

/** Quantises a matrix that comes in chunks of rows. */
export interface Quantiser {
  /**
   * Quantises the next rows.
   * @param x (rows, K) in any float format; stays the caller's
   * @throws {GpuError} if their number is no multiple of 64, unless they are the last
   */
  add(x: Tensor): void;
  /** Returns the matrix, which is the caller's. @throws {GpuError} if rows are missing */
  finish(): QuantisedWeight;
}

/** Matrices of random numbers. */
export interface RandomWeightOptions {
  /** Root mean square of the weights. */
  readonly rms: number;
  /** u32 */
  readonly seed: number;
  /** Returns a stream of the seed that was not used before. */
  nextStream(): number;
}

/** Several matrices of one shape (N, K) as one (E N, K), each quantised for itself. */
export interface QuantisedStack {
  /** Of all of them, the caller's. */
  readonly weight: QuantisedWeight;
  /** Copies a matrix to its place, from 0. @throws {GpuError} if it is of another shape or form */
  put(number: number, matrix: QuantisedWeight): void;
}

/** Makes matrices (N, K) of linears in one quantisation: those that are asked for at once lie side by side in memory. */
export interface QuantisationMethod {
  /** K must be a multiple of it. */
  readonly widthUnit: number;
  /** Gives a quantiser for each matrix. @throws {GpuError} if a K does not fit */
  quantisers(gpu: Gpu, wanted: readonly NamedShape[]): Quantiser[];
  /** Makes matrices of random codes. The caller frees them. @throws {GpuError} if a K does not fit */
  random(gpu: Gpu, wanted: readonly NamedShape[], options: RandomWeightOptions): QuantisedWeight[];
}
