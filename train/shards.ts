/**
 * ZeRO's first stage: the optimizer states, and the work of updating, are split over the ranks; parameters and gradients are
 * whole on each.
 * @see Rajbhandari et al., 2020, arXiv:1910.02054, section 5
 */
import type { Communicator } from "../distributed/communicator.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { asRows, STATE_BLOCK } from "../kernels/optimizer/adamw_8bit.ts";
import type { RowRange } from "../kernels/shared/row_chunks.ts";
import { ROW_ALIGNMENT, type Tensor } from "../kernels/tensor.ts";
import { bucketsOf, readTogether, writeTogether } from "./buckets.ts";
import { reduceScatterBf16, type WireFormat } from "./gradient_sum.ts";

/** The rows of one parameter that each rank updates, as {@linkcode asRows} counts them; some may have none. */
export type Shards = readonly RowRange[];

/**
 * Splits parameters over ranks: each into runs of rows, as even as pieces of {@linkcode ROW_ALIGNMENT} rows allow, which
 * are whole blocks of 8-bit states. Parameters of fewer pieces than ranks go to the ranks in turn.
 */
export function shardsOf(parameters: readonly Tensor[], ranks: number): Shards[] {
  let turn = 0;
  return parameters.map((parameter) => {
    const { rows } = asRows(parameter);
    const pieces = Math.ceil(rows / ROW_ALIGNMENT);
    const at = (piece: number) => Math.min(rows, piece * ROW_ALIGNMENT);
    const first = turn;
    turn = (turn + pieces) % ranks;
    return Array.from({ length: ranks }, (_, rank) => {
      const place = (rank - first + ranks) % ranks;
      const [start, end] = pieces < ranks
        ? [Math.min(place, pieces), Math.min(place + 1, pieces)]
        : [Math.floor(pieces * place / ranks), Math.floor(pieces * (place + 1) / ranks)];
      return { start: at(start), end: at(end) };
    });
  });
}

/** The part of a state's bytes, of `total`, that belongs to rows of its parameter. @param blockBytes see `StoredState` */
export function bytesOfRows(
  parameter: Tensor,
  { start, end }: RowRange,
  { total, blockBytes }: { readonly total: number; readonly blockBytes: number },
): RowRange {
  const { rows, width } = asRows(parameter);
  const at = (row: number) => row === rows ? total : row * width / STATE_BLOCK * blockBytes;
  return { start: at(start), end: at(end) };
}

/** Gives every rank the rows that the others have updated, by way of the host. */
export async function gatherShards(
  gpu: Gpu,
  ranks: Communicator,
  tensors: readonly Tensor[],
  shards: readonly Shards[],
): Promise<void> {
  if (gpu.isDry) return;
  for (const bucket of bucketsOf(tensors)) {
    const parts = bucket.map(({ tensor, index }) => ({ rows: asRows(tensor), shards: shards[index]! }));
    const own = parts.flatMap(({ rows, shards }) => sliced(rows, shards[ranks.rank]!));
    const all = await ranks.allGather(new Uint8Array((await readTogether(gpu, own)).buffer));
    const values = all.map((bytes) => new Float32Array(bytes.slice().buffer));
    const taken = new Array(ranks.size).fill(0);
    for (const { rows, shards } of parts) {
      const whole = new Float32Array(rows.size);
      for (const [rank, { start, end }] of shards.entries()) {
        const count = (end - start) * rows.width;
        whole.set(values[rank]!.subarray(taken[rank], taken[rank] += count), start * rows.width);
      }
      writeTogether(gpu, [rows], whole);
    }
  }
}

/** Sums tensors over ranks, of which each gets the rows that it updates; the other rows are left as they were. */
export async function sumShards(
  gpu: Gpu,
  ranks: Communicator,
  tensors: readonly Tensor[],
  shards: readonly Shards[],
  wire: WireFormat,
): Promise<void> {
  if (gpu.isDry) return;
  let onWire: Promise<void> = Promise.resolve();
  for (const bucket of bucketsOf(tensors)) {
    const parts = bucket.map(({ tensor, index }) => ({ rows: asRows(tensor), shards: shards[index]! }));
    const values = await readTogether(gpu, parts.map(({ rows }) => rows));
    const sizes = Array.from(
      { length: ranks.size },
      (_, rank) => parts.reduce((sum, { rows, shards }) => sum + lengthOf(shards[rank]!) * rows.width, 0),
    );
    const share = Math.max(...sizes);
    // The parts of each rank together, all of one size.
    const byRank = new Float32Array(share * ranks.size);
    const filled = sizes.map((_, rank) => rank * share);
    let at = 0;
    for (const { rows, shards } of parts) {
      for (const [rank, { start, end }] of shards.entries()) {
        byRank.set(values.subarray(at + start * rows.width, at + end * rows.width), filled[rank]!);
        filled[rank]! += (end - start) * rows.width;
      }
      at += rows.size;
    }
    await onWire;
    const summing = wire === "f32" ? ranks.reduceScatter(byRank) : reduceScatterBf16(ranks, byRank);
    onWire = summing.then((sum) => {
      const own = parts.flatMap(({ rows, shards }) => sliced(rows, shards[ranks.rank]!));
      writeTogether(gpu, own, sum.subarray(0, sizes[ranks.rank]));
    });
    onWire.catch(() => {});
  }
  await onWire;
}

function lengthOf({ start, end }: RowRange): number {
  return end - start;
}

/** The rows of a range, of which there may be none. */
export function sliced(rows: Tensor, { start, end }: RowRange): Tensor[] {
  return start < end ? [rows.slice(start, end)] : [];
}
