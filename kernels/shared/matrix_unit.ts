/** Matrix units: hardware that multiplies small matrices, a subgroup at a time. Chooses which matrices kernels use. */
import { type GpuInfo, type MatrixShape, SIZE_CONTROL } from "../device.ts";
import type { Constants, Kernel } from "../wgsl.ts";
import octetsWgsl from "./octets_matrix.wgsl" with { type: "text" };
import powersWgsl from "./powers_matrix.wgsl" with { type: "text" };
import unitWgsl from "./unit_matrix.wgsl" with { type: "text" };

/** Shape of the matrices that kernels use on a device, and how many lanes share one. */
export interface MatrixUnit extends MatrixShape {
  readonly lanes: number;
  /** Whether kernels ask for so many lanes, since the device has subgroups of several sizes. */
  readonly asksForLanes: boolean;
}

/** The matrices, and what brings operands into their form. */
const PIECES: readonly string[] = [unitWgsl, octetsWgsl, powersWgsl];

/** Lanes to ask for where there is a choice: what most devices have. */
const USUAL_LANES = 32;

/**
 * Chooses the matrices that kernels multiply on a device: f16 with sums in f32, of those the largest. `undefined` where it
 * has none, and where the size of its subgroups varies and cannot be asked for: kernels then do not know how many a
 * workgroup has.
 */
export function matrixUnit(
  { matrices, features, subgroupSize, subgroupMaxSize }: GpuInfo,
): MatrixUnit | undefined {
  const asksForLanes = subgroupSize !== subgroupMaxSize;
  if (asksForLanes && !features.has(SIZE_CONTROL)) return undefined;
  const volume = ({ M, N, K }: MatrixShape) => M * N * K;
  const [best] = matrices
    .filter(({ component, result, M, N, K }) =>
      component === "f16" && result === "f32" && [M, N, K].every((size) => size % 8 === 0)
    )
    .sort((a, b) => volume(b) - volume(a));
  const lanes = Math.min(Math.max(USUAL_LANES, subgroupSize), subgroupMaxSize);
  return best && { ...best, lanes: asksForLanes ? lanes : subgroupMaxSize, asksForLanes };
}

/** The parts of a kernel that say how many lanes share a matrix, where that has to be said. */
export function onUnit(
  { asksForLanes }: MatrixUnit,
  wgsl: string,
): Required<Pick<Kernel, "wgsl" | "libraries">> {
  if (!asksForLanes) return { wgsl, libraries: PIECES };
  return {
    wgsl: wgsl.replace("@workgroup_size(THREADS)", "@workgroup_size(THREADS) @subgroup_size(LANES)"),
    libraries: ["enable subgroup_size_control;", ...PIECES],
  };
}

/** Sizes of the matrices, as kernels on the unit name them. */
export function unitConstants({ M, N, K, lanes }: MatrixUnit): Constants {
  return { SM: M, SN: N, SK: K, LANES: lanes };
}
