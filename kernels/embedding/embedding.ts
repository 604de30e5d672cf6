import { GpuError } from "../errors.ts";
import type { Gpu } from "../gpu.ts";
import { requireVector, rowQuadsOf, threadGrid, THREADS, wrappedGrid } from "../shared/grid.ts";
import { rowRanges, type Tensor } from "../tensor.ts";
import type { Format } from "../wgsl.ts";
import embedWgsl from "./embed.wgsl" with { type: "text" };
import embedBackwardWgsl from "./embed_backward.wgsl" with { type: "text" };

const EMBED = { name: "embed", wgsl: embedWgsl };
const EMBED_BACKWARD = { name: "embed_backward", wgsl: embedBackwardWgsl };

/**
 * Looks up the rows of `table` by `ids`, times `factor`. An id past the table gives a row of NaN.
 *
 * @param ids (rows) u32
 * @param table (V, C), any format
 * @param format of the result
 * @returns (rows, C); the caller frees it
 * @throws {GpuError} if C is not a multiple of 4, or `ids` are not u32
 */
export function embed(gpu: Gpu, ids: Tensor, table: Tensor, format: Format, factor = 1): Tensor {
  const rows = ids.size;
  requireVector("embed", ids, rows, "u32");
  const quads = rowQuadsOf(table);
  const y = gpu.empty([rows, table.width], format, "embeddings");
  for (const part of rowRanges([table])) {
    for (const { start, end } of rowRanges([y, ids])) {
      gpu.run(EMBED, {
        ids: ids.slice(start, end),
        table: table.slice(part.start, part.end),
        y: y.slice(start, end),
      }, {
        grid: threadGrid((end - start) * quads),
        uniforms: {
          rows: end - start,
          quads,
          first_id: part.start,
          ids_here: part.end - part.start,
          vocab_size: table.rows,
          factor,
        },
        formats: { X: table.format, Y: format },
      });
    }
  }
  return y;
}

/**
 * Adds the gradient of each row, times `factor`, to the table row it came from. Sums run in the order of the rows.
 *
 * @param ids (rows), on the host: the rows of each id are collected there
 * @param dx (rows, C), any format
 * @param dTable (V, C) f32, accumulated in place
 * @throws {GpuError} if shapes differ, or an id is not below V
 */
export function embedBackward(gpu: Gpu, ids: Uint32Array, dx: Tensor, dTable: Tensor, factor = 1): void {
  if (ids.length !== dx.rows || dx.width !== dTable.width || dTable.dtype !== "f32") {
    throw new GpuError(
      `Cannot apply embedBackward: ${ids.length} ids, dx [${dx.shape}] and an ${dTable.dtype} table [${dTable.shape}]`,
    );
  }
  const outside = ids.find((id) => id >= dTable.rows);
  if (outside !== undefined) {
    throw new GpuError(`Cannot apply embedBackward: id ${outside} is not below ${dTable.rows}`);
  }
  const quads = rowQuadsOf(dx);
  const columnGroups = Math.ceil(quads / THREADS);
  for (const range of rowRanges([dx])) {
    for (const part of rowRanges([dTable])) {
      const { count, lists } = rowsById(ids.subarray(range.start, range.end), part.start, part.end);
      if (count === 0) continue;
      const listsTensor = gpu.tensor([lists.length], lists, { label: "rows by id" });
      gpu.run(
        EMBED_BACKWARD,
        {
          lists: listsTensor,
          dx: dx.slice(range.start, range.end),
          d_table: dTable.slice(part.start, part.end),
        },
        {
          grid: wrappedGrid(count * columnGroups),
          uniforms: { ids: count, quads, column_groups: columnGroups, factor },
          formats: { X: dx.format },
        },
      );
      listsTensor.free();
    }
  }
}

/** Lists the rows of each id from `first` to `end` (excluded), as embed_backward.wgsl reads them. */
function rowsById(ids: Uint32Array, first: number, end: number): { count: number; lists: Uint32Array } {
  const rowsOf = new Map<number, number[]>();
  ids.forEach((id, row) => {
    if (id < first || id >= end) return;
    const rows = rowsOf.get(id);
    if (rows) rows.push(row);
    else rowsOf.set(id, [row]);
  });
  const count = rowsOf.size;
  const heads: number[] = [];
  const tails: number[] = [];
  for (const [id, rows] of rowsOf) {
    const begin = 3 * count + tails.length;
    heads.push(id - first, begin, begin + rows.length);
    for (const row of rows) tails.push(row);
  }
  return { count, lists: Uint32Array.from([...heads, ...tails]) };
}
