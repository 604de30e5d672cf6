/** The words that matmul's variants share. */
import type { Gpu } from "../gpu.ts";
import type { Risk } from "../refusal.ts";
import type { Tensor } from "../tensor.ts";
import type { Layout, Operand, WeightForm } from "../weight.ts";
import type { Format } from "../wgsl.ts";

/** The sizes of a product: C (rows, columns) sums over `depth`. */
export interface ProductShape {
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
}

/** Kind of a product: what chooses its kernel. */
export interface ProductKind {
  readonly layout: Layout;
  /** Kind of operand B. */
  readonly form: WeightForm;
  /** Format of operand A. Matrix units round operands to f16, which is for those who work in 16 bits. */
  readonly format: Format;
}

/** C = alpha A B^T + beta C, every operand in one binding. */
export interface Product extends ProductShape {
  readonly layout: Layout;
  readonly a: Tensor;
  readonly b: Operand;
  readonly c: Tensor;
  /** First column of A that takes part. */
  readonly aFirst: number;
  /** First column of C that is made. */
  readonly cFirst: number;
  readonly alpha: number;
  readonly beta: number;
}

/**
 * A product's size: rows or columns up to so many (a batch being decoded, a LoRA rank, a short prompt), else many or fewer
 * of both.
 */
export const SIZES = ["8 rows", "16 rows", "8 columns", "16 columns", "128 rows", "large", "medium"] as const;
export type Size = typeof SIZES[number];

/** One way to run products, in one dispatch or several. */
export interface Variant {
  readonly name: string;
  /** Sizes that it is worth measuring for; all unless given. */
  readonly sizes?: readonly Size[];
  /** What it is refused with, where drivers differ in what it depends on; plain variants have none. */
  readonly risk?: Risk;
  /** Whether it can run on this device, and serve this kind of product. */
  fits(gpu: Gpu, kind: ProductKind): boolean;
  /** Records the product. */
  run(gpu: Gpu, product: Product): void;
}
