/** Interface of the layers of all architectures. */
import type { AttentionMap } from "../kernels/attention/map.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { rope } from "../kernels/rope/rope.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { DropoutKey, Linear } from "./linear.ts";
import type { Norm } from "./norm.ts";

/** A layer of a model. @template Saved what its forward pass may keep for the backward pass */
export interface Layer<Saved = unknown> {
  /** In the order of the checkpoint. */
  readonly linears: readonly Linear[];
  readonly norms: readonly Norm[];

  /** @param x (rows, C), borrowed  @returns (rows, C) */
  forward(gpu: Gpu, x: Tensor, pass: Pass): Tensor;

  /** Runs {@linkcode forward} and keeps what spares {@linkcode backward} from running it again. */
  forwardKeeping(gpu: Gpu, x: Tensor, pass: Pass): { out: Tensor; saved: Saved };

  /**
   * Adds the layer's gradients to what they hold, frees `saved`.
   * @param dOut (rows, C): overwritten
   * @param saved what the forward pass kept; computed again unless given
   * @returns dx (rows, C), in the memory of `dOut`
   */
  backward(gpu: Gpu, dOut: Tensor, x: Tensor, pass: Pass, saved?: Saved): Tensor;

  /** Runs {@linkcode forward} on tokens that follow others, whose keys and values are cached. @param x (rows, C): overwritten */
  decode(gpu: Gpu, x: Tensor, rows: NewRows): void;
}

/** Cosines and sines of the angles of each position. */
export interface RopeTable {
  /** (P, R / 2) f32 for the R elements of a head that rotate. */
  readonly cos: Tensor;
  readonly sin: Tensor;
}

/** Positions of rows in their sequences, and the layer's rotation by them. */
export interface Positions {
  /** (rows) u32, each row's position in its sequence. */
  readonly positions: Tensor;
  /** The layer's rotation; null where it has none. */
  readonly rope: RopeTable | null;
}

/** Inputs of a layer in one pass over a batch. */
export interface Pass extends Positions {
  /** Which keys each query of the layer sees. */
  readonly map: AttentionMap;
  /** Undefined when not training: nothing is dropped. */
  readonly dropout: DropoutKey | undefined;
  /** Most rows for which anything wider than C, or any temporary, exists at once. */
  readonly chunkRows: number;
}

/** Rows that go through a layer together after others of their sequences. */
export interface NewRows extends Positions {
  /** Computes attention from the rows' queries, keys and values (rows, ...), borrowed; (rows, H * D). */
  readonly attend: (q: Tensor, k: Tensor, v: Tensor) => Tensor;
}

/**
 * Rotates queries and keys (rows, ...) by their positions, in place, or back.
 * @param headDim elements of a head
 */
export function applyRope(
  gpu: Gpu,
  tensors: readonly [q: Tensor, k: Tensor],
  { rope: table, positions }: Positions,
  headDim: number,
  { inverse = false }: { readonly inverse?: boolean } = {},
): void {
  if (!table) return;
  const { cos, sin } = table;
  const options = { inverse, rotaryDim: 2 * cos.width };
  for (const tensor of tensors) rope(gpu, tensor, cos, sin, positions, headDim, options);
}
