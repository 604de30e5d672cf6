/** What linears read: rows as they are, or what is to be made of them first. */
import type { Gpu } from "../kernels/gpu.ts";
import { MATVEC_ROWS, type VectorInput } from "../kernels/matvec/matvec.ts";
import { Tensor } from "../kernels/tensor.ts";
import { free } from "./chunks.ts";
import { type Norm, norm } from "./norm.ts";

/** Rows (rows, K) that linears read. What is made of `x` exists while they run, or never: few rows are made as they are read. */
export type LinearInput = Tensor | NormedInput;

/** x normed. */
export interface NormedInput {
  /** (rows, K), borrowed */
  readonly x: Tensor;
  readonly norm: Norm;
}

/** Rows as {@linkcode matvec} reads them. */
export interface VectorRows {
  readonly x: Tensor;
  /** What they are made of x by; undefined where they are x. */
  readonly input?: VectorInput | undefined;
}

/** The tensor that the rows are made of, in their number and format. */
export function sourceOf(input: LinearInput): Tensor {
  return input instanceof Tensor ? input : input.x;
}

/** Makes the rows, for as long as `use` runs. */
export function withRows<T>(gpu: Gpu, input: LinearInput, use: (x: Tensor) => T): T {
  if (input instanceof Tensor) return use(input);
  const { y, stats } = norm(gpu, input.x, input.norm);
  const result = use(y);
  free(y, stats);
  return result;
}

/** Leaves it to `use` to make the rows as it reads them, where it can: else makes them, for as long as it runs. */
export function withFewRows<T>(gpu: Gpu, input: LinearInput, use: (rows: VectorRows) => T): T {
  if (!(input instanceof Tensor) && input.x.rows <= MATVEC_ROWS && !input.norm.bias) {
    return use({ x: input.x, input: { norm: input.norm } });
  }
  return withRows(gpu, input, (x) => use({ x }));
}
