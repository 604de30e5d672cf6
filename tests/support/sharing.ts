/** Tests of a way of sharing operands that a device may lack: there they are skipped by name. */
import { Gpu, type Sharing } from "../../kernels/gpu.ts";
import { testUnless } from "./skipped.ts";

/** Both ways. */
export const ALL_SHARINGS: readonly Sharing[] = ["subgroup", "workgroup"];

const probe = await Gpu.open();
const { description, subgroupSize } = probe.info;
probe.close();

/** Those that this device can run. */
export const SHARINGS = ALL_SHARINGS.filter((sharing) => sharing === "workgroup" || subgroupSize >= 8);

/** Defines a test of one way. */
export function sharingTest(sharing: Sharing, name: string, fn: () => Promise<void>): void {
  const lacks = `"${description}" has no subgroups of 8 or more`;
  testUnless(SHARINGS.includes(sharing) ? undefined : lacks, name, fn);
}
