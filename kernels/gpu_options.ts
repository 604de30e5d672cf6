import type { GpuInfo, WebGpu } from "./device.ts";
import type { DeviceLimits } from "./dry_device.ts";
import type { HostCopies } from "./host.ts";
import type { KernelTiming } from "./profiler.ts";
import type { Dispatch } from "./recorder.ts";
import type { FindRefused, Refused, Verdict, VerdictStore } from "./refusal.ts";
import type { FindTuning, Tuning } from "./tuning.ts";

/**
 * Way in which threads that need the same operand get it: from registers of their subgroup's lanes (software adapters, where
 * barriers are dear and every load is one), or from a tile in workgroup memory (GPUs).
 */
export type Sharing = "subgroup" | "workgroup";

/** Options of a device. Everything that opens one takes them, and hands them to `Gpu.open`. */
export interface GpuOptions {
  /** Implementation of WebGPU that drives the device; "deno" unless given. */
  readonly webgpu?: WebGpu;
  /** Toggles of Dawn besides its usual ones, with a minus before those to turn off: to find out what one changes. */
  readonly toggles?: readonly string[];
  /** Features of WebGPU to do without, as if the adapter had them not (tests). */
  readonly without?: readonly string[];
  /**
   * Variants of kernels for this device, or what finds them once the device is known; each kernel's default unless
   * given. With `sharing` nothing is looked up: variants are measured in the mode that the device has by itself.
   */
  readonly tuning?: Tuning | FindTuning;
  /** Kernels to do without, or what finds them once the device is known. `openGpu` tries them unless given. */
  readonly refused?: Refused | FindRefused;
  /** Where `openGpu` keeps what it found out about kernels; in this process's memory unless given. */
  readonly verdicts?: VerdictStore;
  /** Told by `openGpu` of each kind of kernels that is not used, by the first that is wrong, whenever one is opened. */
  readonly onRefusal?: (verdict: Verdict) => void;
  /** Told the time of each dispatch after each read. For finding out what a run does: it makes runs slower. */
  readonly onTiming?: (timing: KernelTiming) => void;
  /** Chosen by the adapter unless given. */
  readonly sharing?: Sharing;
  /** Most bytes on the device; the driver's own limit unless given. */
  readonly memoryLimitBytes?: number;
  /** Largest tensor segment in bytes; the adapter's binding limit unless given lower. */
  readonly maxBindingBytes?: number;
  /** Storage buffers that a kernel may bind; as many as the adapter lets it unless given fewer, of which there are 8 on any. */
  readonly maxStorageBuffers?: number;
  /** Most multiply-adds of one dispatch and of one submit; a second's work of a small GPU unless given. */
  readonly mostWork?: number;
  /** Fills every new tensor with NaN, so that a kernel that leaves gaps shows (tests). */
  readonly poison?: boolean;
  /** Times each dispatch for `Gpu.timings`, and not for `onTiming`. */
  readonly profile?: boolean;
  /** Told how many kernels there are whenever work with new ones is sent: drivers compile them when they first run. */
  readonly onCompile?: (kernels: number) => void;
  /**
   * Way in which tensors go to host memory and back; the best that the device has unless given.
   * @internal
   */
  readonly hostCopies?: HostCopies;
  /**
   * Told of every dispatch as it is recorded.
   * @internal
   */
  readonly onDispatch?: (dispatch: Dispatch) => void;
}

/** A device to count on, see `Gpu.dry`. */
export interface DryOptions extends
  Omit<
    GpuOptions,
    | "webgpu"
    | "toggles"
    | "without"
    | "maxStorageBuffers"
    | "tuning"
    | "refused"
    | "verdicts"
    | "onRefusal"
    | "onTiming"
    | "profile"
    | "poison"
  > {
  /** Limits of buffers and workgroups. */
  readonly limits: DeviceLimits;
  /** Facts that the device gives of itself; those of no special device unless given. */
  readonly info?: GpuInfo;
  /** Variants of kernels; each kernel's default unless given. */
  readonly tuning?: Tuning;
  /** Kernels to do without; none unless given. */
  readonly refused?: Refused;
}
