import { ROW_ALIGNMENT } from "../tensor.ts";

/** Range of rows from `start` to `end` (excluded). */
export interface RowRange {
  readonly start: number;
  readonly end: number;
}

/**
 * Cuts rows into as few chunks of at most `most` as possible, all of about one size, so that each reuses the buffers of the
 * one before it. Chunks start at multiples of {@linkcode ROW_ALIGNMENT}; `most` is one, or Infinity.
 */
export function rowChunks(rows: number, most: number): RowRange[] {
  const chunks = Math.max(1, Math.ceil(rows / most));
  const size = Math.ceil(rows / chunks / ROW_ALIGNMENT) * ROW_ALIGNMENT;
  const ranges: RowRange[] = [];
  for (let start = 0; start < rows; start += size) ranges.push({ start, end: Math.min(start + size, rows) });
  return ranges;
}

/**
 * Returns how many rows fit in `most` bytes (or multiply-adds), each of which takes `ofRow`: a multiple of
 * {@linkcode ROW_ALIGNMENT}, at least one.
 */
export function rowsWithin(most: number, ofRow: number): number {
  return Math.max(1, Math.floor(most / ofRow / ROW_ALIGNMENT)) * ROW_ALIGNMENT;
}
