/** The words that matmul's variants share. */
import type { DropoutKey } from "../elementwise/dropout.ts";
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
  /** Format that the product works in. Matrix units round operands to f16, which is for those who work in 16 bits. */
  readonly format: Format;
}

/** Which elements of something count as 0, by dropout's key. */
export interface ProductMask extends DropoutKey {
  /** Streams from the mask of one block to that of the next; 0 unless given. */
  readonly streamStep?: number;
}

/** Products of one shape that are one dispatch. Steps count elements from the first of one to the first of the next. */
export interface Blocks {
  readonly count: number;
  readonly aStep: number;
  readonly bStep: number;
  readonly cStep: number;
  readonly innerAStep: number;
  readonly innerBStep: number;
}

/** A second pair of operands, both f32, laid out as the first; its product is summed before that. */
export interface InnerProduct {
  /** (rows, depth) */
  readonly a: Tensor;
  /** First column of `a` that takes part. */
  readonly aFirst: number;
  readonly depth: number;
  /** Of as many columns as C has. */
  readonly b: Tensor;
  /** Drops elements of its product. */
  readonly mask?: ProductMask | undefined;
}

/**
 * C = alpha (inner + A B^T) + beta D, every operand in one binding. Variants that say nothing else (`fuses`) get products
 * without masks, blocks and inner products.
 */
export interface Product extends ProductShape {
  readonly layout: Layout;
  readonly a: Tensor;
  readonly b: Operand;
  readonly c: Tensor;
  /** First column of A that takes part. */
  readonly aFirst: number;
  /** (rows) f32: what each row of A is taken times, for variants on matrix units; 1 unless given. */
  readonly aFactors?: Tensor | undefined;
  /** First column of C that is made. */
  readonly cFirst: number;
  readonly alpha: number;
  readonly beta: number;
  /** D, of the shape of C; C itself unless given. */
  readonly addend?: Tensor | undefined;
  /** Drops elements of an operand: of A, or of B where that is no weight (`tn`). */
  readonly mask?: ProductMask | undefined;
  readonly inner?: InnerProduct | undefined;
  /** One unless given; rows, columns and depth are those of one. */
  readonly blocks?: Blocks | undefined;
}

/** What a summand of a product that comes after another has in place of the product's own. */
export const LATER = { beta: 1, addend: undefined, inner: undefined } as const satisfies Partial<Product>;

/**
 * A product's size: rows or columns up to so many (a batch being decoded, a LoRA rank, a short prompt), else many or fewer
 * of both.
 */
export const SIZES = [
  "8 rows",
  "16 rows",
  "8 columns",
  "16 columns",
  "128 columns",
  "128 rows",
  "large",
  "medium",
] as const;
export type Size = typeof SIZES[number];

/** One way to run products, in one dispatch or several. */
export interface Variant {
  readonly name: string;
  /** Sizes that it is worth measuring for; all unless given. */
  readonly sizes?: readonly Size[];
  /** Whether it takes masks, blocks and inner products. */
  readonly fuses?: boolean;
  /** What it is refused with, where drivers differ in what it depends on; plain variants have none. */
  readonly risk?: Risk;
  /** Whether it can run on this device, and serve this kind of product. */
  fits(gpu: Gpu, kind: ProductKind): boolean;
  /** Records the product. */
  run(gpu: Gpu, product: Product): void;
}
