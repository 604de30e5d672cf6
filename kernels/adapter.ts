import { UserError } from "../errors.ts";
import { GpuError } from "./errors.ts";

/** What to know about the adapter: for choices, for `doctor`, for reports. */
export interface GpuInfo {
  readonly description: string;
  readonly vendor: string;
  readonly isSoftware: boolean;
  /** 0 where the device has no subgroups. */
  readonly subgroupSize: number;
}

/** An open device and what was found about it. */
export interface OpenDevice {
  readonly device: GPUDevice;
  readonly info: GpuInfo;
}

/**
 * Opens the adapter with all it offers.
 * @param timestamps ask for timestamp queries
 * @throws {UserError} if no adapter answers
 * @throws {GpuError} if it has no timestamp queries, though asked for
 */
export async function openDevice({ timestamps }: { readonly timestamps: boolean }): Promise<OpenDevice> {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) {
    throw new UserError(
      "No GPU adapter answers. Install a Vulkan driver (on Debian and Ubuntu mesa-vulkan-drivers has a software one), " +
        "or start through ./longreach, which does it",
    );
  }
  const { device, subgroups } = await requestDevice(adapter, timestamps);
  const { description, vendor, isFallbackAdapter, subgroupMinSize } = adapter.info;
  const isSoftware = isFallbackAdapter || /llvmpipe|swiftshader|software/i.test(description);
  return { device, info: { description, vendor, isSoftware, subgroupSize: subgroups ? subgroupMinSize : 0 } };
}

async function requestDevice(
  adapter: GPUAdapter,
  timestamps: boolean,
): Promise<{ device: GPUDevice; subgroups: boolean }> {
  const { limits } = adapter;
  const requiredLimits = {
    maxBufferSize: limits.maxBufferSize,
    maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
    maxStorageBuffersPerShaderStage: limits.maxStorageBuffersPerShaderStage,
    maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
    maxComputeInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
    maxComputeWorkgroupSizeX: limits.maxComputeWorkgroupSizeX,
  };
  if (timestamps && !adapter.features.has("timestamp-query")) {
    throw new GpuError(
      `"${adapter.info.description}" has no timestamp queries, so kernels cannot be timed on it`,
    );
  }
  const base: GPUFeatureName[] = timestamps ? ["timestamp-query"] : [];
  // Deno grants subgroups without listing them, so ask and fall back.
  const subgroups = "subgroups" as GPUFeatureName;
  try {
    const device = await adapter.requestDevice({ requiredFeatures: [...base, subgroups], requiredLimits });
    return { device, subgroups: true };
  } catch {
    const device = await adapter.requestDevice({ requiredFeatures: base, requiredLimits });
    return { device, subgroups: false };
  }
}
