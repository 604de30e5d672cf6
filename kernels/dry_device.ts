/**
 * A device that has no memory and computes nothing: what runs on it is counted. Memory plans are dry runs of the engine
 * itself, so there is no second description of what it allocates that could fall behind.
 */
import type { GpuInfo } from "./device.ts";

/** The limits that the engine asks a device for. */
export type DeviceLimits = Pick<
  GPUSupportedLimits,
  | "maxBufferSize"
  | "maxStorageBufferBindingSize"
  | "maxStorageBuffersPerShaderStage"
  | "maxComputeWorkgroupsPerDimension"
  | "maxComputeWorkgroupStorageSize"
  | "maxComputeInvocationsPerWorkgroup"
  | "minUniformBufferOffsetAlignment"
>;

/** Reads a device's limits once: WebGPU answers each time anew, which takes microseconds. */
export function limitsOf({ limits }: Pick<GPUDevice, "limits">): DeviceLimits {
  return Object.fromEntries(
    Object.keys(TYPICAL_LIMITS).map((name) => [name, limits[name as keyof DeviceLimits]]),
  ) as unknown as DeviceLimits;
}

/** Limits that discrete GPUs have in common under Vulkan, Metal and Direct3D 12. */
export const TYPICAL_LIMITS: DeviceLimits = {
  maxBufferSize: 2 ** 31,
  maxStorageBufferBindingSize: 2 ** 31 - 4,
  maxStorageBuffersPerShaderStage: 10,
  maxComputeWorkgroupsPerDimension: 65535,
  maxComputeWorkgroupStorageSize: 32768,
  maxComputeInvocationsPerWorkgroup: 1024,
  minUniformBufferOffsetAlignment: 256,
};

/** Facts that a dry device gives of itself. */
export const DRY_INFO: GpuInfo = {
  webgpu: "deno",
  description: "dry run",
  vendor: "",
  isSoftware: false,
  subgroupSize: 32,
  subgroupMaxSize: 32,
  features: new Set(),
  matrices: [],
};

/** Makes a device that takes every call and does nothing; what is read from it is zero. */
export function dryDevice(limits: DeviceLimits): GPUDevice {
  const nothing = (): void => {};
  const done = (): Promise<undefined> => Promise.resolve(undefined);
  // Answers as late as a device may: memory that is held until the answer is counted as long as it would be.
  const later = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));
  const pass = {
    setPipeline: nothing,
    setBindGroup: nothing,
    dispatchWorkgroups: nothing,
    end: nothing,
  };
  const encoder = {
    beginComputePass: () => pass,
    clearBuffer: nothing,
    copyBufferToBuffer: nothing,
    finish: () => ({}),
  };
  const device = {
    limits,
    features: new Set<string>(),
    lost: new Promise<never>(nothing),
    queue: { writeBuffer: nothing, submit: nothing, onSubmittedWorkDone: done },
    createBuffer: ({ label, size, usage }: GPUBufferDescriptor) => ({
      label,
      size,
      usage,
      mapState: "unmapped",
      mapAsync: later,
      getMappedRange: (offset = 0, length = size - offset) => new ArrayBuffer(length),
      unmap: nothing,
      destroy: nothing,
    }),
    createBindGroup: () => ({}),
    createBindGroupLayout: () => ({}),
    createPipelineLayout: () => ({}),
    createShaderModule: () => ({}),
    createComputePipeline: () => ({}),
    createCommandEncoder: () => encoder,
    pushErrorScope: nothing,
    popErrorScope: done,
    addEventListener: nothing,
    destroy: nothing,
  };
  return device as unknown as GPUDevice;
}
