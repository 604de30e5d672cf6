/** Inputs of a layer besides its rows: positions, mask, dropout. */
import type { AttentionMap } from "../kernels/attention/map.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { Qkv } from "../kernels/qkv/qkv.ts";
import { rope, type RopeTable } from "../kernels/rope/rope.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { KeyExchange } from "./key_exchange.ts";
import type { DropoutKey } from "./linear.ts";

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
  /** The layer's exchange with ranks that hold other rows of the batch; undefined where it sees none of them. */
  readonly exchange?: KeyExchange | undefined;
  /** Undefined when not training: nothing is dropped. */
  readonly dropout: DropoutKey | undefined;
  /** Most rows for which anything wider than C, or any temporary, exists at once. */
  readonly chunkRows: number;
  /** Whether a layer's weights are all decoded once, before its first chunk, in place of anew for each product. */
  readonly decodesLayers: boolean;
}

/** Rows that go through a layer together after others of their sequences. */
export interface NewRows {
  /** Rotates the rows' queries and keys (rows, ...), lent with their values, and computes attention, (rows, H * D). */
  readonly attend: (rows: Qkv) => Tensor;
}

/**
 * Rotates queries and keys (rows, ...) by their positions, in place, or back.
 * @param headDim elements of a head
 */
export function applyRope(
  gpu: Gpu,
  tensors: readonly Tensor[],
  { rope: table, positions }: Positions,
  headDim: number,
  { inverse = false }: { readonly inverse?: boolean } = {},
): void {
  if (!table) return;
  const { cos, sin } = table;
  const options = { inverse, rotaryDim: 2 * cos.width };
  rope(gpu, tensors, cos, sin, positions, headDim, options);
}
