/** What linears read: rows as they are, or what is to be made of them first. */
import { fusedSwiglu } from "../kernels/activation/fused_swiglu.ts";
import { geglu } from "../kernels/activation/geglu.ts";
import { swiglu } from "../kernels/activation/swiglu.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { VectorInput } from "../kernels/matvec/input.ts";
import { makesInputOf, MATVEC_ROWS } from "../kernels/matvec/matvec.ts";
import { Tensor } from "../kernels/tensor.ts";
import type { Weight } from "../kernels/weight.ts";
import { free } from "./chunks.ts";
import { type Norm, norm } from "./norm.ts";

/** Rows (rows, K) that linears read. What is made of `x` exists while they run, or never: few rows are made as they are read. */
export type LinearInput = Tensor | NormedInput | GatedInput | FusedGatedInput;

/** x normed. */
export interface NormedInput {
  /** (rows, K), borrowed */
  readonly x: Tensor;
  readonly norm: Norm;
}

/** act(gate) * x. */
export interface GatedInput {
  /** (rows, K), borrowed */
  readonly x: Tensor;
  /** (rows, K), borrowed */
  readonly gate: Tensor;
  readonly activation: "swiglu" | "geglu";
}

/** silu(gate) * up of rows that are gate, then up. */
export interface FusedGatedInput {
  /** (rows, 2 K), borrowed */
  readonly x: Tensor;
  readonly activation: "fused swiglu";
}

/** Rows as {@linkcode matvec} reads them. */
export interface VectorRows {
  readonly x: Tensor;
  /** What they are made of x by; undefined where they are x. */
  readonly input?: VectorInput | undefined;
}

const GATED = { swiglu, geglu };

/** The tensor that the rows are made of, in their number and format. */
export function sourceOf(input: LinearInput): Tensor {
  return input instanceof Tensor ? input : input.x;
}

/** Makes the rows, for as long as `use` runs. */
export function withRows<T>(gpu: Gpu, input: LinearInput, use: (x: Tensor) => T): T {
  if (input instanceof Tensor) return use(input);
  const made = makeRows(gpu, input);
  const result = use(made[0]!);
  free(...made);
  return result;
}

/** @returns the rows, and what else was made with them */
function makeRows(gpu: Gpu, input: Exclude<LinearInput, Tensor>): Tensor[] {
  if ("norm" in input) {
    const { y, stats } = norm(gpu, input.x, input.norm);
    return [y, stats];
  }
  if (input.activation === "fused swiglu") return [fusedSwiglu(gpu, input.x)];
  return [GATED[input.activation](gpu, input.gate, input.x)];
}

/** A matrix that multiplies rows, and the adapter of its linear. */
export interface RowReader {
  readonly weight: Weight;
  readonly lora?: object | undefined;
}

/**
 * Leaves it to `use` to make the rows as it reads them, where it can: else makes them, for as long as it runs.
 * @param readers all that multiply the rows
 */
export function withFewRows<T>(
  gpu: Gpu,
  input: LinearInput,
  readers: readonly RowReader[],
  use: (rows: VectorRows) => T,
): T {
  const vector = vectorInput(gpu, input, readers);
  if (vector) return use({ x: sourceOf(input), input: vector });
  return withRows(gpu, input, (x) => use({ x }));
}

/** Says how {@linkcode matvec} makes the rows; undefined where it is not to. */
function vectorInput(
  gpu: Gpu,
  input: LinearInput,
  readers: readonly RowReader[],
): VectorInput | undefined {
  if (input instanceof Tensor || input.x.rows > MATVEC_ROWS) return undefined;
  if (!readers.every(({ weight, lora }) => makesInputOf(gpu, { weight, hasInner: lora !== undefined }))) {
    return undefined;
  }
  if ("norm" in input) return input.norm.bias ? undefined : { norm: input.norm };
  return input.activation === "fused swiglu"
    ? { activation: "swiglu", gate: undefined }
    : { activation: input.activation, gate: input.gate };
}
