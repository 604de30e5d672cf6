/** What tests of the kernels on matrix units have in common. */
import { attentionTunables } from "../../kernels/attention/variants.ts";
import type { WebGpu } from "../../kernels/device.ts";
import { Gpu, type GpuOptions } from "../../kernels/gpu.ts";
import { matmulTunables } from "../../kernels/matmul/variants.ts";
import { assert } from "./assert_close.ts";
import { dawnTest, matrices } from "./dawn.ts";
import { emulatedTest, GPUS } from "./emulated_units.ts";

/**
 * Defines a test of kernels on matrix units twice: on Dawn's, skipped by name where there are none, and at the sizes of
 * NVIDIA's, emulated on Deno's device.
 */
export function matrixTest(name: string, fn: (webgpu: WebGpu) => Promise<void>): void {
  dawnTest(name, matrices, () => fn("dawn"));
  emulatedTest(GPUS[0], name, () => fn("deno"));
}

/**
 * Opens a device on which all that matrix units can do is done on them.
 * @param ofHalves whether rows are written as f16 first, in the classes of products that have it
 */
export async function openWithMatrices(
  webgpu: WebGpu,
  options: GpuOptions = {},
  ofHalves = false,
): Promise<Gpu> {
  using probe = await Gpu.open({ webgpu });
  const tuning: Record<string, string> = {};
  for (const { key, variants } of [...matmulTunables(probe), ...attentionTunables(probe)]) {
    const ofMatrices = variants.filter((name) => name.startsWith("matrix"));
    const onMatrices = ofMatrices.findLast((name) => name.endsWith("of halves") === ofHalves) ??
      ofMatrices.at(-1);
    if (onMatrices) tuning[key] = onMatrices;
  }
  assert(Object.keys(tuning).length > 0, "classes that matrix units serve");
  return await Gpu.open({ webgpu, poison: true, ...options, tuning });
}

/** The magnitudes of values. */
export const abs = (values: ArrayLike<number>): Float64Array => Float64Array.from(values, Math.abs);

/** Largest error as a share of the magnitudes that were summed. */
export function worst(actual: ArrayLike<number>, expected: Float64Array, magnitude: Float64Array): number {
  return expected.reduce((most, value, i) => {
    const share = Math.abs(actual[i]! - value) / magnitude[i]!;
    return share >= 0 ? Math.max(most, share) : Infinity;
  }, 0);
}
