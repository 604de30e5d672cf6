/** `doctor`: what this machine offers, in a form that can be pasted into a report. */
import { formatBytes, formatCount, formatTable } from "../text.ts";
import { freeBytes } from "../checkpoint/free_room.ts";
import config from "../deno.json" with { type: "json" };
import { userCacheFolder } from "./user_cache.ts";
import { CommandError } from "./exit.ts";
import {
  findAdapter,
  isSoftware,
  matricesOf,
  type MatrixShape,
  noAdapter,
  type WebGpu,
} from "../kernels/device.ts";
import type { Gpu, GpuOptions } from "../kernels/gpu.ts";
import { type BuiltCommand, newCommand } from "./flags.ts";
import { formatJson, paint } from "./format.ts";
import { gpuOptionsOf } from "./gpu_options.ts";
import type { Io } from "./io.ts";
import type { KernelCheck } from "./kernel_check.ts";
import { describeFault, describeRefusal, type Verdict } from "../kernels/refusal.ts";
import type { KnownTuning } from "./tuning.ts";

/** The object that `doctor --json` prints. */
export interface DoctorReport {
  readonly longreach: string;
  readonly deno: string;
  readonly v8: string;
  readonly typescript: string;
  readonly platform: string;
  /** The host's memory, and room on the disk of the cache folder, in bytes; `null` where that cannot be told. */
  readonly memoryBytes: number | null;
  readonly cacheFolder: string | null;
  readonly cacheFreeBytes: number | null;
  /** Implementation of WebGPU that was asked. */
  readonly webgpu: WebGpu;
  /** `null` where no adapter answers. */
  readonly adapter: AdapterReport | null;
  /** Kernels against float64; empty where no device opens. */
  readonly kernels: readonly KernelCheck[];
  /** What kernels on matrix units count on, tried one thing at a time; empty where there are none. */
  readonly units: readonly Verdict[];
  /** Date when variants of kernels were chosen for this adapter, or why those are not used; `null` without a device. */
  readonly tuning: Pick<KnownTuning, "date" | "note"> | null;
  /** Kernels that are not used on this adapter, because they are wrong there: of each kind the first. */
  readonly refused: readonly Verdict[];
}

/** One WebGPU adapter. */
export interface AdapterReport {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  /** A driver that runs on the processor: right, but slow. */
  readonly isSoftware: boolean;
  readonly features: readonly string[];
  /** Matrices that its subgroups multiply as a whole. */
  readonly matrices: readonly MatrixShape[];
  /** Limits in force when everything the adapter offers is asked for. */
  readonly limits: Readonly<Record<string, number>>;
  /** The error of opening a device; `null` where it opened. */
  readonly deviceError: string | null;
}

/** Features that change what Longreach can do, with what they are for. */
const FEATURES: Readonly<Record<string, string>> = {
  "shader-f16": "fp16: true",
  "timestamp-query": "kernel times in traces and bench",
};

/** Limits that decide how large a model and a sequence may be, with how to show them. */
const LIMITS: Readonly<Record<string, (value: number) => string>> = {
  maxBufferSize: formatBytes,
  maxStorageBufferBindingSize: formatBytes,
  maxStorageBuffersPerShaderStage: formatCount,
  maxComputeWorkgroupStorageSize: formatBytes,
  maxComputeInvocationsPerWorkgroup: formatCount,
  maxComputeWorkgroupsPerDimension: formatCount,
};

/** PCI numbers of GPU makers (and Khronos' number of Mesa), which is how vendors are given here. */
const VENDORS: Readonly<Record<string, string>> = {
  "4098": "AMD",
  "4203": "Apple",
  "4318": "NVIDIA",
  "5045": "Arm",
  "20803": "Qualcomm",
  "32902": "Intel",
  "65541": "Mesa",
};

/** The command. */
export function build(summary: string, io: Io): BuiltCommand {
  return newCommand("doctor", summary, io, { examples: ["doctor", "doctor --json"] }).action(
    async ({ json, webgpu }) => {
      const [{ checkKernels }, { Gpu }, { tryMatrixUnits }] = await Promise.all([
        import("./kernel_check.ts"),
        import("../kernels/gpu.ts"),
        import("../kernels/matrix_trials/matrix_trials.ts"),
      ]);
      const seen = await examine(webgpu);
      const isOpen = seen.adapter?.deviceError === null;
      const gpuOptions = gpuOptionsOf(io, webgpu);
      const open = (options?: GpuOptions) => Gpu.open({ ...gpuOptions, ...options });
      const kernels = isOpen ? await checkKernels(open) : [];
      const [tuning, refused] = isOpen
        ? await Promise.all([findTuning(open), findRefused(gpuOptions)])
        : [null, []];
      const hasMatrices = isOpen && seen.adapter!.matrices.length > 0;
      const units = hasMatrices ? await tryMatrixUnits(() => open({ tuning: {} })) : [];
      const report = { ...seen, kernels, units, tuning, refused };
      io.out(json ? formatJson(report) : describe(report, io.color));
      const problem = problemOf(report);
      if (problem !== null) throw new CommandError(problem, { isTold: true });
    },
  );
}

/** Looks at the versions and at the adapter that training would use. */
export async function examine(webgpu: WebGpu = "deno", find = findAdapter): Promise<DoctorReport> {
  const adapter = await find(webgpu);
  const cacheFolder = userCacheFolder();
  return {
    longreach: config.version,
    deno: Deno.version.deno,
    v8: Deno.version.v8,
    typescript: Deno.version.typescript,
    platform: `${Deno.build.os} ${Deno.build.arch}`,
    memoryBytes: permitted(() => Deno.systemMemoryInfo().total),
    cacheFolder,
    cacheFreeBytes: cacheFolder === null ? null : freeBytes(cacheFolder),
    webgpu,
    adapter: adapter === null ? null : await examineAdapter(adapter),
    kernels: [],
    units: [],
    tuning: null,
    refused: [],
  };
}

/** Calls `read`; `null` where it is not allowed, or not there. */
function permitted(read: () => number): number | null {
  try {
    return read();
  } catch {
    return null;
  }
}

async function findTuning(open: typeof Gpu.open): Promise<DoctorReport["tuning"]> {
  const { readTuning } = await import("./tuning.ts");
  using gpu = await open({ tuning: {} });
  const { date, note } = await readTuning(gpu.info);
  return { date, note };
}

async function findRefused(options: GpuOptions): Promise<readonly Verdict[]> {
  const { openGpu } = await import("../kernels/open.ts");
  const refused: Verdict[] = [];
  using _ = await openGpu({ ...options, onRefusal: (verdict) => refused.push(verdict) });
  return refused;
}

async function examineAdapter(adapter: GPUAdapter): Promise<AdapterReport> {
  const { vendor, architecture, device, description } = adapter.info;
  const names = Object.keys(LIMITS) as (keyof GPUSupportedLimits & string)[];
  const limits = Object.fromEntries(names.map((name) => [name, Number(adapter.limits[name])]));
  return {
    vendor,
    architecture,
    device,
    description,
    isSoftware: isSoftware(adapter.info),
    features: [...adapter.features].sort(),
    matrices: matricesOf(adapter),
    limits,
    deviceError: await tryDevice(adapter, limits),
  };
}

/** Opens a device with the limits the report shows, and closes it again. */
async function tryDevice(
  adapter: GPUAdapter,
  requiredLimits: Record<string, number>,
): Promise<string | null> {
  try {
    const device = await adapter.requestDevice({ requiredLimits });
    device.destroy();
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** The report as text; ends with warnings, where there are any. */
export function describe(report: DoctorReport, color: boolean): string {
  const rows: string[][] = [
    ["Longreach", report.longreach],
    ["Deno", `${report.deno} (V8 ${report.v8}, TypeScript ${report.typescript})`],
    [
      "platform",
      `${report.platform}${
        report.memoryBytes === null ? "" : `, ${formatBytes(report.memoryBytes)} of memory`
      }`,
    ],
    ...(report.cacheFolder === null ? [] : [[
      "cache",
      `${report.cacheFolder}${
        report.cacheFreeBytes === null ? "" : `, ${formatBytes(report.cacheFreeBytes)} free`
      }`,
    ]]),
    ["WebGPU", report.webgpu === "dawn" ? "Dawn" : "Deno's own"],
  ];
  const { adapter } = report;
  if (adapter === null) return formatTable([...rows, ["adapter", "none answers"]]);
  rows.push(["adapter", adapter.description || adapter.device || "unnamed"]);
  rows.push([
    "vendor",
    vendorName(adapter.vendor),
  ]);
  for (const [name, use] of Object.entries(FEATURES)) {
    rows.push([name, `${adapter.features.includes(name) ? "yes" : "no"} (${use})`]);
  }
  rows.push(["matrix units", describeMatrices(adapter.matrices)]);
  if (report.units.length > 0) {
    const right = report.units.filter(({ ok }) => ok).length;
    rows.push(["trials of them", `${right} of ${report.units.length} right`]);
  }
  for (const [name, show] of Object.entries(LIMITS)) rows.push([name, show(adapter.limits[name]!)]);
  if (report.tuning !== null) rows.push(["tuned", describeTuning(report.tuning)]);
  const lines = [formatTable(rows)];
  if (report.kernels.length > 0) lines.push("", describeKernels(report.kernels, color));
  for (const verdict of report.units.filter(({ ok }) => !ok)) {
    lines.push("", paint(`Wrong on ${verdict.kernel}: ${describeFault(verdict)}`, "yellow", color));
  }
  for (const verdict of report.refused) {
    lines.push("", paint(describeRefusal(verdict), "yellow", color));
  }
  if (adapter.isSoftware) {
    lines.push(
      "",
      paint(
        "This adapter runs on the processor: fine for tests and the demo, far too slow for a real model.\n" +
          "If the machine has a GPU, its Vulkan driver is not installed or not allowed for this user.",
        "yellow",
        color,
      ),
    );
  }
  return lines.join("\n");
}

function describeMatrices(matrices: readonly MatrixShape[]): string {
  const shapes = matrices.map(({ component, result, M, N, K }) => `${component} to ${result} ${M}x${N}x${K}`);
  return shapes.length === 0 ? "none" : shapes.join(", ");
}

function describeTuning({ date, note }: NonNullable<DoctorReport["tuning"]>): string {
  if (date !== null) return `yes, ${date}`;
  return note ?? "no: deno task bench --tune finds the fastest kernels for this adapter";
}

function describeKernels(kernels: readonly KernelCheck[], color: boolean): string {
  return formatTable([
    ["kernel", "sharing", "error", "allowed", ""],
    ...kernels.map(({ kernel, sharing, error, tolerance, ok, failure }) => [
      kernel,
      sharing,
      error === null ? "-" : error.toExponential(1),
      tolerance.toExponential(0),
      ok ? "ok" : paint(failure ?? "WRONG", "red", color),
    ]),
  ], "llrr");
}

/** Says why nothing can be trained here, and what to do; `null` where all is well. */
export function problemOf({ webgpu, adapter, kernels }: DoctorReport): string | null {
  if (adapter === null) return webgpu === "dawn" ? noAdapter(webgpu) : adviceFor(Deno.build.os);
  if (adapter.deviceError !== null) {
    return `The adapter answers but opens no device: ${adapter.deviceError}`;
  }
  const failed = kernels.filter(({ ok }) => !ok);
  if (failed.length === 0) return null;
  const names = failed.map(({ kernel, sharing }) => `${kernel} (${sharing})`).join(", ");
  return `Kernels fail on this adapter: ${names}. Nothing computed on it can be trusted: update the graphics driver, and ` +
    `if that does not help, report the lines above`;
}

function vendorName(vendor: string): string {
  return VENDORS[vendor] ?? (vendor === "" || vendor === "0" ? "-" : vendor);
}

/** Advice for a machine on which no adapter answers. */
export function adviceFor(os: typeof Deno.build.os): string {
  const what = "No WebGPU adapter answers";
  if (os === "darwin") {
    return `${what}: Metal is missing, which needs macOS 13 or newer outside a virtual machine`;
  }
  if (os === "windows") return `${what}: install the graphics driver of the GPU's maker (Direct3D 12)`;
  return `${what}: install a Vulkan driver. Debian and Ubuntu: apt-get install mesa-vulkan-drivers (also has one that ` +
    `needs no GPU); Fedora: dnf install mesa-vulkan-drivers; Arch: pacman -S vulkan-swrast; NVIDIA: the maker's driver`;
}
