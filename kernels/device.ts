import { UserError } from "../errors.ts";
import { openDawn } from "./dawn.ts";
import { GpuError } from "./errors.ts";

/** Implementations of WebGPU: Deno itself, or Dawn (kernels/dawn.ts). */
export type WebGpu = "deno" | "dawn";

/** The names that options and flags take. */
export const WEBGPUS = ["deno", "dawn"] as const satisfies readonly WebGpu[];

/** Shape of the matrices that a subgroup multiplies as a whole: (M, K) by (K, N), sums (M, N). */
export interface MatrixShape {
  /** Type of the factors' elements: f16, f32, i8, ... */
  readonly component: string;
  /** Type of the sums. */
  readonly result: string;
  /** Rows of the first factor, and of the sums. */
  readonly M: number;
  /** Columns of the second factor, and of the sums. */
  readonly N: number;
  /** Columns of the first factor, rows of the second. */
  readonly K: number;
}

/** Facts about an open device and its adapter: for choices, for `doctor`, for reports. */
export interface GpuInfo {
  /** Implementation of WebGPU that drives it. */
  readonly webgpu: WebGpu;
  /** Name of the adapter, and of its driver where known. */
  readonly description: string;
  /** Vendor, as the driver says it. */
  readonly vendor: string;
  /** Whether the CPU does its work. */
  readonly isSoftware: boolean;
  /** Fewest lanes of a subgroup; 0 where the device has no subgroups. */
  readonly subgroupSize: number;
  /** Most lanes of a subgroup; 0 where the device has none. */
  readonly subgroupMaxSize: number;
  /** Optional features that the device was opened with. */
  readonly features: ReadonlySet<string>;
  /** Shapes of matrices that its subgroups multiply; empty where they multiply none. */
  readonly matrices: readonly MatrixShape[];
}

/** A device and the facts about it. */
export interface OpenDevice {
  readonly device: GPUDevice;
  readonly info: GpuInfo;
}

/** Fields that Dawn adds to the standard's description of an adapter. */
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
/** Subgroups multiply matrices. */
export const MATRICES = "chromium-experimental-subgroup-matrix";
const F16 = "shader-f16";
/** Kernels may say how many lanes their subgroups have. */
export const SIZE_CONTROL = "subgroup-size-control";

/** Names by which drivers on the processor give themselves away where `isFallbackAdapter` is not set. */
const SOFTWARE = /llvmpipe|lavapipe|swiftshader|softpipe|software|basic render/i;

/**
 * Finds the adapter to work on; `null` if none answers.
 * @param toggles of Dawn, besides its usual ones
 * @throws {UserError} if Dawn is asked for and cannot be loaded
 */
export async function findAdapter(webgpu: WebGpu, toggles?: readonly string[]): Promise<GPUAdapter | null> {
  const gpu = webgpu === "dawn" ? await openDawn(toggles) : navigator.gpu;
  return await gpu?.requestAdapter({ powerPreference: "high-performance" }) ?? null;
}

/** Tells whether the adapter is a driver that runs on the processor: right, but slow. */
export function isSoftware({ isFallbackAdapter, vendor, device, description }: GPUAdapterInfo): boolean {
  return isFallbackAdapter || SOFTWARE.test(`${vendor} ${device} ${description}`);
}

/** Lists the matrices that the adapter's subgroups multiply. */
export function matricesOf({ info, features }: Pick<GPUAdapter, "info" | "features">): MatrixShape[] {
  if (!features.has(MATRICES as GPUFeatureName)) return [];
  const { subgroupMatrixConfigs = [] } = info as DawnAdapterInfo;
  return Array.from(
    subgroupMatrixConfigs,
    ({ componentType: component, resultComponentType: result, M, N, K }) => ({ component, result, M, N, K }),
  );
}

/**
 * Opens the adapter with all it offers.
 * @param options.timestamps ask for timestamp queries
 * @param options.toggles of Dawn, besides its usual ones
 * @param options.without features not to ask for
 * @param options.maxStorageBuffers that a kernel may bind, at most
 * @param options.find finds the adapter; {@linkcode findAdapter} unless given
 * @throws {UserError} if no adapter answers
 * @throws {GpuError} if it has no timestamp queries, though asked for
 */
export async function openDevice(
  webgpu: WebGpu,
  { timestamps, toggles, without = [], maxStorageBuffers = Infinity, find = findAdapter }: {
    readonly timestamps: boolean;
    readonly toggles?: readonly string[] | undefined;
    readonly without?: readonly string[] | undefined;
    readonly maxStorageBuffers?: number | undefined;
    readonly find?: typeof findAdapter;
  },
): Promise<OpenDevice> {
  const adapter = await find(webgpu, toggles);
  if (!adapter) throw new UserError(noAdapter(webgpu));
  const { device, granted } = await requestDevice(adapter, {
    required: timestamps ? [requireTimestamps(adapter)] : [],
    wanted: wantedFeatures(webgpu, adapter, without),
    maxStorageBuffers,
  });
  const subgroups = granted.has("subgroups");
  const { description, vendor, subgroupMinSize, subgroupMaxSize } = adapter.info;
  return {
    device,
    info: {
      webgpu,
      description,
      vendor,
      isSoftware: isSoftware(adapter.info),
      subgroupSize: subgroups ? subgroupMinSize : 0,
      subgroupMaxSize: subgroups ? subgroupMaxSize : 0,
      features: new Set<string>([...device.features, ...granted]),
      matrices: granted.has(MATRICES)
        ? matricesOf(adapter).filter(({ component }) => component !== "f16" || granted.has(F16))
        : [],
    },
  };
}

/** Says what to do where this WebGPU has no adapter. */
export function noAdapter(webgpu: WebGpu): string {
  if (webgpu === "dawn") {
    return "Dawn finds no GPU adapter. It needs a Vulkan driver with more features than Deno's WebGPU does (of Mesa's " +
      "version 25 or newer): update the driver, or leave out --webgpu dawn";
  }
  return "No GPU adapter answers. Install a Vulkan driver (on Debian and Ubuntu mesa-vulkan-drivers has a software one), " +
    "or start through ./longreach, which does it";
}

function requireTimestamps({ features, info }: GPUAdapter): string {
  if (features.has("timestamp-query")) return "timestamp-query";
  throw new GpuError(`"${info.description}" has no timestamp queries, so kernels cannot be timed on it`);
}

/** Features to do without where they are refused, each with those that it is of no use without. */
function wantedFeatures(
  webgpu: WebGpu,
  { features, info }: GPUAdapter,
  without: readonly string[],
): ReadonlyMap<string, readonly string[]> {
  const wanted = new Map<string, readonly string[]>();
  // Deno grants the first two without listing them; Dawn refuses the second for not being one of its own.
  wanted.set("subgroups", []);
  if (webgpu === "deno") wanted.set(MAPPABLE_BUFFERS, []);
  if (features.has(MATRICES as GPUFeatureName)) {
    wanted.set(F16, []).set(MATRICES, ["subgroups"]);
    const isVaried = info.subgroupMinSize !== info.subgroupMaxSize;
    if (isVaried && features.has(SIZE_CONTROL as GPUFeatureName)) wanted.set(SIZE_CONTROL, ["subgroups"]);
  }
  for (const feature of without) wanted.delete(feature);
  return wanted;
}

/** Requests a device with the adapter's limits, and of the wanted features as many as are granted together. */
async function requestDevice(
  adapter: GPUAdapter,
  { required, wanted, maxStorageBuffers }: {
    readonly required: readonly string[];
    readonly wanted: ReadonlyMap<string, readonly string[]>;
    readonly maxStorageBuffers: number;
  },
): Promise<{ device: GPUDevice; granted: ReadonlySet<string> }> {
  const { limits } = adapter;
  const requiredLimits = {
    maxBufferSize: limits.maxBufferSize,
    maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
    maxStorageBuffersPerShaderStage: Math.min(limits.maxStorageBuffersPerShaderStage, maxStorageBuffers),
    maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
    maxComputeInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
    maxComputeWorkgroupSizeX: limits.maxComputeWorkgroupSizeX,
  };
  let refusal: unknown;
  for (const features of subsets([...wanted.keys()])) {
    if (features.some((feature) => !wanted.get(feature)!.every((needed) => features.includes(needed)))) {
      continue;
    }
    try {
      const requiredFeatures = [...required, ...features] as GPUFeatureName[];
      return {
        device: await adapter.requestDevice({ requiredFeatures, requiredLimits }),
        granted: new Set(features),
      };
    } catch (error) {
      refusal = error;
    }
  }
  throw refusal;
}

/** All subsets, the largest first: the first that is granted loses no more than what is refused. */
function subsets(items: readonly string[]): string[][] {
  return items.reduce<string[][]>((sets, item) => sets.flatMap((set) => [[...set, item], set]), [[]])
    .sort((a, b) => b.length - a.length);
}
