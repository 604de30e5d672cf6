import { GpuError } from "../errors.ts";
import type { Tensor } from "../tensor.ts";

/** Threads per workgroup of the kernels that give each thread one quad; written in their `@workgroup_size`. */
export const THREADS = 64;

/** Workgroups that WebGPU promises along one axis of a grid. */
const MOST_PER_AXIS = 65535;

/**
 * Lays out at least `groups` workgroups, wrapped to y past what one axis allows.
 * Kernels number them `group.y * groups_of_grid.x + group.x` and leave at once past the end.
 */
export function wrappedGrid(groups: number): [number, number] {
  const y = Math.max(1, Math.ceil(groups / MOST_PER_AXIS));
  return [Math.ceil(groups / y), y];
}

/** Lays out one thread for each of `count` items. */
export function threadGrid(count: number): [number, number] {
  return wrappedGrid(Math.ceil(count / THREADS));
}

/** Counts the quads of `tensor`. @throws {GpuError} if its elements are not a multiple of 4 */
export function quadsOf(tensor: Tensor): number {
  if (tensor.size % 4 !== 0) {
    throw new GpuError(
      `"${tensor.label}" [${tensor.shape}] has ${tensor.size} elements, not a multiple of 4`,
    );
  }
  return tensor.size / 4;
}

/** Counts the quads of a row of `tensor`. @throws {GpuError} if its elements are not a multiple of 4 */
export function rowQuadsOf(tensor: Tensor): number {
  if (tensor.width % 4 !== 0) {
    throw new GpuError(
      `"${tensor.label}" [${tensor.shape}] has rows of ${tensor.width} elements, not a multiple of 4`,
    );
  }
  return tensor.width / 4;
}

/** @throws {GpuError} unless both tensors have the same rows and width */
export function requireSameShape(op: string, a: Tensor, b: Tensor): void {
  if (a.rows !== b.rows || a.width !== b.width) {
    throw new GpuError(
      `Cannot apply ${op}: "${a.label}" [${a.shape}] and "${b.label}" [${b.shape}] differ in shape`,
    );
  }
}

/** @throws {GpuError} unless `tensor` has `length` elements of type `dtype` */
export function requireVector(op: string, tensor: Tensor, length: number, dtype: "f32" | "u32"): void {
  if (tensor.size !== length || tensor.dtype !== dtype) {
    throw new GpuError(
      `Cannot apply ${op}: "${tensor.label}" must hold ${length} ${dtype} values, got [${tensor.shape}] ${tensor.dtype}`,
    );
  }
}
