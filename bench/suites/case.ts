import type { Gpu } from "../../kernels/gpu.ts";
import type { Tensor } from "../../kernels/tensor.ts";

/** One row of the bench: a piece of work, and the least that it takes. */
export interface Case {
  /** The suite it belongs to: `matmul`, `attention`, `norm` ... */
  readonly suite: string;
  readonly op: string;
  readonly shape: string;
  readonly format: string;
  /** Multiplications and additions that the result needs, however it is computed; 0 where memory alone counts. */
  readonly flops: number;
  /** Bytes that must be read or written at least once. */
  readonly bytes: number;
  /** Most bytes on the device while it runs, inputs included: what does not fit is left out. */
  readonly memory: number;
  /** Makes the inputs. */
  prepare(gpu: Gpu): Prepared;
}

/** A case with its inputs on the device. */
export interface Prepared {
  /** Records the work once and frees what it makes. */
  run(): void;
  /** Frees the inputs. */
  free(): void;
}

/** `Prepared` over tensors that belong to it, with work that returns what it made. */
export function prepared(inputs: readonly Tensor[], work: () => readonly Tensor[]): Prepared {
  return {
    run() {
      for (const tensor of work()) tensor.free();
    },
    free() {
      for (const tensor of inputs) tensor.free();
    },
  };
}

/** Extent of a suite: shapes that a software adapter finishes in about two minutes, or those of real models. */
export type Extent = "quick" | "all";
