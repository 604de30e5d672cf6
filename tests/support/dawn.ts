/** What tests on Dawn have in common. */
import { findAdapter, matricesOf } from "../../kernels/device.ts";
import { Gpu, type GpuOptions } from "../../kernels/gpu.ts";
import { testUnless } from "./skipped.ts";

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
  testUnless(reason, `Dawn: ${name}`, fn);
}
