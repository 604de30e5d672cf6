import type { Format } from "./wgsl.ts";
import { GpuError } from "./errors.ts";
import type { PooledBuffer } from "./pool.ts";

/** Element type of a tensor on the device; `u32` is for ids, positions and packed codes. */
export type Dtype = Format | "u32";

/** Bytes of one element. */
export function bytesPerElement(dtype: Dtype): number {
  return dtype === "f32" || dtype === "u32" ? 4 : 2;
}

/** A run of whole rows of a tensor in one buffer. */
export interface Segment {
  readonly buffer: PooledBuffer;
  /** First row of the tensor that lies here. */
  readonly start: number;
  readonly rows: number;
  /** Place in the buffer where that row begins, in bytes. */
  readonly offset: number;
}

/** Part of one buffer, as a kernel binds it. */
export interface Bound {
  readonly buffer: PooledBuffer;
  readonly offset: number;
  readonly size: number;
}

/** Segments and chunks start at multiples of this many rows, so that every offset is a legal binding offset. */
export const ROW_ALIGNMENT = 64;

/**
 * A dense array on the device, row-major. Its rows (all axes but the last) lie in one buffer, or in several when
 * the whole is larger than one binding may be. Whoever made it frees it; slices are borrowed.
 */
export class Tensor {
  /** Axes, the outermost first. */
  readonly shape: readonly number[];
  /** Type of its elements. */
  readonly dtype: Dtype;
  /** Name in errors. */
  readonly label: string;
  /**
   * Buffers that its rows lie in.
   * @internal
   */
  readonly segments: readonly Segment[];
  #onFree: ((tensor: Tensor) => void) | undefined;
  #freed = false;

  /**
   * Tensors are made by `Gpu.empty`.
   * @internal
   */
  constructor(
    shape: readonly number[],
    dtype: Dtype,
    label: string,
    segments: readonly Segment[],
    onFree?: (tensor: Tensor) => void,
  ) {
    this.shape = shape;
    this.dtype = dtype;
    this.label = label;
    this.segments = segments;
    this.#onFree = onFree;
  }

  /** Length of the last axis; 1 for a tensor of one axis. */
  get width(): number {
    return this.shape.length < 2 ? 1 : this.shape.at(-1)!;
  }

  /** Product of all axes but the last; the length of a tensor of one axis. */
  get rows(): number {
    return this.size / this.width;
  }

  /** Number of elements. */
  get size(): number {
    return this.shape.reduce((product, axis) => product * axis, 1);
  }

  /** Bytes of a row. */
  get rowBytes(): number {
    return this.width * bytesPerElement(this.dtype);
  }

  /** Bytes of all rows. */
  get byteLength(): number {
    return this.rows * this.rowBytes;
  }

  /** Format of its quads. @throws {GpuError} for u32 tensors */
  get format(): Format {
    if (this.dtype === "u32") {
      throw new GpuError(`Tensor "${this.label}" holds whole numbers, not a float format`);
    }
    return this.dtype;
  }

  /**
   * Part of a buffer that holds it all.
   * @throws {GpuError} if it lies in several buffers, or was freed
   * @internal
   */
  get bound(): Bound {
    if (this.#freed) throw new GpuError(`Tensor "${this.label}" was used after it was freed`);
    const [segment] = this.segments;
    if (this.segments.length !== 1 || !segment) {
      throw new GpuError(
        `Tensor "${this.label}" [${this.shape}] spans ${this.segments.length} bindings here`,
      );
    }
    return { buffer: segment.buffer, offset: segment.offset, size: Math.ceil(this.byteLength / 4) * 4 };
  }

  /** Borrows rows `start` to `end` (excluded): no copy, nothing to free. */
  slice(start: number, end: number): Tensor {
    if (this.#freed) throw new GpuError(`Tensor "${this.label}" was sliced after it was freed`);
    if (start === 0 && end === this.rows) return this;
    const segments: Segment[] = [];
    for (const segment of this.segments) {
      const from = Math.max(start, segment.start);
      const to = Math.min(end, segment.start + segment.rows);
      if (from >= to) continue;
      segments.push({
        buffer: segment.buffer,
        start: from - start,
        rows: to - from,
        offset: segment.offset + (from - segment.start) * this.rowBytes,
      });
    }
    const shape = this.shape.length < 2 ? [end - start] : [end - start, this.width];
    return new Tensor(shape, this.dtype, this.label, segments);
  }

  /**
   * The same elements as rows of `width`, such as the heads of each row: borrowed, no copy, nothing to free.
   * @throws {GpuError} if `width` does not divide the rows
   */
  asRows(width: number): Tensor {
    const parts = this.width / width;
    if (!Number.isInteger(parts)) {
      throw new GpuError(`Tensor "${this.label}" [${this.shape}] does not divide into rows of ${width}`);
    }
    const segments = this.segments.map((segment) => ({
      ...segment,
      start: segment.start * parts,
      rows: segment.rows * parts,
    }));
    return new Tensor([this.rows * parts, width], this.dtype, this.label, segments);
  }

  /** Gives its memory back to the pool. @throws {GpuError} the second time */
  free(): void {
    if (this.#freed) throw new GpuError(`Tensor "${this.label}" was freed twice`);
    if (!this.#onFree) return;
    this.#freed = true;
    this.#onFree(this);
  }
}

/**
 * Cuts rows into ranges over each of which every one of the tensors, of as many rows each, lies in one buffer.
 * @param longest most rows of a range
 * @throws {GpuError} if the tensors differ in rows
 */
export function rowRanges(tensors: readonly Tensor[], longest = Infinity): { start: number; end: number }[] {
  const rows = tensors[0]!.rows;
  const cuts = new Set<number>([0, rows]);
  for (const tensor of tensors) {
    if (tensor.rows !== rows) {
      throw new GpuError(
        `Tensors "${tensors[0]!.label}" and "${tensor.label}" differ in rows: ${rows}, ${tensor.rows}`,
      );
    }
    for (const segment of tensor.segments) cuts.add(segment.start);
  }
  const sorted = [...cuts].sort((a, b) => a - b);
  const ranges: { start: number; end: number }[] = [];
  for (let i = 0; i + 1 < sorted.length; i++) {
    for (let start = sorted[i]!; start < sorted[i + 1]!; start += longest) {
      ranges.push({ start, end: Math.min(start + longest, sorted[i + 1]!) });
    }
  }
  return ranges;
}

/** Where a tensor may begin in a buffer: a legal offset of a binding on every device. */
export const OFFSET_BYTES = 256;

/**
 * Joins f32 tensors that lie side by side, as `Gpu.zerosTogether` makes them, so that an op over all of them is one dispatch.
 * What lies between two of them is zero and belongs to none.
 *
 * @param lists as many tensors each, those at one place of a size: joined alike, or not
 * @returns each list with its neighbours as one vector, borrowed
 */
export function joined(...lists: readonly (readonly Tensor[])[]): Tensor[][] {
  const [first] = lists as [readonly Tensor[]];
  const runs: { start: number; end: number }[] = [];
  for (let i = 0; i < first.length; i++) {
    const run = runs.at(-1);
    if (run && lists.every((list) => isBeside(list[i - 1]!, list[i]!))) run.end = i + 1;
    else runs.push({ start: i, end: i + 1 });
  }
  return lists.map((list) => runs.map(({ start, end }) => spanOf(list[start]!, list[end - 1]!)));
}

function isBeside(before: Tensor, next: Tensor): boolean {
  const [[a], [b]] = [before.segments, next.segments];
  return before.segments.length === 1 && next.segments.length === 1 && a!.buffer === b!.buffer &&
    before.dtype === "f32" && next.dtype === "f32" &&
    Math.ceil((a!.offset + before.byteLength) / OFFSET_BYTES) * OFFSET_BYTES === b!.offset;
}

/**
 * All from the first of tensors in one buffer to the last, and what lies between them, as one vector: borrowed.
 * @internal
 */
export function spanOf(first: Tensor, last: Tensor): Tensor {
  if (first === last) return first;
  const [from, to] = [first.segments[0]!, last.segments[0]!];
  const rows = (to.offset + last.byteLength - from.offset) / bytesPerElement(first.dtype);
  return new Tensor([rows], first.dtype, first.label, [{ ...from, start: 0, rows }]);
}

/** Rows `start` to `end` (excluded) of each tensor, borrowed. */
export function slices<T extends Readonly<Record<string, Tensor>>>(
  tensors: T,
  { start, end }: { readonly start: number; readonly end: number },
): T {
  return Object.fromEntries(
    Object.entries(tensors).map(([name, tensor]) => [name, tensor.slice(start, end)]),
  ) as Record<string, Tensor> as T;
}
