/** Kernels that are not used on an adapter, because they computed something else than their definition there. */
import type { GpuInfo } from "./device.ts";
import type { DeviceLimits } from "./dry_device.ts";
import type { Tuning } from "./tuning.ts";

/** Ops with kernels that depend on what drivers differ in: subgroups, or matrix units and f16. */
export type Risk =
  | `${"matmul" | "attention"} by ${"subgroups" | "matrices"}`
  | "attention gradients by matrices"
  | `${
    | "matvec"
    | "cache attention"} by subgroups`;

/** What to do without on a device. The plain kernels, by workgroups, stand in. */
export type Refused = ReadonlySet<Risk>;

/** What a device makes its choices by. */
export interface Choosing {
  /** The device as it describes itself. */
  readonly info: GpuInfo;
  /** Limits of its buffers and workgroups. */
  readonly limits: DeviceLimits;
  /** Variants of kernels chosen for it. */
  readonly tuning: Tuning;
}

/** Finds what to do without, before the device is used. */
export type FindRefused = (device: Choosing) => Promise<Refused>;

/** Result of one kernel on small random inputs. */
export interface Verdict {
  /** The kernel, with its variant: "matmul nt nf4 matrix 64x64". */
  readonly kernel: string;
  /** What is refused where it is wrong. */
  readonly risks: readonly Risk[];
  /** Whether the error is within the tolerance. */
  readonly ok: boolean;
  /** Largest difference from float64 as a share of the largest value; `null` where that is no number. */
  readonly error: number | null;
  /** Largest error that is allowed. */
  readonly tolerance: number;
  /** The error that was thrown instead. */
  readonly failure: string | null;
  /** Parts of the values that are further off than is allowed. */
  readonly wrong: readonly Wrong[];
}

/** A part of a trial's values in which some are wrong. */
export interface Wrong {
  /** Name of the part; empty where there is one. */
  readonly part: string;
  /** Values that are wrong. */
  readonly count: number;
  /** Values of the part. */
  readonly of: number;
  /** Index of the first that is wrong. */
  readonly first: number;
}

/** Keeps the verdicts on an adapter's kernels, so that each is tried once. Neither method throws. */
export interface VerdictStore {
  /** Reads what is known of this adapter with these kernels. */
  read(info: GpuInfo): Promise<readonly Verdict[]>;
  /** Keeps all verdicts on this adapter, in place of those before. */
  save(info: GpuInfo, verdicts: readonly Verdict[]): Promise<void>;
}

/** Says in one line what is not used and why. */
export function describeRefusal(verdict: Verdict): string {
  const { kernel, risks } = verdict;
  return `Not used on this adapter, where it is not right: ${risks.join(", ")} (${kernel}: ${
    describeFault(verdict)
  }). ` +
    `Plain kernels stand in`;
}

/** Says what is wrong with a kernel, of which there is a verdict that it is. */
export function describeFault({ error, tolerance, failure, wrong }: Verdict): string {
  if (failure !== null) return failure;
  const [first] = wrong;
  if (first === undefined || first.part === "") {
    return error === null ? "not a number" : `an error of ${error.toExponential(1)}, ${tolerance} is allowed`;
  }
  const { part, count, of, first: index } = first;
  const others = wrong.length === 1
    ? ""
    : `, and ${wrong.length - 1} part${wrong.length === 2 ? "" : "s"} more`;
  return `${part}: ${count} of ${of} values are wrong, the first at ${index}${others}`;
}
