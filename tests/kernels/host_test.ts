import { MAPPABLE_BUFFERS } from "../../kernels/device.ts";
import { Gpu, type GpuOptions } from "../../kernels/gpu.ts";
import type { HostCopies } from "../../kernels/host.ts";
import type { Dtype } from "../../kernels/tensor.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";
import { normal } from "../support/random.ts";

/** The ways that the device has: Dawn's has no buffers for copies by commands. */
const COPIES = await findCopies();
/** Each with whole buffers, and with buffers cut at 64 rows of 32 bytes. */
const WAYS: readonly GpuOptions[] = COPIES.flatMap((hostCopies) => [
  { hostCopies },
  { hostCopies, maxBindingBytes: 2048 },
]);

async function findCopies(): Promise<readonly HostCopies[]> {
  using gpu = await Gpu.open();
  return gpu.info.features.has(MAPPABLE_BUFFERS) ? ["commands", "javascript"] : ["javascript"];
}

function bytesOf(seed: number, length: number): Uint8Array {
  return new Uint8Array(normal(seed, Math.ceil(length / 4)).buffer, 0, length);
}

for (const way of WAYS) {
  const name = `${way.hostCopies}${way.maxBindingBytes ? ", split" : ""}`;

  Deno.test(`A host tensor gives back what was stored in it, ${name}`, async () => {
    using gpu = await Gpu.open({ poison: true, ...way });
    for (
      const [shape, dtype] of [[[200, 8], "f32"], [[130, 16], "bf16"], [[65, 8], "u32"], [
        [12],
        "f32",
      ]] as const
    ) {
      const host = gpu.host.empty(shape, dtype, "kept");
      const values = bytesOf(shape[0], host.byteLength);
      const tensor = gpu.tensor(shape, values, { dtype });
      await host.store(tensor);
      gpu.clear(tensor);
      const back = gpu.empty(shape, dtype);
      await host.load(back);
      const [read] = await gpu.readBytes([back]);
      assertEquals([...read!], [...values], `${dtype} [${shape}]`);
      assertEquals([...await host.read()], [...values], "read");
      host.free();
    }
    assertEquals(gpu.host.liveBytes, 0);
  });

  Deno.test(`Storing sees the work before it, loading what was stored before it, ${name}`, async () => {
    using gpu = await Gpu.open({ poison: true, ...way });
    const shape = [96, 8];
    const [first, second] = [bytesOf(1, 96 * 32), bytesOf(2, 96 * 32)];
    const tensor = gpu.tensor(shape, first, { dtype: "f32" });
    const hosts = ["a", "b", "c"].map((label) => gpu.host.empty(shape, "f32", label));
    await hosts[0]!.store(tensor);
    gpu.write(tensor, second);
    await hosts[1]!.store(tensor);
    gpu.clear(tensor);
    await hosts[2]!.store(tensor);
    tensor.free();
    const back = gpu.empty(shape, "f32");
    for (const [i, expected] of [first, second, new Uint8Array(96 * 32)].entries()) {
      await hosts[i]!.load(back);
      const [bytes] = await gpu.readBytes([back]);
      assertEquals([...bytes!], [...expected], `tensor ${i}`);
    }
  });

  Deno.test(`Rows go to and come from the middle of a host tensor, ${name}`, async () => {
    using gpu = await Gpu.open({ poison: true, ...way });
    const host = gpu.host.empty([200, 8], "f32", "kept");
    host.clear();
    const rows = gpu.tensor([64, 8], bytesOf(3, 64 * 32), { dtype: "f32" });
    await host.store(rows, 128);
    const back = gpu.empty([70, 8], "f32");
    await host.load(back, 122);
    const expected = new Uint8Array(70 * 32);
    expected.set(bytesOf(3, 64 * 32), 6 * 32);
    const [bytes] = await gpu.readBytes([back]);
    assertEquals([...bytes!], [...expected]);
    const all = bytesOf(4, 200 * 32);
    await host.write(all);
    await host.load(back, 100);
    assertEquals([...(await gpu.readBytes([back]))[0]!], [...all.subarray(100 * 32, 170 * 32)], "written");
  });
}

Deno.test("Host memory is counted, apart from the device's", async () => {
  for (const hostCopies of COPIES) {
    using gpu = await Gpu.open({ hostCopies });
    const before = gpu.memory.liveBytes;
    const [a, b] = [gpu.host.empty([64, 8], "bf16", "a"), gpu.host.empty([32], "f32", "b")];
    assertEquals([gpu.host.liveBytes, gpu.host.peakBytes], [64 * 16 + 128, 64 * 16 + 128]);
    a.free();
    assertEquals([gpu.host.liveBytes, gpu.host.peakBytes], [128, 64 * 16 + 128]);
    gpu.host.resetPeak();
    assertEquals(gpu.host.peakBytes, 128);
    b.free();
    assertEquals([gpu.host.liveBytes, gpu.memory.liveBytes], [0, before]);
  }
});

Deno.test("The device's own way is taken unless another is asked for", async () => {
  using gpu = await Gpu.open();
  const canMap = gpu.info.features.has(MAPPABLE_BUFFERS);
  assertEquals(gpu.host.copies, canMap ? "commands" : "javascript");
  assert(gpu.info.webgpu !== "deno" || canMap, "Deno grants mappable buffers");
});

Deno.test("A host tensor refuses tensors that do not fit it", async () => {
  for (const hostCopies of COPIES) {
    using gpu = await Gpu.open({ hostCopies });
    const host = gpu.host.empty([64, 8], "f32", "kept");
    const tensor = (shape: number[], dtype: Dtype = "f32") => gpu.zeros(shape, dtype);
    await assertThrows(async () => await host.store(tensor([64, 4])), "[64,4] f32", "[64,8] f32");
    await assertThrows(async () => await host.load(tensor([64, 8], "bf16")), "[64,8] bf16");
    await assertThrows(async () => await host.load(tensor([32, 8]), 33), "rows 33 on");
  }
});
