/** What the layers of all architectures have in common. */
import {
  attentionBackwardKeys,
  attentionBackwardQueries,
  type AttentionShape,
  type AttentionSlopes,
  attentionStats,
} from "../kernels/attention/attention.ts";
import type { AttentionMap } from "../kernels/attention/map.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { rope } from "../kernels/rope/rope.ts";
import { rowChunks, type RowRange } from "../kernels/shared/row_chunks.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { type DropoutKey, type Linear, linearBackward } from "./linear.ts";
import type { Norm } from "./norm.ts";

/** A layer of a model. @template Saved what its forward pass may keep for the backward pass */
export interface Layer<Saved = unknown> {
  /** In the order of the checkpoint. */
  readonly linears: readonly Linear[];
  readonly norms: readonly Norm[];

  /** @param x (rows, C), borrowed  @returns (rows, C) */
  forward(gpu: Gpu, x: Tensor, pass: Pass): Tensor;

  /** {@linkcode forward}, and what spares {@linkcode backward} from making it again. */
  forwardKeeping(gpu: Gpu, x: Tensor, pass: Pass): { out: Tensor; saved: Saved };

  /**
   * Adds the layer's gradients to what they hold, frees `saved`.
   * @param dOut (rows, C): overwritten
   * @param saved what the forward pass kept; made again unless given
   * @returns dx (rows, C), in the memory of `dOut`
   */
  backward(gpu: Gpu, dOut: Tensor, x: Tensor, pass: Pass, saved?: Saved): Tensor;

  /** {@linkcode forward} of tokens that follow others, whose keys and values `rows` knows. @param x (rows, C): overwritten */
  extend(gpu: Gpu, x: Tensor, rows: NewRows): void;
}

/** Where rows are in their sequences, and the angles of that. */
export interface Positions {
  /** (rows) u32, each row's position in its sequence. */
  readonly positions: Tensor;
  /** (P, R / 2) f32 for the R elements of a head that turn. */
  readonly cos: Tensor;
  readonly sin: Tensor;
}

/** What all layers share in one pass over a batch. */
export interface Pass extends Positions {
  readonly map: AttentionMap;
  /** Undefined when not training: nothing is dropped. */
  readonly dropout: DropoutKey | undefined;
  /** Most rows for which anything wider than C, or any temporary, exists at once. */
  readonly chunkRows: number;
}

/** Rows that go through a layer together after others of their sequences. */
export interface NewRows extends Positions {
  /** What attention makes of the rows' queries, keys and values (rows, ...), borrowed; (rows, H * D). */
  readonly attend: (q: Tensor, k: Tensor, v: Tensor) => Tensor;
}

/** A chunk of the rows of a batch. */
export interface Rows extends RowRange {
  /** These rows of a tensor of all rows. */
  of(tensor: Tensor): Tensor;
}

/** Queries, keys, values and what attention made of them, all (rows, ...). */
export interface Attended {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly o: Tensor;
  readonly lse: Tensor;
}

/** Gradients of a chunk's queries, keys and values. */
export interface QkvSlopes {
  readonly dq: Tensor;
  readonly dk: Tensor;
  readonly dv: Tensor;
}

/** The heads of a model's layers. */
export function attentionShape(config: ModelConfig): AttentionShape {
  return {
    heads: config.num_attention_heads,
    kvHeads: config.num_key_value_heads,
    headDim: config.head_dim,
  };
}

/** The rows of `x` in chunks of at most `most`. */
export function chunksOf(x: Tensor, most: number): Rows[] {
  return rowChunks(x.rows, most).map(({ start, end }) => ({
    start,
    end,
    of: (tensor) => tensor.slice(start, end),
  }));
}

/**
 * The backward pass of the linear that follows attention, for a chunk of rows: turns its rows of `o` into the gradient
 * of o, and writes those of `stats`.
 *
 * @param dOut (end - start, C)
 * @param attended of all rows
 */
export function outputBackward(
  gpu: Gpu,
  dOut: Tensor,
  { o, lse, stats }: { readonly o: Tensor; readonly lse: Tensor; readonly stats: Tensor },
  output: Linear,
  { shape, dropout, rows }: {
    readonly shape: AttentionShape;
    readonly dropout: DropoutKey | undefined;
    readonly rows: Rows;
  },
): void {
  const part = rows.of(o);
  const dO = linearBackward(gpu, dOut, part, output, dropout, { firstRow: rows.start });
  attentionStats(gpu, dO, { o: part, lse: rows.of(lse) }, shape, rows.of(stats));
  gpu.copy(dO, part);
  dO.free();
}

/**
 * The backward pass of attention, by chunks of rows.
 * @param use gets the gradients of each chunk, which live for the call
 */
export function attentionBackward(
  gpu: Gpu,
  slopes: AttentionSlopes,
  { map, chunkRows }: Pass,
  shape: AttentionShape,
  use: (slopes: QkvSlopes, rows: Rows) => void,
): void {
  const queries = (rows: RowRange) => attentionBackwardQueries(gpu, slopes, map, shape, rows);
  const keys = (rows: RowRange) => attentionBackwardKeys(gpu, slopes, map, shape, rows);
  const all = { start: 0, end: slopes.q.rows };
  // Every query may read every key and the other way round: one side's gradients cannot wait for their chunk's turn.
  const allKeys = 2 * slopes.k.width <= slopes.q.width ? keys(all) : undefined;
  const allQueries = allKeys ? undefined : queries(all);
  for (const rows of chunksOf(slopes.q, chunkRows)) {
    const dq = allQueries ? rows.of(allQueries) : queries(rows);
    const { dk, dv } = allKeys ? { dk: rows.of(allKeys.dk), dv: rows.of(allKeys.dv) } : keys(rows);
    use({ dq, dk, dv }, rows);
    if (!allQueries) dq.free();
    if (!allKeys) free(dk, dv);
  }
  if (allQueries) allQueries.free();
  if (allKeys) free(allKeys.dk, allKeys.dv);
}

/** Turns queries and keys (rows, ...) by their positions, or back. @param headDim elements of a head */
export function turn(
  gpu: Gpu,
  tensors: readonly [q: Tensor, k: Tensor],
  { cos, sin, positions }: Positions,
  headDim: number,
  options: { readonly inverse?: boolean; readonly rotaryDim?: number } = {},
): void {
  for (const tensor of tensors) rope(gpu, tensor, cos, sin, positions, headDim, options);
}

/** Frees them all. */
export function free(...tensors: Tensor[]): void {
  for (const tensor of tensors) tensor.free();
}
