import { UserError } from "../errors.ts";
import { openDawn } from "./dawn.ts";
import { GpuError } from "./errors.ts";

/** Who implements WebGPU: Deno itself, or Dawn (kernels/dawn.ts). */
export type WebGpu = "deno" | "dawn";

/** All that there are. */
export const WEBGPUS = ["deno", "dawn"] as const satisfies readonly WebGpu[];

/** One shape of matrices that a subgroup multiplies as a whole: (M, K) by (K, N), sums (M, N). */
export interface MatrixShape {
  /** Of what is multiplied: f16, f32, i8, ... */
  readonly component: string;
  /** Of the sums. */
  readonly result: string;
  /** Rows of the first, and of the sums. */
  readonly M: number;
  /** Columns of the second, and of the sums. */
  readonly N: number;
  /** Columns of the first, rows of the second. */
  readonly K: number;
}

/** What to know about the adapter: for choices, for `doctor`, for reports. */
export interface GpuInfo {
  /** Which implementation drives it. */
  readonly webgpu: WebGpu;
  /** Its name, and its driver where known. */
  readonly description: string;
  /** As the driver says it. */
  readonly vendor: string;
  /** Whether the CPU does its work. */
  readonly isSoftware: boolean;
  /** Fewest lanes of a subgroup; 0 where the device has no subgroups. */
  readonly subgroupSize: number;
  /** Most lanes of a subgroup; 0 where the device has none. */
  readonly subgroupMaxSize: number;
  /** Optional features that the device was opened with. */
  readonly features: ReadonlySet<string>;
  /** Matrices that its subgroups multiply; empty where they multiply none. */
  readonly matrices: readonly MatrixShape[];
}

/** An open device and what was found about it. */
export interface OpenDevice {
  readonly device: GPUDevice;
  readonly info: GpuInfo;
}

/** What Dawn adds to the standard's description of an adapter. */
interface DawnAdapterInfo {
  readonly subgroupMatrixConfigs?: Iterable<{
    readonly componentType: string;
    readonly resultComponentType: string;
    readonly M: number;
    readonly N: number;
    readonly K: number;
  }>;
}

/** wgpu's name for buffers that can be mapped and do all else besides: tensors then lie in host memory as buffers. */
export const MAPPABLE_BUFFERS = "mappable-primary-buffers";
const MATRICES = "chromium-experimental-subgroup-matrix" as GPUFeatureName;

/** Names by which drivers on the processor give themselves away where `isFallbackAdapter` is not set. */
const SOFTWARE = /llvmpipe|lavapipe|swiftshader|softpipe|software|basic render/i;

let chosen: WebGpu = "deno";

/** Makes every device opened from now on one of this WebGPU. */
export function useWebGpu(webgpu: WebGpu): void {
  chosen = webgpu;
}

/** Which WebGPU devices are opened on. */
export function usedWebGpu(): WebGpu {
  return chosen;
}

/**
 * The adapter to work on; `null` if none answers.
 * @throws {UserError} if Dawn was chosen and cannot be loaded
 */
export async function findAdapter(): Promise<GPUAdapter | null> {
  const gpu = chosen === "dawn" ? await openDawn() : navigator.gpu;
  return await gpu?.requestAdapter({ powerPreference: "high-performance" }) ?? null;
}

/** Whether the adapter is a driver that runs on the processor: right, but slow. */
export function isSoftware({ isFallbackAdapter, vendor, device, description }: GPUAdapterInfo): boolean {
  return isFallbackAdapter || SOFTWARE.test(`${vendor} ${device} ${description}`);
}

/** The matrices that the adapter's subgroups multiply. */
export function matricesOf({ info, features }: GPUAdapter): MatrixShape[] {
  if (!features.has(MATRICES)) return [];
  const { subgroupMatrixConfigs = [] } = info as DawnAdapterInfo;
  return Array.from(
    subgroupMatrixConfigs,
    ({ componentType: component, resultComponentType: result, M, N, K }) => ({ component, result, M, N, K }),
  );
}

/**
 * Opens the adapter with all it offers.
 * @param timestamps ask for timestamp queries
 * @throws {UserError} if no adapter answers
 * @throws {GpuError} if it has no timestamp queries, though asked for
 */
export async function openDevice({ timestamps }: { readonly timestamps: boolean }): Promise<OpenDevice> {
  const adapter = await findAdapter();
  if (!adapter) throw new UserError(noAdapter(chosen));
  const { device, granted } = await requestDevice(adapter, timestamps);
  const subgroups = granted.has("subgroups");
  const { description, vendor, subgroupMinSize, subgroupMaxSize } = adapter.info;
  return {
    device,
    info: {
      webgpu: chosen,
      description,
      vendor,
      isSoftware: isSoftware(adapter.info),
      subgroupSize: subgroups ? subgroupMinSize : 0,
      subgroupMaxSize: subgroups ? subgroupMaxSize : 0,
      features: new Set<string>([...device.features, ...granted]),
      matrices: subgroups ? matricesOf(adapter) : [],
    },
  };
}

/** What to do where this WebGPU has no adapter. */
export function noAdapter(webgpu: WebGpu): string {
  if (webgpu === "dawn") {
    return "Dawn finds no GPU adapter. It needs a Vulkan driver with more features than Deno's WebGPU does (of Mesa's " +
      "version 25 or newer): update the driver, or leave out --webgpu dawn";
  }
  return "No GPU adapter answers. Install a Vulkan driver (on Debian and Ubuntu mesa-vulkan-drivers has a software one), " +
    "or start through ./longreach, which does it";
}

async function requestDevice(
  adapter: GPUAdapter,
  timestamps: boolean,
): Promise<{ device: GPUDevice; granted: ReadonlySet<string> }> {
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
  const matrices: GPUFeatureName[] = adapter.features.has(MATRICES) ? [MATRICES, "shader-f16"] : [];
  // Deno grants these without listing them, so ask, and do without what is refused.
  const subgroups = ["subgroups" as GPUFeatureName, ...matrices];
  const mappable = chosen === "deno" ? [MAPPABLE_BUFFERS as GPUFeatureName] : [];
  let refusal: unknown;
  for (const extra of [[...subgroups, ...mappable], subgroups, mappable, []]) {
    try {
      const device = await adapter.requestDevice({ requiredFeatures: [...base, ...extra], requiredLimits });
      return { device, granted: new Set<string>(extra) };
    } catch (error) {
      refusal = error;
    }
  }
  throw refusal;
}
