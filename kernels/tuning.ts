import type { GpuInfo } from "./device.ts";
import { GpuError } from "./errors.ts";

/**
 * Variant of a kernel for each class of work on one adapter, by their names:
 * `{ "matmul nt nf4 many": "workgroup 64x128" }`. `deno task bench --tune` measures it.
 */
export type Tuning = Readonly<Record<string, string>>;

/** Finds the tuning of a device, from what somebody measured on it; `{}` where nothing is known. */
export type FindTuning = (info: GpuInfo) => Tuning | Promise<Tuning>;

/** A class of work and the variants that can serve it on this device, the default first. */
export interface Tunable {
  readonly key: string;
  readonly variants: readonly [string, ...string[]];
  /** Variants that compute wrong values on this device: where tuning names one, the default is used. */
  readonly refused?: readonly string[];
}

/**
 * Chooses the variant to use: the tuned one, else the default.
 * @throws {GpuError} if the tuning names a variant that this class does not have here
 */
export function chosenVariant(tuning: Tuning, { key, variants, refused = [] }: Tunable): string {
  const chosen = tuning[key] ?? variants[0];
  if (variants.includes(chosen)) return chosen;
  if (refused.includes(chosen)) return variants[0];
  throw new GpuError(
    `Cannot use the variant "${chosen}" for "${key}": this device has ${variants.join(", ")}. ` +
      `Run deno task bench --tune again`,
  );
}
