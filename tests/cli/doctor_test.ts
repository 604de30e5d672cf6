import { adviceFor, describe, type DoctorReport, examine } from "../../cli/doctor.ts";
import { runCli } from "../../cli/main.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "./memory_io.ts";

Deno.test("doctor --json prints one object with the adapter's limits", async () => {
  const io = new MemoryIo();
  assertEquals(await runCli(["doctor", "--json"], io), 0);
  const report = JSON.parse(io.stdout) as DoctorReport;
  assertEquals(report.deno, Deno.version.deno);
  assert(report.adapter !== null && report.adapter.deviceError === null, "an adapter that opens");
  assert(report.adapter.limits.maxStorageBufferBindingSize! >= 128 * 2 ** 20, "limits");
});

Deno.test("without an adapter, doctor says what to install", async () => {
  const nobody = { requestAdapter: () => Promise.resolve(null) } as unknown as GPU;
  const report = await examine(nobody);
  assertEquals(report.adapter, null);
  assertIncludes(describe(report, false), "none answers");
  assertIncludes(adviceFor("linux"), "apt-get install mesa-vulkan-drivers");
  for (const os of ["linux", "darwin", "windows"] as const) {
    assertIncludes(adviceFor(os), "No WebGPU adapter answers");
  }
});

Deno.test("a software adapter comes with a warning, a GPU does not", async () => {
  const report = await examine();
  assert(report.adapter !== null, "an adapter");
  const as = (isSoftware: boolean) =>
    describe({ ...report, adapter: { ...report.adapter!, isSoftware } }, false);
  assertIncludes(as(true), "runs on the processor");
  assert(!as(false).includes("runs on the processor"), "no warning");
});
