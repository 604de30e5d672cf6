import { adviceFor, describe, type DoctorReport, examine, problemOf } from "../../cli/doctor.ts";
import { checkKernels } from "../../cli/kernel_check.ts";
import { runCli } from "../../cli/main.ts";
import { GpuError } from "../../kernels/errors.ts";
import { Gpu, type GpuOptions } from "../../kernels/gpu.ts";
import { largestError } from "../../kernels/trial.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "./memory_io.ts";

Deno.test("doctor --json prints one object with the adapter's limits and every kernel's error", async () => {
  const io = new MemoryIo();
  assertEquals(await runCli(["doctor", "--json"], io), 0);
  const report = JSON.parse(io.stdout);
  assertEquals(report.deno, Deno.version.deno);
  assert(/^\d+\.\d+\.\d+$/.test(report.longreach), "its own version");
  assertEquals(report.adapter.device_error, null, "an adapter that opens");
  assertEquals(report.refused, [], "nothing refused");
  assert(report.adapter.limits.max_storage_buffer_binding_size >= 128 * 2 ** 20, "limits");
  const kernels: DoctorReport["kernels"] = report.kernels;
  const modes = Object.groupBy(kernels, ({ sharing }) => sharing);
  assert(modes.workgroup!.length >= 5, "kernels in the mode that every device has");
  if (modes.subgroup) assertEquals(modes.subgroup.length, modes.workgroup!.length);
  for (const { kernel, sharing, error, tolerance, ok, failure } of kernels) {
    const label = `${kernel} (${sharing})`;
    assert(ok && failure === null && error! > 0 && error! < tolerance, `${label}: ${error} of ${tolerance}`);
    assert(tolerance <= 1e-4, label);
  }
});

Deno.test("without an adapter, doctor says what to install", async () => {
  const report = await examine("deno", () => Promise.resolve(null));
  assertEquals(report.adapter, null);
  assertIncludes(describe(report, false), "none answers");
  assertIncludes(problemOf(report)!, "No WebGPU adapter answers");
  assertIncludes(problemOf({ ...report, webgpu: "dawn" })!, "leave out --webgpu dawn");
  assertIncludes(adviceFor("linux"), "apt-get install mesa-vulkan-drivers");
  for (const os of ["linux", "darwin", "windows"] as const) {
    assertIncludes(adviceFor(os), "No WebGPU adapter answers");
  }
});

Deno.test("doctor says whether the kernels were tuned for this adapter", async () => {
  const report = await examine();
  const as = (tuning: DoctorReport["tuning"]) => describe({ ...report, tuning }, false);
  assert(!as(null).includes("tuned"), "nothing without a device");
  assertIncludes(as({ date: null, note: null }), "no: deno task bench --tune");
  assertIncludes(as({ date: "2026-11-20T15:00:00.000Z", note: null }), "yes, 2026-11-20T15:00:00.000Z");
  assertIncludes(as({ date: null, note: "The tuning is for other kernels" }), "for other kernels");
});

Deno.test("a software adapter comes with a warning, a GPU does not", async () => {
  const report = await examine();
  assert(report.adapter !== null, "an adapter");
  const as = (isSoftware: boolean) =>
    describe({ ...report, adapter: { ...report.adapter!, isSoftware } }, false);
  assertIncludes(as(true), "runs on the processor");
  assert(!as(false).includes("runs on the processor"), "no warning");
});

/** Opens devices without wide subgroups, on which every value read is passed through `change`. */
function openBroken(change: (values: Float32Array) => void) {
  return async (options?: GpuOptions) => {
    if (options?.sharing === "subgroup") throw new GpuError("too small");
    const gpu = await Gpu.open(options);
    const read = gpu.read.bind(gpu);
    gpu.read = async (tensor) => {
      const values = await read(tensor);
      change(values);
      return values;
    };
    return gpu;
  };
}

Deno.test("kernels that compute something else, nothing, or do not run at all are named, and that is a failure", async () => {
  const seen = await examine();
  assertEquals(problemOf(seen), null);
  const faults: ((values: Float32Array) => void)[] = [
    (values) => values[3]! += 0.01,
    (values) => values[values.length - 1] = NaN,
    (values) => values.fill(0),
    () => {
      throw new GpuError("Kernel does not compile");
    },
  ];
  for (const fault of faults) {
    const kernels = await checkKernels(openBroken(fault));
    assert(kernels.length >= 5 && kernels.every(({ ok }) => !ok), JSON.stringify(kernels));
    assert(kernels.every(({ sharing }) => sharing === "workgroup"), "the other mode cannot run");
    const report = { ...seen, kernels };
    assertIncludes(problemOf(report)!, "matmul (workgroup), ");
    assertIncludes(problemOf(report)!, "update the graphics driver");
    assertIncludes(describe(report, false), kernels[0]!.failure === null ? "WRONG" : "does not compile");
  }
});

Deno.test("only the kernel that fails is named: the next gets a device of its own", async () => {
  let opened = 0;
  const kernels = await checkKernels(async (options) => {
    const gpu = await Gpu.open(options);
    if (opened++ === 0) gpu.read = () => Promise.reject(new GpuError("Kernel does not compile"));
    return gpu;
  });
  assertEquals(kernels.filter(({ ok }) => !ok).map(({ kernel, sharing }) => `${kernel} ${sharing}`), [
    "matmul workgroup",
  ]);
});

Deno.test("largestError() is a share of the largest value, and infinite for NaN and missing values", () => {
  assertEquals(largestError([1, -4, 2], [1, -4, 2]), 0);
  assertEquals(largestError([1, -4, 2.5], [1, -4, 2]), 0.125);
  for (const wrong of [[1, NaN, 2], [1, Infinity, 2], [1, -4], []]) {
    assert(largestError(wrong, [1, -4, 2]) === Infinity, `${wrong}`);
  }
});
