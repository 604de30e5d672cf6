import type { Gpu, Launch } from "../gpu.ts";
import { quadsOf, requireSameShape, requireVector, rowQuadsOf, threadGrid } from "../shared/grid.ts";
import { rowRanges, slices, type Tensor } from "../tensor.ts";
import type { Format, Kernel } from "../wgsl.ts";
import addBiasWgsl from "./add_bias.wgsl" with { type: "text" };
import addIntoWgsl from "./add_into.wgsl" with { type: "text" };
import castWgsl from "./cast.wgsl" with { type: "text" };

const ADD_BIAS = { name: "add_bias", wgsl: addBiasWgsl };
const ADD_INTO = { name: "add_into", wgsl: addIntoWgsl };
const CAST = { name: "cast", wgsl: castWgsl };

/**
 * Adds `source` to `target`, in place.
 * @param target any shape with a multiple of 4 elements, any format
 * @param source the shape of `target`, any format
 * @throws {GpuError} if shapes differ
 */
export function addInto(gpu: Gpu, target: Tensor, source: Tensor): void {
  requireSameShape("addInto", target, source);
  runByQuads(gpu, ADD_INTO, { x: target, y: source }, { X: target.format, Y: source.format });
}

/**
 * Adds `factor` times `bias` to every row of `y`, in place.
 * @param y (rows, N), any format
 * @param bias (N) f32
 * @throws {GpuError} if N is not a multiple of 4, or `bias` not (N) f32
 */
export function addBias(gpu: Gpu, y: Tensor, bias: Tensor, factor = 1): void {
  requireVector("addBias", bias, y.width, "f32");
  const rowQuads = rowQuadsOf(y);
  for (const { start, end } of rowRanges([y])) {
    const quads = (end - start) * rowQuads;
    gpu.run(ADD_BIAS, { y: y.slice(start, end), bias }, {
      grid: threadGrid(quads),
      uniforms: { quads, row_quads: rowQuads, factor },
      formats: { Y: y.format },
    });
  }
}

/**
 * Converts `x` to another format, rounded to nearest even.
 * @param x any shape with a multiple of 4 elements, any format
 * @returns a new tensor, also if the format stays; the caller frees it
 */
export function cast(gpu: Gpu, x: Tensor, format: Format): Tensor {
  const y = gpu.empty(x.shape, format, `${x.label} as ${format}`);
  castInto(gpu, x, y);
  return y;
}

/**
 * Writes `x` to `y` in the format of `y`, rounded to nearest even.
 * @param x any shape with a multiple of 4 elements, any format
 * @param y the shape of `x`, any format
 * @throws {GpuError} if shapes differ
 */
export function castInto(gpu: Gpu, x: Tensor, y: Tensor): void {
  requireSameShape("castInto", x, y);
  runByQuads(gpu, CAST, { x, y }, { X: x.format, Y: y.format });
}

/** Runs a kernel with one thread for each quad of the tensors, which are alike in shape. */
function runByQuads(
  gpu: Gpu,
  kernel: Kernel,
  tensors: { readonly x: Tensor; readonly y: Tensor },
  formats: NonNullable<Launch["formats"]>,
): void {
  for (const range of rowRanges(Object.values(tensors))) {
    const parts = slices(tensors, range);
    const quads = quadsOf(parts.x);
    gpu.run(kernel, parts, { grid: threadGrid(quads), uniforms: { quads }, formats });
  }
}
