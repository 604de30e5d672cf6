/** What tests on Dawn, and of the kernels on matrix units, have in common. */
import { attentionTunables } from "../../kernels/attention/variants.ts";
import { findAdapter, matricesOf } from "../../kernels/device.ts";
import { Gpu, type GpuOptions } from "../../kernels/gpu.ts";
import { matmulTunables } from "../../kernels/matmul/variants.ts";
import { assert } from "./assert_close.ts";

/** Opens Dawn's device. */
export const openDawn = (options: GpuOptions = {}): Promise<Gpu> => Gpu.open({ ...options, webgpu: "dawn" });

/** What is missing for tests on Dawn, and for those of matrix units. */
async function missing(): Promise<{ dawn?: string; matrices?: string }> {
  const { state } = await Deno.permissions.query({ name: "ffi" });
  if (state !== "granted") return { dawn: "no permission for native code, which deno task test:dawn has" };
  try {
    const adapter = await findAdapter("dawn");
    if (!adapter) return { dawn: "Dawn finds no adapter" };
    return matricesOf(adapter).length > 0
      ? {}
      : { matrices: `"${adapter.info.description}" has no matrix units` };
  } catch (error) {
    return { dawn: (error as Error).message };
  }
}

/** Why tests on Dawn, and those of matrix units, are skipped; undefined where they run. */
export const { dawn, matrices = dawn } = await missing();

/** Defines a test that is skipped by name where there is a reason. */
export function dawnTest(name: string, reason: string | undefined, fn: () => Promise<void>): void {
  const note = reason === undefined ? "" : ` (skipped: ${reason})`;
  Deno.test({ name: `Dawn: ${name}${note}`, ignore: reason !== undefined, fn });
}

/**
 * Opens a device on which all that matrix units can do is done on them.
 * @param ofHalves whether rows are written as f16 first, in the classes of products that have it
 */
export async function openWithMatrices(options: GpuOptions = {}, ofHalves = false): Promise<Gpu> {
  using probe = await openDawn();
  const tuning: Record<string, string> = {};
  for (const { key, variants } of [...matmulTunables(probe), ...attentionTunables(probe)]) {
    const ofMatrices = variants.filter((name) => name.startsWith("matrix"));
    const onMatrices = ofMatrices.findLast((name) => name.endsWith("of halves") === ofHalves) ??
      ofMatrices.at(-1);
    if (onMatrices) tuning[key] = onMatrices;
  }
  assert(Object.keys(tuning).length > 0, "classes that matrix units serve");
  return await openDawn({ poison: true, ...options, tuning });
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
