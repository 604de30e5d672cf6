/** Matrix units: hardware that multiplies small matrices, a subgroup at a time. Chooses which matrices kernels use. */
import type { GpuInfo, MatrixShape } from "../device.ts";
import type { Gpu } from "../gpu.ts";
import { rowRanges, type Tensor } from "../tensor.ts";
import type { Constants, Kernel } from "../wgsl.ts";
import largestWgsl from "./largest_matrix.wgsl" with { type: "text" };
import unitWgsl from "./unit_matrix.wgsl" with { type: "text" };
import rangeWgsl from "./range_matrix.wgsl" with { type: "text" };

/** Shape of the matrices that kernels use on a device, and how many lanes share one. */
export interface MatrixUnit extends MatrixShape {
  readonly lanes: number;
}

const LARGEST: Kernel = { name: "largest", wgsl: largestWgsl };

/**
 * Chooses the matrices that kernels multiply on a device: f16 with sums in f32, of those the largest. `undefined` where it
 * has none, and where the size of its subgroups varies: kernels then do not know how many a workgroup has.
 */
export function matrixUnit({ matrices, subgroupSize, subgroupMaxSize }: GpuInfo): MatrixUnit | undefined {
  if (subgroupSize !== subgroupMaxSize) return undefined;
  const volume = ({ M, N, K }: MatrixShape) => M * N * K;
  const [best] = matrices
    .filter(({ component, result, M, N, K }) =>
      component === "f16" && result === "f32" && [M, N, K].every((size) => size % 8 === 0)
    )
    .sort((a, b) => volume(b) - volume(a));
  return best && { ...best, lanes: subgroupMaxSize };
}

/** Returns what kernels on the unit are made of: its sizes and types, and `range_of`. */
export function matrixPieces({ M, N, K, lanes }: MatrixUnit): {
  readonly libraries: readonly string[];
  readonly constants: Constants;
} {
  return { libraries: [unitWgsl, rangeWgsl], constants: { SM: M, SN: N, SK: K, LANES: lanes } };
}

/**
 * Finds the bits of each tensor's largest finite magnitude, from which kernels take a power of two that brings it into the
 * range of f16; 0 where there is no tensor.
 * @returns (tensors) u32. The caller frees it
 */
export function largestMagnitudes(gpu: Gpu, tensors: readonly (Tensor | false | undefined)[]): Tensor {
  const largest = gpu.zeros([tensors.length], "u32", "largest magnitudes");
  tensors.forEach((tensor, at) => {
    if (!tensor) return;
    for (const { start, end } of rowRanges([tensor])) {
      const quads = (end - start) * tensor.width / 4;
      gpu.run(LARGEST, { x: tensor.slice(start, end), largest }, {
        grid: [Math.min(Math.ceil(quads / 256 / 4), 2 ** 10)],
        uniforms: { quads, at },
        formats: { X: tensor.format },
      });
    }
  });
  return largest;
}
